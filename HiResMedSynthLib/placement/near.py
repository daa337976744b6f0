"""Voxels within a distance of a mask, in millimetres, slice by slice so that a large volume stays small in memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def within_mm(
    mask: NDArray[np.bool_], distance_mm: float, *, spacing_mm: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """The mask grown by a ball of `distance_mm`; bool `[slice, row, column]`.

    Anisotropic spacing is honoured; where slices are farther apart than the distance only their own plane counts.
    Nothing is assumed beyond the first and last slice.
    """
    import cv2
    from scipy.ndimage import distance_transform_edt

    grown = mask.copy()
    if distance_mm <= 0:
        return grown
    slice_mm, row_mm, column_mm = spacing_mm
    reach = int(distance_mm // slice_mm)
    square = abs(row_mm - column_mm) < 1e-3 * row_mm
    for index in range(len(mask)):
        if not mask[index].any():
            continue
        free = ~mask[index]
        if square:
            distance = cv2.distanceTransform(free.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * row_mm
        else:
            distance = distance_transform_edt(free, sampling=(row_mm, column_mm))
        for other in range(max(0, index - reach), min(len(mask), index + reach + 1)):
            radius = math.sqrt(max(distance_mm**2 - ((other - index) * slice_mm) ** 2, 0.0))
            grown[other] |= distance <= radius + 1e-4
    return grown
