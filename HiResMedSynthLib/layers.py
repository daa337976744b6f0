"""Layers that networks of several rooms share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with the largest of 16, 8, 4, 2, 1 groups that divides the channels into groups of four or more."""
    groups = next(
        count for count in (16, 8, 4, 2, 1) if channels % count == 0 and channels // count >= min(4, channels)
    )
    return nn.GroupNorm(groups, channels, eps=1e-6)


def waves(value: Tensor) -> Tensor:
    """[B, 64]: sines and cosines of a number in 0..1 at 32 frequencies from 1 to 1000."""
    frequency = torch.exp(torch.linspace(0, math.log(1000), 32, device=value.device))
    angle = value.float()[:, None] * frequency[None, :]
    return torch.cat([angle.sin(), angle.cos()], dim=1)
