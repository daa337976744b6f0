"""A lesion and the CT that it goes into: fitted to its place (vessels, noise), judged there against real nodules."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import measure
from HiResMedSynthLib.case import HALF, PlacedLesion
from HiResMedSynthLib.fusion import blend
from HiResMedSynthLib.ground import Ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.joining.acceptance import Verdict, judge, shipped_ranges
from HiResMedSynthLib.joining.fit import with_noise, with_vessels

Index = tuple[int, int, int]
AROUND_MM = 9.0  # of the scan that a lesion is fitted to and judged with


def fitted(
    values: NDArray[np.float64],
    alpha: NDArray[np.uint16],
    corner: Index,
    ground: Ground,
    *,
    source_noise_hu: float | None,
    noise_hu: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """(the lesion's HU with the vessels of the place kept and the scan's noise carried through, what was done).

    Args:
        values, alpha: the lesion's patch `[slice, row, column]`, HU and matte.
        corner: of the patch in the image.
        ground: the CT.
        source_noise_hu: noise of the scan that the lesion comes from; None if unknown.
        noise_hu: of the place; used where there is too little parenchyma around to measure it anew.
        rng: the lesion's own stream for noise.
    """
    image = ground.image
    pixels, outline, region = _around(image, alpha, corner)
    values = with_vessels(values, alpha, pixels[region])
    ring = measure.ring(outline, spacing_mm=image.spacing_mm, inner_mm=measure.RING_MM[0], outer_mm=measure.RING_MM[1])
    quiet = measure.parenchyma_noise(pixels, ring)
    values, done = with_noise(
        values, alpha, ring_noise=quiet if math.isfinite(quiet) else noise_hu, source_noise=source_noise_hu,
        texture=ground.noise_texture, rng=rng,
    )  # fmt: skip
    return values, {**{name: round(x, 2) for name, x in done.items()}, "grain": ground.noise_texture.source}


def judged(lesion: PlacedLesion, ground: Ground) -> tuple[PlacedLesion, Verdict]:
    """(the lesion with the verdict on record, the verdict): does it look like a real one in this CT?"""
    image = ground.image
    pixels, outline, region = _around(image, lesion.alpha, lesion.corner)
    pixels = pixels.copy()
    blend(pixels, region, lesion.intensity, lesion.alpha, base=lesion.intensity_base, storable=image.storable)
    measures = measure.lesion_measures(pixels, outline, spacing_mm=image.spacing_mm)
    verdict = judge(
        measures, shipped_ranges().of(lesion.type, slice_mm=image.slice_spacing_mm), resolution=ground.resolution,
        pixel_mm=max(image.spacing_mm[1:]),
        contrast_was_asked=lesion.request.contrast is not None or lesion.request.cnr is not None,
    )  # fmt: skip
    taken = {name: round(x, 4) if math.isfinite(x) else None for name, x in vars(measures).items()}
    return replace(lesion, details={**lesion.details, "acceptance": {**verdict.record(), "measures": taken}}), verdict


def _around(
    image: MedicalImage, alpha: NDArray[np.uint16], corner: Index
) -> tuple[NDArray[Any], NDArray[np.bool_], tuple[slice, slice, slice]]:
    """(the image around a patch, the lesion's mask there, where the patch lies there)."""
    reach = [math.ceil(AROUND_MM / step) for step in image.spacing_mm]
    low = [max(c - r, 0) for c, r in zip(corner, reach, strict=True)]
    high = [min(c + n + r, limit) for c, n, r, limit in zip(corner, alpha.shape, reach, image.shape, strict=True)]
    pixels = image.pixels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    first, second, third = (slice(c - a, c - a + n) for c, a, n in zip(corner, low, alpha.shape, strict=True))
    outline = np.zeros(pixels.shape, bool)
    outline[first, second, third] = alpha >= HALF
    return pixels, outline, (first, second, third)
