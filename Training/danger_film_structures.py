"""Structures of a CT as a radiograph shows them, by rules on Hounsfield units: labels for films projected from CT.

Lungs and trachea are `find_chest_regions`'s. Bone is what is dense and not blood with contrast: within the lungs'
outline nothing counts but the spine, in the abdomen nothing deeper than the ribs lie. The spine is the bone around a
line that follows the midline of what is dense at the back. Mediastinum and heart are what the lungs enclose above the
diaphragm: a plane below the top of the right dome, without the liver's side. Pelvis and hips lie below the crests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import GeometryError, PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.lungs_ct import find_chest_regions
from HiResMedSynthLib.placement.regions_film import STRUCTURES

GRID_MM = 2.0
BONE_HU = 140.0
BLOOD_HU, BLOOD_SPREAD_HU = 200.0, 45.0  # even and brighter: vessels, heart, kidneys with contrast
METAL_HU = 1200.0
MIDLINE_MM = 38.0  # bone farther from the midline is no spine
VERTEBRA_HALF_MM = 26.0  # in front of the arches, where the aorta lies beside it
ARCH_MM, SPINE_MM = 48.0, 88.0  # from the hindmost bone: arches and processes, the whole vertebra
RIB_DEPTH_MM = 42.0  # below the skin, where no lung is
DOME_MM2, ASIDE_MM = 1500.0, 25.0  # liver between the right lung's parts; so far right of the midline
HEART_BELOW_DOME_MM = 22.0
AIR_HU = -600.0
AIRWAY_ASIDE_MM, SMALLEST_AIRWAY_MM3 = 45.0, 800.0
LARGEST_TRACHEA_MM2 = 900.0
WHOLE_AIRWAY_ML = 20.0  # less: found in part; where it was not found nothing is said
CREST_GAP_MM2 = 150.0  # less bone than this beside the spine: between ribs and crests
SACRUM_BELOW_MM = 45.0  # below the crests
SMALLEST_LUNGS_ML = 1500.0  # less: no chest CT, its lungs are cut
LUNG, HEART, RIBS, SPINE_AT, AIRWAY, PELVIS_AT, BODY = range(len(STRUCTURES))


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledVolume:
    """A CT on a 2 mm grid, slices upwards, rows to the back, columns to the patient's left, with its structures.

    Args:
        hu: float32 `[slice, row, column]`, outside the body air (table and clothes are gone).
        masks: bool `[structure, slice, row, column]` in the order of `STRUCTURES`.
        known: bool `[structure, slice]`, where the rule says something of the structure.
        patient: for the split.
    """

    hu: NDArray[np.float32]
    masks: NDArray[np.bool_]
    known: NDArray[np.bool_]
    patient: str


def label_volume(image: MedicalImage, *, patient: str) -> LabelledVolume:
    """The structures of an axial CT of the chest or the abdomen.

    Raises:
        GeometryError: no regular axial volume.
        PlacementError: no body is in it.
    """
    hu = _upright(image)
    body, lungs = _body_and_lungs(hu)
    if not body.any():
        raise PlacementError(f"there is no body in the CT of {patient}", remedy="Give axial CT volumes in HU.")
    hu = np.where(_grown(body, 1), hu, np.float32(-1024))
    dense = _bone(hu, body, lungs)
    spine, middle = _spine(dense, body)
    hull = np.stack([_hull(picture) for picture in lungs])
    chest = lungs.sum() * GRID_MM**3 / 1000 >= SMALLEST_LUNGS_ML
    dome = _dome(hull & ~lungs & body, middle) if chest else len(hu)
    ribs = dense & ~_grown(spine, 1) & ~hull
    ribs[:dome] &= _depth_mm(body)[:dome] < RIB_DEPTH_MM
    masks = np.zeros((len(STRUCTURES), *hu.shape), dtype=bool)
    known = np.ones((len(STRUCTURES), len(hu)), dtype=bool)
    if (crest := _crest(dense & ~spine)) is not None:
        low, sacrum = np.arange(len(hu)) <= crest, np.arange(len(hu)) < crest - SACRUM_BELOW_MM / GRID_MM
        masks[PELVIS_AT, low] = (dense & ~spine)[low]
        masks[PELVIS_AT, sacrum] = dense[sacrum]
        spine[sacrum] = False
        ribs[low] = False
    masks[SPINE_AT], masks[RIBS], masks[BODY] = spine, ribs, body
    if chest:
        lungs = lungs & ~_islands(lungs, middle)
        masks[LUNG] = lungs
        masks[AIRWAY] = _airway(hu, body & ~lungs, middle, spine, dome)
        if masks[AIRWAY].sum() * GRID_MM**3 / 1000 < WHOLE_AIRWAY_ML:
            known[AIRWAY] = masks[AIRWAY].any(axis=(1, 2))
        masks[HEART] = _heart(hull & ~lungs & body & ~ribs & ~masks[AIRWAY], middle, spine, dome)
    else:  # cut lung bases: neither their edge nor the heart's can be told
        top = int(np.argmax(lungs.any(axis=(1, 2)))) if lungs.any() else len(hu)
        known[[LUNG, HEART, AIRWAY], max(top - 10, 0) :] = False
    return LabelledVolume(hu=hu, masks=masks, known=known, patient=patient)


def _upright(image: MedicalImage) -> NDArray[np.float32]:
    """HU on the 2 mm grid, slices from feet to head, rows to the back, columns to the left."""
    from scipy.ndimage import gaussian_filter, zoom

    if image.units != "HU" or image.slices < 2 or image.volume_problem is not None:
        raise GeometryError(
            f"no volume to project: {image.volume_problem or 'one slice, or not in HU'}",
            remedy="Give a CT volume of evenly spaced axial slices.",
        )
    assert image.positions_lps_mm is not None
    travel = image.positions_lps_mm[-1] - image.positions_lps_mm[0]
    signs = (travel[2], image.directions_lps[1][1], image.directions_lps[0][0])
    hu = np.clip(image.pixels, -1024, 3071).astype(np.float32)
    hu = hu[:: 1 if signs[0] > 0 else -1, :: 1 if signs[1] > 0 else -1, :: 1 if signs[2] > 0 else -1]
    sigma = [max(GRID_MM / step - 1, 0) * 0.5 for step in image.spacing_mm]
    return np.asarray(
        zoom(gaussian_filter(hu, sigma), [step / GRID_MM for step in image.spacing_mm], order=1, grid_mode=True,
             mode="nearest"), dtype=np.float32)  # fmt: skip


def _body_and_lungs(hu: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(body, lungs); lungs are empty where there are none."""
    from scipy import ndimage

    try:
        found = find_chest_regions(hu, spacing_mm=(GRID_MM, GRID_MM, GRID_MM))
        body, lungs = found.body, found.lungs
    except PlacementError:
        body = np.stack([ndimage.binary_fill_holes(ndimage.binary_opening(p > -300, iterations=2)) for p in hu])
        lungs = np.zeros_like(body)
    parts, count = ndimage.label(body)
    if count > 1:
        body = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return body, lungs & body


