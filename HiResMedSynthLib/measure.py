"""Measures of an image and of a lesion in it: noise, surroundings, contrast."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Immerkaer's mask is blind to constant and linear structure; its response to white noise of SD 1 has SD 6.
IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float64)
MAD_TO_SD = 1.4826


def noise(pixels: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> float:
    """Standard deviation of the noise, in the units of the pixels.

    Robust form of Immerkaer's estimate (CVIU 64, 1996): per slice the residual of a second-difference mask, then
    1.4826 times the median absolute value, so that edges count little. Correlated noise (soft kernels) reads low.

    Args:
        pixels: `[row, column]` or `[slice, row, column]`.
        mask: same shape, where to measure; None or fewer than 16 usable pixels: everywhere.
    """
    from scipy.ndimage import convolve

    stack = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    if min(stack.shape[1:]) < 3:
        return 0.0
    residual = np.stack([convolve(plane.astype(np.float64), IMMERKAER) for plane in stack])[:, 1:-1, 1:-1] / 6.0
    chosen = residual
    if mask is not None:
        inner = (mask if mask.ndim == 3 else mask[np.newaxis])[:, 1:-1, 1:-1]
        if int(inner.sum()) >= 16:
            chosen = residual[inner]
    return float(MAD_TO_SD * np.median(np.abs(chosen)))


def ring(
    mask: NDArray[np.bool_], *, spacing_mm: tuple[float, ...], inner_mm: float, outer_mm: float
) -> NDArray[np.bool_]:
    """The shell around a mask, from `inner_mm` to `outer_mm` outside it; same shape, bool."""
    from scipy.ndimage import distance_transform_edt

    distance = distance_transform_edt(~mask, sampling=spacing_mm)
    return np.asarray((distance > inner_mm) & (distance <= outer_mm))


def contrast(
    pixels: NDArray[Any],
    mask: NDArray[np.bool_],
    *,
    spacing_mm: tuple[float, ...],
    ring_mm: tuple[float, float] = (2, 6),
) -> float:
    """Mean inside the mask minus the median of the ring around it, in the units of the pixels; 0 if either is empty."""
    around = ring(mask, spacing_mm=spacing_mm, inner_mm=ring_mm[0], outer_mm=ring_mm[1])
    if not mask.any() or not around.any():
        return 0.0
    return float(pixels[mask].mean() - np.median(pixels[around]))
