"""A picture of a lesion: three orthogonal cuts in the lung window, the soft-tissue window, and its matte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.image import Window
from HiResMedSynthLib.lesion.deform import Deformation
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE, Lesion
from HiResMedSynthLib.lesion.render import render

if TYPE_CHECKING:
    from PIL.Image import Image

LUNG, SOFT_TISSUE = Window(center=-600, width=1600), Window(center=40, width=400)
PARENCHYMA_HU = -860.0
PIXEL_MM = 0.5
MARGIN = 4  # pixels of PIXEL_MM around the lesion
TILE, GAP, HEAD = 340, 4, 26  # in pixels of the picture
BARS_MM = (20, 10, 5, 2)  # lengths that the bar may have
LONGEST_BAR = 0.4  # of a tile
VIEWS = ("axial", "coronal", "sagittal")  # cut along axis 0, 1, 2


def lesion_sheet(lesion: Lesion) -> Image:
    """An RGB picture, three cuts across (axial, coronal, sagittal), three rows (lung, soft tissue, matte), each named
    and with a bar in millimetres. The cuts go through the lesion's centre; the last slice is on top.
    """
    from PIL import Image, ImageDraw, ImageFont

    spacing = (PIXEL_MM,) * 3
    patch = render(
        lesion, Deformation.none(), diameter_mm=lesion.card.diameter_mm, spacing_mm=spacing, centre=(0.0, 0.0, 0.0)
    )
    side = max(patch.alpha.shape) + 2 * MARGIN
    alpha = _in_cube(patch.alpha.astype(np.float32) / ALPHA_ONE, side, 0.0)
    hu = _in_cube(patch.intensity_hu.astype(np.float32), side, PARENCHYMA_HU)
    volume = alpha * hu + (1 - alpha) * PARENCHYMA_HU
    centre = [low - corner for low, corner in zip(_lows(patch.alpha.shape, side), patch.corner, strict=True)]
    rows = {
        f"lung {_told(LUNG)}": LUNG.to_unit(volume),
        f"soft tissue {_told(SOFT_TISSUE)}": SOFT_TISSUE.to_unit(volume),
        "matte (share of lesion)": alpha,
    }
    step = TILE + GAP
    sheet = Image.new("RGB", (3 * step + GAP, HEAD + 3 * step), (40, 40, 40))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, (what, values) in enumerate(rows.items()):
        for column, view in enumerate(VIEWS):
            left, top = GAP + column * step, HEAD + row * step
            cut = np.asarray(values.take(centre[column], column))
            grey = Image.fromarray(((cut if view == "axial" else cut[::-1]) * 255).astype(np.uint8))
            sheet.paste(grey.resize((TILE, TILE), Image.Resampling.BICUBIC).convert("RGB"), (left, top))
            draw.text((left + 6, top + 4), f"{view}, {what}", fill="white", font=font)
            _draw_bar(draw, left + 8, top + TILE - 10, TILE / (side * PIXEL_MM), font)
    card = lesion.card
    text = f"{card.name}: {card.type}, {card.diameter_mm:g} mm, {card.origin}"
    draw.text((8, 5), text, fill="white", font=ImageFont.load_default(15))
    return sheet


def _lows(shape: tuple[int, ...], side: int) -> list[int]:
    """Where the patch begins on each axis of the cube."""
    return [(side - size) // 2 for size in shape]


def _in_cube(values: NDArray[Any], side: int, fill: float) -> NDArray[np.float32]:
    """The patch in the middle of a cube of `side` voxels."""
    cube = np.full((side,) * 3, fill, np.float32)
    cube[tuple(slice(low, low + size) for low, size in zip(_lows(values.shape, side), values.shape, strict=True))] = (
        values
    )
    return cube


def _told(window: Window) -> str:
    return f"window {window.center:g}/{window.width:g}"


def _draw_bar(draw: Any, left: int, bottom: int, pixels_per_mm: float, font: Any) -> None:
    """The longest bar that is no longer than a part of the tile, with its length."""
    mm = next((mm for mm in BARS_MM if mm * pixels_per_mm <= LONGEST_BAR * TILE), BARS_MM[-1])
    draw.line((left, bottom, left + mm * pixels_per_mm, bottom), fill="white", width=3)
    draw.text((left, bottom - 20), f"{mm} mm", fill="white", font=font)
