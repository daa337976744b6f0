"""HOW lesion and background join: the paper's Eq. 17 to the letter, the matte blend, and addition for radiographs.

Every function writes into `pixels[region]` in place and touches nothing where alpha is zero. The fusion `better` is the
matte blend of arrays that `draw_case` has fitted to the scan (`joining/`): nothing is estimated or drawn here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALPHA_ONE = 65535
ALPHA_HALF = 32768
Region = tuple[slice, slice, slice]
Storable = Callable[[NDArray[Any]], NDArray[Any]]  # `MedicalImage.storable`: range, steps and type of the pixels


def blend(
    pixels: NDArray[Any],
    region: Region,
    intensity: NDArray[np.int16],
    alpha: NDArray[np.uint16],
    *,
    base: int = 0,
    storable: Storable,
) -> None:
    """`pixels[region]` becomes alpha * lesion + (1 - alpha) * background, rounded half up in whole numbers.

    Integer arithmetic, so that every machine gives the same pixels; lesion = base + intensity.
    """
    view = pixels[region]
    lesion = intensity.astype(np.int64) + base
    weight = alpha.astype(np.int64)
    if view.dtype.kind == "f":
        share = weight / ALPHA_ONE
        fused = view + share * (lesion - view)
    else:
        fused = (view.astype(np.int64) * (ALPHA_ONE - weight) + lesion * weight + ALPHA_HALF) // ALPHA_ONE
    _write(view, fused, alpha > 0, storable)


def add(
    pixels: NDArray[Any],
    region: Region,
    contrast: NDArray[np.int16],
    alpha: NDArray[np.uint16],
    *,
    storable: Storable,
) -> None:
    """`pixels[region]` gains the contrast inside alpha > 0: line integrals add, nothing beneath is lost."""
    view = pixels[region]
    fused = view.astype(np.float64 if view.dtype.kind == "f" else np.int64) + contrast
    _write(view, fused, alpha > 0, storable)


def replace_and_blur_edge(
    pixels: NDArray[Any],
    region: Region,
    intensity: NDArray[np.int16],
    alpha: NDArray[np.uint16],
    *,
    base: int = 0,
    storable: Storable,
) -> None:
    """The paper's fusion (Eq. 17 and its section on edges), slice by slice.

    R_lesion = alpha >= 0.5 is set to zero in the background and the lesion's canvas is added; where the Sobel gradient
    magnitude of R_lesion is above zero, the result is replaced by its 3 x 3 Gaussian blur of sigma 1.0.
    """
    import cv2

    inside = alpha >= ALPHA_HALF
    for offset in range(alpha.shape[0]):
        if not inside[offset].any():
            continue
        plane = pixels[region[0].start + offset]
        rows, columns = _grown(region[1], plane.shape[0]), _grown(region[2], plane.shape[1])
        inner = (
            slice(region[1].start - rows.start, region[1].stop - rows.start),
            slice(region[2].start - columns.start, region[2].stop - columns.start),
        )
        fused = plane[rows, columns].astype(np.float64)
        mask = np.zeros(fused.shape, dtype=np.float64)
        mask[inner] = inside[offset]
        canvas = np.zeros(fused.shape, dtype=np.float64)
        canvas[inner] = np.where(inside[offset], intensity[offset].astype(np.float64) + base, 0.0)
        fused = fused * (1.0 - mask) + canvas
        gradient = np.hypot(cv2.Sobel(mask, cv2.CV_64F, 1, 0, ksize=3), cv2.Sobel(mask, cv2.CV_64F, 0, 1, ksize=3))
        blurred = cv2.GaussianBlur(fused, (3, 3), 1.0)
        fused = np.where(gradient > 0, blurred, fused)[inner]
        changed = (inside[offset] | (gradient[inner] > 0)) & (alpha[offset] > 0)
        _write(plane[region[1], region[2]], fused, changed, storable)


def edge_band(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`[slice, row, column]` bool: pixels where the Sobel gradient magnitude of the mask is above zero, per slice."""
    import cv2

    band = np.zeros_like(inside)
    for k, plane in enumerate(inside.astype(np.float64)):
        band[k] = np.hypot(cv2.Sobel(plane, cv2.CV_64F, 1, 0, ksize=3), cv2.Sobel(plane, cv2.CV_64F, 0, 1, ksize=3)) > 0
    return band


def _grown(span: slice, limit: int) -> slice:
    return slice(max(span.start - 2, 0), min(span.stop + 2, limit))


def _write(view: NDArray[Any], fused: NDArray[Any], where: NDArray[np.bool_], storable: Storable) -> None:
    np.copyto(view, storable(fused), where=where)
