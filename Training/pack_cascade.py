"""Packs finished runs into one release file: the best averaged weights in float16, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import torch
from safetensors import safe_open

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.whole_tensors import save_tensors
from Training.checkpoint import best_weights
from Training.options import told_plainly
from Training.train_background import read_preset, stages_of


def domain_of(preset: dict[str, Any]) -> str:
    """What a preset is for: one that states a spacing lays films on a canvas, one that states none takes CT slices."""
    return "cxr" if "spacing_mm" in preset["data"] else "lung-ct"


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
        with safe_open(best_weights(found[0]), framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            for name in file.keys():  # noqa: SIM118 (it is no dict)
                if name.startswith("average."):
                    tensors[f"{stage}.{name.removeprefix('average.')}"] = file.get_tensor(name).half()
        stages[stage] = {**state["description"], "steps": state.get("step", state.get("progress", {}).get("step"))}
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
