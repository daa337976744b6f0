"""One labelled image of a site -> the network's label map, or the sites of its lesions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.annotation_classes import IGNORE, IGNORED, is_anatomy, is_lesion
from HiResMedSynthLib.annotations import AnnotatedImage
from HiResMedSynthLib.image import MedicalImage

Site = tuple[float, float, float]  # row, column, diameter in mm


def label_map(one: AnnotatedImage, table: Mapping[str, int]) -> NDArray[np.uint8]:
    """`[slice, row, column]` labels of the network, from the class map and the segments of structures."""
    labels = np.zeros(one.image.shape, dtype=np.uint8)
    if one.class_map is not None:
        lookup = np.zeros(256, dtype=np.uint8)
        for number, name in one.class_map.names.items():
            lookup[number] = table.get(name, IGNORE if is_lesion(name) else 0)
        labels[:] = lookup[one.class_map.labels]
    for mark in one.marks:
        label = table.get(mark.class_name)
        if label is None or mark.shape != "segment":
            continue
        (first, row, column), mask = one.patch(mark)
        part = labels[first : first + mask.shape[0], row : row + mask.shape[1], column : column + mask.shape[2]]
        part[mask] = label
    return labels


def lesion_sites(one: AnnotatedImage) -> dict[int, list[Site]]:
    """Lesions by slice: centre and diameter (of a circle of the same area) of each one's part in the slice."""
    found: dict[int, list[Site]] = {}
    for mark in one.marks:
        if is_anatomy(mark.class_name) or mark.class_name.lower() in IGNORED:
            continue
        corner, mask = one.patch(mark)
        _add_sites(found, mask, corner, one.image, split=mark.shape == "segment", box=mark.shape == "box")
    if one.class_map is not None:
        for number, name in one.class_map.names.items():
            if is_lesion(name):
                _add_sites(found, one.class_map.labels == number, (0, 0, 0), one.image, split=True, box=False)
    return found


def _add_sites(
    found: dict[int, list[Site]],
    mask: NDArray[np.bool_],
    corner: tuple[int, int, int],
    image: MedicalImage,
    *,
    split: bool,
    box: bool,
) -> None:
    """Adds the sites of a mask, its connected parts apart where `split`; a box counts as the ellipse inside it."""
    from scipy import ndimage

    parts, count = ndimage.label(mask, np.ones((3, 3, 3))) if split else (mask.astype(np.int32), 1)
    pixel = float(np.prod(image.pixel_spacing_mm or (1.0, 1.0))) * (np.pi / 4 if box else 1.0)
    for part, place in enumerate(ndimage.find_objects(parts, max_label=count), start=1):
        if place is None:
            continue
        for index in range(place[0].start, place[0].stop):
            rows, columns = np.nonzero(parts[(index, *place[1:])] == part)
            if not rows.size:
                continue
            row = corner[1] + place[1].start + float(rows.mean())
            column = corner[2] + place[2].start + float(columns.mean())
            found.setdefault(corner[0] + index, []).append((row, column, float(2 * np.sqrt(rows.size * pixel / np.pi))))
