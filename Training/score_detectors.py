"""Compares trained detectors: does made data help on real patients?

`python -m Training.score_detectors runs/real-1 runs/real-2 runs/both-1 runs/both-2`
Each folder is a finished run of Training/train_detector.py with the same --data. Runs of one kind with other seeds
(--loop seed=2) are one arm; take three seeds or more. HiResMedSynthLib/evaluation/utility.py says how intervals are
made.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.evaluation.utility import FALSE_ALARMS, Run, compare, markdown, read_predictions
from Training.options import told_plainly
from Training.train_detector import PREDICTIONS


@click.command(epilog="Example: python -m Training.score_detectors runs/real runs/both")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--false-alarms", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=FALSE_ALARMS,
    show_default=True, help="Share of windows without a nodule that may pass the threshold of the sensitivity.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Markdown file to write the table to as well.")
def main(folders: tuple[Path, ...], false_alarms: float, out: Path | None) -> None:
    """Prints AUC and sensitivity of each kind of training data on the same real patients, and their ratio to real."""
    with told_plainly("detector.toml"):
        windows, scores = read_predictions([folder / PREDICTIONS for folder in folders])
        runs = [
            Run(arm=told["arm"], share=float(told["share"]), seed=int(told["seed"]), scores=answers)
            for told, answers in zip(map(_described, folders), scores, strict=True)
        ]
        results = compare(windows, runs, false_alarms=false_alarms)
    table = markdown(results, false_alarms=false_alarms)
    patients, lesions = results[0].patients, int(windows.lesion.sum())
    told_of = f"{patients} real patients, {lesions} windows with a nodule, {len(windows.lesion) - lesions} without"
    text = f"{told_of}; 95 % intervals by a bootstrap of patients and seeds\n\n{table}\n"
    click.echo(text)
    if out is not None:
        aside = out.with_name(out.name + ".part")
        aside.write_text(text, encoding="utf-8")
        aside.replace(out)


def _described(folder: Path) -> dict[str, str]:
    """The run's own description.

    Raises:
        ReadError: there is none.
    """
    try:
        told: dict[str, str] = json.loads((folder / "report.json").read_text(encoding="utf-8"))["description"]
        _ = told["arm"], told["share"], told["seed"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ReadError(
            f"this run doesn't say what it learned from ({type(problem).__name__})", where=folder / "report.json",
            remedy="Give the folder of a finished run of Training.train_detector.",
        ) from None  # fmt: skip
    return told


if __name__ == "__main__":
    main()
