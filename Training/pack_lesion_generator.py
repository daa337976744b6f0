"""Packs a finished run of `train_lesion_generator` into a model file: averaged weights in float16 and a card.

`python -m Training.pack_lesion_generator runs/lesion lesion-flow.safetensors --data-words "..." --licence "CC BY 3.0"`
Then `hiresmedsynth models add lesion-flow.safetensors` and `compose --generator learned`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.lesion.generators import LEARNED_KIND
from HiResMedSynthLib.lesion.learned import FORMAT
from HiResMedSynthLib.weights import Card, write_model
from Training.checkpoint import CHECKPOINT, best_weights, load_average
from Training.options import told_plainly

LIMITS = "Lung nodules of 4 to 30 mm for research; not for diagnosis. Samples may lie near a training nodule."


def pack(run: Path, target: Path, *, name: str, data: str, licence: str, attribution: str, last: bool = False) -> Card:
    """Writes the model file, of the weights with the lowest held-out loss or of the `last` ones, and returns its card.

    Raises:
        SettingsError: `run` holds no finished training.
    """
    average, described = load_average(run / CHECKPOINT if last else best_weights(run))
    try:
        report = json.loads((run / "report.json").read_text(encoding="utf-8"))
        measured = report["last" if last else "best_held_out"]
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise SettingsError(f"No finished run ({str(problem)[:80]})", where=run, remedy="Train it first.") from None
    if not measured["step"]:
        raise SettingsError("This run was measured after no step", where=run, remedy="Go on: --resume, more time.")
    card = Card(
        name=name,
        kind=LEARNED_KIND,
        data=f"{data} ({described['nodules']} nodules to train on)",
        licence=licence,
        attribution=attribution,
        seed=described["seed"],
        metrics={
            "held_out_loss": measured["measured_held_out"],
            "steps": measured["step"],
        },
        limits=LIMITS,
        created=datetime.now(UTC).date().isoformat(),
    )
    told = {key: described[key] for key in ("network", "shortcut") if key in described}
    entry = json.dumps({"licence": licence, "attribution": attribution, **told})
    stored = {name: value.half() for name, value in average.items()}
    write_model(target, stored, card, metadata={FORMAT: entry})
    return card


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--name", default="lesion-flow", show_default=True)
@click.option("--data-words", required=True, help="What it was trained on, for the card.")
@click.option("--licence", required=True)
@click.option("--attribution", required=True)
@click.option("--last", is_flag=True, help="The last weights, not those of the lowest held-out loss.")
@told_plainly()
def main(run: Path, target: Path, name: str, data_words: str, licence: str, attribution: str, *, last: bool) -> None:
    """Packs the run in RUN into TARGET (.safetensors)."""
    card = pack(run, target, name=name, data=data_words, licence=licence, attribution=attribution, last=last)
    click.echo(f"{target}: {card.name}, {card.data}")


if __name__ == "__main__":
    main()
