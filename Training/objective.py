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

from HiResMedSynthLib.flow import FlowBatch, draw_times, guided, sample, spread_times


class Objective(Protocol):
    """Times and targets of a training step."""

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] drawn times, on the CPU."""

    def measured_times(self, count: int) -> Tensor:
        """[count] times of the measured losses: the same each call."""

    def target(self, batch: FlowBatch, noisy: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        """The velocity wanted, like the batch's data."""


class FlowMatching:
    """Velocity = data - noise, at logit-normal times."""

    def __init__(self, *, time_mean: float, time_sd: float) -> None:
        self.mean, self.sd = time_mean, time_sd

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] logit-normal times."""
        return draw_times(count, generator, mean=self.mean, sd=self.sd)

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
        self.marks, self.substeps = torch.tensor(times), substeps

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] drawn starts of a piece."""
        return self.marks[torch.randint(len(self.marks) - 1, (count,), generator=generator)]

    def measured_times(self, count: int) -> Tensor:
        """[count] starts, each equally often."""
        return self.marks[torch.arange(count) % (len(self.marks) - 1)]

    def target(self, batch: FlowBatch, noisy: Tensor, time: Tensor, noise: Tensor) -> Tensor:  # noqa: ARG002 (protocol)
        """What the teacher moves by over the piece, divided by its length."""
        marks = self.marks.to(time.device)
        last = marks[(torch.searchsorted(marks, time, right=True)).clamp(max=len(marks) - 1)]
        share = torch.linspace(0, 1, self.substeps + 1)
        velocity = guided(self.teacher, **batch.inputs)
        length = last - time

        def along(x: Tensor, part: Tensor) -> Tensor:  # `part` runs 0..1 over each image's own piece
            return velocity(x, time + part * length) * _wide(length, x)

        end = sample(along, noisy, times=share, mask=batch.mask)
        return (end - noisy) / _wide(length, noisy)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
