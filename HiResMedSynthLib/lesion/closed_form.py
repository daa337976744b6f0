"""Closed-form matting in three dimensions (Levin, Lischinski, Weiss 2008), for lesions without an edge of their own.

In each small window alpha is taken for an affine function of the intensity; the alpha that breaks this least, given
voxels known to be lesion or not, solves a sparse linear system. It is solved by conjugate gradients, the matting
Laplacian applied by box means instead of stored (as in the guided filter of He, Sun, Tang 2013).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

WINDOW = 3  # voxels a side
NOISE_HU = 12.0  # intensity differences below this carry no alpha
KNOWN_WEIGHT, PRIOR_WEIGHT = 100.0, 1e-3  # against the Laplacian's 1
MOST_STEPS = 400
TOLERANCE = 1e-4


def closed_form_alpha(
    intensity: NDArray[np.floating], inside: NDArray[np.bool_], outside: NDArray[np.bool_], prior: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Alpha 0..1 of each voxel, float32 `[slice, row, column]`.

    Args:
        intensity: HU, same shape.
        inside, outside: True where a voxel is known to be lesion, or not.
        prior: a first guess of alpha, followed weakly where intensity says nothing.
    """
    guide = intensity.astype(np.float64)
    mean = _box(guide)
    variance = np.maximum(_box(guide * guide) - mean * mean, 0.0) + NOISE_HU**2 / WINDOW**3

    def laplacian(alpha: NDArray[np.float64]) -> NDArray[np.float64]:
        mean_alpha = _box(alpha)
        slope = (_box(guide * alpha) - mean * mean_alpha) / variance
        offset = mean_alpha - slope * mean
        return alpha - (_box(slope) * guide + _box(offset))

    known = inside | outside
    weight = np.where(known, KNOWN_WEIGHT, PRIOR_WEIGHT)
    target = weight * np.where(known, inside, np.clip(prior, 0, 1))
    start = np.where(known, inside, prior).astype(np.float64)
    solved = _conjugate_gradients(lambda alpha: laplacian(alpha) + weight * alpha, target, start)
    return np.clip(solved, 0, 1).astype(np.float32)


def _box(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the window around each voxel; beyond the edges the outermost voxels go on."""
    from scipy.ndimage import uniform_filter

    return np.asarray(uniform_filter(values, WINDOW, mode="nearest"))


def _conjugate_gradients(
    apply: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    target: NDArray[np.float64],
    start: NDArray[np.float64],
) -> NDArray[np.float64]:
    """x with apply(x) = target, for a symmetric positive operator."""
    x = start
    residual = target - apply(x)
    direction = residual
    power = float((residual * residual).sum())
    enough = TOLERANCE**2 * float((target * target).sum())
    for _ in range(MOST_STEPS):
        if power <= enough:
            break
        image = apply(direction)
        step = power / float((direction * image).sum())
        x = x + step * direction
        residual = residual - step * image
        new_power = float((residual * residual).sum())
        direction = residual + (new_power / power) * direction
        power = new_power
    return x
