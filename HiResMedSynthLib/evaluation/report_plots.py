"""Plots of an evaluation as inline SVG: spectra, and figures against their floors."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.evaluation.findings import BEYOND, DIFFERS, Row, shown
from HiResMedSynthLib.evaluation.image_statistics import CURVE
from HiResMedSynthLib.evaluation.set_distances import BETTER_HIGH

REAL, SYNTHETIC, QUIET, INK, PALE = "#1f6fb2", "#c2571a", "#8a8f98", "#22262b", "#e2e4e8"
WIDTH, LEFT, RIGHT, ROW = 760, 330, 60, 22
LEAST_SLACK = 1e-6
MOST = 4.0  # times the floor: longer bars are cut, and say so


def spectra_plot(real: NDArray[np.float64], synthetic: NDArray[np.float64]) -> str:
    """Mean log power by spatial frequency of both sets, with the band that 90 % of the real images keep to."""
    height, bottom, left = 300, 44, 60
    middle = np.array([(low + high) / 2 for low, high in CURVE])
    everything = np.concatenate([np.percentile(real, [5, 95], axis=0).ravel(), synthetic.mean(axis=0)])
    low, high = math.floor(everything.min()), math.ceil(everything.max())

    def x(value: float) -> float:
        return left + 2 * value * (WIDTH - left - 20)

    def y(value: float) -> float:
        return float(14 + (high - value) / max(high - low, 1) * (height - bottom - 14))

    def path(values: NDArray[np.float64]) -> str:
        return " ".join(f"{x(f):.1f},{y(v):.1f}" for f, v in zip(middle, values, strict=True))

    bounds = np.percentile(real, [5, 95], axis=0)
    band = path(bounds[0]) + " " + " ".join(reversed(path(bounds[1]).split()))
    parts = [f"<polygon points='{band}' fill='{REAL}' opacity='0.18'/>"]
    for values, colour in ((real.mean(axis=0), REAL), (synthetic.mean(axis=0), SYNTHETIC)):
        parts.append(f"<polyline points='{path(values)}' fill='none' stroke='{colour}' stroke-width='2'/>")
    for tick in range(low, high + 1):
        parts += [_line(left, y(tick), WIDTH - 20, y(tick), PALE), _text(left - 8, y(tick) + 4, f"{tick}", "end")]
    parts += [_text(x(k / 10), height - bottom + 18, f"{k / 10:g}", "middle") for k in range(6)]
    parts.append(_text((left + WIDTH) / 2, height - 6, "spatial frequency, cycles/pixel", "middle"))
    parts.append(_text(WIDTH - 30, 26, "real: mean, and 5 to 95 % of the images", "end", REAL))
    parts.append(_text(WIDTH - 30, 44, "synthetic: mean", "end", SYNTHETIC))
    return _svg(height, parts, "Power by spatial frequency (log10)")


def statistics_plot(rows: Sequence[Row]) -> str:
    """Differences of the statistics with their intervals, in units of the floor; "" where there is no floor."""
    drawn = [row for row in rows if row.family == "statistics" and row.value is not None and row.floor_limit > 0]
    parts = []
    for number, row in enumerate(drawn):
        assert row.value is not None
        middle, low, high = (value / row.floor_limit for value in (row.value, row.low, row.high))
        parts.append(_interval(number, row.name, middle, low, high, row.verdict == DIFFERS, MOST))
    if not drawn:
        return ""
    height = ROW * len(drawn) + 52
    shade = f"<rect x='{_at(-1, MOST):.1f}' y='8' width='{_at(1, MOST) - _at(-1, MOST):.1f}' height='{height - 52}' "
    shade += f"fill='{QUIET}' opacity='0.18'/>"
    ticks = [_text(_at(k, MOST), height - 26, f"{k:g}", "middle") for k in (-4, -2, -1, 0, 1, 2, 4)]
    foot = _text((LEFT + WIDTH) / 2, height - 8, "synthetic minus real, in floors (grey: real against real)", "middle")
    return _svg(height, [shade, *parts, *ticks, foot], "Statistics against the floor")


def distances_plot(rows: Sequence[Row]) -> str:
    """Distances between the sets on a common scale: the floor's mean is 0, the point that real keeps to is 1.

    Shares that are nearly always 1 between real images have no such scale (the mean isn't on the good side of the
    point): their value and verdict stand there in words. "" where nothing was measured.
    """
    drawn = [row for row in rows if row.family == "sets" and row.value is not None and not math.isnan(row.floor_limit)]
    if not drawn:
        return ""
    parts = []
    top = MOST
    for number, row in enumerate(drawn):
        assert row.value is not None
        if not _slack(row) > LEAST_SLACK:
            parts.append(_without_scale(number, row))
            continue
        scaled = [(value - row.floor) / (row.floor_limit - row.floor) for value in (row.value, row.low, row.high)]
        ends = sorted(scaled[1:])
        parts.append(_interval(number, row.name, scaled[0], ends[0], ends[1], row.verdict == BEYOND, top))
    height = ROW * len(drawn) + 52
    shade = f"<rect x='{_at(-top, top):.1f}' y='8' width='{_at(1, top) - _at(-top, top):.1f}' height='{height - 52}' "
    shade += f"fill='{QUIET}' opacity='0.18'/>"
    ticks = [_text(_at(k, top), height - 26, f"{k:g}", "middle") for k in (-4, -2, 0, 1, 2, 4)]
    told = "0 = mean of real against real, 1 = what 95 % of it keeps to (grey); farther right is worse"
    return _svg(height, [shade, *parts, *ticks, _text(WIDTH - RIGHT, height - 8, told, "end")], "Distances")


def _slack(row: Row) -> float:
    """How much worse than the floor's mean the point is that real keeps to; NaN where there is none."""
    return (row.floor - row.floor_limit) * (1 if row.name.split(",")[0] in BETTER_HIGH else -1)


