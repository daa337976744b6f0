"""Measures of an image and of a lesion in it: noise, surroundings, contrast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.edge_profile import edges, joined

# Immerkaer's mask is blind to constant and linear structure; its response to white noise of SD 1 has SD 6.
IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float64)
MAD_TO_SD = 1.4826
RING_MM = (2.0, 8.0)  # surroundings of a lesion
PARENCHYMA_HU = (-1000.0, -650.0)
TYPICAL_PARENCHYMA_HU = -860.0
OUTLINE_ERROR_MM = 2.0  # a lesion's border is looked for no farther from its outline
FAINTEST_STEP_HU = 120.0  # from lung to lesion: below it a border is noise
EQUATOR = 0.5  # of the largest slice: slices that are smaller lie near a pole
FEWEST_RAYS, FEWEST_INSIDE, FEWEST_DEEP, FEWEST_AROUND = 8, 16, 40, 60


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


def parenchyma_noise(hu: NDArray[Any], around: NDArray[np.bool_]) -> float:
    """Noise of the parenchyma in a region, HU; NaN where there is too little of it.

    Only pixels whose neighbours in the slice are parenchyma too: beside a vessel its edge would count as noise.

    Args:
        hu: `[slice, row, column]`.
        around: same shape, where to measure.
    """
    from scipy.ndimage import binary_erosion

    airy = (hu > PARENCHYMA_HU[0]) & (hu < PARENCHYMA_HU[1])
    quiet = around & binary_erosion(airy, np.ones((1, 3, 3)))
    return noise(hu, quiet) if int(quiet.sum()) >= FEWEST_AROUND else math.nan


@dataclass(frozen=True, kw_only=True)
class LesionMeasures:
    """How a lesion stands in a CT; NaN where it can't be measured (too small, no parenchyma beside it).

    Args:
        edge_width_mm: from 10 to 90 % of the step to the lung, in plane, median over the rim.
        rim_gradient_hu_mm: steepest slope there, median over the rim.
        gradient_jump_per_mm2: largest change of that slope within half a millimetre over the step, median.
        noise_ratio: noise of the parenchyma around it over the noise inside.
        cnr: its mean inside minus the parenchyma's median, over the parenchyma's noise.
        noise_hu: noise inside; `ring_noise_hu` that of the parenchyma around it.
        texture_hu: standard deviation inside.
        contrast_hu: mean inside minus the parenchyma's median.
    """

    edge_width_mm: float
    rim_gradient_hu_mm: float
    gradient_jump_per_mm2: float
    noise_ratio: float
    cnr: float
    noise_hu: float
    ring_noise_hu: float
    texture_hu: float
    contrast_hu: float


def lesion_region(
    pixels: NDArray[Any], outline: NDArray[np.bool_], *, spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(lesion, parenchyma around it), bool, found from the pixels so that it matters little who drew the outline.

    The lesion is what lies above the half of its step within 2 mm of the outline, in one piece; the parenchyma what
    looks like it from 2 to 8 mm away. Either may be empty.

    Args:
        pixels: HU `[slice, row, column]`, with at least 8 mm around the lesion where the image has them.
        outline: same shape, whoever's.
        spacing_mm: (slice, row, column).
    """
    from scipy.ndimage import binary_fill_holes, distance_transform_edt, label

    outside = distance_transform_edt(~outline, sampling=spacing_mm)
    depth = distance_transform_edt(outline, sampling=spacing_mm)
    around = (outside > RING_MM[0]) & (outside <= RING_MM[1])
    parenchyma = around & (pixels > PARENCHYMA_HU[0]) & (pixels < PARENCHYMA_HU[1])
    level = float(np.median(pixels[parenchyma])) if parenchyma.sum() >= FEWEST_AROUND else TYPICAL_PARENCHYMA_HU
    core = float(np.median(pixels[outline & (depth >= 0.6 * depth.max(initial=0.0))])) if outline.any() else level
    bright = (pixels > (core + level) / 2) & (outside <= OUTLINE_ERROR_MM)
    pieces, count = label(bright)
    if not count or core - level < FAINTEST_STEP_HU:
        return np.zeros_like(outline), parenchyma
    counts = np.bincount(pieces[outline], minlength=count + 1)
    counts[0] = 0
    lesion = pieces == int(counts.argmax())
    return np.stack([binary_fill_holes(plane) for plane in lesion]), parenchyma


def lesion_measures(
    pixels: NDArray[Any], outline: NDArray[np.bool_], *, spacing_mm: tuple[float, float, float]
) -> LesionMeasures:
    """The measures of one lesion; arguments as for `lesion_region`.

    Rays that end in a vessel or the chest wall don't count; nor do slices near the lesion's poles, where its surface
    runs along the slice.
    """
    from scipy.ndimage import binary_erosion

    lesion, parenchyma = lesion_region(pixels, outline, spacing_mm=spacing_mm)
    areas = lesion.sum(axis=(1, 2))
    found = []
    for k in np.flatnonzero((areas > 0) & (areas >= EQUATOR * areas.max(initial=0))):
        rays = edges(pixels[k], lesion[k], spacing_mm=spacing_mm[1:])
        airy = (rays.low > PARENCHYMA_HU[0]) & (rays.low < PARENCHYMA_HU[1])
        found.append(rays.where(airy & (rays.high - rays.low >= FAINTEST_STEP_HU)))
    rim = joined(found)
    enough = len(rim.width_mm) >= FEWEST_RAYS
    inner = binary_erosion(lesion, np.ones((1, 3, 3)))
    values = pixels[inner].astype(np.float64)
    deep = binary_erosion(inner, np.ones((1, 3, 3)))  # clear of the rim's own curvature, where there is enough of it
    measurable, framed = len(values) >= FEWEST_INSIDE, int(parenchyma.sum()) >= FEWEST_AROUND
    inside = noise(pixels, deep if int(deep.sum()) >= FEWEST_DEEP else inner) if measurable else math.nan
    ring_noise = parenchyma_noise(pixels, parenchyma)
    step = float(values.mean() - np.median(pixels[parenchyma])) if len(values) and framed else math.nan
    return LesionMeasures(
        edge_width_mm=float(np.median(rim.width_mm)) if enough else math.nan,
        rim_gradient_hu_mm=float(np.median(rim.slope_per_mm)) if enough else math.nan,
        gradient_jump_per_mm2=float(np.median(rim.jump_per_mm2)) if enough else math.nan,
        noise_ratio=ring_noise / inside if inside > 0 else math.nan,
        cnr=step / ring_noise if ring_noise > 0 else math.nan,
        noise_hu=inside,
        ring_noise_hu=ring_noise,
        texture_hu=float(values.std()) if measurable else math.nan,
        contrast_hu=step,
    )
