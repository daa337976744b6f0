"""Classes of a chest CT by rule, and what is left open: a label may allow several classes where nobody knows which.

Labels 0..5 are the network's classes; the ones above them are sets (`ALLOWED`), in which the network may choose.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.placement.lungs_ct import find_chest_regions
from HiResMedSynthLib.placement.network_ct import CLASSES

OUTSIDE, WALL, BONE, MEDIASTINUM, AIRWAY, LUNG = range(len(CLASSES))
SOLID, SOFT, AIR, ANY = 6, 7, 8, 9  # wall, bone or mediastinum; wall or mediastinum; airway or lung; unknown
SETS = {SOLID: (WALL, BONE, MEDIASTINUM), SOFT: (WALL, MEDIASTINUM), AIR: (AIRWAY, LUNG), ANY: range(len(CLASSES))}
ALLOWED = np.zeros((len(CLASSES) + len(SETS), len(CLASSES)), dtype=bool)
for _label in range(len(CLASSES)):
    ALLOWED[_label, _label] = True
for _label, _set in SETS.items():
    ALLOWED[_label, list(_set)] = True

BONE_HU = 200.0  # on the picture smoothed by 1 mm
MARROW_HU = 130.0  # inside the spine
SPINE_MM = (36.0, 24.0)  # half axes of the ellipse that holds a vertebra: front to back, sideways
SPINE_DEPTH_MM = (40.0, 95.0)  # of its centre below the skin of the back
CONTRAST_HU, CONTRAST_RADIUS_MM = 240.0, 5.0  # this dense over such a disc, deep in the body, is contrast medium
SKIN_MM = 25.0
ABDOMEN_SHARE = 0.45  # of the slices with lung, from below: liver and spleen may lie between the lungs
AIRWAY_HU, AIRWAY_MM2 = -500.0, (20.0, 900.0)
LUMEN_HU, RING_HU, LUMEN_MM2 = -930.0, -750.0, 50.0  # a tube that the rule counts as lung: its air, wall, least area
NEAR_MIDDLE_MM = 45.0


def rule_labels(
    hu: NDArray[np.int16],
    *,
    spacing_mm: tuple[float, float, float],
    contrast: bool = True,
    first_chest_slice: int | None = None,
    cavities: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Labels `[slice, row, column]` of axial slices, face up and feet first, by the rules of placement and of bone.

    Lung is that of `find_chest_regions`. Bone is dense (200 HU smoothed) outside the lungs' hull, and what is above
    130 HU in the ellipse of the spine, less contrast medium. Mediastinum is what lies between the lungs, inside their
    hull and before the spine, in slices above the diaphragm; below it, it may be wall or mediastinum.

    Args:
        contrast: dense thick blobs deep in the body are then contrast medium, or bone: either is allowed.
        first_chest_slice: without liver or spleen between the lungs; None: above the lowest 45 % of lung.
        cavities: [slice, row, column] lung with what fills it, where somebody drew it; None: found by rule.
    """
    try:
        found = find_chest_regions(hu, spacing_mm=spacing_mm)
        smooth, body, lungs, airways = found.smooth_hu, found.body, found.lungs, found.airways
    except PlacementError:
        smooth = np.stack([smoothed(picture, spacing_mm[1]) for picture in hu])
        body = np.stack([trunk(picture, spacing_mm[1]) for picture in smooth])
        lungs = airways = np.zeros(hu.shape, dtype=bool)
    if cavities is not None:
        body, lungs, airways = body | cavities, cavities, airways & ~cavities
    mm = spacing_mm[1]
    with_lung = np.flatnonzero(lungs.any(axis=(1, 2)))
    lowest, highest = (int(with_lung[0]), int(with_lung[-1])) if len(with_lung) else (len(hu), len(hu))
    chest = first_chest_slice
    if chest is None:
        chest = lowest + round(ABDOMEN_SHARE * (highest - lowest))
    labels = np.full(hu.shape, OUTSIDE, dtype=np.uint8)
    labels[body] = WALL
    centres = [spine_centre(picture, inside, mm) for picture, inside in zip(smooth, body, strict=True)]
    for index, centre in enumerate(steady(centres)):
        picture = labels[index]
        hull = hull_of(lungs[index])
        left = np.logical_or.accumulate(lungs[index], axis=1)
        right = np.logical_or.accumulate(lungs[index][:, ::-1], axis=1)[:, ::-1]
        between = left & right & body[index]
        picture[between] = SOFT
        before = np.zeros_like(between)
        before[: None if centre is None else round(centre[0])] = True
        picture[hull & ~between & before & body[index]] = SOFT  # the heart reaches before the tip of a lung
        if index >= chest:
            picture[between & hull & before] = MEDIASTINUM
        spine = spine_ellipse(centre, body[index].shape, mm)
        picture[spine & body[index]] = SOLID
        middle = np.zeros_like(between)
        if centre is not None and index >= chest:
            near = round(NEAR_MIDDLE_MM / mm)
            middle[:, max(0, round(centre[1]) - near) : round(centre[1]) + near] = True
        pools = tubes(smooth[index], body[index] & ~lungs[index], mm) & (middle | hull & between)
        bone, doubtful = bones(smooth[index], body[index], hull, spine, mm, contrast=contrast)
        picture[bone] = BONE
        picture[doubtful] = SOLID
        missed = walled_air(smooth[index], lungs[index] & middle, mm)
        picture[lungs[index]] = LUNG
        picture[(cv2.dilate(missed.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & lungs[index]] = ANY  # its wall
        picture[missed | pools] = AIRWAY
    labels[airways] = AIRWAY
    labels[:lowest][labels[:lowest] == AIRWAY] = WALL  # gas of the bowel
    return labels


def smoothed(hu: NDArray[np.int16], mm: float) -> NDArray[np.int16]:
    """[row, column] smoothed by 1 mm, as the rules of placement do."""
    picture = np.clip(hu, -1024, 3071).astype(np.float32)
    return np.rint(cv2.GaussianBlur(picture, (0, 0), sigmaX=1.0 / mm)).astype(np.int16)


def disc(radius_mm: float, mm: float) -> NDArray[np.uint8]:
    """A disc as the kernel of morphology."""
    side = 2 * max(1, round(radius_mm / mm)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))


def trunk(smooth: NDArray[np.int16], mm: float) -> NDArray[np.bool_]:
    """The patient of one slice: the largest dense part, filled."""
    dense = cv2.morphologyEx((smooth > -300).astype(np.uint8), cv2.MORPH_OPEN, disc(4.0, mm))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dense, connectivity=4)
    filled = np.zeros(smooth.shape, dtype=np.uint8)
    if count > 1:
        largest = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
        outline, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(filled, outline, -1, 1, thickness=cv2.FILLED)
    return filled > 0


