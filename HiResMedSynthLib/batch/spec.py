"""The spec of a data set: a TOML file of three tables, checked to the last key. docs/datasets.md describes it."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from HiResMedSynthLib.batch.wishes import Choice, Counts, RangeChoice
from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.choices import REQUEST_TYPES, ZONES, Domain, FusionName, GeneratorName, SizesName
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.export.dicom_series import Compression
from HiResMedSynthLib.export.segmentation import SegKind
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.method import PlacementMethod

Side = Literal["train", "val", "test"]
SIDES: tuple[Side, ...] = get_args(Side)
FormatName = Literal["dicom", "coco", "yolo", "nnunet", "monai"]
DEFAULT_SPLIT: dict[Side, float] = {"train": 0.8, "val": 0.1, "test": 0.1}
MOST_CASES = 9_999_999  # their names have seven digits
LARGEST_SPEC = 2**20
LARGEST_SEED = 2**63 - 1  # what TOML can hold
SEE = "See: hiresmedsynth dataset --example."


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GeneratedFilms(_Table):
    """Chest films that are made, each its own patient."""

    count: int = Field(ge=1, le=1_000_000)
    seed: int = Field(default=0, ge=0, le=2**53)
    sex: Literal["F", "M"] | None = None
    model: str | None = None
    size: int | None = Field(default=None, ge=32, le=4096)


class Backgrounds(_Table):
    """What the cases are put into."""

    files: tuple[str, ...] = ()
    slices: Literal["whole", "each"] = "whole"
    spacing_mm: float | tuple[float, float] | None = None
    generated: GeneratedFilms | None = None

    @field_validator("files", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _there_are_some(self) -> Backgrounds:
        if not self.files and self.generated is None:
            raise ValueError('give files = ["FOLDER_OR_FILE", ...] or generated = { count = 10 }')
        if self.spacing_mm is not None and not all(math.isfinite(s) and 0 < s < 1000 for s in self.spacing or ()):
            raise ValueError("spacing_mm: give one number or [between rows, between columns], in mm")
        return self

    @property
    def spacing(self) -> tuple[float, float] | None:
        """(between rows, between columns) in mm, for files that don't tell; None: they do."""
        given = self.spacing_mm
        return (given, given) if isinstance(given, float) else given


class Cases(_Table):
    """What is put into them."""

    count: int = Field(default=100, ge=1, le=MOST_CASES)
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    domain: Domain | None = None
    modality: Literal["CT"] | None = None
    lesions: Counts = Field(default={"1": 1.0, "2": 1.0, "3": 1.0})
    types: Choice = Field(default={"any": 1.0})
    size_mm: RangeChoice = Field(default=(((4.0, 12.0), 1.0),))
    sizes: SizesName = "even"
    contrast: RangeChoice | None = None
    cnr: RangeChoice | None = None
    zones: Choice | None = None
    generator: GeneratorName = "deform"
    model: str | None = None
    fusion: FusionName = "better"
    watermark: bool = False
    negatives: float = Field(default=0.0, ge=0, le=1)
    paired: bool = False
    min_distance_mm: float = Field(default=5.0, ge=0)
    pleura_margin_mm: float = 2.0
    vessel_margin_mm: float = 1.0
    danger: str = "auto"
    prior: str = "auto"
    temperature: float = 1.0

    @model_validator(mode="after")
    def _possible(self) -> Cases:
        strange = [name for name in self.types if name not in REQUEST_TYPES]
        if strange:
            raise ValueError(f"types: there is no '{strange[0]}'; choose of {', '.join(REQUEST_TYPES)}")
        strange = [name for name in self.zones or {} if name not in ZONES]
        if strange:
            raise ValueError(f"zones: there is no '{strange[0]}'; choose of {', '.join(ZONES)}")
        if self.contrast is not None and self.cnr is not None:
            raise ValueError("cnr: contrast is given too, and each decides the other: give one of them")
        try:
            for size, _ in self.size_mm:
                self.settings((LesionRequest(size_mm=size, generator=self.generator, model=self.model),))
        except HiResMedSynthError as error:
            raise ValueError(error.what) from error
        return self

    def settings(self, requests: tuple[LesionRequest, ...]) -> CaseSettings:
        """The settings of a case with these requests."""
        return CaseSettings(
            requests=requests, domain=self.domain, fusion=self.fusion, margins=self.margins,
            min_distance_mm=self.min_distance_mm, placement=self.placement, modality=self.modality,
        )  # fmt: skip

    @property
    def margins(self) -> Margins:
        """Distances kept to pleura and vessels."""
        return Margins(pleura_mm=self.pleura_margin_mm, vessel_mm=self.vessel_margin_mm)

    @property
    def placement(self) -> PlacementMethod:
        """How places are found."""
        return PlacementMethod(danger=self.danger, prior=self.prior, temperature=self.temperature)


