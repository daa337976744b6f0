"""Packs finished runs into one release file: the best averaged weights in float16, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import torch

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.whole_tensors import save_tensors
from Training.checkpoint import best_weights, load_average, stored_step
from Training.options import told_plainly
from Training.preset_files import domain_of, read_preset, stages_of


def pack(runs: Path, target: Path, *, preset: str = "better", domain: str | None = None) -> dict[str, int]:
    """Number of weights of each stage, written to `target`; a distilled run `STAGE-fast` wins over `STAGE`.

    Args:
        runs: folder of the runs, one a stage.
        target: file to write.
        preset: of all of them.
        domain: cxr or lung-ct; None: what the preset is for.

    Raises:
        SettingsError: a stage of the preset has no run.
    """
    tensors: dict[str, torch.Tensor] = {}
    stages: dict[str, dict[str, Any]] = {}
    tables = read_preset(preset)
    domain = domain or domain_of(tables)
    for stage in stages_of(tables):
        found = [runs / name for name in (f"{stage}-fast", stage) if best_weights(runs / name).is_file()]
        if not found:
            raise SettingsError(f"There is no run of stage {stage}", where=runs, remedy="Train it first.")
        path = best_weights(found[0])
        average, described = load_average(path)
        tensors |= {f"{stage}.{name}": value.half() for name, value in average.items()}
        stages[stage] = {**described, "steps": stored_step(path)}
    save_tensors(target, tensors, {"cascade": json.dumps({"domain": domain, "stages": stages})})
    return {
        stage: sum(value.numel() for name, value in tensors.items() if name.startswith(f"{stage}.")) for stage in stages
    }


@click.command()
@click.argument("runs", type=click.Path(path_type=Path, exists=True))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--preset", default="better", show_default=True)
@click.option("--domain", help="cxr or lung-ct [default: what the preset is for].")
def main(runs: Path, target: Path, preset: str, domain: str | None) -> None:
    """Packs the stages in RUNS into TARGET (.safetensors)."""
    with told_plainly(f"{preset}.toml"):
        for stage, count in pack(runs, target, preset=preset, domain=domain).items():
            click.echo(f"{stage}: {count / 1e6:.2f} M weights")


if __name__ == "__main__":
    main()
