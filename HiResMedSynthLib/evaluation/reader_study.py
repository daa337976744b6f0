"""A reader study on disk: its design, its pictures, its key; opened only if nothing of it was changed.

design.json      who sees what in which order; nothing in it tells real from synthetic
images/TOKEN.u16.gz  uint16, little endian, gzip: the same encoder and the same size for all
key.json         which token is what; never served, its hash stands in the design
answers.jsonl    one line an answer (study_answers.py)
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from HiResMedSynthLib.errors import HiResMedSynthError

DESIGN_FILE, KEY_FILE, ANSWERS_FILE, IMAGES = "design.json", "key.json", "answers.jsonl", "images"
LARGEST_DESIGN = 16 * 2**20
HIGHEST = 4095  # largest value of a study picture
Task = Literal["yes-no", "2afc", "4afc"]
ALTERNATIVES: dict[Task, int] = {"yes-no": 1, "2afc": 2, "4afc": 4}
LETTERS = "ABCD"
Document = TypeVar("Document", bound=BaseModel)
Token = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
STRICT = ConfigDict(extra="forbid", frozen=True)


class StudyError(HiResMedSynthError):
    """A reader study can't be made, opened or scored."""


class Shown(BaseModel):
    """One picture of a trial: its token, and the (row, column) that a ring is drawn around, if any."""

    model_config = STRICT

    token: Token
    mark: tuple[float, float] | None = None


class Design(BaseModel):
    """The whole design.json. Each reader has all trials, in an order of their own; positions within them too."""

    model_config = STRICT

    study_version: Literal[1] = 1
    use: str = "research only, not for diagnosis"
    task: Task
    rows: int = Field(ge=16, le=8192)
    columns: int = Field(ge=16, le=8192)
    pixel_aspect: float = Field(default=1.0, gt=0.1, lt=10.0)  # height of a pixel over its width
    units: Literal["HU", "stored"]
    offset: int  # value of the modality = value of the picture + offset
    window: tuple[float, float]  # centre and width to begin with, in values of the modality
    mark_radius: float | None = None  # pixels; the same for all
    readers: dict[str, tuple[tuple[Shown, ...], ...]]
    images: dict[Token, Sha256]
    key_sha256: Sha256

    @model_validator(mode="after")
    def _fits_together(self) -> Design:
        wanted = ALTERNATIVES[self.task]
        seen = [sorted(sorted(shown.token for shown in trial) for trial in trials) for trials in self.readers.values()]
        if not seen or any(trials != seen[0] for trials in seen):
            raise ValueError("the readers don't see the same trials")
        if any(len(trial) != wanted for trial in seen[0]) or {t for trial in seen[0] for t in trial} != set(
            self.images
        ):
            raise ValueError("the trials don't fit the pictures")
        return self


class KeyEntry(BaseModel):
    """What a picture is: side, where it came from (relative to the side's folder), size of its lesion if known."""

    model_config = STRICT

    synthetic: bool
    source: str
    size_mm: float | None = None


