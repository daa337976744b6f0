"""Pictures of where lesions may go: danger classes or the prior over the image, with a legend."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger_map import DangerMap

if TYPE_CHECKING:
    from PIL.Image import Image

# colours by label; 0 = permitted
COLOURS = (
    *((0, 170, 0), (60, 60, 60), (190, 120, 0), (150, 0, 150), (200, 200, 0), (220, 0, 0), (0, 170, 220)),
    *((240, 240, 240), (255, 120, 180)),
)
LONGEST_SIDE = 800
LEGEND_WIDTH = 260
STRENGTH = 0.35  # of the colour over the grey
RAMP = ((20, 20, 120), (220, 40, 60), (255, 230, 60))
RAMP_WORDS = ((1.0, "most likely"), (0.5, "half as likely"), (0.05, "unlikely"))
FORBIDDEN = (70, 90, 110)
CROSS = (0, 255, 120)
Colour = tuple[int, int, int]
Index = tuple[int, int, int]


def danger_picture(image: MedicalImage, danger_map: DangerMap, *, index: int | None = None) -> Image:
    """An RGB picture of a slice coloured by class, with the classes' names; None: that with most permitted tissue."""
    index = most_permitted(danger_map) if index is None else index
    colour = np.asarray(COLOURS, dtype=np.float32)[danger_map.labels[index] % len(COLOURS)]
    names = {0: "permitted", **danger_map.names}
    legend = [(COLOURS[label % len(COLOURS)], name) for label, name in names.items()]
    return _picture(image, index, colour, np.full(colour.shape[:2], STRENGTH, np.float32), legend, danger_map.method)


def prior_picture(
    image: MedicalImage,
    heat: NDArray[np.float32],
    danger_map: DangerMap,
    *,
    places: Sequence[Index] = (),
    index: int | None = None,
    method: str = "where lesions occurred",
) -> Image:
    """An RGB picture of a slice, None: that of `danger_picture`: the prior from blue to yellow, what is forbidden in
    grey-blue, places as crosses (those of other slices smaller).
    """
    index = most_permitted(danger_map) if index is None else index
    share = heat[index] / max(float(heat[index].max()), 1e-30)
    colour, strength = _ramp(share), (0.25 + 0.4 * share) * (share > 0)
    legend = [(_as_rgb(_ramp(np.array(level, dtype=np.float32))), words) for level, words in RAMP_WORDS]
    forbidden = danger_map.labels[index] > 0
    colour[forbidden], strength[forbidden] = FORBIDDEN, 0.3
    legend.append((FORBIDDEN, "forbidden"))
    title = f"prior: {method}"
    if places:
        legend.append((CROSS, "proposed place"))
    return _picture(image, index, colour, strength.astype(np.float32), legend, title, places=places)


def most_permitted(danger_map: DangerMap) -> int:
    """The slice with most permitted tissue: pictures of one image show the same, so that they can be compared."""
    return int((danger_map.labels == 0).sum(axis=(1, 2)).argmax())


def _ramp(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[..., 3]` from dark blue over red to yellow: also told apart without colour, by brightness."""
    share = np.asarray(share, dtype=np.float32)[..., np.newaxis]
    low, middle, high = (np.array(rgb, dtype=np.float32) for rgb in RAMP)
    return np.where(share < 0.5, low + (middle - low) * 2 * share, middle + (high - middle) * (2 * share - 1))


def _as_rgb(colour: NDArray[np.float32]) -> Colour:
    red, green, blue = (int(value) for value in colour)
    return red, green, blue


def _picture(
    image: MedicalImage,
    index: int,
    colour: NDArray[np.float32],
    strength: NDArray[np.float32],
    legend: list[tuple[tuple[int, int, int], str]],
    title: str,
    *,
    places: Sequence[Index] = (),
) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    grey = image.shown(image.pixels[index])
    mixed: NDArray[Any] = (1 - strength[..., np.newaxis]) * 255 * grey[..., np.newaxis] + strength[
        ..., np.newaxis
    ] * colour
    row_mm, column_mm = image.pixel_spacing_mm or (1.0, 1.0)
    scale = LONGEST_SIDE / max(image.rows * row_mm, image.columns * column_mm)
    size = max(round(image.columns * column_mm * scale), 1), max(round(image.rows * row_mm * scale), 1)
    picture = Image.fromarray(mixed.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    marker = ImageDraw.Draw(picture)
    for place in places:
        x, y = (place[2] + 0.5) * size[0] / image.columns, (place[1] + 0.5) * size[1] / image.rows
        arm = 6 if place[0] == index else 3
        for width, rgb in ((3, (0, 0, 0)), (1, CROSS)):
            marker.line((x - arm, y, x + arm, y), fill=rgb, width=width)
            marker.line((x, y - arm, x, y + arm), fill=rgb, width=width)
    sheet = Image.new("RGB", (size[0] + LEGEND_WIDTH, max(size[1], 24 * (len(legend) + 4))), "black")
    sheet.paste(picture, (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    where = f"slice {index} (0 to {image.slices - 1})" if image.slices > 1 else ""
    for line, text in enumerate([*textwrap.wrap(title, 34)[:2], where]):
        draw.text((size[0] + 10, 6 + 18 * line), text, fill="white", font=font)
    for line, (rgb, name) in enumerate(legend):
        top = 66 + 24 * line
        draw.rectangle((size[0] + 10, top, size[0] + 26, top + 16), fill=rgb, outline="white")
        draw.text((size[0] + 34, top), name, fill="white", font=font)
    return sheet
