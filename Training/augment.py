"""Augmentation of films, drawn then applied to a batch on its device: no flips (heart and stomach have a side).

Interpolation takes power from the finest detail, so every warp reads a finer film than it writes and averages down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Pixels = NDArray[np.float32]
CONTROL_POINTS = 5


@dataclass(frozen=True, kw_only=True)
class FilmChange:
    """Drawn changes of B films.

    Attributes:
        shift: [B, 2] (row, column) as a share of the canvas.
        rotation: [B] radians about the canvas's centre.
        scale: [B], above 1 magnifies.
        elastic: [B, 2, 5, 5] control points of a cubic B-spline, as a share of the canvas.
        gamma: [B] exponent of the grey value in 0..1.
    """

    shift: Pixels
    rotation: Pixels
    scale: Pixels
    elastic: Pixels
    gamma: Pixels


def draw_film_change(rng: np.random.Generator, count: int) -> FilmChange:
    """Changes within what positioning and exposure do: 5 %, 4 degrees, 8 %, 1 % elastic, gamma 0.8-1.25."""
    return FilmChange(
        shift=rng.uniform(-0.05, 0.05, (count, 2)).astype(np.float32),
        rotation=np.deg2rad(rng.uniform(-4, 4, count)).astype(np.float32),
        scale=rng.uniform(0.94, 1.08, count).astype(np.float32),
        elastic=rng.normal(0, 0.014, (count, 2, CONTROL_POINTS, CONTROL_POINTS)).astype(np.float32),
        gamma=np.exp(rng.uniform(np.log(0.8), np.log(1.25), count)).astype(np.float32),
    )


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
    shift, elastic = _put(change.shift, device), _put(change.elastic, device)
    rotation, scale = _put(change.rotation, device), _put(change.scale, device)
    positions = corners.to(device)[:, :, None] + torch.arange(size, device=device)  # [B, 2, size]
    rows, columns = positions.float().unbind(1)
    row_weights, column_weights = _spline(rows, canvas), _spline(columns, canvas)  # [B, size, 5]
    bent = canvas * torch.einsum("bri,bkij,bcj->bkrc", row_weights, elastic, column_weights)
    y = (rows - middle - shift[:, :1] * canvas)[:, :, None]
    x = (columns - middle - shift[:, 1:] * canvas)[:, None, :]
    sine, cosine = (rotation.sin() / scale)[:, None, None], (rotation.cos() / scale)[:, None, None]
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
    return apply_gamma(moved, _put(change.gamma, device)), masks


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


def _put(values: Pixels, device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device)
