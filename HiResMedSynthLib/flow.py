"""Flow matching: the training target, and the sampler that walks from noise to an image.

Images have two or three spatial dimensions, written [B, C, ...]. Straight paths (Lipman et al., 2023; Liu et al.,
2023): x_t = (1 - t) noise + t data, velocity = data - noise, with t drawn from a logit-normal (Esser et al., 2024).
Time 0 is noise, time 1 is data. Padding never enters a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x_t [B, C, ...], time [B]) -> velocity [B, C, ...]."""


@dataclass(frozen=True, kw_only=True)
class FlowBatch:
    """What one training step is about; all on one device.

    Attributes:
        data: [B, C, ...], scaled to about unit standard deviation.
        mask: [B, 1, ...], 1 inside the field, 0 in the padding.
        inputs: what else the network is told, by the names of its arguments: `condition`, `label` (class indices, 0 for
            unknown), `level` (0..1, how much the condition was noised), `picture` and `known` (see `film_network`).
    """

    data: Tensor
    mask: Tensor
    inputs: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: str) -> FlowBatch:
        """The batch on that device."""
        inputs = {name: value.to(device) for name, value in self.inputs.items()}
        return FlowBatch(data=self.data.to(device), mask=self.mask.to(device), inputs=inputs)


def spread_times(count: int) -> Tensor:
    """[count] times at the quantiles of the logit-normal (0, 1), for a held-out loss that doesn't jitter."""
    quantile = (torch.arange(count) + 0.5) / count
    return torch.sigmoid(torch.special.ndtri(quantile))


def noised(batch: FlowBatch, *, time: Tensor, noise: Tensor) -> Tensor:
    """x_t of the batch, zero in the padding."""
    t = time.view(-1, *[1] * (batch.data.ndim - 1))
    return ((1 - t) * noise + t * batch.data) * batch.mask


def velocity_error(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the pixels inside the field: a scalar."""
    error = (predicted.float() - target).square() * mask
    mean: Tensor = error.sum() / (mask.sum() * error.shape[1]).clamp(min=1)
    return mean


def sampling_times(steps: int, *, jump: float = 1.0, bend: float = 1.0) -> Tensor:
    """[steps + 1] times from noise to data, even where `bend` is 1; with a larger one they crowd towards their end.

    Where `jump` is below 1 the last step goes from there to the data at once: what a short training can't tell from
    noise near t = 1 is then left out rather than left in as grain.
    """
    times = torch.linspace(0, jump, steps if jump < 1 else steps + 1)
    times = times if bend == 1 else jump * (1 - (1 - times / jump) ** bend)
    return torch.cat([times, torch.ones(1)]) if jump < 1 else times


@torch.no_grad()
def sample(
    velocity: Velocity, noise: Tensor, *, times: Tensor, mask: Tensor | None = None, heun: bool = True
) -> Tensor:
    """[B, C, ...]: the flow's image for this noise, by Heun's second-order steps or Euler's.

    Equal noise gives the equal image. Heun evaluates 2 x steps - 1 times, Euler `steps` times.
    """
    x, last = noise, len(times) - 2
    times = times.to(noise.device)
    kept = torch.ones(1, device=noise.device) if mask is None else mask
    for index in range(last + 1):
        start, end = times[index], times[index + 1]
        slope = velocity(x * kept, start.expand(len(x)))
        moved = x + (end - start) * slope
        if heun and index < last:  # the last step ends at t = 1, where the network was hardly trained
            slope = (slope + velocity(moved * kept, end.expand(len(x)))) / 2
            moved = x + (end - start) * slope
        x = moved
    return x


def guided(network: torch.nn.Module, *, guidance: float = 1.0, **told: Tensor) -> Velocity:
    """The network as a velocity, with classifier-free guidance where `guidance` is not 1 and a `label` is told."""

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        known: Tensor = network(x, time, **told)
        if "label" not in told or guidance == 1.0:
            return known
        unknown: Tensor = network(x, time, **{**told, "label": torch.zeros_like(told["label"])})
        return unknown + guidance * (known - unknown)

    return velocity
