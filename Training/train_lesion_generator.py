"""Trains the learned lesion generator: flow matching over nodules in the standard grid.

`python -m Training.train_lesion_generator --data nodules.npz --out runs/lesion`
Input format: Training/nodule_grids.py. `--teacher RUN` distils a trained generator into one that needs a few steps.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from HiResMedSynthLib.choices import LESION_TYPES
from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.flow import FlowBatch, guided, sample, sampling_times
from HiResMedSynthLib.lesion.flow_net import LesionFlowNet, LesionNetShape
from HiResMedSynthLib.lesion.learned import encode_properties, from_channels, possible, to_channels
from Training.checkpoint import load_teacher
from Training.draws import Draws
from Training.flow_loop import train
from Training.loop import LoopSettings
from Training.objective import Shortcut
from Training.options import loop_option, run_options, told_plainly
from Training.preset_files import read_preset
from Training.report import write_report

WARPED = 0.6  # share of examples that are stretched, turned and bent (interpolated; the network is told so)
MEASURED = 64  # nodules of each side whose loss is measured
STRETCH, TILT, BEND = 0.12, 0.3, 0.03  # logarithm; radians; share of the grid's side


class NoduleStage:
    """Nodules, turned and mirrored exactly, most of them warped too.

    Args:
        arrays: those of Training/nodule_grids.py.
        batch: nodules a step.
        device: where batches lie.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], *, batch: int, device: str) -> None:
        self.batch, self.device = batch, device
        self.values = torch.from_numpy(arrays["values"].astype(np.float32)).to(device)
        self.sides = [np.flatnonzero(arrays["held_out"] == held) for held in (False, True)]
        self.learnt = torch.from_numpy(self.sides[0]).to(device)
        self.properties = torch.from_numpy(
            np.stack([
                encode_properties(
                    LESION_TYPES[int(arrays["type"][i])], float(arrays["diameter_mm"][i]),
                    spiculation=float(arrays["spiculation"][i]), lobulation=float(arrays["lobulation"][i]),
                    noise_hu=max(float(arrays["noise_hu"][i]), 1.0), strict=bool(arrays["strict"][i]),
                )
                for i in range(len(arrays["type"]))
            ])
        ).to(device)  # fmt: skip

    def constants(self) -> dict[str, float]:
        """What a sampler must know beside the weights."""
        return {"unit": 1.0}

    def known(self) -> Tensor:
        """[N, 2, n, n, n], the training nodules as the flow's data."""
        return to_channels(self.values[self.learnt]).cpu()

    def train_batch(self, rng: np.random.Generator) -> FlowBatch:
        """A batch of changed training nodules."""
        return self.device_batch(Draws.of(rng, self.device))

    def device_batch(self, draws: Draws) -> FlowBatch:
        """The same, drawn without the host (see `flow_loop`)."""
        chosen = draws.one_of(self.learnt, self.batch)
        values = mirrored(self.values[chosen], draws)
        warped = draws.uniform(0, 1, self.batch) < WARPED
        values = torch.where(_wide(warped), warp(values, draws), values)
        return self._batch(values, self.properties[chosen], warped.float())

    def measured_batches(self, *, held_out: bool) -> list[FlowBatch]:
        """Up to 64 nodules of one side, unchanged: the same ones each time."""
        chosen = torch.from_numpy(self.sides[int(held_out)][:MEASURED]).to(self.device)
        return [self._batch(self.values[chosen], self.properties[chosen], torch.zeros(len(chosen), device=self.device))]

    def noted(self, network: nn.Module) -> dict[str, float]:  # noqa: ARG002 (protocol)
        """Nothing more."""
        return {}

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """Twelve across: held-out nodules over samples of the same properties, axial and coronal cut, lung window."""
        chosen = torch.from_numpy(self.sides[1][:12]).to(self.device)
        real = self.values[chosen]
        noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(seed)).to(self.device)
        level = torch.zeros(len(chosen), device=self.device)
        velocity = guided(network, properties=self.properties[chosen], level=level)
        made = possible(from_channels(sample(velocity, noise, times=sampling_times(12))))
        rows = [np.concatenate(list(cut), axis=1) for set_ in (real, made) for cut in _cuts(set_)]
        return np.kron(np.concatenate(rows, axis=0), np.ones((2, 2), np.uint8))

    def _batch(self, values: Tensor, properties: Tensor, level: Tensor) -> FlowBatch:
        mask = torch.ones(len(values), 1, *values.shape[2:], device=self.device)
        return FlowBatch(data=to_channels(values), mask=mask, inputs={"properties": properties, "level": level})


def mirrored(values: Tensor, draws: Draws) -> Tensor:
    """[B, 2, n, n, n]: each one by one of the 16 exact symmetries of slices that lie on one another."""
    wanted = draws.below(2, 4, len(values)).bool()
    for axis in (2, 3, 4):
        values = torch.where(_wide(wanted[axis - 2]), values.flip(axis), values)
    return torch.where(_wide(wanted[3]), values.transpose(3, 4), values)


