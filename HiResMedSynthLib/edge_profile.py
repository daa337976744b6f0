"""Edges along rays: how a border between two tissues looks on lines that cross it at right angles, in one plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP_MM = 0.1  # between samples of a ray
REACH_MM = 4.0  # of a ray, inwards and outwards
PLATEAU_MM = 3.0  # the levels of both sides are looked for this far from the border
OVERLAP_MM = 0.5  # and this far across it: the outline isn't exact
SLOPE_MM, JUMP_MM = 0.3, 0.5  # lengths over which a slope, and a change of slope, are taken
NORMAL_PX = 1.0  # smoothing of the outline before its normals are taken


@dataclass(frozen=True, kw_only=True, eq=False)
class Edges:
    """One value a ray; rays whose border can't be found are left out.

    Args:
        width_mm: from 90 % to 10 % of the step.
        slope_per_mm: steepest descent, pixel units a millimetre.
        jump_per_mm2: largest change of slope over half a millimetre, per unit of the step.
        high, low: levels inside and outside, pixel units.
    """

    width_mm: NDArray[np.float64]
    slope_per_mm: NDArray[np.float64]
    jump_per_mm2: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_]) -> Edges:
        """These rays only."""
        return Edges(**{name: values[chosen] for name, values in vars(self).items()})


def edges(
    pixels: NDArray[Any], inside: NDArray[np.bool_], *, spacing_mm: tuple[float, float], most: int | None = None
) -> Edges:
    """The edges along the border of a bright region.

    Args:
        pixels: `[row, column]`.
        inside: same shape, the brighter side.
        spacing_mm: (row, column).
        most: where the border is longer, every second, third ... of its pixels is taken; None: all.
    """
    from scipy.ndimage import binary_erosion, gaussian_filter, map_coordinates

    border = np.argwhere(inside & ~binary_erosion(inside, border_value=1))
    if most is not None and len(border) > most:
        border = border[:: -(-len(border) // most)]
    steps = np.arange(-REACH_MM, REACH_MM + STEP_MM / 2, STEP_MM)
    if not len(border):
        return _measured(np.empty((0, len(steps))), steps)
    slope = np.stack(np.gradient(gaussian_filter(inside.astype(np.float32), NORMAL_PX), *spacing_mm))
    normal = -slope[:, border[:, 0], border[:, 1]].T  # [ray, 2], outwards, in millimetres
    length = np.linalg.norm(normal, axis=1)
    border, normal = border[length > 1e-6], normal[length > 1e-6] / length[length > 1e-6, np.newaxis]
    per_mm = normal / np.asarray(spacing_mm)
    at = border[:, :, np.newaxis] + per_mm[:, :, np.newaxis] * steps  # [ray, 2, sample]
    limits = np.asarray(inside.shape)[:, np.newaxis] - 1
    whole = ((at >= 0) & (at <= limits))[:, :, np.abs(steps) <= PLATEAU_MM].all(axis=(1, 2))
    at = at[whole]
    profiles = map_coordinates(
        pixels.astype(np.float32), at.transpose(1, 0, 2).reshape(2, -1), order=1, mode="nearest"
    ).reshape(len(at), len(steps))
    return _measured(profiles.astype(np.float64), steps)


def joined(parts: list[Edges]) -> Edges:
    """All their rays together."""
    names = ("width_mm", "slope_per_mm", "jump_per_mm2", "high", "low")
    return Edges(**{name: np.concatenate([getattr(part, name) for part in parts] or [[]]) for name in names})


def _measured(profiles: NDArray[np.float64], steps: NDArray[np.float64]) -> Edges:
    """The measures of profiles `[ray, sample]`, inside first."""
    high = profiles[:, (steps >= -PLATEAU_MM) & (steps <= OVERLAP_MM)].max(axis=1, initial=-np.inf)
    low = profiles[:, (steps >= -OVERLAP_MM) & (steps <= PLATEAU_MM)].min(axis=1, initial=np.inf)
    span = np.maximum(high - low, 1e-6)
    share = (profiles - low[:, np.newaxis]) / span[:, np.newaxis]
    index = np.arange(len(steps))
    crossing = (share[:, :-1] >= 0.5) & (share[:, 1:] < 0.5)
    distance = np.where(crossing, np.abs(steps[:-1]), np.inf)
    middle = distance.argmin(axis=1) if len(profiles) else np.empty(0, np.int64)
    inner = np.where((share >= 0.9) & (index <= middle[:, np.newaxis]), index, -1).max(axis=1, initial=-1)
    outer = np.where((share <= 0.1) & (index > middle[:, np.newaxis]), index, len(steps)).min(
        axis=1, initial=len(steps)
    )
    found = crossing.any(axis=1) & (inner >= 0) & (outer < len(steps))
    lag, change = round(SLOPE_MM / STEP_MM), round(JUMP_MM / STEP_MM)
    descent = (profiles[:, :-lag] - profiles[:, lag:]) / SLOPE_MM
    at = index[: descent.shape[1]]
    near = (at >= inner[:, np.newaxis] - lag) & (at <= outer[:, np.newaxis])
    steepest = np.where(near, descent, 0.0).max(axis=1, initial=0.0)
    jumps = np.abs(descent[:, change:] - descent[:, :-change])
    jump = np.where(near[:, : jumps.shape[1]], jumps, 0.0).max(axis=1, initial=0.0) / JUMP_MM / span
    width = (outer - inner) * STEP_MM
    return Edges(width_mm=width, slope_per_mm=steepest, jump_per_mm2=jump, high=high, low=low).where(found)
