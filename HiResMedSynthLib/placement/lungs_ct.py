"""Lungs, central airways and body of a chest CT from Hounsfield units, by thresholds and connectedness: a rule."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.placement.regions_ct import ChestRegions

AIR_HU = -400.0  # below: air, lung, gas
GAS_HU = (-975.0, -925.0)  # median of a core below the first: free gas; below the second: gas if it is even
GAS_SPREAD_HU = 22.0  # median minus lower quartile of gas; parenchyma (emphysema too) varies more
SMOOTH_MM = 1.0
WORK_MM = 1.4  # in-plane grid of the connectedness; the border is found again on the full grid
SMALLEST_LUNG_MM2 = 300.0  # in one slice
SMALLEST_LUNG_SHARE = 0.02  # of the largest one, in a volume
LARGEST_AIRWAY_MM2 = 900.0
CLOSING_MM = 7.0  # vessels and small consolidations at the lung's rim belong to the lung


def find_chest_regions(hu: NDArray[Any], *, spacing_mm: tuple[float, float, float]) -> ChestRegions:
    """Body, lungs and central airways of a stack of axial slices (one slice is enough).

    Args:
        hu: `[slice, row, column]` in HU.
        spacing_mm: (slice, row, column).

    Raises:
        PlacementError: no lung is in the image.
    """
    import cv2

    slices, rows, columns = hu.shape
    _, row_mm, column_mm = spacing_mm
    work_rows = max(16, min(rows, round(rows * row_mm / WORK_MM)))
    work_columns = max(16, min(columns, round(columns * column_mm / WORK_MM)))
    work_mm = (spacing_mm[0], row_mm * rows / work_rows, column_mm * columns / work_columns)
    smooth = np.empty(hu.shape, dtype=np.int16)
    small = np.empty((slices, work_rows, work_columns), dtype=np.int16)
    for index in range(slices):
        picture = smoothed(hu[index], (row_mm, column_mm))
        smooth[index] = np.rint(picture)
        small[index] = np.rint(cv2.resize(picture, (work_columns, work_rows), interpolation=cv2.INTER_AREA))
    body = np.stack([_body(picture, work_mm) for picture in small])
    air = (small < AIR_HU) & body
    lungs, airways = _lungs_and_airways(air, small, work_mm)
    if not lungs.any():
        raise no_lung()
    full_lungs = np.empty(hu.shape, dtype=bool)
    full_body = np.empty(hu.shape, dtype=bool)
    full_airways = np.empty(hu.shape, dtype=bool)
    for index in range(slices):
        wide = _enlarge(lungs[index], rows, columns)
        fringe = cv2.dilate(wide, np.ones((5, 5), np.uint8))
        near = (fringe > 0) & (smooth[index] < AIR_HU)  # the true border, on the full grid
        full_airways[index] = _enlarge(airways[index], rows, columns) > 0
        seed = ((wide > 0) | near) & ~full_airways[index]
        full_lungs[index] = _close(seed, CLOSING_MM, row_mm, column_mm) & ~full_airways[index]
        full_body[index] = (_enlarge(body[index], rows, columns) > 0) | full_lungs[index]
    return ChestRegions(smooth_hu=smooth, body=full_body, lungs=full_lungs, airways=full_airways)


def no_lung(own_model: str = "") -> PlacementError:
    """The error of an image without lung; `own_model`: the user's own one that found none either."""
    return PlacementError(
        f"no lung was found in this image, by the model '{own_model}' or by the rule"
        if own_model
        else "no lung was found in this image",
        remedy="Is it a chest CT in HU, with the lungs in view? Take another slice, or say what it shows with "
        "--domain.",
    )


def smoothed(hu: NDArray[Any], mm: tuple[float, float]) -> NDArray[np.float32]:
    """One slice `[row, column]` in HU, smoothed by a millimetre; `mm`: (row, column) spacing."""
    import cv2

    picture = np.clip(hu, -1024, 3071).astype(np.float32)  # padding of -2048 or -3024 is air
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigmaX=SMOOTH_MM / mm[1], sigmaY=SMOOTH_MM / mm[0]))


def _enlarge(mask: NDArray[np.bool_], rows: int, columns: int) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.resize(mask.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST))


def _disc(radius_mm: float, row_mm: float, column_mm: float) -> NDArray[np.uint8]:
    import cv2

    size = (2 * max(1, round(radius_mm / column_mm)) + 1, 2 * max(1, round(radius_mm / row_mm)) + 1)
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size))


