"""A small picture of a case for the contact sheet: its largest lesion's slice, outlined, and the lesion from near."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.batch.layout import MadeCase
from HiResMedSynthLib.export.preview import zoom_window

if TYPE_CHECKING:
    from PIL.Image import Image

SHEET_CASES = 24
SIDE = 320
NEAR_MM = 60.0  # of the picture around the lesion
OUTLINE, BEHIND = (255, 190, 60), (20, 20, 20)


def thumb(made: MadeCase) -> Image:
    """RGB, `SIDE` high and two wide: the whole picture, and 60 mm of it, at its true aspect.

    In the background's window; 60 mm of a film in a window of their own (`zoom_window`).
    """
    from PIL import Image

    shown = next(made.images())
    lesion = max(made.composition.lesions, key=lambda one: one.diameter_mm)
    index = lesion.corner[0] + int((lesion.alpha > 0).sum(axis=(1, 2)).argmax())
    image = shown.image
    row_mm, column_mm = image.pixel_spacing_mm or (1.0, 1.0)
    mask = (shown.mask[index] > 0).astype(np.uint8)
    rows = _around(lesion.center[1], NEAR_MM / row_mm, image.rows)
    columns = _around(lesion.center[2], NEAR_MM / column_mm, image.columns)
    both = Image.new("RGB", (2 * SIDE, SIDE), BEHIND)
    whole, near = made.composition.background.display_window(), zoom_window(made.composition, index, rows, columns)
    for k, (part, window) in enumerate((((slice(None), slice(None)), whole), ((rows, columns), near))):
        grey = (image.shown(image.pixels[index][part], window) * 255).astype(np.uint8)
        picture = _outlined(grey, mask[part], (row_mm, column_mm))
        both.paste(picture, (k * SIDE + (SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return both


def _around(center: float, length: float, size: int) -> slice:
    """So many pixels around a place, moved to lie within the picture."""
    count = min(max(round(length), 1), size)
    first = min(max(round(center - count / 2), 0), size - count)
    return slice(first, first + count)


def _outlined(grey: NDArray[np.uint8], mask: NDArray[np.uint8], spacing_mm: tuple[float, float]) -> Image:
    """RGB, its longer side `SIDE`, with a line around what the mask holds."""
    import cv2
    from PIL import Image

    height_mm, width_mm = grey.shape[0] * spacing_mm[0], grey.shape[1] * spacing_mm[1]
    scale = SIDE / max(height_mm, width_mm)
    size = max(round(width_mm * scale), 1), max(round(height_mm * scale), 1)
    picture = np.array(Image.fromarray(grey).convert("RGB").resize(size, Image.Resampling.LANCZOS))
    mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    around = cv2.dilate(mask, np.ones((5, 5), np.uint8))
    outlines, _ = cv2.findContours(around, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, OUTLINE, 1)
    return Image.fromarray(picture)
