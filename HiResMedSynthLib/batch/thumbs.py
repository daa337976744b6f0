"""A small picture of a case for the contact sheet: its largest lesion's slice, outlined; or the slice alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from HiResMedSynthLib.batch.layout import MadeCase

if TYPE_CHECKING:
    from PIL.Image import Image

SHEET_CASES = 24
SIDE = 320
OUTLINE = (255, 190, 60)


def thumb(made: MadeCase) -> Image:
    """RGB, at most `SIDE` wide and high, in the background's window and true aspect."""
    import cv2
    from PIL import Image

    shown = next(made.images())
    lesion = max(made.composition.lesions, key=lambda one: one.diameter_mm)
    index = lesion.corner[0] + int((lesion.alpha > 0).sum(axis=(1, 2)).argmax())
    image = shown.image
    unit = made.composition.background.display_window().to_unit(image.pixels[index])
    grey = ((unit if image.bright_is_dense else 1 - unit) * 255).astype(np.uint8)
    row_mm, column_mm = image.pixel_spacing_mm or (1.0, 1.0)
    scale = SIDE / max(image.rows * row_mm, image.columns * column_mm)
    size = max(round(image.columns * column_mm * scale), 1), max(round(image.rows * row_mm * scale), 1)
    picture = np.array(Image.fromarray(grey).convert("RGB").resize(size, Image.Resampling.LANCZOS))
    mask = cv2.resize((shown.mask[index] > 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    around = cv2.dilate(mask, np.ones((5, 5), np.uint8))
    outlines, _ = cv2.findContours(around, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, OUTLINE, 1)
    return Image.fromarray(picture)
