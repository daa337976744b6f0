"""An evaluation as one HTML file that needs nothing else, as JSON with the same figures, and in a few lines of text."""

from __future__ import annotations

import base64
import html
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import __version__
from HiResMedSynthLib.annotation_report import WARNING
from HiResMedSynthLib.errors import ExportError
from HiResMedSynthLib.evaluation.evaluate_sets import Evaluation
from HiResMedSynthLib.evaluation.findings import (
    BEYOND,
    DIFFERS,
    FAMILIES,
    NOT_MEASURED,
    WITHIN,
    Criterion,
    Row,
    patients,
    plain,
    shown,
)
from HiResMedSynthLib.evaluation.report_plots import distances_plot, spectra_plot, statistics_plot
from HiResMedSynthLib.evaluation.report_sheets import sheets

HTML_FILE, JSON_FILE = "report.html", "report.json"
HOW = (
    "Every draw is made by patient. The floor is what halves of the real set are apart, at the same number of "
    "patients: a distance within it can't be told from real against real. Intervals are 95 %, by bootstrap. Verdicts "
    "of tests are after Bonferroni's correction. 'Not significant' at few patients means little: see the interval.",
    "Figures of another feature space, number of images or window can't be compared with these; nor can those of "
    "publications. Beside pairs the floor is what two different real images score.",
)
STYLE = (
    "body{font:15px/1.45 sans-serif;margin:2em auto;max-width:86em;padding:0 1em;color:#22262b}table{border-collapse:"
    "collapse}th,td{text-align:left;padding:3px 12px 3px 0;border-bottom:1px solid #e2e4e8;vertical-align:top}"
    "td.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}small{color:#5b616b}"
    "b.bad{color:#a8480f}b.good{color:#1b6e3c}figure{margin:1em 0}img{max-width:100%}h2{margin-top:1.6em}"
)


def facts(found: Evaluation) -> dict[str, Any]:
    """The evaluation as plain values; no name of a file or patient."""
    settings, grid = found.settings, found.grid
    return {
        "what": "evaluation of synthetic against real images",
        "use": "research only, not for diagnosis",
        "version": __version__,
        "settings": {
            "paired": settings.paired,
            "allow_shared": settings.allow_shared,
            "resample": settings.resample,
            "window": None if settings.window is None else [settings.window.center, settings.window.width],
            "slices": settings.slices,
            "spaces": list(settings.spaces),
            "seed": settings.seed,
        },
        "images": {
            name: {"images": len(side.facts), "patients": len(set(side.groups)), "from_cache": side.from_cache}
            for name, side in (("real", found.real), ("synthetic", found.synthetic))
        },
        "pairs": len(found.plans),
        "grid": {"size": list(grid.size), "resampled": grid.resampled, "range": grid.unit, "kind": grid.kind},
        "shared_patients": len(found.shared),
        "notes": list(found.notes),
        "figures": [row.record() for row in found.rows],
        "leading_features": [{"feature": name, "difference_sd": plain(apart)} for name, apart in found.leading],
        "scorecard": [one.record() for one in found.criteria],
    }


def as_text(found: Evaluation) -> str:
    """The figures in lines, for a terminal."""
    lines = [f"{name:<11} {value}" for name, value in _summary(found)]
    for row in found.rows:
        if row.value is None:
            lines.append(f"{row.verdict:<24} {row.name}: {row.note}")
            continue
        told = f"{row.name}: {shown(row.value)}{_unit(row)}{_around(row)}, {row.n}"
        lines.append(f"{row.verdict:<24} {told}" + (f"; {_reason(row)}" if _reason(row) else ""))
    lines += [f"{'note':<11} {note}" for note in found.notes]
    return "\n".join(lines)


def as_html(found: Evaluation) -> str:
    """One page with tables, plots and pictures; no script, nothing from elsewhere, no name of a file or patient."""
    escape = html.escape
    summary = "".join(f"<tr><th>{escape(name)}<td>{escape(value)}" for name, value in _summary(found))
    notes = "".join(f"<li>{escape(note)}." for note in found.notes)
    tables = "".join(
        f"<h2>{title}</h2>{_table([row for row in found.rows if row.family == family])}"
        for family, title in FAMILIES.items()
        if any(row.family == family for row in found.rows)
    )
    leading = "".join(f"<li>{escape(name)}: {shown(apart)} SD" for name, apart in found.leading)
    plots = "".join(
        f"<figure>{plot}</figure>"
        for plot in (
            distances_plot(found.rows),
            statistics_plot(found.rows),
            spectra_plot(found.real.spectra, found.synthetic.spectra),
        )
        if plot
    )
    pictures = "".join(
        f"<figure><img alt='{escape(what)}' src='data:image/png;base64,{_png(sheet)}'><figcaption>{escape(what)}"
        "</figcaption></figure>"
        for what, sheet in sheets(found)
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Synthetic against real images</title>"
        f"<style>{STYLE}</style><h1>Synthetic against real images</h1>"
        f"<p><b>{WARNING} Research only, not for diagnosis.</b><table>{summary}</table>"
        f"<ul>{notes}</ul>"
        + "".join(f"<p>{escape(line)}" for line in HOW)
        + f"{tables}"
        + (f"<h3>Texture features that differ most, in SD of the real set</h3><ul>{leading}</ul>" if leading else "")
        + f"<h2>Plots</h2>{plots}<h2>Scorecard</h2><p>The seven criteria of the FDA's scorecard of synthetic medical "
        f"data, as far as they were measured here.{_scorecard(found.criteria)}<h2>Pictures</h2>{pictures}</html>\n"
    )


