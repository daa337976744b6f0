"""Small pictures of a data set's card: histograms, places of lesions, and a sheet of cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from HiResMedSynthLib.batch.thumbs import BEHIND, NEAR_MM, SIDE

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH, HEIGHT, MARGIN = 360, 200, 26
BINS = 24
GREY, BLUE, WHITE = (90, 90, 90), (52, 101, 164), (255, 255, 255)
ACROSS, CAPTION, GAP = 3, 20, 4


def bars(values: Sequence[float], title: str) -> Image:
    """A histogram of the values between their 1st and 99th percentile; the ends hold what lies beyond."""
    from PIL import Image, ImageDraw, ImageFont

    low, high = np.percentile(values, [1, 99])
    high = high if high > low else low + 1.0
    heights, _ = np.histogram(np.clip(values, low, high), bins=BINS, range=(low, high))
    picture = Image.new("RGB", (WIDTH, HEIGHT), WHITE)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    draw.text((MARGIN, 5), title, fill="black", font=font)
    step = (WIDTH - 2 * MARGIN) / BINS
    room = HEIGHT - 2 * MARGIN
    for k, count in enumerate(heights):
        left, top = MARGIN + k * step, HEIGHT - MARGIN - room * count / max(heights)
        draw.rectangle((left, top, left + step - 2, HEIGHT - MARGIN), fill=BLUE)
    draw.line((MARGIN, HEIGHT - MARGIN, WIDTH - MARGIN, HEIGHT - MARGIN), fill=GREY)
    draw.text((MARGIN, HEIGHT - MARGIN + 5), f"{low:.4g}", fill="black", font=font)
    draw.text((WIDTH - MARGIN, HEIGHT - MARGIN + 5), f"{high:.4g}", fill="black", font=font, anchor="ra")
    return picture


def places(rows: Sequence[float], columns: Sequence[float]) -> Image:
    """Centres of lesions as parts of the picture: a map of counts, dark = many, over all backgrounds."""
    from PIL import Image, ImageDraw, ImageFont

    side = HEIGHT - 2 * MARGIN
    left, bottom = 2 * MARGIN, HEIGHT - MARGIN
    counts, _, _ = np.histogram2d(rows, columns, bins=40, range=((0, 1), (0, 1)))
    grey = (255 - 215 * np.sqrt(counts / counts.max())).astype(np.uint8)
    picture = Image.new("RGB", (left + side + MARGIN, HEIGHT), WHITE)
    picture.paste(Image.fromarray(grey).convert("RGB").resize((side, side), Image.Resampling.NEAREST), (left, MARGIN))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    draw.rectangle((left - 1, MARGIN - 1, left + side, bottom), outline=GREY)
    draw.text((left + side / 2, 5), f"places of {len(rows)} lesions", fill="black", font=font, anchor="ma")
    for place, word in zip((MARGIN + 6, (MARGIN + bottom) / 2, bottom - 6), ("top", "row", "bottom"), strict=True):
        draw.text((left - 6, place), word, fill="black", font=font, anchor="rm")
    for place, word, anchor in ((left, "left", "la"), (left + side / 2, "column", "ma"), (left + side, "right", "ra")):
        draw.text((place, bottom + 5), word, fill="black", font=font, anchor=anchor)
    return picture


def contact_sheet(tiles: Sequence[tuple[str, Path]]) -> Image:
    """Small pictures in rows, each with its caption, headed as synthetic."""
    from PIL import Image, ImageDraw, ImageFont

    across = min(len(tiles), ACROSS)
    step_x, step_y = 2 * SIDE + GAP, SIDE + GAP + CAPTION
    height = math.ceil(len(tiles) / across) * step_y + CAPTION + GAP
    sheet = Image.new("RGB", (across * step_x + GAP, height), BEHIND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    title = f"SYNTHETIC, research only. Lesions are outlined; right: {NEAR_MM:g} mm around the largest."
    draw.text((GAP, 3), title, fill=WHITE, font=font)
    for index, (caption, file) in enumerate(tiles):
        left, top = GAP + index % across * step_x, CAPTION + index // across * step_y
        draw.text((left, top + 3), caption, fill=WHITE, font=font)
        with Image.open(file) as picture:
            sheet.paste(picture, (left, top + CAPTION))
    return sheet
