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
ZOOM = 4


def lesion_sheet(lesion: Lesion) -> Image:
    """An RGB picture, three cuts across (axial, coronal, sagittal), three rows (lung, soft tissue, alpha)."""
    from PIL import Image, ImageDraw, ImageFont

    spacing = (PIXEL_MM,) * 3
    patch = render(
        lesion, Deformation.none(), diameter_mm=lesion.card.diameter_mm, spacing_mm=spacing, centre=(0.0, 0.0, 0.0)
    )
    side = max(patch.alpha.shape) + 8
    alpha = _centred(patch.alpha.astype(np.float32) / ALPHA_ONE, patch.corner, side, 0.0)
    hu = _centred(patch.intensity_hu.astype(np.float32), patch.corner, side, PARENCHYMA_HU)
    volume = alpha * hu + (1 - alpha) * PARENCHYMA_HU
    rows = [
        np.concatenate([part.take(side // 2, axis) for axis in range(3)], axis=1)
        for part in (LUNG.to_unit(volume), SOFT_TISSUE.to_unit(volume), alpha)
    ]
    grey = (np.concatenate(rows) * 255).astype(np.uint8)
    picture = Image.fromarray(grey).resize((grey.shape[1] * ZOOM, grey.shape[0] * ZOOM), Image.Resampling.BICUBIC)
    framed = Image.new("RGB", (picture.width, picture.height + 28), "black")
    framed.paste(picture, (0, 28))
    card = lesion.card
    text = f"{card.name}: {card.type}, {card.diameter_mm:g} mm, {card.origin}. Rows: lung window, soft tissue, alpha"
    ImageDraw.Draw(framed).text((8, 6), text, fill="white", font=ImageFont.load_default(15))
    return framed


def _centred(values: NDArray[Any], corner: tuple[int, int, int], side: int, fill: float) -> NDArray[np.float32]:
    """The patch in a cube of `side` voxels with the lesion's centre (index 0) in the middle, clipped to it."""
    cube = np.full((side,) * 3, fill, np.float32)
    low = [side // 2 + c for c in corner]
    target = tuple(slice(max(a, 0), min(a + n, side)) for a, n in zip(low, values.shape, strict=True))
    source = tuple(slice(t.start - a, t.stop - a) for t, a in zip(target, low, strict=True))
    cube[target] = values[source]
    return cube
