"""preview.png: each lesion before and after, outlined and numbered, in the slice of its centre."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.case import HALF, PlacedLesion
from HiResMedSynthLib.compose import Composition
from HiResMedSynthLib.image import MedicalImage, Window

if TYPE_CHECKING:
    from PIL.Image import Image

PANEL = 520  # longest side of each of the three pictures of a row, in pixels
MOST_LESIONS = 12  # shown; the text says how many more there are
ZOOM_MM = (40.0, 3.0)  # side of the enlarged square: at least this, or so many diameters
FILMS = ("cxr", "kub")  # domains: a window of the whole spans chest and abdomen, where a nodule has a few grey levels
CAPTION = 26
OUTLINE = (255, 190, 60)


def preview(composition: Composition) -> Image:
    """An RGB picture, a row for each lesion: the whole slice outlined, then the place before and after, enlarged."""
    from PIL import Image

    rows = [_row(composition, lesion) for lesion in composition.lesions[:MOST_LESIONS]]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "black")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _row(composition: Composition, lesion: PlacedLesion) -> Image:
    """Three pictures of the slice of a lesion's centre, with a caption."""
    from PIL import Image, ImageDraw, ImageFont

    areas = (lesion.alpha >= HALF).sum(axis=(1, 2))
    index = min(max(round(lesion.center[0]) - lesion.corner[0], 0), len(areas) - 1)
    index = lesion.corner[0] + (index if areas[index] else int(areas.argmax()))
    whole = _outlined(composition, index)
    box = _zoom_box(composition.image, lesion)
    window = zoom_window(composition, index, slice(box[0], box[0] + box[2]), slice(box[1], box[1] + box[3]))
    zooms = [_picture(image, window, index, box) for image in (composition.background, composition.image)]
    pictures = [_labelled(whole), zooms[0], _labelled(zooms[1])]
    row = Image.new("RGB", (3 * (PANEL + 4), PANEL + CAPTION), "black")
    for place, picture in enumerate(pictures):
        row.paste(picture, (place * (PANEL + 4) + (PANEL - picture.width) // 2, CAPTION))
    where = f", slice {index}" if composition.image.slices > 1 else ""
    more = len(composition.lesions) - MOST_LESIONS
    rest = f"; {more} more lesions not shown" if more > 0 else ""
    windowed = ", in a window of its own" if composition.case.background.domain in FILMS else ""
    texts = (
        f"SYNTHETIC, research only{where}{rest}",
        f"before{windowed}",
        f"after: {lesion.type}, {lesion.diameter_mm:.1f} mm{windowed}",
    )
    for place, text in enumerate(texts):
        ImageDraw.Draw(row).text((place * (PANEL + 4) + 6, 4), text, fill="white", font=ImageFont.load_default(15))
    return row


def zoom_window(composition: Composition, index: int, rows: slice, columns: slice) -> Window:
    """The window that a part of a slice is shown in, before and after: of a film the part's own."""
    if composition.case.background.domain not in FILMS:
        return composition.background.display_window()
    both = [image.pixels[index, rows, columns] for image in (composition.background, composition.image)]
    return Window.spanning(np.stack(both))


def _labelled(picture: Image) -> Image:
    """The picture with SYNTHETIC in its lower left corner, which stays where the caption is cut off."""
    from PIL import ImageDraw, ImageFont

    at, font = (5, picture.height - 20), ImageFont.load_default(13)
    ImageDraw.Draw(picture).text(at, "SYNTHETIC", fill="white", font=font, stroke_width=2, stroke_fill="black")
    return picture


def _outlined(composition: Composition, index: int) -> Image:
    """The composed slice with the outline, number and size of each lesion in it."""
    from PIL import ImageDraw, ImageFont

    image = composition.image
    picture = _picture(image, composition.background.display_window(), index, (0, 0, image.rows, image.columns))
    scale = picture.width / image.columns, picture.height / image.rows
    draw = ImageDraw.Draw(picture)
    taken: list[tuple[float, float, float]] = []  # places of labels, and how wide they are
    for lesion in composition.lesions:
        plane = composition.instance_mask[index] == lesion.number
        if not plane.any():
            continue
        for line in _contours(plane):
            draw.line([((x + 0.5) * scale[0], (y + 0.5) * scale[1]) for x, y in line], fill=OUTLINE, width=1)
        rows, columns = np.nonzero(plane)
        text, font = f"{lesion.number}: {lesion.diameter_mm:.0f} mm", ImageFont.load_default(14)
        _, _, width, height = draw.textbbox((0, 0), text, font=font, stroke_width=2)
        x, y = (columns.max() + 4) * scale[0], max((rows.min() - 4) * scale[1], 0.0)
        if x + width > picture.width:
            x = max((columns.min() - 4) * scale[0] - width, 0.0)
        while any(abs(x - other) < max(width, wide) and abs(y - high) < height for other, high, wide in taken):
            y += height
        at = (x, y)
        taken.append((x, y, width))
        draw.text(at, text, fill=OUTLINE, font=font, stroke_width=2, stroke_fill="black")  # readable on bright bone too
    return picture


def _zoom_box(image: MedicalImage, lesion: PlacedLesion) -> tuple[int, int, int, int]:
    """(row, column, rows, columns) of a square around the lesion, moved inside the image."""
    side_mm = max(ZOOM_MM[0], ZOOM_MM[1] * lesion.diameter_mm)
    row_mm, column_mm = image.pixel_spacing_mm or (1.0, 1.0)
    rows = min(max(round(side_mm / row_mm), 8), image.rows)
    columns = min(max(round(side_mm / column_mm), 8), image.columns)
    row = min(max(round(lesion.center[1] - rows / 2), 0), image.rows - rows)
    column = min(max(round(lesion.center[2] - columns / 2), 0), image.columns - columns)
    return row, column, rows, columns


def _picture(image: MedicalImage, window: Window, index: int, box: tuple[int, int, int, int]) -> Image:
    """A part of a slice in its window, at its true aspect, bright = dense or as MONOCHROME1 is shown."""
    from PIL import Image

    row, column, rows, columns = box
    unit = image.shown(image.pixels[index, row : row + rows, column : column + columns], window)
    picture = Image.fromarray((unit * 255).astype(np.uint8)).convert("RGB")
    row_mm, column_mm = image.pixel_spacing_mm or (1.0, 1.0)
    scale = PANEL / max(columns * column_mm, rows * row_mm)
    size = max(round(columns * column_mm * scale), 1), max(round(rows * row_mm * scale), 1)
    return picture.resize(size, Image.Resampling.BICUBIC)


def _contours(plane: NDArray[Any]) -> list[list[tuple[float, float]]]:
    """Outlines of a mask, closed, one pixel outside it, as (x, y) pixel indices."""
    import cv2

    grown = cv2.dilate(np.pad(plane, 2).astype(np.uint8), np.ones((3, 3), np.uint8))
    found, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    lines = []
    for contour in found:
        points = [(float(x) - 2, float(y) - 2) for x, y in contour.reshape(-1, 2)]
        lines.append([*points, points[0]])
    return lines
