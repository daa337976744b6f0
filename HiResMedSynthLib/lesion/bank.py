"""The lesion bank: real nodules cut from CT, in one safetensors file whose hash is known.

The file's metadata hold the cards as JSON; for each lesion it holds `<name>.alpha` (uint8) and `<name>.intensity_hu`
(int16), cropped, on an isotropic grid.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import BankError
from HiResMedSynthLib.lesion.lesion import Lesion, LesionCard

BANK_FORMAT = "hiresmedsynth-lesion-bank-1"
SHIPPED = Path(__file__).parent / "bank_data" / "nodules.safetensors"
SHIPPED_SHA256 = "4eb4d398b4e8c010ab39c8e148086f39305c9b8cfc9cd4706e64752e839af000"
OWN_SIZE = (0.7, 1.4)  # a wanted diameter is met by entries of this share of it, so that texture isn't stretched
TYPES_OF_REQUEST: dict[str, tuple[str, ...]] = {
    "any": ("solid", "part-solid", "ground-glass", "calcified"),
    "juxtapleural": ("solid",),
}
SEEN_ON_FILMS = ("solid", "calcified", "stone")  # ground glass is one grey level on a radiograph


@dataclass(frozen=True, kw_only=True, eq=False)
class Bank:
    """Cards of all lesions, the arrays they are made from, and the hash of the file."""

    cards: dict[str, LesionCard]
    voxels_mm: dict[str, float]
    arrays: dict[str, NDArray[Any]]
    sha256: str

    def lesion(self, name: str) -> Lesion:
        """The lesion of that name.

        Raises:
            BankError: there is none; near names are told.
        """
        if name not in self.cards:
            near = difflib.get_close_matches(name, self.cards, n=3, cutoff=0.4)
            hint = f"Near names: {', '.join(near)}. " if near else ""
            raise BankError(
                f"the bank has no lesion '{name}'", remedy=f"{hint}See all of them: hiresmedsynth lesion list."
            )
        return Lesion(
            intensity_hu=self.arrays[f"{name}.intensity_hu"],
            alpha=self.arrays[f"{name}.alpha"].astype(np.uint16) * np.uint16(257),
            voxel_mm=self.voxels_mm[name],
            card=self.cards[name],
        )

    def with_own(self, own: Bank) -> Bank:
        """This bank and a user's own lesions; an own one of the same name wins."""
        return Bank(
            cards={**self.cards, **own.cards},
            voxels_mm={**self.voxels_mm, **own.voxels_mm},
            arrays={**self.arrays, **own.arrays},
            sha256=hashlib.sha256((self.sha256 + own.sha256).encode()).hexdigest(),
        )

    def only(self, names: Collection[str]) -> Bank:
        """These lesions of the bank, under a hash of their own."""
        kept = sorted(name for name in self.cards if name in names)
        return Bank(
            cards={name: self.cards[name] for name in kept},
            voxels_mm={name: self.voxels_mm[name] for name in kept},
            arrays={key: self.arrays[key] for name in kept for key in (f"{name}.alpha", f"{name}.intensity_hu")},
            sha256=hashlib.sha256(" ".join([self.sha256, *kept]).encode()).hexdigest(),
        )

    @staticmethod
    def types_for(request_type: str, *, film: bool = False) -> tuple[str, ...]:
        """The lesion types that meet a requested one; "any" on a film leaves out what a film doesn't show."""
        types = TYPES_OF_REQUEST.get(request_type, (request_type,))
        return tuple(name for name in types if name in SEEN_ON_FILMS) if film and request_type == "any" else types

    def choose(self, *, types: tuple[str, ...], diameter_mm: float, rng: np.random.Generator) -> str:
        """Name of an entry of these types, drawn among those of about this size (the nearest three where none is).

        Raises:
            BankError: the bank has no lesion of those types.
        """
        fitting = sorted(name for name, card in self.cards.items() if card.type in types)
        if not fitting:
            raise BankError(
                f"the bank has no lesion of type {' or '.join(types)}", remedy="See: hiresmedsynth lesion list."
            )
        low, high = (diameter_mm * share for share in OWN_SIZE)
        near = [name for name in fitting if low <= self.cards[name].diameter_mm <= high]
        if not near:
            near = sorted(fitting, key=lambda name: abs(np.log(self.cards[name].diameter_mm / diameter_mm)))[:3]
        return near[int(rng.integers(len(near)))]


@lru_cache(maxsize=2)
def load_bank(path: Path | None = None) -> Bank:
    """The bank in a file; None: the shipped one, verified by its hash.

    Raises:
        BankError: missing, changed or of another format.
    """
    file = path or SHIPPED
    repair = "Reinstall HiResMedSynth." if path is None else "Build the bank anew."
    try:
        packed = file.read_bytes()
    except OSError as error:
        raise BankError(f"the lesion bank can't be read ({error.strerror})", where=file, remedy=repair) from error
    if path is None and hashlib.sha256(packed).hexdigest() != SHIPPED_SHA256:
        raise BankError("the lesion bank is damaged or changed (hash differs)", where=file, remedy=repair)
    return _parse(packed, file, repair)


def bank_from_bytes(packed: bytes) -> Bank:
    """The bank in the contents of a bank file (never a pickle).

    Raises:
        BankError: they are none.
    """
    return _parse(packed, Path("own lesions"), "Make the lesion anew from its image.")


def _parse(packed: bytes, file: Path, repair: str) -> Bank:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(packed)
        length = int.from_bytes(packed[:8], "little")
        metadata = json.loads(packed[8 : 8 + length]).get("__metadata__", {})
        if metadata.get("format") != BANK_FORMAT:
            raise BankError("this is a lesion bank of another format", where=file, remedy=repair)
        entries = json.loads(metadata["entries"])
        found = [checked_card(entry["card"]) for entry in entries]
        cards = {card.name: card for card in found}
        voxels = {card.name: float(entry["voxel_mm"]) for card, entry in zip(found, entries, strict=True)}
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise BankError(f"this is no lesion bank ({type(error).__name__})", where=file, remedy=repair) from error
    missing = [n for n in cards if f"{n}.alpha" not in arrays or f"{n}.intensity_hu" not in arrays]
    if missing:
        raise BankError(f"the arrays of {', '.join(missing)} are missing", where=file, remedy=repair)
    return Bank(cards=cards, voxels_mm=voxels, arrays=arrays, sha256=hashlib.sha256(packed).hexdigest())


def checked_card(document: dict[str, Any]) -> LesionCard:
    """The card that a file tells of.

    Raises:
        ValueError: a field is unknown or missing, of another type, or a size that can't be.
    """
    from pydantic import TypeAdapter

    card = TypeAdapter(LesionCard).validate_json(json.dumps(document), strict=True)  # a dict is no card in Python
    if not (card.name and math.isfinite(card.diameter_mm) and card.diameter_mm > 0):
        raise ValueError("a lesion has no name or no size")
    return card


def bank_bytes(lesions: list[Lesion]) -> bytes:
    """The contents of a bank file: the same lesions give the same tensors, in a header of any order."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {}
    entries = []
    for lesion in lesions:
        arrays[f"{lesion.card.name}.alpha"] = np.round(lesion.alpha / 257.0).astype(np.uint8)
        arrays[f"{lesion.card.name}.intensity_hu"] = np.ascontiguousarray(lesion.intensity_hu)
        entries.append({"card": dataclasses.asdict(lesion.card), "voxel_mm": lesion.voxel_mm})
    packed: bytes = save(arrays, metadata={"format": BANK_FORMAT, "entries": json.dumps(entries)})
    return packed
