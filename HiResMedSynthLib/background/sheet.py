"""A picture of many backgrounds beside each other, each with its caption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from HiResMedSynthLib.image import MedicalImage

if TYPE_CHECKING:
    from PIL.Image import Image

TILE, CAPTION, GAP, ACROSS = 384, 22, 4, 4


def thumbnail(image: MedicalImage) -> Image:
    """The single slice in its window, 8 bits, bright = dense, at most `TILE` pixels wide and high."""
    from PIL import Image

    grey = Image.fromarray((image.shown(image.pixels[0]) * 255).astype(np.uint8))
    row_mm, column_mm = image.pixel_spacing_mm or (1.0, 1.0)
    scale = TILE / max(image.rows * row_mm, image.columns * column_mm)
    size = max(round(image.columns * column_mm * scale), 1), max(round(image.rows * row_mm * scale), 1)
    return grey.resize(size, Image.Resampling.LANCZOS)


def background_sheet(tiles: Sequence[tuple[str, Image]]) -> Image:
    """A grey picture, four (caption, thumbnail) in a row, headed as synthetic."""
    from PIL import Image, ImageDraw, ImageFont

    across = min(len(tiles), ACROSS)
    step_x, step_y = TILE + GAP, TILE + GAP + CAPTION
    sheet = Image.new("L", (across * step_x + GAP, math.ceil(len(tiles) / across) * step_y + CAPTION + GAP), 20)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    draw.text((GAP, 3), "SYNTHETIC, research only", fill=230, font=font)
    for index, (caption, picture) in enumerate(tiles):
        left, top = GAP + index % across * step_x, CAPTION + index // across * step_y
        draw.text((left, top + 2), caption, fill=230, font=font)
        sheet.paste(picture, (left + (TILE - picture.width) // 2, top + CAPTION + (TILE - picture.height) // 2))
    return sheet
