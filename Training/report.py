"""The report of a run: `report.json` with the losses before and after, `report.html` with curves and a sheet."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from HiResMedSynthLib.aside import written_aside

LOG = "log.jsonl"
WIDTH, HEIGHT, EDGE = 720, 300, 40
CURVES = (("loss", "#999", "training, as it went"), ("measured_train", "#06c", "training films, unchanged"),
          ("measured_held_out", "#c30", "held-out films"))  # fmt: skip


def log_entry(out: Path, entry: Mapping[str, Any]) -> None:
    """Adds a line to the log of the run in `out`, and says it."""
    with (out / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(entry) + "\n")
    click.echo(" ".join(f"{name}={value}" for name, value in entry.items()))


def write_report(out: Path, description: dict[str, Any]) -> Path | None:
    """Path of the HTML report of the run in `out`; None where nothing was logged yet."""
    log = out / LOG
    if not log.is_file():
        return None
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    best = min(entries, key=lambda entry: entry["measured_held_out"])
    summary = {"description": description, "first": entries[0], "last": entries[-1], "best_held_out": best}
    with written_aside(out / "report.json") as aside:
        aside.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    rows = "".join(
        f"<tr><td>{name}</td>"
        + "".join(f"<td>{entry[key]}</td>" for key in ("step", *(c[0] for c in CURVES)))
        + "</tr>"
        for name, entry in (("first", entries[0]), ("last", entries[-1]), ("best held-out", best))
    )
    sheet = out / "sheet-last.png"
    picture = base64.b64encode(sheet.read_bytes()).decode() if sheet.is_file() else ""
    page = (
        "<!doctype html><meta charset=utf-8><title>Training report</title>"
        f"<h1>Stage {html.escape(str(description.get('stage', '')))}</h1>"
        f"<pre>{html.escape(json.dumps(description, indent=1))}</pre>{_curves(entries)}"
        "<p>"
        + " &middot; ".join(f"<span style='color:{colour}'>{words}</span>" for _, colour, words in CURVES)
        + "</p>"
        "<table border=1 cellpadding=4><tr><th><th>step<th>loss<th>training films<th>held-out films</tr>"
        f"{rows}</table><p>Sheet by the averaged weights:</p><img src='data:image/png;base64,{picture}'>"
    )
    target = out / "report.html"
    with written_aside(target) as aside:
        aside.write_text(page, encoding="utf-8")
    return target


def _curves(entries: list[dict[str, Any]]) -> str:
    """An SVG of the losses against the step; the highest tenth of the values is cut off."""
    values = sorted(entry[name] for entry in entries for name, _, _ in CURVES if entry[name] is not None)
    top = values[int(0.9 * (len(values) - 1))] or 1.0
    last = entries[-1]["step"]
    lines = []
    for name, colour, _ in CURVES:
        points = " ".join(
            f"{EDGE + (WIDTH - 2 * EDGE) * entry['step'] / last:.1f},"
            f"{HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * min(entry[name] / top, 1):.1f}"
            for entry in entries
            if entry[name] is not None
        )
        lines.append(f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2'/>")
    return (
        f"<svg width={WIDTH} height={HEIGHT}>{''.join(lines)}<text x=4 y={EDGE}>{top:.3g}</text>"
        f"<text x=4 y={HEIGHT - EDGE}>0</text><text x={WIDTH - EDGE} y={HEIGHT - 10}>{last}</text></svg>"
    )
