"""A lesion's shadow on a film: how bright, how sharp, how plain among the anatomy; blurred to the film's sharpness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import measure
from HiResMedSynthLib.edge_profile import edges
from HiResMedSynthLib.joining.scan_resolution import WIDTH_TO_SIGMA

Corner = tuple[int, int]
QUIET_VOXELS = 1.0  # sigma
PEAK = 98  # percentile of a shadow that counts as its greatest depth: one pixel's chance doesn't
LEAST_MM = 0.15  # a missing blur of less is none
SMALLEST_SHARE = 1 / 512  # less of a lesion in a pixel is nothing
FAINTEST = 1 / 64  # of a shadow's greatest depth: beside the mask less is lost in the film's noise, and takes up room


@dataclass(frozen=True, kw_only=True)
class ShadowMeasures:
    """How a shadow stands on a film; NaN where it can't be measured.

    Args:
        contrast: its mean depth over the pixels that lie above half of its greatest depth, in the shadow's units.
        edge_width_mm: from 90 to 10 % of its depth across its rim, median over the rim.
        anatomic_cnr: contrast over the standard deviation of ribs and vessels under and around it.
    """

    contrast: float
    edge_width_mm: float
    anatomic_cnr: float


def without_noise(intensity_hu: NDArray[np.int16], alpha: NDArray[np.uint16]) -> NDArray[np.int16]:
    """HU of a lesion without the noise of the scan that it comes from: a film has its own."""
    from scipy.ndimage import gaussian_filter

    share = alpha.astype(np.float32)
    weight = gaussian_filter(share, QUIET_VOXELS)
    mean = gaussian_filter(share * intensity_hu, QUIET_VOXELS) / np.maximum(weight, 1.0)
    return np.round(np.where(weight > 1.0, mean, intensity_hu)).astype(np.int16)


def half_depth(shadow: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a shadow, positive inside, is above half of its greatest depth; empty if there is none."""
    positive = shadow[shadow > 0]
    if not positive.size:
        return np.zeros(shadow.shape, bool)
    rough = positive[positive >= positive.max() / 4]
    return np.asarray(shadow >= np.percentile(rough, PEAK) / 2)


def contrast_of(shadow: NDArray[Any]) -> float:
    """Mean depth where it is above half of its greatest; `.778 d` for a ball of diameter d. 0 if there is none."""
    core = half_depth(shadow)
    return float(shadow[core].mean()) if core.any() else 0.0


def shadow_measures(shadow: NDArray[Any], *, spacing_mm: tuple[float, float], around: float) -> ShadowMeasures:
    """The measures of one shadow.

    Args:
        shadow: `[row, column]`, what the lesion adds, positive; 0 around it.
        spacing_mm: (row, column).
        around: standard deviation of the anatomy under and around it (`FilmAnatomy.around`), in the same units.
    """
    core = half_depth(shadow)
    contrast = contrast_of(shadow)
    room = [math.ceil(5.0 / step) for step in spacing_mm]
    padding = ((room[0],) * 2, (room[1],) * 2)
    rim = edges(np.pad(shadow, padding), np.pad(core, padding), spacing_mm=spacing_mm)
    return ShadowMeasures(
        contrast=contrast,
        edge_width_mm=float(np.median(rim.width_mm)) if len(rim.width_mm) >= measure.FEWEST_RAYS else math.nan,
        anatomic_cnr=contrast / around if around > 0 else math.nan,
    )


def blurred(
    corner: Corner,
    alpha: NDArray[np.uint16],
    shadow: NDArray[np.float32],
    *,
    spacing_mm: tuple[float, float],
    film_width_mm: float,
    own_width_mm: float,
) -> tuple[Corner, NDArray[np.uint16], NDArray[np.float32], float]:
    """(corner, alpha, shadow, sigma in mm) with the blur that its source lacks to be as soft as the film.

    Args:
        corner, alpha, shadow: a patch `[row, column]` and where it begins.
        spacing_mm: (row, column): the blur is round in millimetres.
        film_width_mm: 10-90 % width of the film's sharp edges.
        own_width_mm: that of the lesion's own matte: the blur of the scan that it comes from.
    """
    from scipy.ndimage import gaussian_filter

    missing = film_width_mm**2 - (own_width_mm if math.isfinite(own_width_mm) else 0.0) ** 2
    sigma_mm = math.sqrt(max(missing, 0.0)) / WIDTH_TO_SIGMA
    if sigma_mm < LEAST_MM:
        return corner, alpha, shadow, 0.0
    sigma = [sigma_mm / step for step in spacing_mm]
    room = [math.ceil(3.0 * s) for s in sigma]
    padding = [(r, r) for r in room]
    soft, share = (
        gaussian_filter(np.pad(plane.astype(np.float32), padding), sigma, truncate=3.0, mode="constant")
        for plane in (shadow, alpha / np.float32(65535))
    )
    share *= float(alpha.max()) / 65535 / max(float(share.max()), 1e-6)  # it stays an outline, however faint the shadow
    faint = (share < 0.5) & (np.abs(soft) < FAINTEST * np.abs(soft).max())
    share[(share < SMALLEST_SHARE) | faint] = 0.0
    soft[share == 0] = 0.0
    wide = np.round(np.clip(share, 0.0, 1.0) * 65535).astype(np.uint16)
    return (corner[0] - room[0], corner[1] - room[1]), wide, soft, sigma_mm
