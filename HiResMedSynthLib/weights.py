"""Models by name: those of the release, checked by its hashes, and the user's own in the model store.

A model is one safetensors file whose header holds its card (metadata entry `card`, JSON). The store is a folder of the
user's: `NAME.safetensors` beside `NAME.json`, the hash taken when it was added. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from HiResMedSynthLib.aside import new_name_beside, written_aside
from HiResMedSynthLib.card_texts import names_a_place, texts_in
from HiResMedSynthLib.choices import use_of
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.one_at_a_time import one_at_a_time
from HiResMedSynthLib.whole_tensors import save_tensors

STORE_VARIABLE = "HIRESMEDSYNTH_MODELS"
SUFFIX, RECORD_SUFFIX = ".safetensors", ".json"
RELEASE_FILE = "release.json"  # beside the shipped models: file name -> sha256
TURN = ".turn"  # in the store while a model is added or removed
RUNS = "training"  # folder of the store, a folder a name: trainings that were cut off, reports of those that ended
LARGEST_BYTES = 512 * 2**20
LARGEST_HEADER = 8 * 2**20
LARGEST_CARD = 64 * 2**10
NAME_PATTERN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,58}[A-Za-z0-9])?")
KIND_PATTERN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that Windows keeps for devices
WORDS = ("auto", "rule", "density", "distances")  # what --danger and --prior take beside models
TEXT_FIELDS = ("name", "kind", "data", "licence", "attribution", "limits", "created")
ADVICE = "See: hiresmedsynth models list."


class ModelError(HiResMedSynthError):
    """A model is missing, damaged, changed, or not what was asked for."""


class NoModelError(ModelError):
    """There is no model of that name."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model is and where it comes from; names no path.

    Args:
        name: of the model; in the store that of its file.
        kind: what it is used for: "lesion-singan", "lesion-flow", "background" ...
        data: what it was trained on, in words.
        licence, attribution: of the weights, and whom to name.
        seed: of the training.
        metrics: what was measured on held-out data; finite numbers or words.
        limits: what it must not be used for, and where it is known to fail.
        created: ISO date.
        details: what its kind needs besides (a lesion model: its source lesion).
        sha256, bytes: of the file; filled in when it is read.
    """

    name: str
    kind: str
    data: str
    licence: str
    attribution: str
    seed: int | None = None
    metrics: dict[str, float | str] = field(default_factory=dict)
    limits: str = ""
    created: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    bytes: int = 0

    def __post_init__(self) -> None:
        if not all(isinstance(getattr(self, name), str) for name in TEXT_FIELDS):
            raise ModelError("the card's texts are no texts", remedy="Take the file as its trainer wrote it.")
        check_name(self.name)
        if not (KIND_PATTERN.fullmatch(self.kind) and len(self.kind) <= 40):
            raise ModelError(f"'{self.kind[:40]}' is no kind of model", remedy="Name it like lesion-singan.")
        try:
            told = texts_in(dataclasses.asdict(self))
        except ValueError as error:
            raise ModelError(f"the card holds {error}", remedy="Use texts and finite numbers only.") from error
        if any(map(names_a_place, told)):
            raise ModelError(
                "the card names a file or folder of some machine", remedy="Describe the data without its path."
            )

    def to_json(self) -> str:
        """The card as it stands in a model file's header."""
        told = {k: v for k, v in dataclasses.asdict(self).items() if k not in ("sha256", "bytes")}
        return json.dumps(told, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that is there: its card, its file, and whether it came with the release."""

    card: Card
    path: Path
    shipped: bool


def check_name(name: str) -> str:
    """The name itself, where it can name a model on every system.

    Raises:
        ModelError: it is empty, too long, or holds path parts or signs.
    """
    if name in WORDS:
        raise ModelError(f"'{name}' is a choice of --danger or --prior already", remedy="Name the model otherwise.")
    if not NAME_PATTERN.fullmatch(name) or ".." in name or RESERVED.fullmatch(name):
        raise ModelError(
            f"'{name[:60]}' can't name a model",
            remedy="Use up to 60 letters, digits, dots, hyphens and underscores, without folders.",
        )
    return name


def store_folder() -> Path:
    """The user's model store; $HIRESMEDSYNTH_MODELS, else HiResMedSynth/models in the user's data folder."""
    chosen = os.environ.get(STORE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        told = Path(os.environ.get("XDG_DATA_HOME") or "")
        base = told if told.is_absolute() else Path.home() / ".local" / "share"
    return base / "HiResMedSynth" / "models"


def identity(name: str, sha256: str) -> str:
    """The name and the beginning of the hash, for records; without a hash the name alone."""
    return f"{name} (sha256 {sha256[:12]})" if sha256 else name


def models(kind: str | None = None) -> tuple[Model, ...]:
    """The models whose cards can be read, shipped ones first, then by name; their hashes are checked by `find`."""
    found = []
    for path, shipped in _files():
        try:
            card = _known_card(path, shipped=shipped)
        except ModelError:
            continue
        if kind in (None, card.kind):
            found.append(Model(card=card, path=path, shipped=shipped))
    return tuple(found)


def damaged() -> dict[str, ModelError]:
    """Name -> what is wrong with it, for models that are there but can't be used."""
    problems = {}
    for path, shipped in _files():
        try:
            _verified(path, shipped=shipped)
        except ModelError as error:
            problems[path.stem] = error
    return problems


def find(name: str, kind: str | None = None, *, words: tuple[str, ...] = ()) -> Model:
    """The model of that name, its file checked against the hash taken when it was added (or released).

    `words`: what could be said in place of a model's name, for the message.

    Raises:
        ModelError: there is none (`NoModelError`), it is of another kind, or its file was changed or damaged.
    """
    check_name(name)
    for path, shipped in _files():
        if path.stem != name:
            continue
        card = _verified(path, shipped=shipped)
        if kind and kind != card.kind:
            raise ModelError(f"the model '{name}' {use_of(card.kind)}; needed: one that {use_of(kind)}", remedy=ADVICE)
        return Model(card=card, path=path, shipped=shipped)
    advice = (f"Choose {', '.join(words)}, or a model. " if words else "") + ADVICE
    raise NoModelError(f"there is no model '{name}'", remedy=f"{advice} A file becomes a model by: models add FILE.")


def add(path: str | Path, name: str | None = None) -> Model:
    """Copies a model file into the store, all or nothing, and keeps its hash; of two of one name the first stays.

    Args:
        path: safetensors file with a card.
        name: under which it is kept; None: the card's.

    Raises:
        ModelError: no such file, too large, no card, or the name is taken.
    """
    path = Path(path)
    if name is not None:
        check_name(name)
    folder = store_folder()
    aside = new_name_beside(folder / "new", ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with aside.open("xb") as copy:
            digest, size = _copied(path, copy)
        card = read_card(aside, where=path)
        name = name or card.name
        target = folder / f"{name}{SUFFIX}"
        with one_at_a_time(folder / TURN):  # two of one name would leave the file of one with the hash of the other
            if any(other.stem.lower() == name.lower() for other, _ in _files()):
                taken = f"there is a model '{name}' already"
                raise ModelError(taken, remedy="Give another --name, or remove that one first.")
            with written_aside(target.with_suffix(RECORD_SUFFIX)) as record:
                record.write_text(json.dumps({"sha256": digest, "bytes": size}) + "\n", encoding="utf-8")
            aside.replace(target)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()
    return Model(card=dataclasses.replace(card, name=name, sha256=digest, bytes=size), path=target, shipped=False)


def remove(name: str) -> None:
    """Deletes a model of the user's own, damaged ones too, and the report of its training.

    Raises:
        ModelError: there is none, or it came with the release.
    """
    check_name(name)
    own = store_folder() / f"{name}{SUFFIX}"
    if not own.is_file():
        shipped = any(path.stem == name for path, is_shipped in _files() if is_shipped)
        what = "came with the release and stays" if shipped else "isn't in the model store"
        raise ModelError(f"the model '{name}' {what}", remedy=ADVICE)
    try:
        with one_at_a_time(own.parent / TURN):
            own.unlink()
            own.with_suffix(RECORD_SUFFIX).unlink(missing_ok=True)
        for report in (own.parent / RUNS / name).glob("report.*"):
            report.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: a training of that name that was cut off
            (own.parent / RUNS / name).rmdir()
    except OSError as error:
        raise _unwritable(own.parent, error) from error


def read_card(path: Path, *, where: Path | None = None) -> Card:
    """The card of a model file, with the file's size; its hash is left empty.

    Args:
        path: the file.
        where: what an error names; None: the file's name alone.

    Raises:
        ModelError: it is no safetensors file, is cut off, or has no card.
    """
    from safetensors import SafetensorError, safe_open

    place: str | Path = path.name if where is None else where
    other = "Give a .safetensors file that a trainer of HiResMedSynth wrote; a pickle is never opened."
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= LARGEST_HEADER:
            raise ModelError("this is no safetensors file", where=place, remedy=other)
        with safe_open(path, framework="np") as file:
            told = (file.metadata() or {}).get("card", "")
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(
            f"the model can't be read ({error.strerror or 'no such file'})", where=place, remedy="Check the path."
        ) from error
    except (SafetensorError, ValueError) as error:
        raise ModelError("this is no safetensors file, or it is cut off", where=place, remedy=other) from error
    if not told or len(told) > LARGEST_CARD:
        raise ModelError("the file has no card in its header", where=place, remedy=other)
    try:
        document = json.loads(told, parse_constant=_no_number)
        known = {f.name for f in dataclasses.fields(Card)} - {"sha256", "bytes"}
        fields = {key: value for key, value in document.items() if key in known}
        return Card(**fields, bytes=size)
    except ModelError as error:
        raise ModelError(error.what, where=place, remedy=error.remedy) from error
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError("the model's card can't be read", where=place, remedy=other) from error


def write_model(path: Path, arrays: dict[str, Any], card: Card, *, metadata: dict[str, str] | None = None) -> None:
    """Writes a model file, all or nothing: arrays by name (numpy) under a header with the card and further entries.

    Raises:
        ExportError: the disk is full, or the folder can't be written.
    """
    save_tensors(path, arrays, {**(metadata or {}), "card": card.to_json()})


def _files() -> list[tuple[Path, bool]]:
    """(file, whether shipped) of every model, the shipped first, each part by name."""
    shipped = sorted(Path(__file__).parent.glob(f"*/weights/*{SUFFIX}"))
    try:
        own = sorted(path for path in store_folder().glob(f"*{SUFFIX}") if not path.name.startswith("."))
    except OSError:
        own = []
    return [*((path, True) for path in shipped), *((path, False) for path in own)]


def _known_card(path: Path, *, shipped: bool) -> Card:
    """The card with the recorded hash; the file's size has to be the recorded one."""
    digest, size = _record(path, shipped=shipped)
    card = read_card(path)
    if size is not None and size != card.bytes:
        raise _changed(path, shipped=shipped)
    return dataclasses.replace(card, name=path.stem, sha256=digest)


def _verified(path: Path, *, shipped: bool) -> Card:
    card = _known_card(path, shipped=shipped)
    try:
        now = path.stat()
        digest = _digest(path, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
    except OSError as error:
        raise _changed(path, shipped=shipped) from error
    if digest != card.sha256:
        raise _changed(path, shipped=shipped)
    return card


@lru_cache(maxsize=64)
def _digest(path: Path, *_state: int) -> str:
    """The file's sha256, taken anew where its state is another than when it was last taken in this process."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _record(path: Path, *, shipped: bool) -> tuple[str, int | None]:
    """(sha256, bytes or None) that the file must have."""
    file = path.parent / RELEASE_FILE if shipped else path.with_suffix(RECORD_SUFFIX)
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if shipped:
            return str(document[path.name]), None
        return str(document["sha256"]), int(document["bytes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"no hash is recorded for the model '{path.stem}'", remedy=_repair(path, shipped=shipped)
        ) from error


def _changed(path: Path, *, shipped: bool) -> ModelError:
    return ModelError(
        f"the model '{path.stem}' is damaged or changed (hash differs)", remedy=_repair(path, shipped=shipped)
    )


def _repair(path: Path, *, shipped: bool) -> str:
    return "Reinstall HiResMedSynth." if shipped else f"Remove it (models remove {path.stem}) and add it again."


def _copied(source: Path, target: Any) -> tuple[str, int]:
    """Copies a file of bounded size; its sha256 and length."""
    digest, size = hashlib.sha256(), 0
    try:
        stream = source.open("rb")
    except OSError as error:
        raise ModelError(
            f"the model can't be read ({error.strerror})", where=source, remedy="Check the path."
        ) from error
    with stream:
        while block := stream.read(2**20):
            size += len(block)
            if size > LARGEST_BYTES:
                raise ModelError(
                    f"the file is larger than {LARGEST_BYTES // 2**20} MiB, more than any model here",
                    where=source,
                    remedy="Give the weights alone, in half precision.",
                )
            digest.update(block)
            target.write(block)
    target.flush()
    os.fsync(target.fileno())
    return digest.hexdigest(), size


def _unwritable(folder: Path, error: OSError) -> ModelError:
    return ModelError(
        f"the model store can't be written ({error.strerror})",
        where=folder,
        remedy=f"Choose another folder by {STORE_VARIABLE}.",
    )


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")
