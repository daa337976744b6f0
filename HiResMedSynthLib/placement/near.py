"""Voxels within a distance of a mask, in millimetres, slice by slice so that a large volume stays small in memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.bounding_box import bounding_box

TOLERANCE_MM = 1e-4
FEW_COLUMNS = 40  # of a radius: up to here runs are faster than distances


def within_mm(
    mask: NDArray[np.bool_], distance_mm: float, *, spacing_mm: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """The mask grown by a ball of `distance_mm`; bool `[slice, row, column]`.

    Anisotropic spacing is honoured; where slices are farther apart than the distance only their own plane counts.
    Nothing is assumed beyond the first and last slice.
    """
    grown = mask.copy()
    if distance_mm <= 0:
        return grown
    slice_mm, row_mm, column_mm = spacing_mm
    reach = min(int(distance_mm // slice_mm), len(mask) - 1)
    reach_px = [int(distance_mm / mm) + 1 for mm in (row_mm, column_mm)]
    for index in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
        box = bounding_box(mask[index], reach_px)
        part = mask[index][box]
        if reach == 0 and distance_mm < FEW_COLUMNS * column_mm:
            grown[index][box] = _grown_by_runs(part, distance_mm + TOLERANCE_MM, row_mm, column_mm)
            continue
        distance = _distance_mm(part, row_mm, column_mm)
        for away in range(reach + 1):
            radius = math.sqrt(max(distance_mm**2 - (away * slice_mm) ** 2, 0.0))
            near = distance <= radius + TOLERANCE_MM
            for other in {index - away, index + away}:
                if 0 <= other < len(mask):
                    grown[other][box] |= near
    return grown


def _distance_mm(mask: NDArray[np.bool_], row_mm: float, column_mm: float) -> NDArray[np.float32]:
    """Distance of each pixel of a slice from the mask."""
    import cv2
    from scipy.ndimage import distance_transform_edt

    if abs(row_mm - column_mm) < 1e-3 * row_mm:
        free = (~mask).view(np.uint8)
        return np.asarray(cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * row_mm)
    return np.asarray(distance_transform_edt(~mask, sampling=(row_mm, column_mm)))


def _grown_by_runs(mask: NDArray[np.bool_], radius_mm: float, row_mm: float, column_mm: float) -> NDArray[np.bool_]:
    """One slice grown by an ellipse of pixels, column by column of it: much faster than distances where it is small."""
    import cv2

    seen = mask.view(np.uint8) if mask.flags.c_contiguous else mask.astype(np.uint8)
    grown = np.zeros_like(seen)
    for aside in range(min(int(radius_mm / column_mm) + 1, mask.shape[1])):
        tall = 2 * int(math.sqrt(radius_mm**2 - (aside * column_mm) ** 2) / row_mm) + 1
        run = cv2.dilate(seen, np.ones((tall, 1), np.uint8)) if tall > 1 else seen
        grown[:, aside:] |= run[:, : run.shape[1] - aside]
        grown[:, : run.shape[1] - aside] |= run[:, aside:]
    return grown.view(np.bool_)
