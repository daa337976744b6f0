"""What a chest CT shows, by rule or by network, and the danger map that follows from it: the same step for both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.placement.danger_map import (
    CENTRAL_AIRWAYS,
    CHEST_WALL,
    CONSOLIDATION,
    MEDIASTINUM,
    OUTSIDE_BODY,
    PLEURA_MARGIN,
    VESSELS,
    DangerMap,
)
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.near import within_mm

SOFT_WALL = "chest wall or abdomen"
HEART = "mediastinum and heart"
BONE = "bone and spine"

VESSEL_HU = -450.0  # on the smoothed picture: vessels from about 2 mm, walls of bronchi, consolidations
SMALLEST_VESSEL_MM2 = 4.0  # smaller specks are noise or vessels that a nodule may cover
LARGEST_LUMEN_MM2 = 120.0  # air enclosed by walls: the lumen of a bronchus
BRONCHUS_HU = -950.0  # on the smoothed picture: air, not parenchyma
BRONCHUS_MM2 = (6.0, 500.0)  # area of a bronchus cut by a slice
WALL_HU = -750.0  # median of a bronchus's surroundings: walls, hilum; emphysema lies in parenchyma
RIM_MM = 1.5  # the blur of a border: what is dense within it and nowhere deeper is wall
SOLID_HU = -250.0  # on the smoothed picture: consolidation and effusion; ground glass lies below
AROUND_PX = 4  # about the lungs: as far as the surroundings of bronchi go
SOLID_RADIUS_MM = 7.0  # a dense region that holds a disc of this radius is no vessel
MASKS = ("body", "lungs", "airways", "bone", "mediastinum")  # of `ChestRegions`
LABELS_OF_RULE = {1: OUTSIDE_BODY, 2: CHEST_WALL, 3: MEDIASTINUM, 4: CENTRAL_AIRWAYS, 5: VESSELS, 6: PLEURA_MARGIN}
LABELS_OF_NETWORK = {**LABELS_OF_RULE, 2: SOFT_WALL, 3: HEART, 7: BONE, 8: CONSOLIDATION}


@dataclass(frozen=True, kw_only=True, eq=False)
class ChestRegions:
    """Masks `[slice, row, column]` of a chest CT.

    Args:
        smooth_hu: int16, smoothed in the plane.
        body: patient, lungs included.
        lungs: both lungs with the vessels inside them; the network's also with what fills the pleural cavity.
        airways: trachea and main bronchi outside the lungs.
        bone, mediastinum: None where they are not told apart from the rest of the body (the rule).
    """

    smooth_hu: NDArray[np.int16]
    body: NDArray[np.bool_]
    lungs: NDArray[np.bool_]
    airways: NDArray[np.bool_]
    bone: NDArray[np.bool_] | None = None
    mediastinum: NDArray[np.bool_] | None = None

    def slices(self, first: int, last: int) -> ChestRegions:
        """The same of slices `first` to `last` (exclusive); views."""
        return self.part((slice(first, last),))

    def part(self, box: tuple[slice, ...]) -> ChestRegions:
        """The same of a box; views."""
        held = {name: getattr(self, name) for name in ("smooth_hu", *MASKS)}
        return replace(self, **{name: array[box] for name, array in held.items() if array is not None})


def components(
    mask: NDArray[Any], *, connectivity: int, around_px: int = 0
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.bool_], int]]:
    """The connected components of one slice: of each (box, component within that box, its area in pixels).

    Args:
        mask: bool or uint8 `[row, column]`.
        connectivity: 4 or 8.
        around_px: by which the boxes are wider on each side, as far as the slice goes.
    """
    import cv2

    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)
    for number in range(1, count):
        left, top, width, height, area = stats[number].tolist()
        box = (
            slice(max(top - around_px, 0), top + height + around_px),
            slice(max(left - around_px, 0), left + width + around_px),
        )
        yield box, parts[box] == number, area


def danger_of_regions(
    regions: ChestRegions, *, spacing_mm: tuple[float, float, float], margins: Margins, method: str
) -> DangerMap:
    """The danger map of what was found: everything but lung parenchyma is forbidden.

    The pleura margin is measured in 3-D where slices are closer than the margin, else in the plane. The vessel class
    wins over the pleura margin, so that a lesion which may touch the pleura still keeps off vessels; what is dense
    only along the border is the wall, blurred, and stays pleura margin. Large dense parts of the lung are a class of
    their own where bone and mediastinum are told apart (the network); the rule's lungs have none.
    """
    named = regions.mediastinum is not None and regions.bone is not None
    labels = np.full(regions.lungs.shape, 1, dtype=np.uint8)
    for index, body in enumerate(regions.body):
        between = regions.mediastinum[index] if regions.mediastinum is not None else _between(regions.lungs[index])
        np.copyto(labels[index], 2, where=body)
        np.copyto(labels[index], 3, where=between & body)
        if regions.bone is not None:
            np.copyto(labels[index], 7, where=regions.bone[index])
    if regions.lungs.any():
        # what lies nearest to a lung voxel of all that isn't lung lies within it
        box = bounding_box(regions.lungs, (1, AROUND_PX, AROUND_PX))
        _label_lungs(labels[box], regions.part(box), spacing_mm, margins, find_solid=named)
    np.copyto(labels, 4, where=within_mm(regions.airways, margins.vessel_mm, spacing_mm=spacing_mm))
    return DangerMap(labels=labels, names=LABELS_OF_NETWORK if named else LABELS_OF_RULE, method=method)


def _label_lungs(
    labels: NDArray[np.uint8],
    regions: ChestRegions,
    spacing_mm: tuple[float, float, float],
    margins: Margins,
    *,
    find_solid: bool,
) -> None:
    """Writes the classes within the lungs into `labels`."""
    lungs = regions.lungs
    np.copyto(labels, 0, where=lungs)
    vessels = _vessels(regions, spacing_mm)
    pleura = within_mm(~lungs, margins.pleura_mm, spacing_mm=spacing_mm) if margins.pleura_mm else None
    if pleura is not None:
        np.copyto(labels, 6, where=pleura & lungs)
    if find_solid:
        solid = _solid(regions, spacing_mm)
        vessels &= ~solid
        np.copyto(labels, 8, where=within_mm(solid, margins.vessel_mm, spacing_mm=spacing_mm) & lungs)
    near_vessels = within_mm(vessels, margins.vessel_mm, spacing_mm=spacing_mm) & lungs
    if pleura is not None:
        inner = _off_the_rim(vessels, lungs, spacing_mm)
        near_vessels &= ~pleura | within_mm(inner, margins.vessel_mm, spacing_mm=spacing_mm)
    np.copyto(labels, 5, where=near_vessels)


def _between(lungs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of one slice with lung to the left and to the right of them."""
    left = np.logical_or.accumulate(lungs, axis=1)
    right = np.logical_or.accumulate(lungs[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(left & right & ~lungs)


def _solid(regions: ChestRegions, spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Parts of the lungs, dense and wider than vessels: consolidation, effusion, masses."""
    import cv2

    _, row_mm, column_mm = spacing_mm
    size = tuple(2 * max(1, round(SOLID_RADIUS_MM / mm)) + 1 for mm in (column_mm, row_mm))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size)
    solid = np.zeros(regions.lungs.shape, dtype=bool)
    for index in range(len(solid)):
        dense = (regions.lungs[index] & (regions.smooth_hu[index] > SOLID_HU)).astype(np.uint8)
        if dense.sum() < 0.7 * disc.sum():
            continue
        core = cv2.morphologyEx(dense, cv2.MORPH_OPEN, disc)
        # its rim too, which the opening rounds off, but not the vessels that leave it
        solid[index] = dense.astype(bool) & (cv2.dilate(core, np.ones((5, 5), np.uint8)) > 0)
    return solid


def _vessels(regions: ChestRegions, spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Dense structures inside the lungs, and the lumens that they enclose."""
    import cv2

    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    vessels = np.zeros(regions.lungs.shape, dtype=bool)
    for index in range(len(vessels)):
        lungs = regions.lungs[index]
        if not lungs.any():
            continue
        dense = (lungs & (regions.smooth_hu[index] > VESSEL_HU)).astype(np.uint8)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(dense, connectivity=8)
        keep = stats[:, cv2.CC_STAT_AREA] * pixel_mm2 >= SMALLEST_VESSEL_MM2
        keep[0] = False
        found = keep.take(parts)
        open_lung = (lungs & ~found).astype(np.uint8)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(open_lung, connectivity=4)
        lumen = stats[:, cv2.CC_STAT_AREA] * pixel_mm2 <= LARGEST_LUMEN_MM2
        lumen[0] = False
        vessels[index] = found | lumen.take(parts) | _bronchi(lungs, regions.smooth_hu[index], pixel_mm2)
    return vessels


def _off_the_rim(
    vessels: NDArray[np.bool_], lungs: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """The vessels without what is dense along the lungs' border and nowhere deeper."""
    import cv2

    size = tuple(2 * max(1, round(RIM_MM / mm)) + 1 for mm in (spacing_mm[2], spacing_mm[1]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size)
    found = np.zeros(vessels.shape, dtype=bool)
    for index in np.flatnonzero(vessels.any(axis=(1, 2))):
        inside = cv2.erode(lungs[index].astype(np.uint8), disc, borderValue=0) > 0
        deeper = (vessels[index] & inside).astype(np.uint8)
        found[index] = vessels[index] & (cv2.dilate(deeper, disc) > 0)
    return found


def _bronchi(lungs: NDArray[np.bool_], smooth_hu: NDArray[np.int16], pixel_mm2: float) -> NDArray[np.bool_]:
    """Pools of air in one slice whose surroundings are dense: bronchi that the search for airways missed."""
    import cv2

    found = np.zeros(lungs.shape, dtype=bool)
    for box, pool, area in components(lungs & (smooth_hu < BRONCHUS_HU), connectivity=4, around_px=AROUND_PX):
        if not BRONCHUS_MM2[0] <= area * pixel_mm2 <= BRONCHUS_MM2[1]:
            continue
        seen = pool.view(np.uint8)
        around = cv2.dilate(seen, np.ones((7, 7), np.uint8)) > cv2.dilate(seen, np.ones((3, 3), np.uint8))
        if around.any() and np.median(smooth_hu[box][around]) > WALL_HU:
            found[box] |= pool
    return found
