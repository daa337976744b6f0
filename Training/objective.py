"""What a network is asked for at a drawn time: the flow's velocity, or the shortcut that a trained one takes.

Distillation (in the manner of progressive distillation, Salimans & Ho, 2022): a few fixed times split the way from
noise to data; the student learns the teacher's mean velocity over each piece, which the teacher walks in several Heun
steps, so that one Euler step of the student replaces them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from HiResMedSynthLib.flow import FlowBatch, guided, sample, spread_times
from Training.draws import Draws


class Objective(Protocol):
    """Times and targets of a training step."""

    def times(self, draws: Draws, count: int) -> Tensor:
        """[count] drawn times."""

    def measured_times(self, count: int) -> Tensor:
        """[count] times of the measured losses: the same each call."""

    def target(self, batch: FlowBatch, noisy: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        """The velocity wanted, like the batch's data."""


class FlowMatching:
    """Velocity = data - noise, at logit-normal times."""

    def __init__(self, *, time_mean: float, time_sd: float) -> None:
        self.mean, self.sd = time_mean, time_sd

    def times(self, draws: Draws, count: int) -> Tensor:
        """[count] logit-normal times."""
        return draws.times(count, mean=self.mean, sd=self.sd)

    def measured_times(self, count: int) -> Tensor:
        """[count] quantiles of the logit-normal (0, 1)."""
        return spread_times(count)

    def target(self, batch: FlowBatch, noisy: Tensor, time: Tensor, noise: Tensor) -> Tensor:  # noqa: ARG002 (protocol)
        """The straight path's velocity."""
        return batch.data - noise


class Shortcut:
    """The teacher's mean velocity from each of `times` to the next."""

    def __init__(self, teacher: nn.Module, times: Sequence[float], *, substeps: int) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        device = next((parameter.device for parameter in teacher.parameters()), torch.device("cpu"))
        self.marks = torch.tensor(times, device=device)
        self.parts = torch.linspace(0, 1, substeps + 1, device=device)

    def times(self, draws: Draws, count: int) -> Tensor:
        """[count] drawn starts of a piece."""
        return draws.one_of(self.marks[:-1], count)

    def measured_times(self, count: int) -> Tensor:
        """[count] starts, each equally often."""
        return self.marks[torch.arange(count, device=self.marks.device) % (len(self.marks) - 1)]

    def target(self, batch: FlowBatch, noisy: Tensor, time: Tensor, noise: Tensor) -> Tensor:  # noqa: ARG002 (protocol)
        """What the teacher moves by over the piece, divided by its length."""
        next_mark = torch.searchsorted(self.marks, time, right=True)
        last = self.marks[next_mark.clamp(max=len(self.marks) - 1)]
        velocity = guided(self.teacher, **batch.inputs)
        length = last - time

        def along(x: Tensor, part: Tensor) -> Tensor:  # `part` runs 0..1 over each image's own piece
            return velocity(x, time + part * length) * _wide(length, x)

        end = sample(along, noisy, times=self.parts, mask=batch.mask)
        return (end - noisy) / _wide(length, noisy)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