class Output(_Table):
    """How they are written."""

    name: str = Field(default="Synthetic", pattern=r"^[A-Za-z][A-Za-z0-9]{0,39}$")
    formats: tuple[FormatName, ...] = ("dicom",)
    split: dict[Side, float] | None = None
    preview: bool = False
    changed_only: bool = False
    seg: SegKind = "binary"
    sr: bool = True
    compress: Compression | None = None

    @model_validator(mode="after")
    def _possible(self) -> Output:
        if not self.formats or len(set(self.formats)) < len(self.formats):
            raise ValueError(f"formats: give each once, at least one of {', '.join(get_args(FormatName))}")
        shares = [DEFAULT_SPLIT[side] for side in SIDES] if self.split is None else list(self.split.values())
        if not shares or not all(math.isfinite(share) and share > 0 for share in shares):
            raise ValueError("split: each share is above zero; leave out a side that is not wanted")
        return self


class Spec(_Table):
    """The whole spec; paths in it are relative to its folder.

    Attributes:
        backgrounds, cases, output: its tables.
    """

    backgrounds: Backgrounds
    cases: Cases = Field(default_factory=Cases)
    output: Output = Field(default_factory=Output)

    @property
    def sha256(self) -> str:
        """Hash of what it says, but not of how many cases there are: those of a smaller data set stay the same."""
        told = self.model_dump(mode="json")
        del told["cases"]["count"]
        if told["cases"]["modality"] is None:
            del told["cases"]["modality"]  # so that data sets from before there was one stay the same
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def with_count(self, count: int) -> Spec:
        """The same with another number of cases."""
        return self.model_copy(update={"cases": self.cases.model_copy(update={"count": count})})


def read_spec(path: str | Path) -> Spec:
    """The spec in a TOML file.

    Raises:
        SettingsError: it can't be read, or a key is unknown or has a value that can't be; the message names the key.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_SPEC:
            raise SettingsError("the file is too large for a spec", where=path, remedy=SEE)
        document = json.dumps(tomllib.loads(path.read_text(encoding="utf-8-sig")), default=str)
    except OSError as error:
        raise SettingsError(
            f"the spec can't be read ({error.strerror})", where=path, remedy="Check the path."
        ) from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"the spec is no TOML ({error})", where=path, remedy=SEE) from error
    try:
        return Spec.model_validate_json(document, strict=True)
    except ValidationError as error:
        raise _refusal(error, path) from error


def _refusal(error: ValidationError, path: Path) -> SettingsError:
    first = next((one for one in error.errors() if one["type"] == "extra_forbidden"), error.errors()[0])
    keys = [str(part) for part in first["loc"] if part != "[key]"]
    key = ".".join(keys)
    if first["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        near = difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.5)
        remedy = f"Did you mean '{near[0]}'? " if near else ""
        return SettingsError(f"there is no key '{key}'", where=path, remedy=f"{remedy}Use one of: {', '.join(known)}.")
    if first["type"] == "missing":
        return SettingsError(f"'{key}' is missing", where=path, remedy=SEE)
    why = str(first["msg"]).removeprefix("Value error, ")
    field, colon, rest = why.partition(": ")
    if colon and field.isidentifier():  # a table's own check names the key that it is about
        key, why = f"{key}.{field}", rest
    return SettingsError(f"{key}: {why[:1].lower()}{why[1:]}", where=path, remedy=SEE)


def _known_keys(keys: list[str]) -> list[str]:
    model: type[BaseModel] = Spec
    for key in keys:
        inner = model.model_fields[key].annotation
        model = next(
            kind for kind in (inner, *get_args(inner)) if isinstance(kind, type) and issubclass(kind, BaseModel)
        )
    return list(model.model_fields)
