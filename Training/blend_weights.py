"""Blends the averaged weights of two checkpoints of one run: less memorised than the later, better than the earlier.

`python -m Training.blend_weights EARLY.safetensors LATE.safetensors --share 0.5 --out runs/blend/film`
"""

from __future__ import annotations

from pathlib import Path

import click

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.whole_tensors import save_state
from Training.checkpoint import BEST, load_average, stored_step
from Training.options import told_plainly


def blend(early: Path, late: Path, out: Path, *, share: float) -> None:
    """Writes `out`/best.safetensors: (1 - share) of the early weights and share of the late ones.

    Raises:
        SettingsError: the two are of different layers, or are no checkpoints.
    """
    (first, _), (second, described) = load_average(early), load_average(late)
    if {name: value.shape for name, value in first.items()} != {name: value.shape for name, value in second.items()}:
        raise SettingsError("The checkpoints are of different layers", where=late, remedy="Give two of one run.")
    mixed = {f"average.{name}": value.float().lerp(second[name].float(), share) for name, value in first.items()}
    steps = [stored_step(path) for path in (early, late)]
    description = {**described, "blended_steps": steps, "blended_share": share}
    out.mkdir(parents=True, exist_ok=True)
    save_state(out / BEST, mixed, {"step": steps[1], "description": description})


@click.command()
@click.argument("early", type=click.Path(path_type=Path, exists=True))
@click.argument("late", type=click.Path(path_type=Path, exists=True))
@click.option("--share", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Of the late weights.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make a run in.")
@told_plainly()
def main(early: Path, late: Path, share: float, out: Path) -> None:
    """Blends EARLY and LATE into OUT."""
    blend(early, late, out, share=share)
    click.echo(f"{out / BEST}: {1 - share:.2f} early + {share:.2f} late")


if __name__ == "__main__":
    main()