def write_report(found: Evaluation, folder: Path, *, overwrite: bool = False) -> None:
    """Writes report.html and report.json into the folder: each whole, and neither where there is no room for both.

    Raises:
        ExportError: it exists and may not be replaced, or can't be written.
    """
    check_report_folder(folder, overwrite=overwrite)
    files = {HTML_FILE: as_html(found), JSON_FILE: json.dumps(facts(found), indent=1, ensure_ascii=False) + "\n"}
    aside: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name[:40]}-", dir=folder.parent))
        for name, text in files.items():
            (aside / name).write_text(text, encoding="utf-8")
        folder.mkdir(exist_ok=True)
        for name in files:
            (aside / name).replace(folder / name)
    except OSError as error:
        raise ExportError(
            f"the report can't be written ({error.strerror or error})", where=folder, remedy="Choose another place."
        ) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def check_report_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuses a folder that can't take the report, before any work is done.

    Raises:
        ExportError: it can't be made, or holds anything other than an earlier report with `overwrite`.
    """
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK | os.X_OK) or not parent.is_dir():
        raise ExportError("the report can't be made here", where=parent, remedy="Choose a folder that you may write.")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and not overwrite:
        raise ExportError("the report's folder already exists", where=folder, remedy="Choose another, or --overwrite.")
    if not names <= {HTML_FILE, JSON_FILE}:
        raise ExportError("the folder holds what is no report", where=folder, remedy="Choose another --report.")


def _summary(found: Evaluation) -> list[tuple[str, str]]:
    def side(one: Any) -> str:
        told = f"{len(one.facts)} images of {patients(one.groups)}"
        return f"{told}, {one.from_cache} measured before" if one.from_cache else told

    grid = found.grid
    resampled = ", resampled" if grid.resampled else ""
    return [
        ("real", side(found.real)),
        ("synthetic", side(found.synthetic)),
        ("pairs", str(len(found.plans)) if found.plans else "none"),
        ("images", f"{grid.kind or 'unknown modality'}, {grid.size[0]} x {grid.size[1]} pixels{resampled}; the range "
                   f"0 to 1 is {grid.unit}"),
    ]  # fmt: skip


def _table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        colour = "bad" if row.verdict in (BEYOND, DIFFERS) else "good" if row.verdict == WITHIN else ""
        value = shown(row.value) + _unit(row) if row.value is not None else ""
        floor = shown(row.floor) if not np.isnan(row.floor) else ""
        limit = shown(row.floor_limit) if not np.isnan(row.floor_limit) else ""
        lines.append(
            f"<tr><td>{html.escape(row.name)}<br><small>{html.escape(row.note)}</small><td>{html.escape(row.n)}"
            f"<td class=n>{value}<td class=n>{_interval(row)}<td class=n>{floor}<td class=n>{limit}"
            f"<td><b class='{colour}'>{html.escape(row.verdict)}</b><br><small>{html.escape(_reason(row))}</small>"
        )
    head = "<tr><th>measure<th>n<th>value<th>95 % interval<th>real against real<th>95 % of it<th>verdict"
    return f"<table>{head}{''.join(lines)}</table>"


def _scorecard(criteria: Sequence[Criterion]) -> str:
    lines = "".join(
        f"<tr><th>{one.name}<td>{html.escape(one.asks)}<td>"
        + ("<br>".join(html.escape(sentence) for sentence in one.measured) or NOT_MEASURED)
        for one in criteria
    )
    return f"<table>{lines}</table>"


def _reason(row: Row) -> str:
    return row.reason or ("" if np.isnan(row.p) else f"after correction (p = {row.p:.2g})")


def _unit(row: Row) -> str:
    return f" {row.unit}" if row.unit and row.value is not None and np.isfinite(row.value) else ""


def _interval(row: Row) -> str:
    return "" if np.isnan(row.low) or np.isnan(row.high) else f"{shown(row.low)} to {shown(row.high)}"


def _around(row: Row) -> str:
    told = f" ({_interval(row)})" if _interval(row) else ""
    return told + (f", real against real {shown(row.floor)}" if not np.isnan(row.floor) else "")


def _png(picture: NDArray[np.uint8]) -> str:
    import cv2

    done, data = cv2.imencode(".png", picture[..., ::-1])
    assert done
    return base64.b64encode(data.tobytes()).decode()
