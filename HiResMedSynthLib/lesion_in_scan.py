"""A lesion and the CT that it goes into: fitted to its place (vessels, noise), judged there against real nodules."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import measure
from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.case import HALF, PlacedLesion
from HiResMedSynthLib.fusion import ALPHA_ONE, blend
from HiResMedSynthLib.ground import Ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.joining.acceptance import Verdict, judge, shipped_ranges
from HiResMedSynthLib.joining.belonging import belonging
from HiResMedSynthLib.joining.fit import with_noise, with_vessels
from HiResMedSynthLib.joining.real_strands import shipped_strands
from HiResMedSynthLib.joining.strands import FLARE, LONGEST_MM, paths
from HiResMedSynthLib.joining.tube import TISSUE_HU, filled_share

Index = tuple[int, int, int]
AROUND_MM = 9.0  # of the scan that a lesion is fitted to and judged with
NOISE_PX = 1.0  # sigma: what is finer in the scan is noise, which a strand doesn't hide
BRIGHT = 90  # percentile of a lesion's HU that stands for its own tissue
FAINTEST_HU = 1.0  # a change of less is none
SOLID_HU = (-400.0, -150.0)  # vessels, pleura and wall: there a strand ends and nothing changes
COUNTED_IN_MM = 2.5  # slices up to so thick show the strands that were counted; 4.2 mm .59 of them, 5 mm .50 (n = 211)
SEEN_BESIDE_MM = 2.0  # a strand that runs no farther than that outside a single slice still shows in it


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
    """(the lesion's HU, vessels of the place kept, the scan's noise carried through, cut where it was; what was done).

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
    told = {**{name: round(x, 2) for name, x in done.items()}, "grain": ground.noise_texture.source}
    return ground.scan_limits.cut(values), told


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


def with_strands(
    lesion: PlacedLesion, ground: Ground, *, spiculation: float | None, rng: np.random.Generator
) -> PlacedLesion:
    """The lesion with strands and vessels that lead to it, as many as a real one of its type and size has.

    What ends at it already counts. Strands widen its footprint, not its mask.

    Args:
        lesion: at its place, accepted.
        ground: the CT.
        spiculation: of the lesion that it is made from, by the readers; None: unknown.
        rng: the lesion's own stream for strands.
    """
    from scipy.ndimage import gaussian_filter

    image = ground.image
    pixels, outline, region = _around(image, lesion.alpha, lesion.corner, reach_mm=LONGEST_MM)
    joined = pixels.copy()
    blend(joined, region, lesion.intensity, lesion.alpha, base=lesion.intensity_base, storable=image.storable)
    found = belonging(joined, outline, spacing_mm=image.spacing_mm)
    if found is None:
        return lesion
    soft = lesion.type == "ground-glass"
    wanted = shipped_strands().draw(lesion.type, lesion.diameter_mm, spiculation, rng)
    shown = min(COUNTED_IN_MM / image.slice_spacing_mm, 1.0)
    if image.slices == 1:
        shown *= (image.slice_spacing_mm + SEEN_BESIDE_MM) / (lesion.diameter_mm + 2 * SEEN_BESIDE_MM)
    if shown < 1:
        wanted = [strand for strand in wanted if rng.random() < shown]
    made = paths(
        found, wanted, spacing_mm=image.spacing_mm, one_slice=image.slices == 1, rng=rng,
        flare=0.0 if soft else FLARE,
    )  # fmt: skip
    share = filled_share(
        [(path.points, path.radii_mm) for path in made], outline.shape,
        spacing_mm=image.spacing_mm, sigma_mm=ground.resolution.sigma_mm,
    )  # fmt: skip
    before, after = (gaussian_filter(hu.astype(np.float64), [0.0, NOISE_PX, NOISE_PX]) for hu in (pixels, joined))
    lung = np.clip((SOLID_HU[1] - before) / (SOLID_HU[1] - SOLID_HU[0]), 0.0, 1.0)
    # a vessel may be denser than ground glass, a strand is no denser than the lesion that it belongs to
    tissue = TISSUE_HU if soft else min(TISSUE_HU, float(np.percentile(joined[outline], BRIGHT)))
    # a ridge that the strand runs along is part of it: real ones are as bright as the two together
    ridge = np.maximum(after - found.level_hu, 0.0)
    added = lung * np.maximum(share * (tissue - np.minimum(after, found.level_hu)) - ridge, 0.0)
    added[added < FAINTEST_HU] = 0.0
    if lesion.request.contrast is not None or lesion.request.cnr is not None:
        added[outline] = 0.0  # what was asked for stays
    details = {**lesion.details, "strands": [path.to for path in made]}
    return _widened(replace(lesion, details=details), pixels, joined, added, share, region)


def _widened(
    lesion: PlacedLesion,
    pixels: NDArray[Any],
    joined: NDArray[Any],
    added: NDArray[np.float64],
    share: NDArray[np.float64],
    region: tuple[slice, slice, slice],
) -> PlacedLesion:
    """The lesion with a patch that adds so many HU to the image around it, its mask unchanged.

    Alpha stays below a half outside the mask, however much is added: the HU make up for it, so that the blend with the
    background gives what is wanted.

    Args:
        lesion: its patch lies at `region` of the others.
        pixels, joined: the background, and the same with the lesion in it.
        added: HU.
        share: of each voxel that the added matter fills, 0..1.
        region: where the lesion's patch lies in these.
    """
    alpha, values = np.zeros(added.shape, np.uint16), np.zeros(added.shape)
    alpha[region], values[region] = lesion.alpha, lesion.intensity
    more = added > 0
    both = np.round(ALPHA_ONE - (ALPHA_ONE - alpha) * (1.0 - share)).astype(np.uint16)
    alpha = np.where(more & (alpha < HALF), np.minimum(both, HALF - 1), alpha)
    whole = (joined - pixels.astype(np.float64) + added) * (ALPHA_ONE / np.maximum(alpha, 1.0))
    values = np.where(more, pixels + whole, values)
    int16 = np.iinfo(np.int16)
    intensity = np.floor(np.clip(values, int16.min, int16.max) + 0.5).astype(np.int16)
    box = bounding_box(alpha)
    corner = [low - part.start + side.start for low, part, side in zip(lesion.corner, region, box, strict=True)]
    return replace(
        lesion, corner=(corner[0], corner[1], corner[2]), alpha=np.ascontiguousarray(alpha[box]),
        intensity=np.ascontiguousarray(intensity[box]),
    )  # fmt: skip


def _around(
    image: MedicalImage, alpha: NDArray[np.uint16], corner: Index, *, reach_mm: float = AROUND_MM
) -> tuple[NDArray[Any], NDArray[np.bool_], tuple[slice, slice, slice]]:
    """(the image around a patch, the lesion's mask there, where the patch lies there)."""
    reach = [math.ceil(reach_mm / step) for step in image.spacing_mm]
    low = [max(c - r, 0) for c, r in zip(corner, reach, strict=True)]
    high = [min(c + n + r, limit) for c, n, r, limit in zip(corner, alpha.shape, reach, image.shape, strict=True)]
    pixels = image.pixels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    first, second, third = (slice(c - a, c - a + n) for c, a, n in zip(corner, low, alpha.shape, strict=True))
    outline = np.zeros(pixels.shape, bool)
    outline[first, second, third] = alpha >= HALF
    return pixels, outline, (first, second, third)