def _bone(hu: NDArray[np.float32], body: NDArray[np.bool_], lungs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Dense tissue outside the lungs that is no blood with contrast, in pieces of half a millilitre or more."""
    from scipy import ndimage

    capped = np.minimum(hu, METAL_HU)
    mean = ndimage.uniform_filter(capped, 5)
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(capped * capped, 5) - mean * mean, 0))
    even = ndimage.binary_opening((mean > BLOOD_HU) & (spread < BLOOD_SPREAD_HU) & (mean < 0.9 * METAL_HU))
    blood = ndimage.binary_dilation(even, iterations=3, mask=hu > BONE_HU)
    dense = (ndimage.gaussian_filter(hu, 0.5) > BONE_HU) & body & ~ndimage.binary_erosion(lungs, iterations=2)
    dense &= ~blood
    parts, _ = ndimage.label(dense, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray((sizes * GRID_MM**3 > 500)[parts])


def _spine(dense: NDArray[np.bool_], body: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(spine, its middle column by slice): bone around the midline, from the hindmost bone as deep as a vertebra."""
    from scipy import ndimage

    slices, rows, columns = dense.shape
    across = np.arange(columns)
    middle = np.array([body[k].any(axis=0).nonzero()[0].mean() if body[k].any() else np.nan for k in range(slices)])
    back = np.full(slices, np.nan)
    for _ in range(3):
        middle = _along(middle)
        for k in range(slices):
            near = dense[k][:, np.abs(across - middle[k]) < 10 / GRID_MM]
            back[k] = near.any(axis=1).nonzero()[0][-1] if near.any() else np.nan
        back = ndimage.maximum_filter1d(_along(back), round(40 / GRID_MM))  # spinous processes alternate with gaps
        for k in range(slices):
            zone = dense[k].copy()
            zone[: max(int(back[k] - ARCH_MM / GRID_MM), 0)] = False
            zone[:, np.abs(across - middle[k]) > 30 / GRID_MM] = False
            if zone.sum() > 20:
                middle[k] = zone.nonzero()[1].mean()
    middle, back = _along(middle), _along(back)
    aside = np.abs(across - middle[:, None])[:, None, :] * GRID_MM
    deep = (back[:, None] - np.arange(rows))[:, :, None] * GRID_MM
    zone = (deep > -12) & (((deep < ARCH_MM) & (aside < MIDLINE_MM)) | ((deep < SPINE_MM) & (aside < VERTEBRA_HALF_MM)))
    padded = np.pad(dense & zone, 6)[6:-6]
    closed = np.stack([ndimage.binary_fill_holes(ndimage.binary_closing(picture, iterations=4)) for picture in padded])
    found = zone & closed[:, 6:-6, 6:-6]
    parts, count = ndimage.label(found)
    if count > 1:
        found = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return found, middle


def _along(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values along the slices with gaps filled, outliers taken out and smoothed over 3 cm."""
    from scipy.ndimage import gaussian_filter1d, median_filter

    there = np.flatnonzero(np.isfinite(values))
    if not len(there):
        return np.zeros_like(values)
    filled = np.interp(np.arange(len(values)), there, values[there])
    return np.asarray(gaussian_filter1d(median_filter(filled, round(30 / GRID_MM), mode="nearest"), 15 / GRID_MM))


def _hull(lungs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The convex outline of the lungs of one slice, lungs included; empty where there are none."""
    import cv2

    filled = np.zeros(lungs.shape, dtype=np.uint8)
    points = np.argwhere(lungs)[:, ::-1].astype(np.int32)
    if len(points) > 10:
        cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled > 0


def _dome(enclosed: NDArray[np.bool_], middle: NDArray[np.float64]) -> int:
    """The slice of the top of the right dome: below it liver lies within the right lung's outline."""
    columns = np.arange(enclosed.shape[2])
    right = enclosed & (columns < middle[:, np.newaxis] - ASIDE_MM / GRID_MM)[:, np.newaxis]
    liver = right.sum(axis=(1, 2)) * GRID_MM**2 > DOME_MM2
    lowest = int(np.argmax(enclosed.any(axis=(1, 2))))
    start = lowest + int(np.argmax(liver[lowest:]))
    if not liver[start:].any() or start > lowest + 60 / GRID_MM:  # the recesses' tips enclose little
        return lowest
    return start + int(np.argmin(liver[start:]))


def _heart(
    enclosed: NDArray[np.bool_], middle: NDArray[np.float64], spine: NDArray[np.bool_], dome: int
) -> NDArray[np.bool_]:
    """What the lungs enclose in front of the spine, the largest piece; below the dome not the liver's side."""
    from scipy import ndimage

    _, rows, columns = enclosed.shape
    front = _along(np.array([s.any(axis=1).argmax() if s.any() else np.nan for s in spine], dtype=np.float64))
    found = enclosed & ~spine & (np.arange(rows) < front[:, np.newaxis] + 15 / GRID_MM)[:, :, np.newaxis]
    found[: max(dome - round(HEART_BELOW_DOME_MM / GRID_MM), 0)] = False
    found[:dome] &= (np.arange(columns) > middle[:dome, np.newaxis] - 15 / GRID_MM)[:, np.newaxis]
    found[:dome] &= (np.arange(rows) < front[:dome, np.newaxis] - 20 / GRID_MM)[:, :, np.newaxis]
    found[:dome] &= _grown(found[dome : dome + 10].any(axis=0), 2)  # the heart, not the left dome beside it
    parts, count = ndimage.label(ndimage.binary_opening(found, iterations=2))
    if count == 0:
        return found
    return found & _grown(parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:])), 3)


