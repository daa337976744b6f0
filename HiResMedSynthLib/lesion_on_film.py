"""A lesion and the film that it goes onto: its shadow in the film's grey, judged there against real nodules."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.case import PlacedLesion
from HiResMedSynthLib.ground import Ground
from HiResMedSynthLib.joining.acceptance import Verdict
from HiResMedSynthLib.joining.film_contrasts import judge_shadow, shipped_contrasts
from HiResMedSynthLib.joining.film_shadow import contrast_of, shadow_measures

Index = tuple[int, int, int]
SMOOTH_MM = 3.0  # sigma of the film's grey before its curve is read: its noise must not shape the shadow


def cast(
    water_mm: NDArray[np.float32], corner: Index, ground: Ground, *, lesion_type: str, diameter_mm: float, share: float
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """(what the lesion adds to the film, in its own values; how that came about).

    A nodule's depth is that of as large real ones, drawn by `share`; a stone's is its own calcium.

    Args:
        water_mm: patch `[1, row, column]`, what the lesion adds to the rays.
        corner: of the patch in the film.
        ground: the film.
        lesion_type, diameter_mm: what it is.
        share: 0..1, where among real nodules of that size it stands.
    """
    scale = ground.film_scale
    told: dict[str, Any] = {"contrast_is": f"{scale.contrast_is}: {scale.source}"}
    depth_mm = contrast_of(water_mm[0])
    if ground.domain == "cxr" and depth_mm > 0:
        wanted = shipped_contrasts().depth_mm(lesion_type, diameter_mm, share)
        told["own_water_mm"] = round(depth_mm, 3)
        water_mm, depth_mm = water_mm * np.float32(wanted / depth_mm), wanted
    slope = scale.at(_grey_around(ground, corner, water_mm.shape))
    told |= {
        "water_mm": round(depth_mm, 3),
        "grey_per_mm_water": round(float(slope.mean()), 4),
        "grey_per_mm_water_in_lungs_or_flanks": round(scale.grey_per_mm, 4),
    }
    return (slope if ground.image.bright_is_dense else -slope) * water_mm, told


def judged_on_film(lesion: PlacedLesion, ground: Ground) -> tuple[PlacedLesion, Verdict]:
    """(the lesion with the verdict on record, the verdict): does its shadow look like a real nodule's on this film?"""
    sign = 1.0 if ground.image.bright_is_dense else -1.0
    measures = shadow_measures(
        sign * lesion.intensity[0].astype(np.float64), spacing_mm=ground.image.spacing_mm[1:],
        around=ground.film_anatomy.around((lesion.corner[1], lesion.corner[2]), lesion.intensity[0].shape),
    )  # fmt: skip
    verdict = judge_shadow(
        measures, shipped_contrasts().nearest(lesion.type, lesion.diameter_mm), diameter_mm=lesion.diameter_mm,
        blur_width_mm=ground.film_sharpness.edge_width_mm, contrast_was_asked=lesion.request.contrast is not None,
    )  # fmt: skip
    taken = {name: round(x, 4) if math.isfinite(x) else None for name, x in vars(measures).items()}
    return replace(lesion, details={**lesion.details, "acceptance": {**verdict.record(), "measures": taken}}), verdict


def _grey_around(ground: Ground, corner: Index, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The film's grey without its noise under a patch, dense = high, `[1, row, column]`."""
    from scipy.ndimage import gaussian_filter

    sigma = [SMOOTH_MM / step for step in ground.image.spacing_mm[1:]]
    box, inner = [], []
    for low, size, reach, limit in zip(corner[1:], shape[1:], sigma, ground.film.shape, strict=True):
        first = max(low - math.ceil(3 * reach), 0)
        box.append(slice(first, min(low + size + math.ceil(3 * reach), limit)))
        inner.append(slice(low - first, low - first + size))
    smooth = gaussian_filter(ground.film[box[0], box[1]].astype(np.float64), sigma, mode="nearest", truncate=3.0)
    return np.asarray(smooth[inner[0], inner[1]][np.newaxis])
