"""A picture of many samples beside the real lesion: three orthogonal cuts each, lung and soft-tissue window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.lesion.lesion_grid import LUNG_HU, UNIT_HU
from HiResMedSynthLib.lesion.sheet import LUNG, SOFT_TISSUE

if TYPE_CHECKING:
    from PIL.Image import Image

ZOOM = 2
ACROSS = 4
GAP, HEAD = 6, 18


def sample_sheet(tiles: Sequence[tuple[str, NDArray[np.floating]]]) -> Image:
    """An RGB picture, four tiles a row: axial, coronal and sagittal middle cut in both windows.

    Args:
        tiles: title and values `[2, size, size, size]` (`LesionGrid`) of each; those beyond 32 are left out.
    """
    from PIL import Image, ImageDraw, ImageFont

    pictures = [(title, _cuts(values)) for title, values in tiles[:32]]
    height, width = pictures[0][1].shape
    rows = math.ceil(len(pictures) / ACROSS)
    step_x, step_y = width * ZOOM + GAP, height * ZOOM + GAP + HEAD
    sheet = Image.new("RGB", (min(len(pictures), ACROSS) * step_x + GAP, rows * step_y + GAP), (40, 40, 40))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for index, (title, grey) in enumerate(pictures):
        left, top = GAP + index % ACROSS * step_x, GAP + index // ACROSS * step_y
        draw.text((left, top), title, fill="white", font=font)
        tile = Image.fromarray(grey).resize((width * ZOOM, height * ZOOM), Image.Resampling.BICUBIC)
        sheet.paste(tile.convert("RGB"), (left, top + HEAD))
    return sheet


def _cuts(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """uint8 `[2 x size, 3 x size]`: the cuts through the middle on flat lung."""
    middle = values.shape[1] // 2
    hu = LUNG_HU + UNIT_HU * values[0]
    cuts = np.concatenate([hu.take(middle, axis) for axis in range(3)], axis=1).astype(np.float32)
    return (np.concatenate([LUNG.to_unit(cuts), SOFT_TISSUE.to_unit(cuts)]) * 255).astype(np.uint8)
