"""Regions of a chest CT named by a network, slice by slice on a coarse grid, with the lung's border found by HU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger import DangerMap, Progress
from HiResMedSynthLib.placement.lungs_ct import find_chest_regions
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.network import to_unit
from HiResMedSynthLib.placement.regions_ct import ChestRegions, danger_of_regions

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
CHUNK = 8  # slices at a time
SMOOTH_MM = 1.0
AIR_HU = -400.0
WALL_HU = -700.0  # the rim of an airway is denser, that of parenchyma isn't
BORDER_MM = 2.5  # how far the network's border of the lung may be moved by HU
CLOSING_MM = 5.0  # vessels that the border cut off
PATIENT_SHARE = 0.25  # of the largest piece's area: smaller pieces of tissue are table, cushions, hands
OPEN_SHARE = 0.2  # of the rim of a piece of lung that may touch what is outside the body
GAS_HU = -975.0  # median of the air of a piece of lung; below it is free gas, as for the rule
SMALLEST_LUNG_MM2 = 50.0  # a speck of lung in one slice
LEAST_LUNG_MM2 = 150.0  # of lung in the best slice; less is no chest
FAT_HU = (-150.0, -50.0)  # on the smoothed picture; consolidation and effusion lie above, ground glass below
FAT_BLUR_HU = (-190.0, -10.0)  # what belongs to fat beside it
FAT_RADIUS_MM = 2.0  # of a disc that fat holds: the rim of a consolidation passes through its HU
LEAST_FAT_MM2 = 400.0  # in one slice; smaller patches occur in diseased lungs


def danger_network_ct(
    image: MedicalImage, *, margins: Margins, network: PlacementNetwork, progress: Progress | None = None
) -> DangerMap:
    """The danger map of a chest CT (one slice, a crop of a lung, thick slices, a volume) by the network.

    Args:
        image: axial, in HU, of known spacing.
        margins: distances added to the forbidden structures.
        network: of task "danger-ct".
        progress: called with (slices done, slices in all).

    Raises:
        GeometryError: the spacing is unknown.
        PlacementError: no lung is in the image, it is not in HU, or the network is for another task.
    """
    spacing_mm = image.spacing_mm
    if image.units != "HU":
        raise PlacementError("this image is not in Hounsfield units", remedy="Give a CT, or say what it shows.")
    regions = find_regions_by_both(image.pixels, spacing_mm=spacing_mm, network=network, progress=progress)
    method = f"network {network.name}, with the rule's lungs; vessels by HU"
    return danger_of_regions(regions, spacing_mm=spacing_mm, margins=margins, method=method)


def find_regions_by_both(
    hu: NDArray[Any],
    *,
    spacing_mm: tuple[float, float, float],
    network: PlacementNetwork,
    progress: Progress | None = None,
) -> ChestRegions:
    """The network's regions with the rule's lungs added, and without air that the rule knows to be no lung.

    The rule is right wherever lung is aerated, the network also where disease fills it; air that the network alone
    calls lung and that touches no lung of the rule's is gas, or lies beside an arm. In a slice without lung of the
    rule's there is none: what is dense there is abdomen. Where the rule finds no lung in the whole image (a crop, a
    white lung) the network stands alone.

    Args, Raises: as `find_regions_by_network`.
    """
    named = find_regions_by_network(hu, spacing_mm=spacing_mm, network=network, progress=progress)
    try:
        ruled = find_chest_regions(hu, spacing_mm=spacing_mm)
    except PlacementError:
        return named
    lungs = np.stack([
        _with_rule(learned, rule, smooth)
        for learned, rule, smooth in zip(named.lungs, ruled.lungs, named.smooth_hu, strict=True)
    ])  # fmt: skip
    airways = (ruled.airways | named.airways) & ~ruled.lungs
    lungs &= ~airways
    assert named.bone is not None
    assert named.mediastinum is not None
    free = ~(lungs | airways)
    return ChestRegions(
        smooth_hu=named.smooth_hu, body=named.body | ruled.body, lungs=lungs, airways=airways, bone=named.bone & free,
        mediastinum=named.mediastinum & free,
    )  # fmt: skip


def _with_rule(learned: NDArray[np.bool_], ruled: NDArray[np.bool_], smooth_hu: NDArray[np.int16]) -> NDArray[np.bool_]:
    """The lungs of one slice by both, without the network's pieces of air that lie apart from the rule's lungs."""
    import cv2

    if not ruled.any():
        return ruled
    count, parts = cv2.connectedComponents(learned.astype(np.uint8), connectivity=8)
    near = cv2.dilate(ruled.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    lungs = ruled.copy()
    for number in range(1, count):
        piece = parts == number
        if (piece & near).any() or np.median(smooth_hu[piece]) > AIR_HU:
            lungs |= piece
    return lungs


def find_regions_by_network(
    hu: NDArray[Any],
    *,
    spacing_mm: tuple[float, float, float],
    network: PlacementNetwork,
    progress: Progress | None = None,
) -> ChestRegions:
    """Body, lungs, airways, bone and mediastinum of a stack of axial slices.

    Args:
        hu: `[slice, row, column]` in HU.
        spacing_mm: (slice, row, column).

    Raises:
        PlacementError: no lung is in the image, or the network is for another task.
    """
    if network.plan.task != TASK or network.plan.classes != CLASSES:
        raise PlacementError(
            f"the network '{network.name}' is for {network.plan.task}, not for {TASK}",
            remedy="Give one trained by python -m Training.train_danger --domain lung-ct.",
        )
    import cv2

    slices, rows, columns = hu.shape
    mm = (float(spacing_mm[1]), float(spacing_mm[2]))
    smooth = np.empty(hu.shape, dtype=np.int16)
    masks = {name: np.zeros(hu.shape, dtype=bool) for name in ("body", "lungs", "airways", "bone", "mediastinum")}
    for start in range(0, slices, CHUNK):
        part = [np.clip(picture, -1024, 3071).astype(np.float32) for picture in hu[start : start + CHUNK]]
        for offset, logits in enumerate(_logits(part, mm, network)):
            index, picture = start + offset, part[offset]
            picture = cv2.GaussianBlur(picture, (0, 0), sigmaX=SMOOTH_MM / mm[1], sigmaY=SMOOTH_MM / mm[0])
            smooth[index] = np.rint(picture)
            named = _argmax(logits, rows, columns)
            if max(logits.shape[1:]) < MIRRORED_PX:
                _name_lung_by_hu(named, smooth[index])
            named = _in_patient(named)
            lungs = _refined_lungs(named, smooth[index], mm)
            lungs &= ~_fat(lungs, smooth[index], mm)
            airways, parenchyma = _airways(named, smooth[index], lungs, mm)
            lungs |= parenchyma
            masks["lungs"][index] = lungs
            masks["airways"][index] = airways
            masks["body"][index] = (named != OUTSIDE) | lungs
            masks["bone"][index] = (named == BONE) & ~lungs
            masks["mediastinum"][index] = (named == MEDIASTINUM) & ~lungs
        if progress is not None:
            progress(min(start + CHUNK, slices), slices)
    if masks["lungs"].sum(axis=(1, 2)).max() * mm[0] * mm[1] < LEAST_LUNG_MM2:
        raise PlacementError(
            "no lung was found in this image",
            remedy="Is it a chest CT in HU, with the lungs in view? Take another slice, or say what it shows with "
            "--domain.",
        )
    return ChestRegions(smooth_hu=smooth, **masks)


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
        better = wide > best
        named[better] = number
        best[better] = wide[better]
    return named


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


def _in_patient(named: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The classes with all that is apart from the patient (table, cushions) outside the body, and so is "lung" there.

    No lung borders on the air of the room: where the network says so, it took the table's foam for lung.
    """
    import cv2

    count, parts, stats, _ = cv2.connectedComponentsWithStats((named != OUTSIDE).astype(np.uint8), connectivity=4)
    if count > 2:
        areas = stats[:, cv2.CC_STAT_AREA].copy()
        areas[0] = 0
        named = np.where((areas >= PATIENT_SHARE * areas.max())[parts], named, OUTSIDE).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(
        np.isin(named, (LUNG, AIRWAY)).astype(np.uint8), connectivity=4
    )
    for number in range(1, count):
        left, top, width, height = (int(value) for value in stats[number, :4])
        box = (slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1))
        piece = parts[box] == number
        ring = (cv2.dilate(piece.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~piece
        if ring.any() and float((named[box][ring] == OUTSIDE).mean()) > OPEN_SHARE:
            named[box][piece] = OUTSIDE
    return named


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
    count, parts, stats, _ = cv2.connectedComponentsWithStats(air.astype(np.uint8), connectivity=4)
    for number in range(1, count):
        left, top, width, height = (int(value) for value in stats[number, :4])
        box = (slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1))
        pool = parts[box] == number
        ring = (cv2.dilate(pool.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~pool
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
    return np.asarray(large[parts])


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
    taken_in = cv2.dilate(lungs, reach) & air & np.isin(named, (WALL, BONE, MEDIASTINUM)).astype(np.uint8)
    refined = (lungs & (1 - wall)) | taken_in
    # what the rim lost of vessels comes back; walls do not, for a closing reaches no outside
    pad = 2 * max(reach.shape)
    padded = cv2.copyMakeBorder(refined, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, _disc(CLOSING_MM, mm))[pad:-pad, pad:-pad]
    closed &= np.isin(named, (LUNG, WALL, MEDIASTINUM)).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] * mm[0] * mm[1] >= SMALLEST_LUNG_MM2
    keep[0] = False
    for number in range(1, count):
        inside = smooth_hu[(parts == number) & (air > 0)] if keep[number] else ()
        keep[number] &= len(inside) == 0 or float(np.median(inside)) > GAS_HU  # bowel, air beside an arm
    return np.asarray(keep[parts])
