"""place_shape(shape, ...) -> PlacedLesion: a drawn lesion at a place, its values set against what is found there."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import measure
from HiResMedSynthLib.case import LesionRequest, Mode, PlacedLesion
from HiResMedSynthLib.choices import FusionName
from HiResMedSynthLib.draw_lesion import DrawnShape
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.fusion import ALPHA_ONE
from HiResMedSynthLib.ground import Ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.lesion_in_mr import composed_contrast, signal
from HiResMedSynthLib.lesion_in_scan import fitted
from HiResMedSynthLib.lesion_on_film import cast

Index = tuple[int, int, int]
AIRY_HU = (-600.0, -200.0)  # below the first a lesion's voxel is mostly lung, above the second mostly tissue
HALVINGS = 40  # of a few thousand HU: to less than a millionth
GRAIN_SDS = 1.0  # SDs of the noise that a lesion, before it has its noise, may lie below its surroundings
RING_MM = (1.5, 6.0)  # surroundings of a lesion: this far outside its footprint


def place_shape(
    shape: DrawnShape,
    ground: Ground,
    *,
    number: int,
    request: LesionRequest,
    anchor: Index,
    fusion: FusionName,
    noise_rng: np.random.Generator,
) -> PlacedLesion:
    """The lesion at `anchor`, its values set against the surroundings and the noise found there.

    The place must already be permitted: the patch has to lie inside the image. `noise_rng` is the stream that its
    noise is drawn from (fusion better, in a CT or MR).

    Raises:
        SettingsError: a CNR on a radiograph.
    """
    if request.cnr is not None and ground.is_projection:
        raise SettingsError(
            "a CNR says nothing on a radiograph: anatomy hides a lesion there, not the noise",
            remedy="Give the contrast in stored values (--contrast), or leave it to the lesion.",
        )
    image = ground.image
    corner = shape.corner_at(anchor)
    surroundings, noise, between = _surroundings(shape, ground, corner)
    details = dict(shape.details, surroundings=surroundings, noise=noise)
    values: NDArray[np.float64] = shape.density.astype(np.float64)
    level, base = (0.0 if ground.is_projection else surroundings), 0
    asked = request.contrast or request.cnr
    wanted = 0.0 if asked is None else asked[0] + shape.contrast_share * (asked[1] - asked[0])
    wanted *= max(noise, 1e-6) if request.cnr is not None else 1.0
    if ground.is_projection and fusion == "better":
        values, told = cast(
            shape.density, corner, ground, lesion_type=shape.type, diameter_mm=shape.diameter_mm,
            share=shape.contrast_share,
        )  # fmt: skip
        details |= told
    elif ground.is_projection:
        values = values * ground.grey_per_mm_water
        details["grey_per_mm_water"] = ground.grey_per_mm_water
        details["contrast_is"] = "model-derived from the film's grey range"
    elif ground.domain == "mr":
        values, told = signal(
            values, shape.alpha, corner, ground, wanted=wanted, level=level, noise=noise, joined_by=fusion,
            rng=noise_rng,
        )  # fmt: skip
        details |= {**told, "surroundings_from_to": between}
        base = round(surroundings)  # an MR may hold values beyond those of int16
        values, level = values - base, level - base
    else:
        values = _with_own_parenchyma(values, shape, surroundings)
    lowest = level - GRAIN_SDS * noise
    # Eq. 17 replaces and films add, only the matte blends
    weights = shape.alpha[shape.mask] / ALPHA_ONE if not ground.is_projection and fusion != "paper" else 1.0
    if asked is not None and ground.domain != "mr":
        contrast = _contrast(values, shape.mask, weights, level)
        if ground.is_projection:
            values = values * (wanted * (1.0 if image.bright_is_dense else -1.0) / contrast)
        else:
            values = _moved(values, shape.mask, weights, wanted - contrast, lowest=lowest)
    values = _within_range(values, image, base=base, added=ground.is_projection)
    if fusion == "better" and ground.domain == "lung-ct":
        before = _contrast(values, shape.mask, weights, level)
        values, details["noise_carried"] = fitted(
            values, shape.alpha, corner, ground, source_noise_hu=shape.source_noise_hu, noise_hu=noise, rng=noise_rng
        )
        if asked is not None:  # vessels that stay at its rim, and chance, must not move a contrast that was asked for
            drift = before - _contrast(values, shape.mask, weights, level)
            values = _moved(values, shape.mask, weights, drift, lowest=lowest)
        int16 = np.iinfo(np.int16)
        values = np.clip(values, int16.min, int16.max)  # where little of it shows, noise may pass the image's own range
    intensity = np.floor(values + 0.5).astype(np.int16)
    if ground.domain == "mr":
        contrast = composed_contrast(
            intensity, shape.alpha, corner, ground, base=base, level=surroundings, joined_by=fusion
        )
    else:
        contrast = _contrast(values, shape.mask, weights, level)
    if ground.is_projection and not image.bright_is_dense:  # dense is positive, as contrasts are asked for
        contrast = -contrast
    mode: Mode = "add" if ground.is_projection else "blend"
    if ground.is_projection and fusion == "paper":
        mode, base = "blend", round(surroundings)  # Eq. 17 replaces: the lesion stands on its surroundings' level
    center = shape.center_at(anchor)
    x, y, z = image.index_to_lps([center])[0]
    return PlacedLesion(
        number=number,
        request=replace(request, place=center, **_model_of(shape)),
        bank_entry=shape.bank_entry,
        origin=shape.origin,
        type=shape.type,
        center=center,
        center_lps_mm=(float(x), float(y), float(z)),
        diameter_mm=shape.diameter_mm,
        contrast=contrast,
        cnr=contrast / noise if noise > 0 else 0.0,
        mode=mode,
        corner=corner,
        intensity=intensity,
        intensity_base=base,
        alpha=shape.alpha,
        details=details,
    )


def _with_own_parenchyma(values: NDArray[np.float64], shape: DrawnShape, surroundings: float) -> NDArray[np.float64]:
    """HU of the lesion with its airy part moved by the difference between the two lungs.

    Ground glass is parenchyma with something added: in a denser lung it is denser too. Soft tissue stays as it is.
    """
    if shape.source_background_hu is None:
        return values
    airy = np.clip((AIRY_HU[1] - values) / (AIRY_HU[1] - AIRY_HU[0]), 0.0, 1.0)
    return np.asarray(values + airy * (surroundings - shape.source_background_hu))


def _contrast(
    values: NDArray[np.float64], mask: NDArray[np.bool_], weights: NDArray[np.float64] | float, level: float
) -> float:
    """Mean difference to the surroundings as it will be composed, over the mask."""
    return float(np.mean(weights * (values[mask] - level)))


def _moved(
    values: NDArray[np.float64],
    mask: NDArray[np.bool_],
    weights: NDArray[np.float64] | float,
    by: float,
    *,
    lowest: float,
) -> NDArray[np.float64]:
    """The values moved so that their weighted mean over the mask moves by so much, none that wasn't to below `lowest`.

    Moved all by the same, the soft rim of a calcified lesion would be darker than lung where little contrast is asked.
    """
    floor = np.minimum(values, lowest)
    moved = values + by / np.mean(weights)
    if (moved >= floor).all():
        return moved
    target = float(np.mean(weights * values[mask])) + by
    low, high = float(lowest - values.max()), 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if np.mean(weights * np.maximum(values[mask] + middle, floor[mask])) > target:
            high = middle
        else:
            low = middle
    return np.maximum(values + (low + high) / 2, floor)


def _within_range(values: NDArray[np.float64], image: MedicalImage, *, base: int, added: bool) -> NDArray[np.float64]:
    """The values above `base` cut to what the image (or, where they are added, its span) and int16 can hold."""
    low, high = (limit - base for limit in image.value_limits)
    if added:
        low, high = low - high, high - low
    int16 = np.iinfo(np.int16)
    return np.clip(values, max(low, int16.min), min(high, int16.max))


def _model_of(shape: DrawnShape) -> dict[str, Any]:
    """The fields of a request that pin the model which drew this shape."""
    used = shape.details.get("generator")
    return {} if used is None else {"model": used["model"], "model_sha256": used["model_sha256"]}


def _surroundings(shape: DrawnShape, ground: Ground, corner: Index) -> tuple[float, float, tuple[float, float]]:
    """(median, noise, 10th and 90th percentile) of the background around the lesion, in pixel units."""
    image = ground.image
    spacing = image.spacing_mm
    reach = [
        0 if image.slices == 1 else 1,
        math.ceil(RING_MM[1] / spacing[1]) + 1,
        math.ceil(RING_MM[1] / spacing[2]) + 1,
    ]
    low = [max(c - r, 0) for c, r in zip(corner, reach, strict=True)]
    high = [
        min(c + size + r, limit)
        for c, size, r, limit in zip(corner, shape.alpha.shape, reach, image.shape, strict=True)
    ]
    around = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    inside = tuple(slice(c - a, c - a + n) for c, a, n in zip(corner, low, shape.alpha.shape, strict=True))
    footprint = np.zeros([b - a for a, b in zip(low, high, strict=True)], dtype=bool)
    footprint[inside] = shape.footprint
    pixels = image.pixels[around]
    ring = measure.ring(footprint, spacing_mm=spacing, inner_mm=RING_MM[0], outer_mm=RING_MM[1])
    tissue = ring & ~ground.forbidden_in(around, shape.allow)
    usable = tissue if tissue.sum() >= 30 else ring if ring.any() else np.ones_like(footprint)
    darker, brighter = (float(value) for value in np.percentile(pixels[usable], [10, 90]))
    return float(np.median(pixels[usable])), float(measure.noise(pixels, usable)), (darker, brighter)