def hull_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The convex hull of a mask, filled."""
    filled = np.zeros(mask.shape, dtype=np.uint8)
    points = cv2.findNonZero(mask.astype(np.uint8))
    if points is not None:
        cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled > 0


def spine_centre(smooth: NDArray[np.int16], body: NDArray[np.bool_], mm: float) -> tuple[float, float] | None:
    """(row, column) where the spine's ellipse holds most bone, near the middle of the back; None: no body."""
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    if len(rows) == 0:
        return None
    middle, back = (columns[0] + columns[-1]) / 2, rows[-1]
    size = (2 * round(SPINE_MM[1] / mm) + 1, 2 * round(SPINE_MM[0] / mm) + 1)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size).astype(np.float32)
    bony = np.clip((smooth.astype(np.float32) - 150) / 250, 0, 1) * body
    score = cv2.filter2D(bony, -1, ellipse / ellipse.sum(), borderType=cv2.BORDER_CONSTANT)
    row, column = np.mgrid[: smooth.shape[0], : smooth.shape[1]]
    depth = (back - row) * mm
    allowed = (np.abs(column - middle) * mm < 40) & (depth > SPINE_DEPTH_MM[0]) & (depth < SPINE_DEPTH_MM[1])
    best = int(np.argmax(np.where(allowed, score, -1)))
    return divmod(best, smooth.shape[1]) if allowed.any() else None


