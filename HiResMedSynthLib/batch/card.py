"""The card of a data set: README.md, card.json and pictures: what it is, from whom, how much of what, its limits."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from HiResMedSynthLib.batch.card_pictures import bars, contact_sheet, places
from HiResMedSynthLib.batch.films import maker_of
from HiResMedSynthLib.batch.layout import whole_text
from HiResMedSynthLib.batch.making import thumb_path
from HiResMedSynthLib.batch.manifest import records_of
from HiResMedSynthLib.batch.plan import Plan
from HiResMedSynthLib.batch.split import donor_of
from HiResMedSynthLib.batch.thumbs import SHEET_CASES
from HiResMedSynthLib.export.image_file import MARK, save_png
from HiResMedSynthLib.versions import installed_versions

if TYPE_CHECKING:
    from PIL.Image import Image

FEW = 10  # backgrounds or patients, below which the card warns
PERCENTILES = (5, 25, 50, 75, 95)
LIMITS = (
    "Research only, not for diagnosis. Nothing here proves that a model trained on it works on real patients: test on "
    "real cases.",
    "Lesions are varied from few real ones (see donors): a model may learn those rather than lesions as such.",
    "The backgrounds were taken as free of lesions; what they hold besides ours is not labelled.",
    "Pixels of the backgrounds are real outside of the lesions (unless films were made): whoever may not have the "
    "backgrounds may not have this data set. Text burned into pixels stays there.",
)
MADE_FILMS = "Made films: the patients whom the model that made them learned from are not split with the data set."


@dataclass
class _Counts:
    """What is counted while the records pass by, once."""

    images: Counter[str] = field(default_factory=Counter)
    by_side: Counter[tuple[str, str]] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    patients: dict[str, set[int]] = field(default_factory=dict)
    donors: dict[str, set[int]] = field(default_factory=dict)
    domains: Counter[str] = field(default_factory=Counter)
    values: dict[str, array[float]] = field(
        default_factory=lambda: {name: array("f") for name in ("diameter_mm", "contrast", "cnr")}
    )
    rows: array[float] = field(default_factory=lambda: array("f"))  # of the centres, as parts of the picture
    columns: array[float] = field(default_factory=lambda: array("f"))
    bytes: int = 0
    burned_in: int = 0  # cases whose background's header says that there is text in the pixels
    owners: dict[str, int] = field(default_factory=dict)  # of each picture: by its hash, the patient seen first
    copies: set[str] = field(default_factory=set)  # pictures that stand under two patients

    def add(self, record: dict[str, Any]) -> None:
        """Counts a case."""
        side = record["side"]
        for kind in (record["kind"], *(("without",) if record["paired"] else ())):
            self.images[kind] += 1
            self.by_side[side, kind] += 1
        self.domains[record["domain"]] += 1
        self.patients.setdefault(side, set()).add(record["patient_group"])
        self.bytes += record["bytes"]
        self.burned_in += record["burned_in"]
        if self.owners.setdefault(record["picture"], record["patient_group"]) != record["patient_group"]:
            self.copies.add(record["picture"])
        for lesion in record["lesions"]:
            self.types[lesion["type"]] += 1
            if lesion["donor"] is not None:
                self.donors.setdefault(side, set()).add(lesion["donor"])
            for name, found in self.values.items():
                if lesion[name] is not None:
                    found.append(lesion[name])
            self.rows.append(lesion["place"][1])
            self.columns.append(lesion["place"][2])


def write_card(plan: Plan, out: Path, numbers: Sequence[int], failures: dict[int, str]) -> None:
    """Writes README.md, card.json, pictures/ and sheet.png from the records of these cases."""
    counts = _Counts()
    for record in records_of(out, numbers):
        counts.add(record)
    (out / "pictures").mkdir(exist_ok=True)
    units = {"HU" if domain == "lung-ct" else "stored values" for domain in counts.domains}
    contrast = f"contrast, {' or '.join(sorted(units))}"
    for name, label in (("diameter_mm", "diameter, mm"), ("contrast", contrast), ("cnr", "contrast to noise")):
        if found := counts.values[name]:
            _save(bars(found, f"{label}, {len(found)} lesions"), out / "pictures" / f"{name}.png")
    if counts.rows:
        _save(places(counts.rows, counts.columns), out / "pictures" / "places.png")
    shown = [number for number in sorted(plan.sample(SHEET_CASES)) if thumb_path(out, number).exists()]
    if shown:
        tiles = [(f"case {number}, {plan.case(number).side}", thumb_path(out, number)) for number in shown]
        _save(contact_sheet(tiles), out / "sheet.png")
    card = _card(plan, counts, failures)
    whole_text(out / "card.json", json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    whole_text(out / "README.md", _readme(card, counts, shown=len(shown), own=bool(plan.spec.backgrounds.files)))


def _save(picture: Image, path: Path) -> None:
    aside = path.with_name(f".{path.name}.part")  # always the same: what a killed run leaves, the next one takes
    save_png(picture, aside)
    aside.replace(path)


def _card(plan: Plan, counts: _Counts, failures: dict[int, str]) -> dict[str, Any]:
    spec, split = plan.spec, plan.split
    used = [card for card in plan.bank.cards.values() if counts.donors and _is_used(plan, counts, card)]
    licences = Counter((card.licence, card.attribution) for card in used)
    return {
        "synthetic": True,
        "use": MARK,
        "name": spec.output.name,
        "data_set": plan.sha256,
        "cases": plan.count,
        "failed": len(failures),
        "images": dict(sorted(counts.images.items())),
        "sides": {
            side: {
                **{kind: counts.by_side[side, kind] for kind in sorted(counts.images)},
                "patients": len(counts.patients.get(side, ())),
                "donors": len(counts.donors.get(side, ())),
            }
            for side in split.shares
        },
        "domains": dict(sorted(counts.domains.items())),
        "lesions": sum(counts.types.values()),
        "types": dict(sorted(counts.types.items())),
        "figures": {name: _figures(found) for name, found in counts.values.items() if found},
        "bytes": counts.bytes,
        "notes": _notes(plan, counts),
        "lesion_sources": [
            {"licence": licence, "attribution": attribution, "bank_entries": count}
            for (licence, attribution), count in sorted(licences.items())
        ],
        "film_source": _film_source(plan),
        "bank_sha256": plan.bank.sha256,
        "limits": [*LIMITS, *([MADE_FILMS] if spec.backgrounds.generated is not None else [])],
        "versions": installed_versions(),
        "spec": _spec_without_places(plan),
    }


def _film_source(plan: Plan) -> dict[str, str] | None:
    """What the model of made films says of its own material; None where none are made."""
    wanted = plan.spec.backgrounds.generated
    if wanted is None:
        return None
    card = maker_of(wanted).card
    told = {"data": card.data, "licence": card.licence, "attribution": card.attribution}
    return {"model": card.name, "sha256": card.sha256, **told}


def _notes(plan: Plan, counts: _Counts) -> list[str]:
    notes = [plan.split.note] if plan.split.note else []
    patients = len(set().union(*counts.patients.values()))
    if min(patients, len(counts.owners)) < FEW:
        notes.append(
            f"all cases stand in {len(counts.owners)} background(s) of {patients} patient(s): a model learns these "
            f"pictures by heart, and its scores here say little; take {FEW} patients or more"
        )
    if counts.copies:
        notes.append(
            f"{len(counts.copies)} background(s) stand under two patients, pixel by pixel the same: name their patient "
            "in patients.csv, or one may stand on two sides"
        )
    if counts.burned_in:
        notes.append(
            f"{counts.burned_in} case(s) have a background whose header says that text is burned into the pixels, and "
            "there it stays: look before you share them"
        )
    return notes


def _is_used(plan: Plan, counts: _Counts, card: Any) -> bool:
    return any(plan.donor_groups[donor_of(card)] in found for found in counts.donors.values())


def _spec_without_places(plan: Plan) -> dict[str, Any]:
    """The spec with all defaults, without the files that it names: those could name a person."""
    told: dict[str, Any] = plan.spec.model_dump(mode="json")
    told["backgrounds"]["files"] = len(plan.backgrounds)
    return told


def _figures(found: Sequence[float]) -> dict[str, float]:
    values = np.percentile(found, PERCENTILES)
    return {f"p{percent}": round(float(value), 2) for percent, value in zip(PERCENTILES, values, strict=True)}


def _readme(card: dict[str, Any], counts: _Counts, *, shown: int, own: bool) -> str:
    kinds = sorted(counts.images)
    words = {"lesions": "with lesions", "negative": "negative", "without": "pairs without"}
    lines = [
        f"# {card['name']}",
        "",
        f"**{MARK}.** {sum(counts.images.values())} images, {card['lesions']} lesions, made by HiResMedSynth "
        f"{card['versions']['hiresmedsynth']}. Data set `{card['data_set'][:16]}`.",
        "",
        "| side | " + " | ".join(words[kind] for kind in kinds) + " | patients | lesion donors |",
        "| --- |" + " --- |" * (len(kinds) + 2),
        *(
            f"| {side} | " + " | ".join(str(told[key]) for key in (*kinds, "patients", "donors")) + " |"
            for side, told in card["sides"].items()
        ),
        "",
        "No patient of a background and no donor of a lesion stands on two sides. Where nobody tells whose an image "
        "is, each picture counts as a patient of its own; the same pixels under two names are one.",
    ]
    for note in card["notes"]:
        lines += ["", f"Note: {note}."]
    if card["failed"]:
        lines += ["", f"{card['failed']} case(s) could not be made: failures.csv says why."]
    lines += ["", "## What is in it", ""]
    if card["figures"]:
        lines += ["| | " + " | ".join(f"{p} %" for p in PERCENTILES) + " |", "| --- |" + " --- |" * len(PERCENTILES)]
        for name, told in card["figures"].items():
            lines.append(f"| {name} | " + " | ".join(f"{value:g}" for value in told.values()) + " |")
        types = ", ".join(f"{name} {count}" for name, count in card["types"].items())
        lines += ["", f"Types: {types}.", ""]
        lines += [f"![{name}](pictures/{name}.png)" for name in (*card["figures"], "places")]
    else:
        lines.append("No lesions.")
    lines += ["", f"![{shown} cases, drawn at random](sheet.png)"] if shown else []
    lines += ["", "## From whom", ""]
    lines += [
        f"- Lesions ({told['bank_entries']} of the bank): {told['licence']}. {told['attribution']}."
        for told in card["lesion_sources"]
    ]
    if (films := card["film_source"]) is not None:
        lines += [
            f"- Made films: by the model {films['model']} (sha256 {films['sha256'][:16]}), which learned from: "
            f"{films['data']}. {films['licence']}. {films['attribution']}."
        ]
    if own:
        lines += ["- Backgrounds: yours, by their own licence; their identity is not in this folder."]
    lines += ["", "## Limits", "", *(f"- {limit}" for limit in card["limits"])]
    lines += [
        "",
        "## Files",
        "",
        "`manifest.csv` has a line an image, `card.json` tells all of this to programs. What the values of pictures "
        "mean, and how to enlarge the data set: docs/datasets.md of HiResMedSynth.",
    ]
    return "\n".join(lines) + "\n"