def warp(values: Tensor, draws: Draws) -> Tensor:
    """[B, 2, n, n, n] turned in plane, tilted, stretched and bent; linear interpolation."""
    count, side = len(values), values.shape[-1]
    turn, tilts = draws.uniform(-math.pi, math.pi, count), draws.uniform(-TILT, TILT, 2, count)
    matrices = (
        torch.diag_embed(torch.exp(draws.uniform(-STRETCH, STRETCH, count, 3)))
        @ _turn(turn, 1, 2) @ _turn(tilts[0], 0, 2) @ _turn(tilts[1], 0, 1)
    )  # fmt: skip
    bend = draws.normal(2 * BEND, count, 3, 4, 4, 4)
    smooth = nn.functional.interpolate(bend, size=side, mode="trilinear", align_corners=True)
    line = torch.linspace(-1, 1, side, device=values.device)
    points = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1)  # slice, row, column
    rotated = torch.einsum("bij,xyzj->bxyzi", matrices, points)
    grid = (rotated + smooth.permute(0, 2, 3, 4, 1)).flip(-1)  # torch wants column, row, slice
    return nn.functional.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def _turn(angles: Tensor, first: int, second: int) -> Tensor:
    """[B, 3, 3] turns in the plane of two axes."""
    matrix = torch.eye(3, device=angles.device).repeat(len(angles), 1, 1)
    matrix[:, first, first] = matrix[:, second, second] = angles.cos()
    matrix[:, first, second], matrix[:, second, first] = -angles.sin(), angles.sin()
    return matrix


def _wide(flags: Tensor) -> Tensor:
    return flags[:, None, None, None, None]


def _cuts(values: Tensor) -> list[NDArray[np.uint8]]:
    """Middle axial and coronal cut of each, on lung, window -1350..150 HU: two arrays [B, n, n]."""
    hu = 1000 * values[:, 0] - 860  # alpha F + (1 - alpha) lung, lung = -860
    grey = ((hu + 1350) / 1500 * 255).clamp(0, 255).to(torch.uint8).cpu().numpy()
    middle = values.shape[-1] // 2
    return [grey[:, middle], grey[:, :, middle]]


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The nodules of that file.

    Raises:
        ReadError: it is no such file, or one side of the split is empty.
    """
    try:
        with np.load(path, allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in packed.files}
        sides = {bool(value) for value in arrays["held_out"]}
        missing = [name for name in ("values", "type", "diameter_mm", "spiculation", "lobulation", "noise_hu", "strict")
                   if name not in arrays]  # fmt: skip
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as problem:
        raise ReadError(
            f"This is no file of nodules ({problem})", where=path, remedy="Make it with nodule_grids."
        ) from None
    if missing or len(sides) < 2:
        what = f"lacks {', '.join(missing)}" if missing else "has all patients on one side of the split"
        raise ReadError(f"The file {what}", where=path, remedy="Make it with python -m Training.nodule_grids.")
    return arrays


@click.command(epilog="Example: python -m Training.train_lesion_generator --data nodules.npz --out runs/lesion")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="npz of Training.nodule_grids.")
@click.option("--preset", default="lesion", show_default=True, help="lesion, lesion_tiny, or a TOML file.")
@click.option("--teacher", type=click.Path(path_type=Path), help="Run to distil.")
@loop_option
@run_options
def main(
    data: Path,
    preset: str,
    out: Path,
    teacher: Path | None,
    resume: bool,
    time_limit: float,
    steps: int | None,
    batch: int | None,
    loop_changes: tuple[str, ...],
    device: str,
    threads: int,
) -> None:
    """Trains the learned lesion generator."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True  # the shapes stay; three-dimensional convolutions differ much in speed
    with told_plainly("lesion.toml"):
        table = read_preset(preset)
        arrays = load_arrays(data)
        count = batch or table["batch"]
        settings = LoopSettings.changed(
            table["loop"], table["shortcut"]["loop"] if teacher else {}, changes=loop_changes, steps=steps
        )
        shape = LesionNetShape.from_json(table["network"])
        stage = NoduleStage(arrays, batch=settings.part_of(count), device=device)
        torch.manual_seed(settings.seed)
        network, objective, shortcut = LesionFlowNet(shape), None, None
        network.know(stage.known())
        if teacher is not None:
            taught, _ = load_teacher(teacher, lambda told: LesionFlowNet(LesionNetShape.from_json(told["network"])))
            network.load_state_dict(taught.state_dict())
            shortcut = table["shortcut"]["times"]
            objective = Shortcut(taught.to(device), shortcut, substeps=table["shortcut"]["substeps"])
        weights = sum(parameter.numel() for parameter in network.parameters())
        sides = [len(side) for side in stage.sides]
        click.echo(f"{weights / 1e6:.2f} M weights, {sides[0]} nodules to train on, {sides[1]} held out")
        described = {
            "stage": "lesion",
            "network": shape.to_json(),
            **({"shortcut": shortcut} if shortcut else {}),
            "data_sha256": hashlib.sha256(data.read_bytes()).hexdigest(),
            "nodules": sides[0],
            "seed": settings.seed,
            "batch": count,
        }
        train(
            network, stage, settings, out=out, description=described, resume=resume, time_limit_s=time_limit * 60,
            device=device, objective=objective,
        )  # fmt: skip
        write_report(out, described)


if __name__ == "__main__":
    main()
