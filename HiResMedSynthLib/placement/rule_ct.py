"""Where a nodule must not go in a chest CT: everything but lung parenchyma, by a rule on Hounsfield units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger import (
    CENTRAL_AIRWAYS,
    CHEST_WALL,
    MEDIASTINUM,
    OUTSIDE_BODY,
    PLEURA_MARGIN,
    VESSELS,
    DangerMap,
)
from HiResMedSynthLib.placement.lungs_ct import ChestRegions, find_chest_regions
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.near import within_mm

METHOD = "rule: thresholds and connectedness in HU"
LUNG_CLASSES = (PLEURA_MARGIN, VESSELS)  # lie inside the lung
VESSEL_HU = -450.0  # on the smoothed picture: vessels from about 2 mm, walls of bronchi, consolidations
SMALLEST_VESSEL_MM2 = 4.0  # smaller specks are noise or vessels that a nodule may cover
LARGEST_LUMEN_MM2 = 120.0  # air enclosed by walls: the lumen of a bronchus
BRONCHUS_HU = -950.0  # on the smoothed picture: air, not parenchyma
BRONCHUS_MM2 = (6.0, 500.0)  # area of a bronchus cut by a slice
WALL_HU = -750.0  # median of a bronchus's surroundings: walls, hilum; emphysema lies in parenchyma
LABELS = {1: OUTSIDE_BODY, 2: CHEST_WALL, 3: MEDIASTINUM, 4: CENTRAL_AIRWAYS, 5: VESSELS, 6: PLEURA_MARGIN}


def danger_lung_ct(image: MedicalImage, *, margins: Margins) -> DangerMap:
    """The danger map of a chest CT: one slice, a few thick ones or a volume.

    The pleura margin is measured in 3-D where slices are closer than the margin, else in the plane. The vessel class
    wins over the pleura margin, so that a lesion which may touch the pleura still keeps off vessels.

    Raises:
        GeometryError: the spacing is unknown.
        PlacementError: no lung is in the image.
    """
    spacing_mm = image.spacing_mm
    regions = find_chest_regions(image.pixels, spacing_mm=spacing_mm)
    labels = np.full(image.shape, 1, dtype=np.uint8)
    labels[regions.body] = 2
    for index in range(image.slices):
        labels[index][_between(regions.lungs[index]) & regions.body[index]] = 3
    labels[regions.lungs] = 0
    vessels = _vessels(regions, spacing_mm)
    pleura = within_mm(~regions.lungs, margins.pleura_mm, spacing_mm=spacing_mm) if margins.pleura_mm else None
    if pleura is not None:
        labels[pleura & regions.lungs] = 6
    labels[within_mm(vessels, margins.vessel_mm, spacing_mm=spacing_mm) & regions.lungs] = 5
    labels[within_mm(regions.airways, margins.vessel_mm, spacing_mm=spacing_mm)] = 4
    return DangerMap(labels=labels, names=LABELS, method=METHOD)


def _between(lungs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of one slice with lung to the left and to the right of them."""
    left = np.logical_or.accumulate(lungs, axis=1)
    right = np.logical_or.accumulate(lungs[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(left & right & ~lungs)


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
        found = keep[parts]
        open_lung = (lungs & ~found).astype(np.uint8)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(open_lung, connectivity=4)
        lumen = stats[:, cv2.CC_STAT_AREA] * pixel_mm2 <= LARGEST_LUMEN_MM2
        lumen[0] = False
        vessels[index] = found | lumen[parts] | _bronchi(lungs, regions.smooth_hu[index], pixel_mm2)
    return vessels


def _bronchi(lungs: NDArray[np.bool_], smooth_hu: NDArray[np.floating], pixel_mm2: float) -> NDArray[np.bool_]:
    """Pools of air in one slice whose surroundings are dense: bronchi that the search for airways missed."""
    import cv2

    found = np.zeros(lungs.shape, dtype=bool)
    air = (lungs & (smooth_hu < BRONCHUS_HU)).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(air, connectivity=4)
    for number in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[number])
        if not BRONCHUS_MM2[0] <= area * pixel_mm2 <= BRONCHUS_MM2[1]:
            continue
        box = (slice(max(top - 4, 0), top + height + 4), slice(max(left - 4, 0), left + width + 4))
        pool = (parts[box] == number).astype(np.uint8)
        around = cv2.dilate(pool, np.ones((7, 7), np.uint8)).astype(bool) & ~cv2.dilate(
            pool, np.ones((3, 3), np.uint8)
        ).astype(bool)
        if around.any() and np.median(smooth_hu[box][around]) > WALL_HU:
            found[box] |= pool.astype(bool)
    return found
