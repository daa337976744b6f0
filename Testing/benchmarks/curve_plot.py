"""Line plots drawn with Pillow alone: some panels side by side, logarithmic upwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

WIDTH, HEIGHT, EDGE = 560, 400, 56


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve: its points, colour and, once a colour, its name."""

    x: Sequence[float]
    y: Sequence[float]
    colour: str
    name: str = ""


def draw_panels(panels: dict[str, list[Line]]) -> Image.Image:
    """One picture with a panel for each title; values of 0 or below, and what is no number, are left out."""
    picture = Image.new("RGB", (WIDTH * len(panels), HEIGHT), "white")
    for index, (title, lines) in enumerate(panels.items()):
        _panel(ImageDraw.Draw(picture), index * WIDTH, title, lines)
    return picture


def _panel(draw: ImageDraw.ImageDraw, left: int, title: str, lines: list[Line]) -> None:
    draw.text((left + EDGE, 12), title, fill="black")
    shown = [[(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y) and y > 0] for line in lines]
    points = [point for curve in shown for point in curve]
    if not points:
        return
    right = max(x for x, _ in points) or 1.0
    low, high = (math.log10(bound(y for _, y in points)) for bound in (min, max))
    span = max(high - low, 0.1)
    box = (left + EDGE, 36, left + WIDTH - 16, HEIGHT - EDGE)

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log10(y) - low) / span
        return box[0] + (box[2] - box[0]) * x / right, box[3] - (box[3] - box[1]) * share

    draw.rectangle(box, outline="#999")
    for tick in range(5):
        value = 10 ** (low + span * tick / 4)
        height = place(0, value)[1]
        draw.line([(box[0], height), (box[2], height)], fill="#eee")
        draw.text((left + 6, height - 6), f"{value:.3g}", fill="black")
        across = right * tick / 4
        draw.text((place(across, 10**low)[0] - 10, box[3] + 8), f"{across:.4g}", fill="black")
    for line, curve in zip(lines, shown, strict=True):
        if len(curve) > 1:
            draw.line([place(x, y) for x, y in curve], fill=line.colour, width=2)
    for number, line in enumerate(line for line in lines if line.name):
        draw.text((box[2] - 130, box[1] + 8 + 16 * number), line.name, fill=line.colour)
