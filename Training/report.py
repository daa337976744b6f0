"""A run's log, and its report: `report.json` with losses before and after, `report.html` with curves and a sheet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from HiResMedSynthLib.training_report import Curve, Plot, write_training_report

LOG = "log.jsonl"
COLOURS = ("#999", "#06c", "#c30")
WORDS = ("training, as it went", "training examples, unchanged", "held-out examples")
MEASURED = ("measured_train", "measured_held_out")


def begin_log(out: Path, measured: Mapping[str, float]) -> None:
    """Begins the log of a new run in `out` with what was measured before any step."""
    (out / LOG).unlink(missing_ok=True)  # of a run that was killed before it kept anything
    log_entry(out, {"step": 0, "loss": None, **{name: round(value, 5) for name, value in measured.items()}})


def log_entry(out: Path, entry: Mapping[str, Any]) -> None:
    """Adds a line to the log of the run in `out`, and says it."""
    with (out / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(entry) + "\n")
    click.echo(" ".join(f"{name}={value}" for name, value in entry.items()))


def write_report(
    out: Path, description: dict[str, Any], *, measured: tuple[str, str] = MEASURED, loss: str = "loss"
) -> Path | None:
    """Path of the HTML report of the run in `out`; None where nothing was logged yet.

    Args:
        out: the run's folder.
        description: of the run.
        measured: the log's names of what was measured of training and of held-out examples.
        loss: that of what training saw of the same measure.
    """
    log = out / LOG
    if not log.is_file():
        return None
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    names, held_out = (loss, *measured), measured[1]
    learned = [entry for entry in entries if entry["step"]] or entries
    best = min(learned, key=lambda entry: entry[held_out])
    marked = {"first": entries[0], "last": entries[-1], "best held-out": best}
    sheet = out / "sheet-last.png"
    return write_training_report(
        out,
        title=f"Stage {description['stage']}" if "stage" in description else "Training",
        summary={"description": description, "first": entries[0], "last": entries[-1], "best_held_out": best},
        plots=[
            Plot(
                title="Losses",
                along="step",
                curves=[
                    Curve(words=words, colour=colour, points=[(e["step"], e.get(name)) for e in entries])
                    for name, colour, words in zip(names, COLOURS, WORDS, strict=True)
                ],
            )
        ],
        table=[("", "step", *WORDS), *((what, e["step"], *map(e.get, names)) for what, e in marked.items())],
        picture=sheet.read_bytes() if sheet.is_file() else b"",
        caption="Sheet by the averaged weights:",
    )
