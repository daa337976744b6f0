"""A picture of one image with its labels drawn: boxes, outlines of segments and of the classes of a map."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.annotated_image import AnnotatedImage

SIDE_PX = 320
COLOURS = (
    (255, 190, 60), (90, 200, 255), (120, 230, 120), (255, 110, 110), (220, 140, 255),
    (255, 255, 120), (120, 255, 220), (255, 160, 200),
)  # fmt: skip


def colour_of(name: str, classes: Sequence[str]) -> tuple[int, int, int]:
    """The colour of a class: by its place in the list, else by its name, the same in every picture."""
    number = classes.index(name) if name in classes else zlib.crc32(name.encode())
    return COLOURS[number % len(COLOURS)]


def labelled_picture(one: AnnotatedImage, classes: Sequence[str]) -> NDArray[np.uint8]:
    """uint8 `[row, column, 3]`, longest side 320: the slice with most labels in its window, labels drawn over it."""
    import cv2

    image = one.image
    index = _fullest_slice(one)
    row_mm, column_mm = image.pixel_spacing_mm or (1.0, 1.0)
    scale = SIDE_PX / max(image.rows * row_mm, image.columns * column_mm)
    size = max(round(image.columns * column_mm * scale), 8), max(round(image.rows * row_mm * scale), 8)
    grey = cv2.resize((image.shown(image.pixels[index]) * 255).astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    picture = np.repeat(grey[..., np.newaxis], 3, axis=2)
    if one.class_map is not None:
        for label, name in one.class_map.names.items():
            _outline(picture, one.class_map.labels[index] == label, colour_of(name, classes))
    for mark in one.marks:
        (first, row, column), mask = one.patch(mark)
        if not first <= index < first + mask.shape[0]:
            continue
        plane = np.zeros((image.rows, image.columns), dtype=bool)
        plane[row : row + mask.shape[1], column : column + mask.shape[2]] = mask[index - first]
        _outline(picture, plane, colour_of(mark.class_name, classes), grow=mark.shape == "point")
    return np.asarray(picture)


def _fullest_slice(one: AnnotatedImage) -> int:
    """The slice with most labelled voxels; the middle one where nothing is labelled."""
    count = np.zeros(one.image.slices)
    if one.class_map is not None:
        count += (one.class_map.labels > 0).sum(axis=(1, 2))
    for mark in one.marks:
        (first, _, _), mask = one.patch(mark)
        count[first : first + mask.shape[0]] += mask.sum(axis=(1, 2))
    return int(count.argmax()) if count.any() else one.image.slices // 2


def _outline(
    picture: NDArray[np.uint8], plane: NDArray[np.bool_], colour: tuple[int, int, int], *, grow: bool = False
) -> None:
    """Draws the outline of a plane into the picture, whatever its size; something is seen of the smallest one."""
    import cv2

    if not plane.any():
        return
    rows, columns = picture.shape[:2]
    small: NDArray[Any] = cv2.resize(plane.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST)
    if grow or not small.any():
        where = np.argwhere(plane).mean(axis=0) / plane.shape
        small[:] = 0
        cv2.circle(small, (int(where[1] * columns), int(where[0] * rows)), 4, 1, -1)
    contours, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, colour, 1)
