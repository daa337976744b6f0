"""Pictures of where lesions may go: danger classes or the prior over the image, with a legend."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger import DangerMap

if TYPE_CHECKING:
    from PIL.Image import Image

# colours by label; 0 = permitted
COLOURS = ((0, 170, 0), (60, 60, 60), (190, 120, 0), (150, 0, 150), (200, 200, 0), (220, 0, 0), (0, 170, 220))
LONGEST_SIDE = 800
LEGEND_WIDTH = 260
STRENGTH = 0.35  # of the colour over the grey


def danger_picture(image: MedicalImage, danger_map: DangerMap) -> Image:
    """An RGB picture of the slice with most permitted tissue, coloured by class, with the classes' names."""
    index = int((danger_map.labels == 0).sum(axis=(1, 2)).argmax())
    colour = np.asarray(COLOURS, dtype=np.float32)[danger_map.labels[index] % len(COLOURS)]
    names = {0: "permitted", **danger_map.names}
    legend = [(COLOURS[label % len(COLOURS)], name) for label, name in names.items()]
    return _picture(image, index, colour, np.full(colour.shape[:2], STRENGTH, np.float32), legend, danger_map.method)


def prior_picture(image: MedicalImage, heat: NDArray[np.float32]) -> Image:
    """An RGB picture of the slice with the highest sum of the prior, the prior in red."""
    index = int(heat.sum(axis=(1, 2)).argmax())
    share = heat[index] / max(float(heat[index].max()), 1e-30)
    colour = np.zeros((*share.shape, 3), np.float32)
    colour[..., 0] = 255
    legend = [((255, 0, 0), "most likely"), ((90, 0, 0), "less likely"), ((0, 0, 0), "never (no colour)")]
    return _picture(image, index, colour, (0.6 * share).astype(np.float32), legend, "prior: where lesions occurred")


def _picture(
    image: MedicalImage,
    index: int,
    colour: NDArray[np.float32],
    strength: NDArray[np.float32],
    legend: list[tuple[tuple[int, int, int], str]],
    title: str,
) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    grey = image.display_window().to_unit(image.pixels[index])
    grey = grey if image.bright_is_dense else 1 - grey
    mixed: NDArray[Any] = (1 - strength[..., np.newaxis]) * 255 * grey[..., np.newaxis] + strength[
        ..., np.newaxis
    ] * colour
    row_mm, column_mm = image.pixel_spacing_mm or (1.0, 1.0)
    scale = LONGEST_SIDE / max(image.rows * row_mm, image.columns * column_mm)
    size = max(round(image.columns * column_mm * scale), 1), max(round(image.rows * row_mm * scale), 1)
    picture = Image.fromarray(mixed.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    sheet = Image.new("RGB", (size[0] + LEGEND_WIDTH, max(size[1], 24 * (len(legend) + 4))), "black")
    sheet.paste(picture, (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    where = f"slice {index} of {image.slices}" if image.slices > 1 else ""
    for line, text in enumerate([*textwrap.wrap(title, 34)[:2], where]):
        draw.text((size[0] + 10, 6 + 18 * line), text, fill="white", font=font)
    for line, (rgb, name) in enumerate(legend):
        top = 66 + 24 * line
        draw.rectangle((size[0] + 10, top, size[0] + 26, top + 16), fill=rgb, outline="white")
        draw.text((size[0] + 34, top), name, fill="white", font=font)
    return sheet
