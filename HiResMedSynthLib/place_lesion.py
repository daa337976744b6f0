"""place_shape(shape, ...) -> PlacedLesion: a drawn lesion at a place, its values set against what is found there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
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
    corner = shape.corner_at(anchor)
    here = _Here(corner, *_surroundings(shape, ground, corner))
    asked = request.contrast or request.cnr
    wanted = None if asked is None else asked[0] + shape.contrast_share * (asked[1] - asked[0])
    if wanted is not None and request.cnr is not None:
        wanted *= max(here.noise, 1e-6)
    if ground.is_projection:
        found = _on_film(shape, ground, here, fusion, wanted)
    elif ground.domain == "mr":
        found = _in_mr(shape, ground, here, fusion, wanted or 0.0, noise_rng)
    else:
        found = _in_ct(shape, ground, here, fusion, wanted, noise_rng)
    center = shape.center_at(anchor)
    x, y, z = ground.image.index_to_lps([center])[0]
    return PlacedLesion(
        number=number,
        request=replace(request, place=center, **_model_of(shape)),
        bank_entry=shape.bank_entry,
        origin=shape.origin,
        type=shape.type,
        center=center,
        center_lps_mm=(float(x), float(y), float(z)),
        diameter_mm=shape.diameter_mm,
        contrast=found.contrast,
        cnr=found.contrast / here.noise if here.noise > 0 else 0.0,
        mode=found.mode,
        corner=corner,
        intensity=found.intensity,
        intensity_base=found.base,
        alpha=shape.alpha,
        details={**shape.details, "surroundings": here.level, "noise": here.noise, **found.details},
    )


@dataclass(frozen=True)
class _Here:
    """A place: first voxel of the patch, and of the background around it median, noise, 10th and 90th percentile."""

    corner: Index
    level: float
    noise: float
    between: tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Values:
    """What a lesion is stored as: whole numbers above `base`, how they are joined, and the contrast that this makes."""

    intensity: NDArray[np.int16]
    base: int = 0
    mode: Mode = "blend"
    contrast: float
    details: dict[str, Any] = field(default_factory=dict)


def _on_film(shape: DrawnShape, ground: Ground, here: _Here, fusion: FusionName, wanted: float | None) -> _Values:
    """Line integrals, added to the film; by the paper's way they replace it (Eq. 17). Dense is positive."""
    image = ground.image
    if fusion == "better":
        values, details = cast(
            shape.density, here.corner, ground, lesion_type=shape.type, diameter_mm=shape.diameter_mm,
            share=shape.contrast_share,
        )  # fmt: skip
    else:
        values = shape.density.astype(np.float64) * ground.grey_per_mm_water
        details = {
            "grey_per_mm_water": ground.grey_per_mm_water,
            "contrast_is": "model-derived from the film's grey range",
        }
    sign = 1.0 if image.bright_is_dense else -1.0
    if wanted is not None:
        values = values * (wanted * sign / _contrast(values, shape.mask, 1.0, 0.0))
    values = _within_range(values, image, base=0, added=True)
    replaces = fusion == "paper"  # the lesion then stands on its surroundings' level
    return _Values(
        intensity=_whole(values), base=round(here.level) if replaces else 0, mode="blend" if replaces else "add",
        contrast=sign * _contrast(values, shape.mask, 1.0, 0.0), details=details,
    )  # fmt: skip


def _in_mr(
    shape: DrawnShape, ground: Ground, here: _Here, fusion: FusionName, wanted: float, noise_rng: np.random.Generator
) -> _Values:
    """Signal that differs from its surroundings by what was asked for."""
    values, details = signal(
        shape.density.astype(np.float64), shape.alpha, here.corner, ground, wanted=wanted, level=here.level,
        noise=here.noise, joined_by=fusion, rng=noise_rng,
    )  # fmt: skip
    base = round(here.level)  # an MR may hold values beyond those of int16
    intensity = _whole(_within_range(values - base, ground.image, base=base, added=False))
    contrast = composed_contrast(
        intensity, shape.alpha, here.corner, ground, base=base, level=here.level, joined_by=fusion
    )
    return _Values(
        intensity=intensity, base=base, contrast=contrast, details={**details, "surroundings_from_to": here.between}
    )


def _in_ct(
    shape: DrawnShape,
    ground: Ground,
    here: _Here,
    fusion: FusionName,
    wanted: float | None,
    noise_rng: np.random.Generator,
) -> _Values:
    """HU of the lesion in this lung, moved to the contrast asked for, with this scan's noise where fusion is better."""
    values, details = _with_own_parenchyma(shape.density.astype(np.float64), shape, here.level), {}
    lowest = here.level - GRAIN_SDS * here.noise
    weights = 1.0 if fusion == "paper" else shape.alpha[shape.mask] / ALPHA_ONE  # Eq. 17 replaces, the matte blends
    if wanted is not None:
        drift = wanted - _contrast(values, shape.mask, weights, here.level)
        values = _moved(values, shape.mask, weights, drift, lowest=lowest)
    values = _within_range(values, ground.image, base=0, added=False)
    if fusion == "better":
        before = _contrast(values, shape.mask, weights, here.level)
        values, details["noise_carried"] = fitted(
            values, shape.alpha, here.corner, ground, source_noise_hu=shape.source_noise_hu, noise_hu=here.noise,
            rng=noise_rng,
        )  # fmt: skip
        if wanted is not None:  # vessels that stay at its rim, and chance, must not move a contrast that was asked for
            drift = before - _contrast(values, shape.mask, weights, here.level)
            values = _moved(values, shape.mask, weights, drift, lowest=lowest)
        int16 = np.iinfo(np.int16)
        values = np.clip(values, int16.min, int16.max)  # where little of it shows, noise may pass the image's own range
    return _Values(
        intensity=_whole(values), contrast=_contrast(values, shape.mask, weights, here.level), details=details
    )


def _whole(values: NDArray[np.float64]) -> NDArray[np.int16]:
    return np.floor(values + 0.5).astype(np.int16)


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
