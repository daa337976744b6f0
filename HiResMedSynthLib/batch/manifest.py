"""manifest.csv, a line an image; failures.csv, a line a case that could not be made. Numbers stand for everybody."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from HiResMedSynthLib.batch.layout import Entries, Entry
from HiResMedSynthLib.batch.making import layouts_of, record_path
from HiResMedSynthLib.batch.plan import Plan
from HiResMedSynthLib.batch.spec import FormatName, Side

COLUMNS = (
    "case", "image", "side", "kind", "patient_group", "donor_groups", "background", "slice", "domain", "seed",
    "lesions", "types", "diameters_mm", "contrasts", "cnrs",
)  # fmt: skip


def records_of(out: Path, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The records of these cases, one at a time."""
    for number in numbers:
        yield json.loads(record_path(out, number).read_text(encoding="utf-8"))


def entries_of(out: Path, numbers: Sequence[int], layout: str) -> Entries:
    """What goes through a layout's entries of these cases with their sides, as often as it is called."""

    def each() -> Iterator[tuple[Side, Entry]]:
        for record in records_of(out, numbers):
            for entry in record["layouts"][layout]:
                yield record["side"], entry | {"patient": record["patient_group"]}

    return each


def write_manifest(plan: Plan, out: Path, numbers: Sequence[int]) -> None:
    """Writes manifest.csv: each image with its side, its lesions, and where it lies in each layout."""
    formats = [name for name in get_args(FormatName) if name in plan.spec.output.formats]
    layouts = layouts_of(plan.spec.output)
    aside = out / ".manifest.csv.part"
    with aside.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*COLUMNS, *formats])
        for record in records_of(out, numbers):
            kinds = [record["kind"], *(["without"] if record["paired"] else [])]
            for kind in kinds:
                name = record["name"] if kind != "without" else f"{record['name']}_without"
                files = [
                    " ".join(layouts[form].paths(one)[0] for one in record["layouts"][form] if one["image"] == name)
                    for form in formats
                ]
                writer.writerow([*_line(record, kind, name), *files])
    aside.replace(out / "manifest.csv")


def write_failures(out: Path, failures: dict[int, str]) -> None:
    """Writes failures.csv; removes that of an earlier run where nothing failed."""
    if not failures:
        (out / "failures.csv").unlink(missing_ok=True)
        return
    aside = out / ".failures.csv.part"
    with aside.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("case", "reason"))
        writer.writerows(failures.items())
    aside.replace(out / "failures.csv")


def _line(record: dict[str, Any], kind: str, name: str) -> list[Any]:
    lesions = record["lesions"] if kind == "lesions" else []
    donors = sorted({lesion["donor"] for lesion in lesions if lesion["donor"] is not None})
    return [
        record["number"],
        name,
        record["side"],
        kind,
        record["patient_group"],
        " ".join(map(str, donors)),
        record["background"],
        "" if record["slice"] is None else record["slice"],
        record["domain"],
        record["seed"],
        len(lesions),
        *(" ".join("" if lesion[key] is None else str(lesion[key]) for lesion in lesions).strip()
          for key in ("type", "diameter_mm", "contrast", "cnr")),
    ]  # fmt: skip