def _islands(lungs: NDArray[np.bool_], middle: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Small pieces of "lung" at the midline of a slice: the trachea, where the rule of CT takes it for lung."""
    from scipy import ndimage

    found = np.zeros_like(lungs)
    for k, picture in enumerate(lungs):
        parts, count = ndimage.label(picture)
        for number in range(1, count + 1):
            piece = parts == number
            aside = np.abs(piece.nonzero()[1].mean() - middle[k]) * GRID_MM
            if piece.sum() * GRID_MM**2 < LARGEST_TRACHEA_MM2 and aside < ASIDE_MM:
                found[k] |= piece
    return found


def _airway(
    hu: NDArray[np.float32], tissue: NDArray[np.bool_], middle: NDArray[np.float64], spine: NDArray[np.bool_], dome: int
) -> NDArray[np.bool_]:
    """Trachea and main bronchi with their walls: air near the midline, in front of the spine."""
    from scipy import ndimage

    _, rows, columns = hu.shape
    front = _along(np.array([s.any(axis=1).argmax() if s.any() else np.nan for s in spine], dtype=np.float64))
    air = (hu < AIR_HU) & tissue
    air &= (np.abs(np.arange(columns) - middle[:, np.newaxis]) < AIRWAY_ASIDE_MM / GRID_MM)[:, np.newaxis]
    air &= (np.arange(rows) < front[:, np.newaxis])[:, :, np.newaxis]
    air[: dome + round(20 / GRID_MM)] = False
    parts, _ = ndimage.label(ndimage.binary_opening(air, structure=np.ones((1, 3, 3))))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return _grown((sizes * GRID_MM**3 > SMALLEST_AIRWAY_MM3)[parts], 1) & tissue


def _crest(beside: NDArray[np.bool_]) -> int | None:
    """The slice of the top of the iliac crests: below a gap in the bone beside the spine much comes; None: no gap."""
    from scipy.ndimage import uniform_filter1d

    area = uniform_filter1d(beside.sum(axis=(1, 2)) * GRID_MM**2, 5)
    gaps = [k for k in np.flatnonzero(area < CREST_GAP_MM2) if area[:k].max(initial=0) > 10 * CREST_GAP_MM2]
    return int(gaps[0]) if gaps else None


def _grown(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(mask, iterations=steps))


def _depth_mm(body: NDArray[np.bool_]) -> NDArray[Any]:
    """Distance to the skin, slice by slice, in mm."""
    import cv2

    return np.stack([cv2.distanceTransform(picture.astype(np.uint8), cv2.DIST_L2, 5) for picture in body]) * GRID_MM
