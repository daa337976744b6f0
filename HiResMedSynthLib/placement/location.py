"""Where lesions are likely: the density of real nodules in the lungs' box, of kidney stones by spine and crests."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.choices import Domain
from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.axes import film_leftwards, holds_whole_lung, senses
from HiResMedSynthLib.placement.danger_map import LUNG_CLASSES, DangerMap

FLOOR = 0.05  # of the mean density: no permitted place is impossible


@dataclass(frozen=True, kw_only=True, eq=False)
class LocationPrior:
    """Densities of nodules in the box around both lungs (prior_data/README.md: source, licence, error).

    Args:
        ct: float32 `[24, 24, 24]`, z upwards, y to the back, x to the patient's left.
        cxr: float32 `[32, 32]`, downwards, x to the patient's left.
        kub: float32 `[44, 56]` kidney stones, downwards, x to the patient's left, symmetric.
        kub_box_mm: (above the iliac crests, aside of the spine) of its first and of its last corner.
    """

    ct: NDArray[np.float32]
    cxr: NDArray[np.float32]
    kub: NDArray[np.float32]
    kub_box_mm: NDArray[np.float64]


@cache
def shipped_prior() -> LocationPrior:
    """The prior that ships with the library."""
    with (files("HiResMedSynthLib.placement") / "prior_data" / "location_prior.npz").open("rb") as handle:
        stored = np.load(handle, allow_pickle=False)
        return LocationPrior(
            ct=stored["ct"].astype(np.float32),
            cxr=stored["cxr"].astype(np.float32),
            kub=stored["kub"].astype(np.float32),
            kub_box_mm=stored["kub_box_mm"],
        )


def heatmap(
    image: MedicalImage,
    danger_map: DangerMap,
    *,
    domain: Domain,
    allow: Collection[str] = (),
    local: NDArray[np.float32] | None = None,
    film_density: NDArray[np.float32] | None = None,
    temperature: float = 1.0,
) -> NDArray[np.float32]:
    """Probability of a lesion's centre per voxel; float32 `[slice, row, column]`, sums to 1, 0 where forbidden.

    lung-ct: density of 2,320 LIDC nodules through the lung box. Of one slice or a stack that doesn't hold the whole
    lung the height in the lung is unknown: the density summed over heights is taken, in the box of the lung seen.
    cxr: density of nodules boxed on NIH films through the lung box. kub: density of kidney stones by spine and iliac
    crests, the same on both sides. mr: the same everywhere, for nothing is known. Every permitted voxel keeps a small
    probability (`FLOOR`).

    Args:
        image: the background.
        danger_map: its forbidden classes.
        domain: what it shows.
        allow: classes that count as permitted.
        local: `[slice, row, column]` what a network makes of each place, 0 or more; multiplies the density.
        film_density: `[32, 32]` in the box around both lungs, in place of the shipped one of cxr.
        temperature: the probability is taken to the power of 1 / temperature.

    Raises:
        PlacementError: no voxel is permitted.
    """
    permitted = ~danger_map.forbidden(allow)
    if not permitted.any():
        raise PlacementError(
            "no tissue of this image is permitted for a lesion",
            remedy="Take smaller margins, or another slice or background.",
        )
    if domain == "mr":
        heat = np.ones(image.shape, dtype=np.float32)
    elif domain == "kub":
        heat = _kub_density(image)
    else:
        lungs = danger_map.region(LUNG_CLASSES)
        prior = shipped_prior().cxr if film_density is None else film_density
        heat = _ct_density(image, lungs) if domain == "lung-ct" else _cxr_density(image, lungs, prior)
    heat *= permitted
    if local is not None:
        heat *= local
    if temperature != 1.0:
        heat[permitted] = (heat[permitted] / max(float(heat.max()), 1e-30)) ** np.float32(1 / temperature)
    heat /= np.float32(heat.sum(dtype=np.float64))
    return heat


def _ct_density(image: MedicalImage, lungs: NDArray[np.bool_]) -> NDArray[np.float32]:
    prior = shipped_prior().ct
    upwards, backwards, leftwards = senses(image)
    rows = _weights(np.asarray(lungs.any(axis=(0, 2))), prior.shape[1], rising=backwards)
    columns = _weights(np.asarray(lungs.any(axis=(0, 1))), prior.shape[2], rising=leftwards)
    heat = np.empty(lungs.shape, dtype=np.float32)
    if holds_whole_lung(image, lungs):
        planes = np.tensordot(
            _weights(np.asarray(lungs.any(axis=(1, 2))), prior.shape[0], rising=upwards), prior, axes=1
        )
    else:
        planes = np.repeat(prior.mean(axis=0, keepdims=True), len(heat), axis=0)
    for index, plane in enumerate(planes):
        heat[index] = rows @ plane @ columns.T + np.float32(FLOOR * prior.mean())
    return heat


def _cxr_density(image: MedicalImage, lungs: NDArray[np.bool_], prior: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = _weights(np.asarray(lungs.any(axis=(0, 2))), prior.shape[0], rising=True)
    columns = _weights(np.asarray(lungs.any(axis=(0, 1))), prior.shape[1], rising=film_leftwards(image))
    plane = rows @ prior @ columns.T + np.float32(FLOOR * prior.mean())
    return np.repeat(plane[np.newaxis], image.slices, axis=0)


def _kub_density(image: MedicalImage) -> NDArray[np.float32]:
    from scipy.ndimage import map_coordinates

    from HiResMedSynthLib.placement.rule_kub import find_landmarks

    prior = shipped_prior()
    _, row_mm, column_mm = image.spacing_mm
    film = image.pixels[0].astype(np.float32)
    marks = find_landmarks(film if image.bright_is_dense else -film, pixel_spacing_mm=(row_mm, column_mm))
    down = (np.arange(image.rows)[:, np.newaxis] + 0.5) * row_mm
    spine_mm = marks.spine_top_mm + (marks.spine_bottom_mm - marks.spine_top_mm) * down / (image.rows * row_mm)
    aside = (np.arange(image.columns)[np.newaxis] + 0.5) * column_mm - spine_mm
    (top, left), (bottom, right) = prior.kub_box_mm
    rows = (marks.crest_mm - down - top) / (bottom - top) * prior.kub.shape[0] - 0.5
    columns = (aside - left) / (right - left) * prior.kub.shape[1] - 0.5
    at = np.stack([np.broadcast_to(rows, aside.shape), columns])
    plane = map_coordinates(prior.kub, at, order=1, mode="constant") + np.float32(FLOOR * prior.kub.mean())
    return np.asarray(np.repeat(plane[np.newaxis], image.slices, axis=0), dtype=np.float32)


def _weights(inside: NDArray[np.bool_], bins: int, *, rising: bool) -> NDArray[np.float32]:
    """`[index, bin]` linear interpolation weights of an image axis in a histogram over the span of `inside`."""
    seen = np.flatnonzero(inside)
    first, last = (int(seen[0]), int(seen[-1])) if len(seen) else (0, len(inside) - 1)
    share = (np.arange(len(inside)) - first + 0.5) / (last - first + 1)
    at = np.clip((share if rising else 1 - share) * bins - 0.5, 0, bins - 1)
    low = np.minimum(at.astype(np.int64), bins - 2)
    part = (at - low).astype(np.float32)
    weights = np.zeros((len(inside), bins), dtype=np.float32)
    index = np.arange(len(inside))
    weights[index, low] = 1 - part
    weights[index, low + 1] += part
    return weights
