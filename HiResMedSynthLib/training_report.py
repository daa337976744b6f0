"""The report of a training: `report.json`, and `report.html` with curves, a table and a picture, in one file each."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from HiResMedSynthLib.aside import written_aside

HTML_FILE, JSON_FILE = "report.html", "report.json"
WIDTH, HEIGHT, EDGE = 720, 300, 40
STYLE = "body{font:15px/1.45 sans-serif;margin:2em}td,th{padding:2px 12px 2px 0;text-align:left}img{max-width:100%}"
SHOWN = 0.9  # share of the values that a plot is high enough for: the first ones would flatten all others


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line of a plot in an SVG `colour`; `points` (x, y) hold y from 0 up, None where there is none.

    `words` say what it is, none where they stand with another curve.
    """

    words: str
    colour: str
    points: Sequence[tuple[float, float | None]]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Curves over one axis, which counts what `along` says."""

    title: str
    along: str
    curves: Sequence[Curve]


def write_training_report(
    folder: Path,
    *,
    title: str,
    summary: dict[str, Any],
    plots: Sequence[Plot],
    table: Sequence[Sequence[object]],
    words: Sequence[str] = (),
    picture: bytes = b"",
    caption: str = "",
) -> Path:
    """Path of the HTML report, written into the folder beside its JSON.

    Args:
        folder: of the run.
        title: of the page.
        summary: what report.json holds; its entry `description` stands on the page too.
        plots, table, words: what is shown; the table's first row is its head.
        picture: PNG; none where empty.
        caption: of the picture.

    Raises:
        OSError: the folder can't be written.
    """
    with written_aside(folder / JSON_FILE) as aside:
        aside.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    head, *rows = ("".join(f"<td>{'' if cell is None else html.escape(str(cell))}" for cell in row) for row in table)
    shown = base64.b64encode(picture).decode()
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style>"
        f"<h1>{html.escape(title)}</h1>{''.join(f'<p>{html.escape(line)}' for line in words)}"
        f"{''.join(map(_drawn, plots))}"
        f"<table><tr>{head.replace('<td>', '<th>')}{''.join(f'<tr>{row}' for row in rows)}</table>"
        + (f"<p>{html.escape(caption)}<p><img src='data:image/png;base64,{shown}'>" if picture else "")
        + f"<pre>{html.escape(json.dumps(summary['description'], indent=1))}</pre></html>\n"
    )
    with written_aside(folder / HTML_FILE) as aside:
        aside.write_text(page, encoding="utf-8")
    return folder / HTML_FILE


def _drawn(plot: Plot) -> str:
    """The plot as SVG under its title, what each colour means below; its highest values are cut off."""
    values = sorted(y for curve in plot.curves for _, y in curve.points if y is not None)
    top = (values[int(SHOWN * (len(values) - 1))] if values else 0.0) or 1.0
    last = max(max((x for curve in plot.curves for x, _ in curve.points), default=0), 1)
    lines = []
    for curve in plot.curves:
        points = " ".join(
            f"{EDGE + (WIDTH - 2 * EDGE) * x / last:.1f},{HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * min(y / top, 1):.1f}"
            for x, y in curve.points
            if y is not None
        )
        lines.append(f"<polyline points='{points}' fill='none' stroke='{curve.colour}' stroke-width='2'/>")
    meaning = " &middot; ".join(
        f"<span style='color:{curve.colour}'>{html.escape(curve.words)}</span>" for curve in plot.curves if curve.words
    )
    return (
        f"<h2>{html.escape(plot.title)}</h2><svg width={WIDTH} height={HEIGHT}>{''.join(lines)}"
        f"<text x=4 y={EDGE}>{top:.3g}</text><text x=4 y={HEIGHT - EDGE}>0</text>"
        f"<text x={WIDTH - EDGE} y={HEIGHT - 10} text-anchor=end>{html.escape(plot.along)} {last:g}</text></svg>"
        f"<p>{meaning}"
    )
