"""Regions of a chest CT named by a network, slice by slice on a coarse grid, with the lung's border found by HU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.placement.network import to_unit
from HiResMedSynthLib.placement.regions_ct import MASKS, ChestRegions, components

if TYPE_CHECKING:
    from HiResMedSynthLib.placement.network import PlacementNetwork

CLASSES = (
    "outside the body",
    "chest wall or abdomen",
    "bone and spine",
    "mediastinum and heart",
    "trachea and main bronchi",
    "lung, with what fills it",
)
OUTSIDE, WALL, BONE, MEDIASTINUM, AIRWAY, LUNG = range(len(CLASSES))
TASK = "danger-ct"
FACTS = {"pixel_mm": 2.1, "low_hu": -1024.0, "high_hu": 600.0}
SMALLEST_PX = 64  # of a picture on the grid; smaller ones (crops) lie in a frame of air
MIRRORED_PX = 32  # of a picture on the grid; larger ones go on beyond their border as in a mirror
AIR_HU = -400.0
WALL_HU = -700.0  # the rim of an airway is denser, that of parenchyma isn't
BORDER_MM = 2.5  # how far the network's border of the lung may be moved by HU
CLOSING_MM = 5.0  # vessels that the border cut off
PATIENT_SHARE = 0.25  # of the largest piece's area: smaller pieces of tissue are table, cushions, hands
OPEN_SHARE = 0.2  # of the rim of a piece of lung that may touch what is outside the body
GAS_HU = -975.0  # median of the air of a piece of lung; below it is free gas, as for the rule
SMALLEST_LUNG_MM2 = 50.0  # a speck of lung in one slice
FAT_HU = (-150.0, -50.0)  # on the smoothed picture; consolidation and effusion lie above, ground glass below
FAT_BLUR_HU = (-190.0, -10.0)  # what belongs to fat beside it
FAT_RADIUS_MM = 2.0  # of a disc that fat holds: the rim of a consolidation passes through its HU
LEAST_FAT_MM2 = 400.0  # in one slice; smaller patches occur in diseased lungs


def refuse_other_task(network: PlacementNetwork) -> None:
    """Refuses a network that names something else than the regions of a chest CT.

    Raises:
        PlacementError.
    """
    if network.plan.task != TASK or network.plan.classes != CLASSES:
        raise PlacementError(
            f"the network '{network.name}' is for {network.plan.task}, not for {TASK}",
            remedy="Give one trained by python -m Training.train_danger --domain lung-ct.",
        )


def name_slices(
    hu: NDArray[Any], smooth_hu: NDArray[np.int16], *, mm: tuple[float, float], network: PlacementNetwork
) -> ChestRegions:
    """Body, lungs, airways, bone and mediastinum of a few axial slices, one by one; there may be no lung in them.

    Args:
        hu: `[slice, row, column]` in HU.
        smooth_hu: the same by `smoothed`.
        mm: (row, column) spacing.
        network: of task "danger-ct".
    """
    _, rows, columns = hu.shape
    masks = {name: np.zeros(hu.shape, dtype=bool) for name in MASKS}
    reach_px = [side // 2 + 1 for side in _disc(BORDER_MM, mm).shape]  # beyond it nothing becomes lung or airway
    pictures = [np.clip(picture, -1024, 3071).astype(np.float32) for picture in hu]
    for index, logits in enumerate(_logits(pictures, mm, network)):
        named = _argmax(logits, rows, columns)
        if max(logits.shape[1:]) < MIRRORED_PX:
            _name_lung_by_hu(named, smooth_hu[index])
        _name_things_outside(named)
        inside = _is_one_of(named, LUNG, AIRWAY)
        lungs = masks["lungs"][index]
        if inside.any():
            box = bounding_box(inside, reach_px)
            _name_foam_outside(named[box])
            lungs[box], masks["airways"][index][box] = _lungs_and_airways(named[box], smooth_hu[index][box], mm)
        masks["body"][index] = (named != OUTSIDE) | lungs
        masks["bone"][index] = (named == BONE) & ~lungs
        masks["mediastinum"][index] = (named == MEDIASTINUM) & ~lungs
    return ChestRegions(smooth_hu=smooth_hu, **masks)


def _lungs_and_airways(
    named: NDArray[np.uint8], smooth_hu: NDArray[np.int16], mm: tuple[float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(lungs, airways) of one slice by its classes and HU."""
    lungs = _refined_lungs(named, smooth_hu, mm)
    lungs &= ~_fat(lungs, smooth_hu, mm)
    airways, parenchyma = _airways(named, smooth_hu, lungs, mm)
    return lungs | parenchyma, airways


