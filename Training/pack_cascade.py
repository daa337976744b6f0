"""Packs finished runs of the three stages into one release file: averaged weights in float16, nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from HiResMedSynthLib.background.cascade import STAGES
from Training.loop import CHECKPOINT


def pack(runs: Path, target: Path) -> dict[str, int]:
    """Weights of each stage found in `runs`/STAGE, written to `target`."""
    tensors: dict[str, torch.Tensor] = {}
    described = {}
    for stage in STAGES:
        path = runs / stage / CHECKPOINT
        if not path.is_file():
            continue
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            for name in file.keys():  # noqa: SIM118 (it is no dict)
                if name.startswith("average."):
                    tensors[f"{stage}.{name.removeprefix('average.')}"] = file.get_tensor(name).half()
        described[stage] = {**state["description"], "steps": state["progress"]["step"]}
    save_file(tensors, target, metadata={"cascade": json.dumps(described)})
    return {
        stage: sum(value.numel() for name, value in tensors.items() if name.startswith(f"{stage}."))
        for stage in described
    }


@click.command()
@click.argument("runs", type=click.Path(path_type=Path, exists=True))
@click.argument("target", type=click.Path(path_type=Path))
def main(runs: Path, target: Path) -> None:
    """Packs the stages in RUNS into TARGET (.safetensors)."""
    for stage, count in pack(runs, target).items():
        click.echo(f"{stage}: {count / 1e6:.2f} M weights")


if __name__ == "__main__":
    main()
