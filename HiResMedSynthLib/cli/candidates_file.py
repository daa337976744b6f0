"""Proposed places as a file (CSV, JSON, Slicer markups) and the verdict on places of the user's own as text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.choices import RequestType
from HiResMedSynthLib.errors import ExportError, SettingsError
from HiResMedSynthLib.ground import Ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.propose import Proposal, judge

MARKUPS = ".mrk.json"
MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


def write_places(found: Sequence[Proposal], out: Path) -> None:
    """Writes the places; indices count from 0, millimetres are LPS.

    Raises:
        ExportError: the file can't be written.
    """
    if out.name.lower().endswith(MARKUPS):
        text = json.dumps(_markups(found), indent=1)
    elif out.suffix.lower() == ".csv":
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(
            ("number", "slice", "row", "column", "x_lps_mm", "y_lps_mm", "z_lps_mm", "times_even", "zone", "fits")
        )
        for number, one in enumerate(found, start=1):
            millimetres = (round(value, 3) for value in one.lps_mm)
            writer.writerow((number, *one.place, *millimetres, round(one.times_even, 3), one.zone or "", one.fits))
        text = table.getvalue()
    else:
        text = json.dumps(
            [
                {
                    "place": one.place,
                    "lps_mm": one.lps_mm,
                    "times_even": round(one.times_even, 3),
                    "zone": one.zone,
                    "fits": one.fits,
                }
                for one in found
            ],
            indent=1,
        )
    try:
        with written_aside(out) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ExportError(
            f"the places can't be written ({error.strerror})", where=out,
            remedy="Choose a disk with space, that you may write.",
        ) from error  # fmt: skip


def check_slices(image: MedicalImage, places: Sequence[tuple[float, ...]]) -> None:
    """Refuses places in a volume that don't tell their slice.

    Raises:
        SettingsError.
    """
    for row, column, *more in places:
        if image.slices > 1 and not more:
            raise SettingsError(
                f"row {row:g}, column {column:g} is a place in one of {image.slices} slices",
                remedy="Give its slice too: --check ROW,COL,SLICE.",
            )


def judged(
    ground: Ground, places: Sequence[tuple[float, ...]], diameter_mm: float, lesion_type: RequestType = "any"
) -> str:
    """A line for each (row, column[, slice]): whether a lesion of that diameter and type may stand there."""
    lines = []
    for row, column, *more in places:
        place = (round(more[0]) if more else 0, round(row), round(column))
        if not all(0 <= at < size for at, size in zip(place, ground.image.shape, strict=True)):
            lines.append(f"{_words(place)}: outside the image")
            continue
        verdict = judge(ground, place, diameter_mm=diameter_mm, lesion_type=lesion_type)
        if verdict.missing is not None:
            words = f"would not touch the {verdict.missing}, as a lesion of type '{lesion_type}' must"
        elif not verdict.touches:
            words = "permitted"
        elif verdict.nearest is None:
            words = f"would touch {', '.join(verdict.touches)}; no place near it is free"
        else:
            words = f"would touch {', '.join(verdict.touches)}; the nearest free place is {_words(verdict.nearest)}"
        lines.append(f"{_words(place)}, {diameter_mm:g} mm: {words}")
    return "\n".join(lines)


def _words(place: tuple[int, int, int]) -> str:
    return f"row {place[1]}, column {place[2]}, slice {place[0]}"


def _markups(found: Sequence[Proposal]) -> dict[str, object]:
    points = [
        {"id": str(number), "label": f"place-{number}", "position": list(one.lps_mm), "selected": True, "locked": False}
        for number, one in enumerate(found, start=1)
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points}
    return {"@schema": MARKUPS_SCHEMA, "markups": [markup]}
