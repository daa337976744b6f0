"""Packs a finished run of `train_lesion_generator` into a model file: best averaged weights in float16 and a card.

`python -m Training.pack_lesion_generator runs/lesion lesion-flow.safetensors --data-words "..." --licence "CC BY 3.0"`
Then `hiresmedsynth models add lesion-flow.safetensors` and `compose --generator learned`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click
from safetensors import SafetensorError, safe_open

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.lesion.generators import LEARNED_KIND
from HiResMedSynthLib.lesion.learned import FORMAT
from HiResMedSynthLib.weights import Card, write_model
from Training.checkpoint import best_weights

LIMITS = "Lung nodules of 4 to 30 mm for research; not for diagnosis. Samples may lie near a training nodule."


def pack(run: Path, target: Path, *, name: str, data: str, licence: str, attribution: str) -> Card:
    """Writes the model file and returns its card.

    Raises:
        SettingsError: `run` holds no finished training.
    """
    try:
        with safe_open(best_weights(run), framework="np") as file:
            state = json.loads(file.metadata()["state"])
            stored = {key.removeprefix("average."): file.get_tensor(key).astype("float16")
                      for key in file.keys() if key.startswith("average.")}  # fmt: skip  # noqa: SIM118 (it is no dict)
        best = json.loads((run / "report.json").read_text(encoding="utf-8"))["best_held_out"]
    except (OSError, KeyError, ValueError, SafetensorError) as problem:
        raise SettingsError(f"No finished run ({str(problem)[:80]})", where=run, remedy="Train it first.") from None
    described = state["description"]
    card = Card(
        name=name,
        kind=LEARNED_KIND,
        data=f"{data} ({described['nodules']} nodules to train on)",
        licence=licence,
        attribution=attribution,
        seed=described["seed"],
        metrics={
            "held_out_loss": best["measured_held_out"],
            "steps": best["step"],
        },
        limits=LIMITS,
        created=datetime.now(UTC).date().isoformat(),
    )
    told = {key: described[key] for key in ("network", "shortcut") if key in described}
    entry = json.dumps({"licence": licence, "attribution": attribution, **told})
    write_model(target, stored, card, metadata={FORMAT: entry})
    return card


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--name", default="lesion-flow", show_default=True)
@click.option("--data-words", required=True, help="What it was trained on, for the card.")
@click.option("--licence", required=True)
@click.option("--attribution", required=True)
def main(run: Path, target: Path, name: str, data_words: str, licence: str, attribution: str) -> None:
    """Packs the run in RUN into TARGET (.safetensors)."""
    card = pack(run, target, name=name, data=data_words, licence=licence, attribution=attribution)
    click.echo(f"{target}: {card.name}, {card.data}")


if __name__ == "__main__":
    main()
