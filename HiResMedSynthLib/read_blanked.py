"""Boxes of an image blanked as a step of reading, so that burned-in text is gone before anything else sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.image import MedicalImage, PixelBox


def with_blanked_boxes(image: MedicalImage, boxes: Sequence[PixelBox]) -> MedicalImage:
    """The image with these boxes of every slice set to its blackest value; blanking twice changes nothing more.

    Its Burned In Annotation then is NO: whoever names boxes says that they cover all the text there is.

    Args:
        image: as read.
        boxes: (first row, first column, end row, end column) indices, the ends exclusive.

    Raises:
        SettingsError: a box that is empty or reaches beyond the image.
    """
    if not boxes:
        return image
    pixels = image.pixels.copy()
    black = pixels.min() if image.bright_is_dense else pixels.max()
    for row, column, row_end, column_end in boxes:
        if not (0 <= row < row_end <= image.rows and 0 <= column < column_end <= image.columns):
            raise SettingsError(
                f"the box {row},{column},{row_end},{column_end} is empty or not inside the image of {image.rows} rows "
                f"x {image.columns} columns",
                remedy="Give --mask-box ROW0,COL0,ROW1,COL1: first row and column, and those after the last.",
            )
        pixels[:, row:row_end, column:column_end] = black
    told = [f"blanked: rows {a} to {c - 1}, columns {b} to {d - 1}" for a, b, c, d in boxes]
    return replace(
        image,
        pixels=pixels,
        blanked=(*image.blanked, *boxes),
        facts=replace(image.facts, burned_in_annotation="NO"),
        oddities=(*image.oddities, *told),
    )