def _close(mask: NDArray[np.bool_], radius_mm: float, row_mm: float, column_mm: float) -> NDArray[np.bool_]:
    """Closing by a disc, then holes filled; the picture's border is no wall."""
    import cv2

    if not mask.any():
        return mask
    disc = _disc(radius_mm, row_mm, column_mm)
    pad = max(disc.shape)
    box = bounding_box(mask, 1)  # no closing leaves it, no hole touches it
    padded = cv2.copyMakeBorder(mask[box].astype(np.uint8), pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    closed = np.zeros_like(mask)
    closed[box] = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc)[pad:-pad, pad:-pad]
    closed[box] = fill_holes(closed[box], 600.0 / (row_mm * column_mm))
    return closed


def fill_holes(mask: NDArray[np.bool_], largest_px: float) -> NDArray[np.bool_]:
    """The mask of one slice with its enclosed holes up to `largest_px` pixels filled."""
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    rows, columns = mask.shape
    left, top, width, height, area = (stats[:, k] for k in range(5))
    touches = (left == 0) | (top == 0) | (left + width == columns) | (top + height == rows)
    hole = ~touches & (area <= largest_px)
    hole[0] = False
    return mask | hole.take(labels) if count > 1 else mask


def _body(hu: NDArray[np.int16], spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """The patient of one slice: the largest dense part without table and clothes, with all that it encloses."""
    import cv2

    _, row_mm, column_mm = spacing_mm
    dense = cv2.morphologyEx((hu > -300).astype(np.uint8), cv2.MORPH_OPEN, _disc(4.0, row_mm, column_mm))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dense, connectivity=4)
    if count < 2:
        return np.zeros(hu.shape, dtype=bool)
    trunk = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    outline, _ = cv2.findContours(trunk.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(hu.shape, dtype=np.uint8)
    cv2.drawContours(filled, outline, -1, 1, thickness=cv2.FILLED)
    return filled > 0


def _lungs_and_airways(
    air: NDArray[np.bool_], hu: NDArray[np.int16], spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(lungs, central airways) among the enclosed air, on the work grid."""
    import cv2
    from scipy import ndimage

    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    airways = np.zeros(air.shape, dtype=bool)
    parenchyma = np.zeros(air.shape, dtype=bool)
    opening = _disc(2.0, spacing_mm[1], spacing_mm[2])
    for index, picture in enumerate(air):
        parted = cv2.morphologyEx(picture.astype(np.uint8), cv2.MORPH_OPEN, opening)
        count, labels, stats, centres = cv2.connectedComponentsWithStats(parted, connectivity=4)
        cores = cv2.erode(parted, opening) > 0
        for part in range(1, count):
            area_mm2 = stats[part, cv2.CC_STAT_AREA] * pixel_mm2
            if area_mm2 < 30:
                continue
            box = _box(stats[part])
            inside = labels[box] == part
            core = inside & cores[box]
            low, level = np.percentile(hu[index][box][core if core.any() else inside], [25, 50])
            gas = level < GAS_HU[0] or (level < GAS_HU[1] and level - low < GAS_SPREAD_HU)
            width, height = stats[part, cv2.CC_STAT_WIDTH], stats[part, cv2.CC_STAT_HEIGHT]
            compact = stats[part, cv2.CC_STAT_AREA] > 0.5 * width * height
            if gas or (level < -880 and compact and area_mm2 < LARGEST_AIRWAY_MM2):
                if area_mm2 < LARGEST_AIRWAY_MM2 and _is_between(air[index], centres[part]):
                    airways[index][box] |= inside
            elif area_mm2 >= 60:
                parenchyma[index][box] |= inside
    if not parenchyma.any():
        return parenchyma, airways
    held = bounding_box(parenchyma)
    labels, count = ndimage.label(parenchyma[held])
    sizes = np.sum([np.bincount(picture.ravel(), minlength=count + 1) for picture in labels], axis=0)
    sizes[0] = 0
    thickest = int(np.count_nonzero(parenchyma.any(axis=(1, 2))))
    smallest = max(SMALLEST_LUNG_SHARE * sizes.max(), SMALLEST_LUNG_MM2 / pixel_mm2 * (1 if thickest < 4 else 3))
    keep = sizes >= smallest
    keep[0] = False
    for picture, numbers in zip(parenchyma[held], labels, strict=True):
        picture[:] = keep.take(numbers)
    return parenchyma, airways


def _box(stats: NDArray[np.int32]) -> tuple[slice, slice]:
    left, top, width, height = (int(value) for value in stats[:4])
    return slice(top, top + height), slice(left, left + width)


def _is_between(air: NDArray[np.bool_], centre: NDArray[np.float64]) -> bool:
    """Whether enclosed air lies on both sides of a point: between the lungs, not bowel gas below them."""
    columns = np.flatnonzero(air.any(axis=0))
    return len(columns) > 0 and bool(columns[0] + 5 < centre[0] < columns[-1] - 5)
