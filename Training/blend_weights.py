"""Blends the averaged weights of two checkpoints of one run: less memorised than the later, better than the earlier.

`python -m Training.blend_weights EARLY.safetensors LATE.safetensors --share 0.5 --out runs/blend/film`
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import torch
from safetensors import SafetensorError, safe_open

from HiResMedSynthLib.errors import SettingsError
from Training.checkpoint import BEST, write_tensors


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith("average.")]  # noqa: SIM118 (it is no dict)
            return {name: file.get_tensor(name).float() for name in names}, json.loads(file.metadata()["state"])
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as problem:
        raise SettingsError(
            f"This is no checkpoint ({str(problem)[:80]})", where=path, remedy="Give a run's."
        ) from None


def blend(early: Path, late: Path, out: Path, *, share: float) -> None:
    """Writes `out`/best.safetensors: (1 - share) of the early weights and share of the late ones.

    Raises:
        SettingsError: the two are of different layers, or are no checkpoints.
    """
    (first, began), (second, state) = _read(early), _read(late)
    if {name: value.shape for name, value in first.items()} != {name: value.shape for name, value in second.items()}:
        raise SettingsError("The checkpoints are of different layers", where=late, remedy="Give two of one run.")
    mixed = {name: torch.lerp(value, second[name], share) for name, value in first.items()}
    steps = [told.get("step", told.get("progress", {}).get("step")) for told in (began, state)]
    description = {**state["description"], "blended_steps": steps, "blended_share": share}
    out.mkdir(parents=True, exist_ok=True)
    write_tensors(out / BEST, mixed, {"step": steps[1], "description": description})


@click.command()
@click.argument("early", type=click.Path(path_type=Path, exists=True))
@click.argument("late", type=click.Path(path_type=Path, exists=True))
@click.option("--share", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Of the late weights.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make a run in.")
def main(early: Path, late: Path, share: float, out: Path) -> None:
    """Blends EARLY and LATE into OUT."""
    blend(early, late, out, share=share)
    click.echo(f"{out / BEST}: {1 - share:.2f} early + {share:.2f} late")


if __name__ == "__main__":
    main()
