"""Where lesions are likely: the density of real nodules in lung-box coordinates, laid on the lungs of an image."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger import PLEURA_MARGIN, VESSELS, DangerMap
from HiResMedSynthLib.placement.domain import Domain

WHOLE_LUNG_MM = 150.0  # a stack shorter than this can't hold a whole adult lung
CUT_SHARE = 0.35  # a first or last slice with more lung than this share of the largest cuts the lung
FLOOR = 0.05  # of the mean density: no permitted place is impossible
FLANK_MM = (30.0, 120.0)  # kidneys and ureters: distance from the middle of the body


@dataclass(frozen=True, kw_only=True, eq=False)
class LocationPrior:
    """Densities of nodules in the box around both lungs (prior_data/README.md: source, licence, error).

    Args:
        ct: float32 `[24, 24, 24]`, z upwards, y to the back, x to the patient's left.
        cxr: float32 `[32, 32]`, downwards, x to the patient's left.
    """

    ct: NDArray[np.float32]
    cxr: NDArray[np.float32]


@cache
def shipped_prior() -> LocationPrior:
    """The prior that ships with the library."""
    with (files("HiResMedSynthLib.placement") / "prior_data" / "location_prior.npz").open("rb") as handle:
        stored = np.load(handle, allow_pickle=False)
        return LocationPrior(ct=stored["ct"].astype(np.float32), cxr=stored["cxr"].astype(np.float32))


def heatmap(
    image: MedicalImage, danger_map: DangerMap, *, domain: Domain, allow: Collection[str] = ()
) -> NDArray[np.float32]:
    """Probability of a lesion's centre per voxel; float32 `[slice, row, column]`, sums to 1, 0 where forbidden.

    lung-ct: density of 2,320 LIDC nodules through the lung box. Of one slice or a stack that doesn't hold the whole
    lung the height in the lung is unknown: the density summed over heights is taken, in the box of the lung seen.
    cxr: density of nodules boxed on NIH films through the lung box. kub: even over the flanks that are permitted (a
    rule). Every permitted voxel keeps a small probability (`FLOOR`).

    Args:
        image: the background.
        danger_map: its forbidden classes.
        domain: what it shows.
        allow: classes that count as permitted.

    Raises:
        PlacementError: no voxel is permitted.
    """
    permitted = ~danger_map.forbidden(allow)
    if not permitted.any():
        raise PlacementError(
            "no tissue of this image is permitted for a lesion",
            remedy="Take smaller margins, or another slice or background.",
        )
    if domain == "kub":
        heat = _flanks(image, permitted)
    else:
        lungs = danger_map.region((PLEURA_MARGIN, VESSELS))
        heat = _ct_density(image, lungs) if domain == "lung-ct" else _cxr_density(image, lungs)
    heat *= permitted
    heat /= np.float32(heat.sum(dtype=np.float64))
    return heat


def _ct_density(image: MedicalImage, lungs: NDArray[np.bool_]) -> NDArray[np.float32]:
    prior = shipped_prior().ct
    area = lungs.sum(axis=(1, 2))
    seen = np.flatnonzero(area)
    whole = (
        len(seen) > 1
        and (seen[-1] - seen[0] + 1) * image.slice_spacing_mm >= WHOLE_LUNG_MM
        and max(area[0], area[-1]) < CUT_SHARE * area.max()
    )
    upwards, backwards, leftwards = _senses(image)
    rows = _weights(np.asarray(lungs.any(axis=(0, 2))), prior.shape[1], rising=backwards)
    columns = _weights(np.asarray(lungs.any(axis=(0, 1))), prior.shape[2], rising=leftwards)
    heat = np.empty(lungs.shape, dtype=np.float32)
    if whole:
        planes = np.tensordot(_weights(area > 0, prior.shape[0], rising=upwards), prior, axes=1)
    else:
        planes = np.repeat(prior.mean(axis=0, keepdims=True), len(heat), axis=0)
    for index, plane in enumerate(planes):
        heat[index] = rows @ plane @ columns.T + np.float32(FLOOR * prior.mean())
    return heat


def _cxr_density(image: MedicalImage, lungs: NDArray[np.bool_]) -> NDArray[np.float32]:
    prior = shipped_prior().cxr
    rows = _weights(np.asarray(lungs.any(axis=(0, 2))), prior.shape[0], rising=True)
    columns = _weights(np.asarray(lungs.any(axis=(0, 1))), prior.shape[1], rising=True)
    plane = rows @ prior @ columns.T + np.float32(FLOOR * prior.mean())
    return np.repeat(plane[np.newaxis], image.slices, axis=0)


def _flanks(image: MedicalImage, permitted: NDArray[np.bool_]) -> NDArray[np.float32]:
    """1 in the band on both sides of the body's middle where kidneys and ureters lie, `FLOOR` elsewhere."""
    columns = np.flatnonzero(permitted.any(axis=(0, 1)))
    middle = (columns[0] + columns[-1]) / 2
    aside_mm = np.abs(np.arange(image.columns) - middle) * image.spacing_mm[2]
    band = np.where((aside_mm > FLANK_MM[0]) & (aside_mm < FLANK_MM[1]), 1.0, FLOOR).astype(np.float32)
    return np.broadcast_to(band, permitted.shape).copy()


def _senses(image: MedicalImage) -> tuple[bool, bool, bool]:
    """Whether slices rise upwards, rows to the back, columns to the patient's left."""
    assert image.positions_lps_mm is not None
    travel = image.positions_lps_mm[-1] - image.positions_lps_mm[0] if image.slices > 1 else image.normal_lps
    return bool(travel[2] >= 0), bool(image.directions_lps[1, 1] >= 0), bool(image.directions_lps[0, 0] >= 0)


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
