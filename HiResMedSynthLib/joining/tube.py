"""A thin tapered tube on a scan's voxels: which share of each it fills, as the scan's resolution shows it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.joining.belonging import SMOOTH_MM

Point = tuple[float, float, float]
TISSUE_HU = 40.0  # of vessels and fibrous strands
STEP_MM = 0.05  # between discs along a tube: wide steps would bead it
DISC_POINTS = 24  # a disc's matter is put down in so many equal parts
THICKEST_SHARE = 0.95
SMALLEST_SHARE = 1 / 512


def radius_of(excess_hu: float, *, level_hu: float, sigma_mm: float) -> float:
    """Radius in mm of a tube of tissue whose axis looks that much brighter than the parenchyma.

    A disc of radius r blurred by a Gaussian of sigma s shows 1 - exp(-r^2 / 2 s^2) of its contrast in the middle.

    Args:
        excess_hu: as `belonging` measures it.
        level_hu: of the parenchyma.
        sigma_mm: of the scan's own blur.
    """
    share = min(max(excess_hu, 0.0) / (TISSUE_HU - level_hu), THICKEST_SHARE)
    return math.hypot(sigma_mm, SMOOTH_MM) * math.sqrt(-2.0 * math.log(1.0 - share))


def filled_share(
    paths: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    shape: tuple[int, int, int],
    *,
    spacing_mm: Point,
    sigma_mm: float,
) -> NDArray[np.float64]:
    """Share `[slice, row, column]` of each voxel that tubes fill, averaged over its extent and blurred.

    Args:
        paths: of each tube the points `[n, 3]` of its axis, voxel indices no farther apart than a voxel, and its
            radius in mm at each.
        shape, spacing_mm: of the voxels.
        sigma_mm: of the scan's blur in plane; that along the slices is no smaller.
    """
    from scipy.ndimage import gaussian_filter

    filled = np.zeros(math.prod(shape))
    for points, radii in paths:
        at, volume = _matter(points * spacing_mm, radii)
        index = np.rint(at / spacing_mm).astype(np.int64)
        inside = ((index >= 0) & (index < shape)).all(axis=1)
        flat = np.ravel_multi_index(tuple(index[inside].T), shape)
        filled += np.bincount(flat, weights=volume[inside], minlength=len(filled))
    share = filled.reshape(shape) / math.prod(spacing_mm)
    along_mm = math.sqrt(max(sigma_mm**2 - spacing_mm[0] ** 2 / 12.0, 0.0))  # the voxel's own extent blurs already
    sigma = [along_mm / spacing_mm[0], sigma_mm / spacing_mm[1], sigma_mm / spacing_mm[2]]
    share = gaussian_filter(share, sigma, truncate=3.0)
    share = np.minimum(share, 1.0)
    share[share < SMALLEST_SHARE] = 0.0
    return np.asarray(share)


def _matter(
    path_mm: NDArray[np.float64], radii: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(points `[m, 3]` in mm, volume in mm3 at each): a tube's matter put down in small equal parts of each disc."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path_mm, axis=0), axis=1))])
    count = max(math.ceil(float(lengths[-1]) / STEP_MM), 2)
    along = (np.arange(count) + 0.5) / count * lengths[-1]
    axis = np.stack([np.interp(along, lengths, path_mm[:, k]) for k in range(3)], axis=1)
    radius = np.interp(along, lengths, radii)
    tangent = np.gradient(axis, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    across = np.cross(tangent, np.eye(3)[np.abs(tangent).argmin(axis=1)])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    third = np.cross(tangent, across)
    turn = np.arange(DISC_POINTS) * math.pi * (3.0 - math.sqrt(5.0))  # a sunflower's seeds fill a disc evenly
    out = np.sqrt((np.arange(DISC_POINTS) + 0.5) / DISC_POINTS)
    first, second = (radius[:, np.newaxis] * (out * wave(turn)) for wave in (np.cos, np.sin))
    at = (
        axis[:, np.newaxis]
        + first[..., np.newaxis] * across[:, np.newaxis]
        + second[..., np.newaxis] * third[:, np.newaxis]
    )
    volume = math.pi * radius**2 * float(lengths[-1]) / count / DISC_POINTS
    return at.reshape(-1, 3), np.repeat(volume, DISC_POINTS)