def to_grid(hu: NDArray[np.float32], mm: tuple[float, float], pixel_mm: float) -> NDArray[np.float32]:
    """One slice `[row, column]` resampled to square pixels of `pixel_mm`."""
    import cv2

    size = (max(1, round(hu.shape[1] * mm[1] / pixel_mm)), max(1, round(hu.shape[0] * mm[0] / pixel_mm)))
    finer = size[0] < hu.shape[1] and size[1] < hu.shape[0]
    return np.asarray(cv2.resize(hu, size, interpolation=cv2.INTER_AREA if finer else cv2.INTER_LINEAR))


def _logits(
    part: list[NDArray[np.float32]], mm: tuple[float, float], network: PlacementNetwork
) -> list[NDArray[np.float32]]:
    """`[class, row, column]` on the coarse grid, a slice each."""
    facts = network.plan.facts
    small = np.stack([to_unit(to_grid(picture, mm, facts["pixel_mm"]), facts) for picture in part])
    rows, columns = small.shape[1:]
    tiny = max(rows, columns) < MIRRORED_PX
    least = SMALLEST_PX if tiny else 2 * SMALLEST_PX
    top, left = (max(0, least - side) // 2 for side in (rows, columns))
    bottom, right = (max(0, least - side - before) for side, before in ((rows, top), (columns, left)))
    around = ((0, 0), (top, bottom), (left, right))
    # in a frame of air a crop of half a lung would be taken for a body
    framed = np.pad(small, around, constant_values=-1) if tiny else np.pad(small, around, mode="symmetric")
    if framed.shape[1:] == (SMALLEST_PX, SMALLEST_PX):
        framed = np.tile(framed, (1, 2, 2))  # four crops a picture, as in training: one alone is taken for air
    return list(network.logits(framed[:, np.newaxis])[:, :, top : top + rows, left : left + columns])


def _argmax(logits: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.uint8]:
    """The most likely class of each pixel of the image; likelihoods are interpolated, not classes."""
    import cv2

    best = np.full((rows, columns), -np.inf, dtype=np.float32)
    named = np.zeros((rows, columns), dtype=np.uint8)
    for number, layer in enumerate(logits):
        wide = cv2.resize(layer, (columns, rows), interpolation=cv2.INTER_LINEAR)
        np.copyto(named, number, where=wide > best)
        np.maximum(wide, best, out=best)
    return named


def _is_one_of(named: NDArray[np.uint8], *classes: int) -> NDArray[np.bool_]:
    """Pixels of those classes; much faster than numpy's isin."""
    found = np.zeros(named.shape, dtype=bool)
    for number in classes:
        found |= named == number
    return found


def _name_lung_by_hu(named: NDArray[np.uint8], smooth_hu: NDArray[np.int16]) -> None:
    """Names lung what the network calls the air of the room in a small crop, though it is denser than air.

    A crop that holds nothing but lung looks like air with noise to it; in whole slices it makes no such mistake.
    """
    import cv2

    count, parts = cv2.connectedComponents((named == OUTSIDE).astype(np.uint8), connectivity=4)
    for number in range(1, count):
        piece = parts == number
        if GAS_HU < np.median(smooth_hu[piece]) < AIR_HU:
            named[piece] = LUNG


def _name_things_outside(named: NDArray[np.uint8]) -> None:
    """Names all that is apart from the patient (table, cushions) outside the body."""
    import cv2

    count, parts, stats, _ = cv2.connectedComponentsWithStats((named != OUTSIDE).astype(np.uint8), connectivity=4)
    if count > 2:
        areas = stats[:, cv2.CC_STAT_AREA].copy()
        areas[0] = 0
        np.copyto(named, OUTSIDE, where=(areas < PATIENT_SHARE * areas.max()).take(parts))


def _name_foam_outside(named: NDArray[np.uint8]) -> None:
    """Names outside the body what the network took for lung though it is the table's foam.

    No lung borders on the air of the room.
    """
    for box, piece, _ in components(_is_one_of(named, LUNG, AIRWAY), connectivity=4, around_px=1):
        ring = _ring(piece)
        if ring.any() and float((named[box][ring] == OUTSIDE).mean()) > OPEN_SHARE:
            named[box][piece] = OUTSIDE


def _ring(piece: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels next to a piece, corners too."""
    import cv2

    return np.asarray((cv2.dilate(piece.view(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~piece)


def _disc(radius_mm: float, mm: tuple[float, float]) -> NDArray[np.uint8]:
    import cv2

    size = (2 * max(1, round(radius_mm / mm[1])) + 1, 2 * max(1, round(radius_mm / mm[0])) + 1)
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size))


def _airways(
    named: NDArray[np.uint8], smooth_hu: NDArray[np.int16], lungs: NDArray[np.bool_], mm: tuple[float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(airways, lung that the network took for an airway) of one slice: pools of air with a wall, and without."""
    import cv2

    near = cv2.dilate((named == AIRWAY).astype(np.uint8), _disc(BORDER_MM, mm)) > 0
    air = near & (smooth_hu < AIR_HU) & ~lungs
    airways, parenchyma = air.copy(), np.zeros_like(air)
    for box, pool, _ in components(air, connectivity=4, around_px=1):
        ring = _ring(pool)
        if ring.any() and float((smooth_hu[box][ring] < WALL_HU).mean()) > OPEN_SHARE:
            airways[box][pool] = False
            parenchyma[box][pool & (named[box] != OUTSIDE)] = True
    return airways, parenchyma


def _fat(lungs: NDArray[np.bool_], smooth_hu: NDArray[np.int16], mm: tuple[float, float]) -> NDArray[np.bool_]:
    """Large areas of fat in what the network calls lung of one slice: beside the kidneys, in the axilla."""
    import cv2

    seed = (lungs & (smooth_hu > FAT_HU[0]) & (smooth_hu < FAT_HU[1])).astype(np.uint8)
    disc = _disc(FAT_RADIUS_MM, mm)
    blurred = (lungs & (smooth_hu > FAT_BLUR_HU[0]) & (smooth_hu < FAT_BLUR_HU[1])).astype(np.uint8)
    fat = cv2.dilate(cv2.morphologyEx(seed, cv2.MORPH_OPEN, disc), disc) & blurred
    _, parts, stats, _ = cv2.connectedComponentsWithStats(fat, connectivity=4)
    large = stats[:, cv2.CC_STAT_AREA] * mm[0] * mm[1] >= LEAST_FAT_MM2
    large[0] = False
    return np.asarray(large.take(parts))


def _refined_lungs(
    named: NDArray[np.uint8], smooth_hu: NDArray[np.int16], mm: tuple[float, float]
) -> NDArray[np.bool_]:
    """The lung of one slice: within 2.5 mm of the network's border, air is lung and what is dense beside air is not.

    Where the lung is dense on both sides of its border (consolidation, effusion) the network's border stays.
    """
    import cv2

    lungs = (named == LUNG).astype(np.uint8)
    if not lungs.any():
        return np.zeros(lungs.shape, dtype=bool)
    reach = _disc(BORDER_MM, mm)
    air = (smooth_hu < AIR_HU).astype(np.uint8)
    # the picture's edge is no border of the lung
    core = cv2.erode(lungs, reach, borderType=cv2.BORDER_REPLICATE)
    aerated = cv2.dilate(core & air, _disc(2 * BORDER_MM, mm))
    rim = lungs & (1 - core)
    wall = rim & (1 - air) & aerated
    taken_in = cv2.dilate(lungs, reach) & air & _is_one_of(named, WALL, BONE, MEDIASTINUM)
    refined = (lungs & (1 - wall)) | taken_in
    # what the rim lost of vessels comes back; walls do not, for a closing reaches no outside
    pad = 2 * max(reach.shape)
    padded = cv2.copyMakeBorder(refined, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, _disc(CLOSING_MM, mm))[pad:-pad, pad:-pad]
    closed &= _is_one_of(named, LUNG, WALL, MEDIASTINUM)
    found = np.zeros(lungs.shape, dtype=bool)
    for box, piece, area in components(closed, connectivity=4):
        inside = smooth_hu[box][piece & (air[box] > 0)]
        # free gas: bowel, air beside an arm
        if area * mm[0] * mm[1] >= SMALLEST_LUNG_MM2 and (len(inside) == 0 or float(np.median(inside)) > GAS_HU):
            found[box] |= piece
    return found
