"""A case on disk: case.json (every choice, readable) beside lesions.safetensors (the drawn arrays, hashed)."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from HiResMedSynthLib.case import BackgroundReference, Case, CaseSettings, LesionRequest, Mode, PlacedLesion, Point
from HiResMedSynthLib.errors import CaseError, HiResMedSynthError

CASE_FILE = "case.json"
ARRAYS_FILE = "lesions.safetensors"
NEWER_FIELDS = (
    *(("generator", "deform"), ("model", None), ("model_sha256", None)),
    *(("zone", None), ("sizes", "even"), ("keep_shape", False)),
)
LARGEST_CASE_BYTES = 64 * 2**20
LARGEST_ARRAYS_BYTES = 2 * 2**30


class LesionRecord(BaseModel):
    """What case.json says of a placed lesion; its arrays stand in lesions.safetensors under its number."""

    model_config = ConfigDict(extra="forbid")

    number: int
    request: LesionRequest
    bank_entry: str
    origin: str
    type: str
    center: Point
    center_lps_mm: Point
    diameter_mm: float
    contrast: float
    cnr: float
    mode: Mode
    corner: tuple[int, int, int]
    intensity_base: int = Field(ge=-(2**31), le=2**31)
    details: dict[str, Any]


class ArraysRecord(BaseModel):
    """Name and hash of the file that holds the arrays."""

    model_config = ConfigDict(extra="forbid")

    file: str
    sha256: str


class CaseRecord(BaseModel):
    """The whole case.json."""

    model_config = ConfigDict(extra="forbid")

    synthetic: bool = True
    case_version: int
    seed: int
    background: BackgroundReference
    settings: CaseSettings
    lesions: list[LesionRecord]
    arrays: ArraysRecord
    placement_method: str
    bank_sha256: str
    log: list[str]
    versions: dict[str, str]


def case_bytes(case: Case) -> tuple[bytes, bytes]:
    """The contents of case.json and of lesions.safetensors; the same case always gives the same bytes."""
    from safetensors.numpy import save

    arrays = {}
    for lesion in case.lesions:
        arrays[f"{lesion.number}.alpha"] = np.ascontiguousarray(lesion.alpha)
        arrays[f"{lesion.number}.intensity"] = np.ascontiguousarray(lesion.intensity)
    packed = save(arrays)
    names = set(LesionRecord.model_fields)
    record = CaseRecord(
        case_version=case.case_version,
        seed=case.seed,
        background=case.background,
        settings=case.settings,
        lesions=[
            LesionRecord(**{f.name: getattr(lesion, f.name) for f in dataclasses.fields(lesion) if f.name in names})
            for lesion in case.lesions
        ],
        arrays=ArraysRecord(file=ARRAYS_FILE, sha256=hashlib.sha256(packed).hexdigest()),
        placement_method=case.placement_method,
        bank_sha256=case.bank_sha256,
        log=list(case.log),
        versions=case.versions,
    )
    document = record.model_dump(mode="json")
    for request in (*document["settings"]["requests"], *(lesion["request"] for lesion in document["lesions"])):
        _leave_out_defaults(request)
    if not document["settings"]["watermark"]:
        del document["settings"]["watermark"]
    if document["settings"]["modality"] is None:
        del document["settings"]["modality"]
    if not document["background"]["blanked"]:
        del document["background"]["blanked"]
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return text.encode() + b"\n", packed


def _leave_out_defaults(request: dict[str, Any]) -> None:
    """Drops newer fields where they have no effect, so that such a case reads as it did before them."""
    for name, default in NEWER_FIELDS:
        if request[name] == default:
            del request[name]


def case_sha256(case: Case) -> str:
    """Hash that names a case: of its case.json, which holds the hash of the arrays."""
    return hashlib.sha256(case_bytes(case)[0]).hexdigest()


def write_case(case: Case, folder: Path) -> None:
    """Writes case.json and lesions.safetensors into an existing folder."""
    text, packed = case_bytes(case)
    (folder / ARRAYS_FILE).write_bytes(packed)
    (folder / CASE_FILE).write_bytes(text)


def read_case(path: str | Path) -> Case:
    """The case in a case.json (or in the folder that holds one), checked against the hash of its arrays.

    Raises:
        CaseError: a missing, damaged or contradictory file, or another format version.
    """
    path = Path(path)
    if path.is_dir():
        path = path / CASE_FILE
    record = _read_record(path)
    arrays = _read_arrays(path, record)
    lesions = []
    for lesion in record.lesions:
        fields = {name: getattr(lesion, name) for name in LesionRecord.model_fields}
        try:
            alpha, intensity = arrays[f"{lesion.number}.alpha"], arrays[f"{lesion.number}.intensity"]
        except KeyError as error:
            raise CaseError(
                f"the arrays of lesion {lesion.number} are missing",
                where=path.parent / record.arrays.file,
                remedy="Copy case.json and lesions.safetensors together from the folder they were written to.",
            ) from error
        lesions.append(PlacedLesion(alpha=alpha, intensity=intensity, **fields))
    return Case(
        background=record.background,
        settings=record.settings,
        seed=record.seed,
        lesions=tuple(lesions),
        placement_method=record.placement_method,
        bank_sha256=record.bank_sha256,
        log=tuple(record.log),
        versions=record.versions,
        case_version=record.case_version,
    )


def read_requests(path: str | Path) -> tuple[LesionRequest, ...]:
    """The lesion requests of a JSON file: a list of objects with the fields of `LesionRequest`, or a case.json.

    Of a case.json the places are those that were drawn: edit one, and the others stay bit for bit.

    Raises:
        CaseError: unreadable, or a field that doesn't exist or can't be.
    """
    path = Path(path)
    document = _read_json(path)
    items = document
    if isinstance(document, dict):
        drawn = document.get("lesions")
        items = document.get("requests")
        if isinstance(drawn, list) and all(isinstance(lesion, dict) for lesion in drawn):
            items = [lesion.get("request") for lesion in drawn]
    example = 'Write a list of objects such as [{"size_mm": [6, 9], "type": "solid"}].'
    if not (isinstance(items, list) and items and all(isinstance(item, dict) for item in items)):
        raise CaseError("this is no list of lesion requests", where=path, remedy=example)
    known = {f.name for f in dataclasses.fields(LesionRequest)}
    unknown = {key for item in items for key in item} - known
    if unknown:
        raise CaseError(
            f"a lesion request has no field {', '.join(sorted(unknown))}",
            where=path,
            remedy=f"Use only {', '.join(sorted(known))}.",
        )
    taken = {item["seed"] for item in items if isinstance(item.get("seed"), int)}
    free = (seed for seed in itertools.count() if seed not in taken)
    items = [item if "seed" in item else {"seed": next(free), **item} for item in items]
    try:
        return TypeAdapter(tuple[LesionRequest, ...]).validate_python(items)
    except HiResMedSynthError as error:
        raise CaseError(error.what, where=path, remedy=error.remedy) from error
    except ValidationError as error:
        raise _refusal(error, path, example) from error


def _read_record(path: Path) -> CaseRecord:
    document = _read_json(path)
    version = document.get("case_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version != Case.case_version:
        raise CaseError(
            f"this case has format version {version}, this program reads {Case.case_version}",
            where=path,
            remedy="Open it with the version of HiResMedSynth that wrote it (named under 'versions').",
        )
    try:
        return CaseRecord.model_validate(document)
    except HiResMedSynthError as error:
        raise CaseError(error.what, where=path, remedy=error.remedy) from error
    except ValidationError as error:
        raise _refusal(error, path, "Take the case.json that 'hiresmedsynth compose' wrote, unchanged.") from error


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST_CASE_BYTES:
            raise CaseError("the file is too large for a case", where=path, remedy="Give a case.json.")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CaseError("there is no such file", where=path, remedy="Check the path.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CaseError(f"the file is no readable JSON ({error})", where=path, remedy="Give an intact file.") from error


def _read_arrays(path: Path, record: CaseRecord) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if record.arrays.file != ARRAYS_FILE:
        raise CaseError(
            f"the arrays of a case stand in {ARRAYS_FILE}, not in '{record.arrays.file}'",
            where=path,
            remedy="Take the case.json that 'hiresmedsynth compose' wrote, unchanged.",
        )
    file = path.parent / ARRAYS_FILE
    together = "Copy case.json and lesions.safetensors together from the folder they were written to."
    try:
        if file.stat().st_size > LARGEST_ARRAYS_BYTES:
            raise CaseError("the file is too large for a case", where=file, remedy=together)
        packed = file.read_bytes()
    except OSError as error:
        raise CaseError(f"the drawn lesions can't be read ({error.strerror})", where=file, remedy=together) from error
    if hashlib.sha256(packed).hexdigest() != record.arrays.sha256:
        raise CaseError("the drawn lesions are not those of this case (hash differs)", where=file, remedy=together)
    try:
        arrays: dict[str, Any] = load(packed)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CaseError(f"the drawn lesions are damaged ({error})", where=file, remedy=together) from error
    return arrays


def _refusal(error: ValidationError, path: Path, remedy: str) -> CaseError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the file"
    return CaseError(f"{place}: {first['msg'].lower()}", where=path, remedy=remedy)