class Key(BaseModel):
    """The whole key.json; the seed is here since it would give the order away."""

    model_config = STRICT

    study_version: Literal[1] = 1
    seed: int
    images: dict[Token, KeyEntry]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Study:
    """An opened study: the design, its folder, and the hash of design.json, which each answer repeats."""

    folder: Path
    design: Design
    sha256: str

    @property
    def answers_path(self) -> Path:
        """The file of all answers."""
        return self.folder / ANSWERS_FILE

    @property
    def alternatives(self) -> int:
        """Pictures in a trial."""
        return ALTERNATIVES[self.design.task]

    def choices(self) -> tuple[str, ...]:
        """What a reader may answer: real or synthetic, or the letter of the synthetic picture."""
        return ("real", "synthetic") if self.alternatives == 1 else tuple(LETTERS[: self.alternatives])

    def trials(self, reader: str) -> tuple[tuple[Shown, ...], ...]:
        """The trials of a reader, in their order.

        Raises:
            StudyError: there is no such reader.
        """
        if reader not in self.design.readers:
            raise StudyError(
                f"there is no reader '{reader}' in this study", remedy=f"Choose {', '.join(self.design.readers)}."
            )
        return self.design.readers[reader]

    def packed_picture(self, token: str) -> bytes:
        """A picture as it lies on disk.

        Raises:
            StudyError: it is missing, or not the one that the study was made with.
        """
        path = image_path(self.folder, token)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StudyError(
                "a picture of the study can't be read", where=path, remedy="Copy the study anew from its origin."
            ) from error
        if hashlib.sha256(content).hexdigest() != self.design.images[token]:
            raise StudyError(
                "a picture was changed since the study was made",
                where=path,
                remedy="Copy the study anew from its origin: answers to other pictures would mean nothing.",
            )
        return content

    def check_pictures(self) -> None:
        """Refuses a study of which a picture is missing or was changed."""
        for token in self.design.images:
            self.packed_picture(token)


def open_study(folder: Path) -> Study:
    """The study in a folder; its pictures are not looked at yet (`check_pictures`).

    Raises:
        StudyError: there is none, or its design is damaged.
    """
    content = _content(folder / DESIGN_FILE, "study", "Make one with 'hiresmedsynth study new'.")
    design = _parsed(Design, content, folder / DESIGN_FILE)
    return Study(folder=folder, design=design, sha256=hashlib.sha256(content).hexdigest())


def read_key(study: Study, path: Path | None = None) -> Key:
    """The key of a study, from its folder or from where it is kept.

    Raises:
        StudyError: it is missing, or isn't the key that the study was made with.
    """
    path = path or study.folder / KEY_FILE
    content = _content(path, "key of the study", "Say where it is kept with --key.")
    if hashlib.sha256(content).hexdigest() != study.design.key_sha256:
        raise StudyError(
            "this key is not the one that the study was made with", where=path, remedy="Give the key of this study."
        )
    return _parsed(Key, content, path)


def _content(path: Path, what: str, remedy: str) -> bytes:
    try:
        if path.stat().st_size <= LARGEST_DESIGN:
            return path.read_bytes()
    except OSError as error:
        raise StudyError(f"the {what} can't be read ({error.strerror})", where=path, remedy=remedy) from error
    raise StudyError(f"the {what} is too large to be one", where=path, remedy=remedy)


def _parsed(kind: type[Document], content: bytes, path: Path) -> Document:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or first["msg"]
        raise StudyError(f"it is damaged at: {place}", where=path, remedy="Copy the study anew from its origin.") from (
            error
        )


def document_bytes(document: BaseModel) -> bytes:
    """The bytes of design.json or key.json; the same document always gives the same bytes."""
    return json.dumps(document.model_dump(mode="json"), indent=1, ensure_ascii=False).encode() + b"\n"


def packed(pixels: Any) -> bytes:
    """uint16 [row, column] as it is stored and served."""
    return gzip.compress(pixels.astype("<u2").tobytes(), 6, mtime=0)


def image_path(folder: Path, token: str) -> Path:
    """Where a picture lies."""
    return folder / IMAGES / f"{token}.u16.gz"


def checked_readers(names: Iterable[str]) -> tuple[str, ...]:
    """Names of readers, in order.

    Raises:
        StudyError: none, too many, twice the same, or a name that can't be shown.
    """
    readers = tuple(name.strip() for name in names)
    if not 1 <= len(readers) <= 50 or len(set(readers)) < len(readers):
        raise StudyError("a study needs 1 to 50 readers of different names", remedy='Give --readers "A,B".')
    for name in readers:
        if not re.fullmatch(r"[\w .()-]{1,40}", name):
            raise StudyError(
                f"'{name[:60]}' is no name for a reader",
                remedy="Take 1 to 40 letters, digits, spaces, dots, dashes or brackets.",
            )
    return readers
