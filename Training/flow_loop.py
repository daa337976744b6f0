"""Training of flow networks: what a step draws, its target velocity, and the loss measured at fixed times."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from HiResMedSynthLib.flow import FlowBatch, noised, velocity_error
from Training.draws import Draws
from Training.loop import LoopSettings, run
from Training.objective import FlowMatching, Objective
from Training.precision import autocast
from Training.ranks import Ranks

Drawn = tuple[FlowBatch, Tensor, Tensor, Tensor]
"""Batch, noisy data, times, target velocity."""


class Stage(Protocol):
    """What is learned: batches, measured losses, a picture."""

    def constants(self) -> dict[str, float]:
        """Numbers that a sampler needs beside the weights."""

    def train_batch(self, rng: np.random.Generator) -> FlowBatch:
        """A batch drawn with this generator only."""

    def measured_batches(self, *, held_out: bool) -> list[FlowBatch]:
        """Unchanged batches of one side, the same each time."""

    def noted(self, network: nn.Module) -> dict[str, float]:
        """What else the log should say of the network; nothing where there is no more."""

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """A grey picture of what the network makes."""


def train(
    network: nn.Module,
    stage: Stage,
    settings: LoopSettings,
    *,
    out: Path,
    description: dict[str, Any],
    resume: bool = False,
    time_limit_s: float = math.inf,
    device: str = "cpu",
    objective: Objective | None = None,
    ranks: Ranks | None = None,
) -> nn.Module:
    """The moving average of the trained network; checkpoints, log and sheets in `out` (see `loop.run`)."""
    objective = objective or FlowMatching(time_mean=settings.time_mean, time_sd=settings.time_sd)
    return run(
        network, FlowLesson(stage, objective), settings, out=out, description=description, resume=resume,
        time_limit_s=time_limit_s, device=device, ranks=ranks,
    )  # fmt: skip


class FlowLesson:
    """A stage's batches, noised at the objective's times."""

    def __init__(self, stage: Stage, objective: Objective) -> None:
        self.stage, self.objective = stage, objective

    def constants(self) -> dict[str, float]:
        """The stage's."""
        return self.stage.constants()

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """The stage's."""
        return self.stage.sheet(network, seed=seed)

    def noted(self, network: nn.Module) -> dict[str, float]:
        """What the stage notes."""
        return self.stage.noted(network)

    def draw(self, rng: np.random.Generator, *, seed: int, device: str) -> Drawn:
        """Batch, noisy data, times and target."""
        return self._noised(self.stage.train_batch(rng).to(device), Draws.seeded(seed, device))

    def drawn_loss(self, network: nn.Module, *, precision: str, device: str) -> Callable[[], Tensor] | None:
        """The whole of `draw` and `loss` on the device, where the stage can draw there."""
        device_batch = getattr(self.stage, "device_batch", None)
        if device_batch is None:
            return None
        draws = Draws(device)

        def loss() -> Tensor:
            return self.loss(network, self._noised(device_batch(draws), draws), precision=precision, device=device)

        return loss

    def loss(self, network: nn.Module, drawn: Drawn, *, precision: str, device: str) -> Tensor:
        """Mean squared error of the velocity."""
        batch, noisy, times, target = drawn
        with autocast(precision, device):
            made = network(noisy, times, **batch.inputs)
        return velocity_error(made, target, batch.mask)

    def _noised(self, batch: FlowBatch, draws: Draws) -> Drawn:
        noise = draws.normal(1, *batch.data.shape)
        times = self.objective.times(draws, len(noise))
        noisy = noised(batch, time=times, noise=noise)
        with torch.no_grad():
            target = self.objective.target(batch, noisy, times, noise)
        return batch, noisy, times, target

    def measured(self, network: nn.Module, *, held_out: bool, device: str, precision: str) -> list[float]:
        """Losses of unchanged batches, with fixed times and noise."""
        losses = []
        for batch in self.stage.measured_batches(held_out=held_out):
            placed = batch.to(device)
            generator = torch.Generator().manual_seed(7)
            noise = torch.randn(batch.data.shape, generator=generator).to(device)
            order = torch.randperm(len(noise), generator=generator)
            times = self.objective.measured_times(len(noise))[order].to(device)
            noisy = noised(placed, time=times, noise=noise)
            with autocast(precision, device):
                predicted = network(noisy, times, **placed.inputs)
            target = self.objective.target(placed, noisy, times, noise)
            losses.append(float(velocity_error(predicted, target, placed.mask)))
        return losses