def _at(value: float, most: float) -> float:
    """Column of a value on a scale from -most to most."""
    cut = min(max(value, -most), most)
    return LEFT + (cut + most) / (2 * most) * (WIDTH - LEFT - RIGHT)


def _interval(number: int, name: str, middle: float, low: float, high: float, striking: bool, most: float) -> str:
    y = 8 + ROW * number + ROW / 2
    colour = SYNTHETIC if striking else REAL
    parts = [_text(LEFT - 12, y + 4, _label(name), "end"), _line(_at(0, most), y - 9, _at(0, most), y + 9, QUIET)]
    parts.append(_line(_at(low, most), y, _at(high, most), y, colour, 2))
    parts.append(f"<circle cx='{_at(middle, most):.1f}' cy='{y:.1f}' r='4' fill='{colour}'/>")
    if abs(middle) > most:
        side, anchor = (WIDTH - RIGHT + 8, "start") if middle > 0 else (LEFT + 2, "start")
        parts.append(_text(side, y - 5 if middle < 0 else y + 4, f"{middle:.1f}", anchor, colour))
    return "".join(parts)


def _without_scale(number: int, row: Row) -> str:
    y, colour = 8 + ROW * number + ROW / 2 + 4, SYNTHETIC if row.verdict == BEYOND else INK
    around = "" if math.isnan(row.low) else f" ({shown(row.low)} to {shown(row.high)})"
    told = f"{shown(row.value)}{around}, real {shown(row.floor)}: {row.verdict}, no scale"
    return _text(LEFT - 12, y, _label(row.name), "end") + _text(LEFT + 2, y, told, "start", colour)


def _label(name: str) -> str:
    head, _, space = name.partition(" (")
    return head + (f", {space.split(',')[0]}" if space else "")


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, width: float = 1) -> str:
    return f"<line x1='{x0:.1f}' y1='{y0:.1f}' x2='{x1:.1f}' y2='{y1:.1f}' stroke='{colour}' stroke-width='{width:g}'/>"


def _text(x: float, y: float, text: str, anchor: str, colour: str = INK) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' fill='{colour}'>{html.escape(text)}</text>"


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    return (
        f"<svg viewBox='0 0 {WIDTH} {height:g}' width='{WIDTH}' role='img' aria-label='{html.escape(title)}' "
        f"font-family='sans-serif' font-size='12'><title>{html.escape(title)}</title>{''.join(parts)}</svg>"
    )
