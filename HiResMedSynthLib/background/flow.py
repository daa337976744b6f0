"""Flow matching: the training target, and the sampler that walks from noise to an image.

Straight paths (Lipman et al., 2023; Liu et al., 2023): x_t = (1 - t) noise + t data, velocity = data - noise, with t
drawn from a logit-normal (Esser et al., 2024). Time 0 is noise, time 1 is data. Padding never enters a loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x_t [B, 1, H, W], time [B]) -> velocity [B, 1, H, W]."""


@dataclass(frozen=True, kw_only=True)
class FlowBatch:
    """What one training step is about; all on one device.

    Attributes:
        data: [B, 1, H, W], scaled to about unit standard deviation.
        mask: [B, 1, H, W], 1 inside the film's field, 0 in its padding.
        condition: [B, K, H, W].
        label: [B] class indices, 0 for unknown; None where the network takes none.
        level: [B], 0..1, how much the condition was noised; None where it never is.
    """

    data: Tensor
    mask: Tensor
    condition: Tensor
    label: Tensor | None = None
    level: Tensor | None = None


def draw_times(count: int, generator: torch.Generator, *, mean: float = 0.0, sd: float = 1.0) -> Tensor:
    """[count] times in 0..1 from a logit-normal: most midway, where it is hardest; a mean above 0 leans to the data."""
    return torch.sigmoid(mean + sd * torch.randn(count, generator=generator))


def spread_times(count: int) -> Tensor:
    """[count] times at the quantiles of the logit-normal (0, 1), for a held-out loss that doesn't jitter."""
    quantile = (torch.arange(count) + 0.5) / count
    return torch.sigmoid(torch.special.ndtri(quantile))


def velocity_loss(network: torch.nn.Module, batch: FlowBatch, *, time: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted velocity over the pixels inside the field: a scalar."""
    t = time[:, None, None, None]
    noisy = ((1 - t) * noise + t * batch.data) * batch.mask
    predicted = network(noisy, time, condition=batch.condition, label=batch.label, level=batch.level)
    error = (predicted - (batch.data - noise)).square() * batch.mask
    loss: Tensor = error.sum() / batch.mask.sum().clamp(min=1)
    return loss


@torch.no_grad()
def sample(
    velocity: Velocity, noise: Tensor, *, steps: int, mask: Tensor, heun: bool = True, jump: float = 1.0
) -> Tensor:
    """[B, 1, H, W]: the flow's image for this noise, by Heun's second-order steps or Euler's.

    Equal noise gives the equal image. Where `jump` is below 1 the last step goes from there to the data at once: what a
    short training can't tell from noise near t = 1 is then left out rather than left in as grain.
    Heun evaluates 2 x steps - 1 times, Euler `steps` times.
    """
    x = noise
    times = torch.cat([torch.linspace(0, jump, steps), torch.ones(1)]) if jump < 1 else torch.linspace(0, 1, steps + 1)
    for index in range(steps):
        start, end = times[index], times[index + 1]
        slope = velocity(x * mask, start.expand(len(x)))
        moved = x + (end - start) * slope
        if heun and index + 1 < steps:  # the last step ends at t = 1, where the network was hardly trained
            slope = (slope + velocity(moved * mask, end.expand(len(x)))) / 2
            moved = x + (end - start) * slope
        x = moved
    return x


def guided(
    network: torch.nn.Module,
    *,
    condition: Tensor,
    label: Tensor | None = None,
    level: Tensor | None = None,
    guidance: float = 1.0,
) -> Velocity:
    """The network as a velocity, with classifier-free guidance where `guidance` is not 1 and a label is given."""

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        known: Tensor = network(x, time, condition=condition, label=label, level=level)
        if label is None or guidance == 1.0:
            return known
        unknown: Tensor = network(x, time, condition=condition, label=torch.zeros_like(label), level=level)
        return unknown + guidance * (known - unknown)

    return velocity
