"""Augmentation of films, drawn then applied to a batch on its device: no flips (heart and stomach have a side).

Interpolation takes power from the finest detail, so every warp reads a finer film than it writes and averages down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from Training.draws import Draws

CONTROL_POINTS = 5


@dataclass(frozen=True, kw_only=True)
class FilmChange:
    """Drawn changes of B films, on their device.

    Attributes:
        shift: [B, 2] (row, column) as a share of the canvas.
        rotation: [B] radians about the canvas's centre.
        scale: [B, 2] of rows and of columns, above 1 magnifies.
        elastic: [B, 2, 5, 5] control points of a cubic B-spline, as a share of the canvas.
        gamma: [B] exponent of the grey value in 0..1.
    """

    shift: Tensor
    rotation: Tensor
    scale: Tensor
    elastic: Tensor
    gamma: Tensor


@dataclass(frozen=True, kw_only=True)
class ChangeRange:
    """How far films are changed: shift and elastic as shares of the canvas, rotation in degrees, factors as logarithms.

    `proportion` is how far rows and columns are scaled apart.
    """

    shift: float
    rotation: float
    scale: float
    proportion: float
    elastic: float
    gamma: float


USUAL = ChangeRange(shift=0.05, rotation=4, scale=0.07, proportion=0, elastic=0.014, gamma=0.223)
WIDE = ChangeRange(shift=0.06, rotation=5, scale=0.09, proportion=0.04, elastic=0.022, gamma=0.3)
"""What positioning and exposure do; and what other bodies do besides, so that few films are learned by heart later."""


def draw_film_change(draws: Draws, count: int, within: ChangeRange = USUAL) -> FilmChange:
    """Changes of `count` films, each drawn evenly within the range (the elastic ones from a normal distribution)."""
    scale = draws.uniform(-within.scale, within.scale, count, 1)
    apart = draws.uniform(-within.proportion, within.proportion, count, 1)
    return FilmChange(
        shift=draws.uniform(-within.shift, within.shift, count, 2),
        rotation=draws.uniform(-within.rotation, within.rotation, count) * (math.pi / 180),
        scale=torch.cat([scale + apart, scale - apart], dim=1).exp(),
        elastic=draws.normal(within.elastic, count, 2, CONTROL_POINTS, CONTROL_POINTS),
        gamma=draws.uniform(-within.gamma, within.gamma, count).exp(),
    )


def no_change(count: int, device: str | torch.device = "cpu") -> FilmChange:
    """Changes that leave the films as they are."""
    zero, one = torch.zeros(count, 2, device=device), torch.ones(count, 2, device=device)
    elastic = torch.zeros(count, 2, CONTROL_POINTS, CONTROL_POINTS, device=device)
    return FilmChange(shift=zero, rotation=zero[:, 0], scale=one, elastic=elastic, gamma=one[:, 0])


def apply_film_change(
    films: Tensor, fields: Tensor, change: FilmChange, *, corners: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """(films, masks) [B, 1, size, size]: square parts of the changed canvases.

    Args:
        films: [B, 1, canvas, canvas] in -1..1, or [B, 2, ...] with a mask of its own as the second channel.
        fields: [B, 4] (top, left, rows, columns): what is film and not padding.
        change: what to do to each.
        corners: [B, 2] first row and column of each part in the changed canvas.
        size: side of the parts.
    """
    device, canvas = films.device, films.shape[-1]
    middle = (canvas - 1) / 2
    positions = corners.to(device)[:, :, None] + torch.arange(size, device=device)  # [B, 2, size]
    rows, columns = positions.float().unbind(1)
    row_weights, column_weights = _spline(rows, canvas), _spline(columns, canvas)  # [B, size, 5]
    bent = canvas * torch.einsum("bri,bkij,bcj->bkrc", row_weights, change.elastic, column_weights)
    y = ((rows - middle - change.shift[:, :1] * canvas) / change.scale[:, :1])[:, :, None]
    x = ((columns - middle - change.shift[:, 1:] * canvas) / change.scale[:, 1:])[:, None, :]
    sine, cosine = change.rotation.sin()[:, None, None], change.rotation.cos()[:, None, None]
    source_row = cosine * y - sine * x + middle + bent[:, 0]
    source_column = sine * y + cosine * x + middle + bent[:, 1]
    grid = torch.stack([source_column, source_row], dim=-1) * (2 / (canvas - 1)) - 1  # last axis (x, y), as torch wants
    moved = nn.functional.grid_sample(films.float(), grid, mode="bilinear", padding_mode="border", align_corners=True)
    top, left, height, width = fields.to(device).float()[:, :, None, None].unbind(1)
    inside = (source_row >= top) & (source_row <= top + height - 1)
    inside &= (source_column >= left) & (source_column <= left + width - 1)
    masks = inside[:, None].float()
    if moved.shape[1] == 2:
        moved, own = moved.split(1, dim=1)
        masks = masks * (own > 0.5)
    return apply_gamma(moved, change.gamma), masks


def apply_gamma(films: Tensor, gamma: Tensor) -> Tensor:
    """Films [B, 1, H, W] in -1..1 with another exposure: the grey value in 0..1 to the power of gamma [B]."""
    return 2 * ((films + 1) / 2).clamp(0, 1).pow(gamma[:, None, None, None]) - 1


def reduce(films: Tensor, factor: int) -> Tensor:
    """[B, C, H / factor, W / factor]: the mean of each factor x factor block."""
    return nn.functional.avg_pool2d(films, factor) if factor > 1 else films


def _spline(positions: Tensor, canvas: int) -> Tensor:
    """[..., 5]: cubic B-spline weights of five control points spread over the canvas; fading beyond them."""
    points = torch.arange(CONTROL_POINTS, device=positions.device)
    distance = ((positions[..., None] + 0.5) * CONTROL_POINTS / canvas - 0.5 - points).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, near, far)