def steady(centres: list[tuple[float, float] | None]) -> list[tuple[float, float] | None]:
    """The centres with each replaced by the median of the nine slices around it."""
    result: list[tuple[float, float] | None] = []
    for index in range(len(centres)):
        near = [centre for centre in centres[max(0, index - 4) : index + 5] if centre is not None]
        middle = np.median(near, axis=0) if near else None
        result.append(None if middle is None else (float(middle[0]), float(middle[1])))
    return result


def spine_ellipse(centre: tuple[float, float] | None, shape: tuple[int, ...], mm: float) -> NDArray[np.bool_]:
    """[row, column] where a vertebra lies."""
    spine = np.zeros(shape, dtype=np.uint8)
    if centre is not None:
        axes = (round(SPINE_MM[1] / mm), round(SPINE_MM[0] / mm))
        cv2.ellipse(spine, (round(centre[1]), round(centre[0])), axes, 0, 0, 360, 1, thickness=cv2.FILLED)
    return spine > 0


def tubes(smooth: NDArray[np.int16], where: NDArray[np.bool_], mm: float) -> NDArray[np.bool_]:
    """Compact pools of air in one slice: trachea and bronchi, if they lie between the lungs."""
    air = (where & (smooth < AIRWAY_HU)).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(air, connectivity=4)
    area = stats[:, cv2.CC_STAT_AREA]
    box = stats[:, cv2.CC_STAT_WIDTH] * stats[:, cv2.CC_STAT_HEIGHT]
    keep = (area * mm * mm >= AIRWAY_MM2[0]) & (area * mm * mm <= AIRWAY_MM2[1]) & (area > 0.4 * box)
    keep[0] = False
    return np.asarray(keep[parts]) if count > 1 else air > 0


def walled_air(smooth: NDArray[np.int16], lungs: NDArray[np.bool_], mm: float) -> NDArray[np.bool_]:
    """Air with a dense ring around it, inside what the rule calls lung: trachea and main bronchi that it missed."""
    found = np.zeros(lungs.shape, dtype=bool)
    air = cv2.morphologyEx((lungs & (smooth < LUMEN_HU)).astype(np.uint8), cv2.MORPH_OPEN, disc(1.5, mm))
    count, parts, stats, _ = cv2.connectedComponentsWithStats(air, connectivity=4)
    for number in range(1, count):
        if not LUMEN_MM2 <= stats[number, cv2.CC_STAT_AREA] * mm * mm <= AIRWAY_MM2[1]:
            continue
        pool = (parts == number).astype(np.uint8)
        inner, outer = cv2.dilate(pool, disc(1.0, mm)), cv2.dilate(pool, disc(3.0, mm))
        if np.median(smooth[(outer > 0) & (inner == 0)]) > RING_HU:
            found |= pool > 0
    return found


def bones(
    smooth: NDArray[np.int16],
    body: NDArray[np.bool_],
    hull: NDArray[np.bool_],
    spine: NDArray[np.bool_],
    mm: float,
    *,
    contrast: bool,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(bone, bone or contrast medium) of one slice by density, place and thickness."""
    dense = body & (smooth > BONE_HU)
    outside = dense & ~hull & ~spine
    marrow = (body & spine & (smooth > MARROW_HU)).astype(np.uint8)
    column = (cv2.morphologyEx(marrow, cv2.MORPH_CLOSE, disc(2.5, mm)) > 0) & spine
    doubtful = np.zeros_like(dense)
    if contrast:
        deep = cv2.erode(body.astype(np.uint8), disc(SKIN_MM, mm)) > 0
        thick = (body & (smooth > CONTRAST_HU)).astype(np.uint8)
        blobs = cv2.morphologyEx(thick, cv2.MORPH_OPEN, disc(CONTRAST_RADIUS_MM, mm))
        doubtful = (cv2.dilate(blobs, disc(4.0, mm)) > 0) & deep & (smooth > MARROW_HU)
        if not hull.any():
            doubtful |= dense & deep & ~spine  # kidneys, vessels
        doubtful &= ~hull | spine  # contrast medium between the lungs is heart and vessels
    joined = (outside | column).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] * mm * mm >= 15.0
    large[0] = False
    return np.asarray(large[parts]) & ~doubtful, doubtful
