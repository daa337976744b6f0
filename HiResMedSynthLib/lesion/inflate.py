"""inflate(values) -> values: a lesion known from one slice, rounded in depth, so that it too is a solid thing.

Depth is a guess: each place is as thick as the largest disc that fits around it is wide, as in a ball, and ends as
softly as the outline does: alpha falls with the distance from the thing in space. The middle slice stays as it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

INSIDE_ALPHA = 0.5
FAINTEST = 2 / 255  # of alpha, what the matte's tail is cut at
TAIL_WIDTHS = 1.25  # beyond the edge, of its width: alpha falls under FAINTEST there


def inflate(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """float32 `[2, depth, row, column]` from `[2, row, column]`: premultiplied intensity and alpha (`LesionGrid`)."""
    inside = np.pad(values[1] > min(INSIDE_ALPHA, 0.5 * float(values[1].max())), 1)
    half = half_thickness(inside)
    width = edge_width(values[1])
    reach = int(np.ceil(half.max() + TAIL_WIDTHS * width)) + 1
    offsets = np.abs(np.arange(-reach, reach + 1, dtype=np.float32))[:, None, None]
    body = (offsets <= half) & inside
    there = _softened(_signed_depth(body)[:, 1:-1, 1:-1], width)
    share = np.minimum(there / _softened(_signed_depth(inside)[1:-1, 1:-1], width), 1)
    share[reach] = 1.0
    solid = values[:, None] * share[None]
    solid[:, solid[1] < FAINTEST] = 0
    solid[:, reach] = values
    return np.asarray(solid, dtype=np.float32)


def _signed_depth(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance to the edge, positive inside."""
    from scipy.ndimage import distance_transform_edt

    away = np.where(inside, distance_transform_edt(inside) - 0.5, 0.5 - distance_transform_edt(~inside))
    return np.asarray(away, dtype=np.float32)


def _softened(depth: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """Alpha at that depth: a sigmoid of this width, which never ends, so that the faintest rim fades in depth too."""
    return np.asarray(1 / (1 + np.exp(np.clip(-4 * depth / width, -60, 60))), dtype=np.float32)


def edge_width(alpha: NDArray[np.floating]) -> float:
    """Pixels in which alpha rises from 0 to 1 at the outline, from the area of the rim; 1 to 8."""
    from scipy.ndimage import binary_erosion

    inside = alpha > INSIDE_ALPHA
    outline = int((inside & ~binary_erosion(inside)).sum())
    rim = int(((alpha > 0.1) & (alpha < 0.9)).sum()) / 0.8
    return float(np.clip(rim / max(outline, 1), 1, 8))


def half_thickness(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Half the depth in pixels `[row, column]`: sqrt(d (2 r - d)), d to the edge, r of the largest disc around."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(inside)
    radius = np.zeros_like(depth)
    for r in range(1, int(np.ceil(depth.max())) + 1):
        reached = distance_transform_edt(depth < r) < r  # discs of radius r that fit, drawn full
        radius = np.where(reached, np.minimum(float(depth.max()), float(r)), radius)
    half = np.sqrt(np.maximum(depth * (2 * np.maximum(radius, depth) - depth), 0))
    return np.asarray(half, dtype=np.float32)
