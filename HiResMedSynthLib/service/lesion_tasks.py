"""Jobs about lesions: the bank with its pictures, and a lesion cut from the user's own image."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from HiResMedSynthLib.choices import REQUEST_TYPES, LesionType
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.lesion.bank import Bank, bank_bytes, bank_from_bytes, load_bank
from HiResMedSynthLib.lesion.lesion import Lesion
from HiResMedSynthLib.lesion.own import own_lesion
from HiResMedSynthLib.service.jobs import Result, Step
from HiResMedSynthLib.service.messages import arrays_result, parameters_of
from HiResMedSynthLib.service.protocol import unpack_arrays
from HiResMedSynthLib.service.store import Store

if TYPE_CHECKING:
    from HiResMedSynthLib.service.tasks import Work

THUMBNAIL_PX = 48
THUMBNAIL_WINDOW_HU = (-1000.0, 300.0)
LONGEST_NAME = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class BankParameters:
    """Parameters of bank: blob with the user's own lesions, or None."""

    own_lesions: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutParameters:
    """Parameters of cut_lesion: `mask` is a blob (npz with `inside` and its `corner`), `find`: it is but a box."""

    name: str
    mask: str
    type: LesionType = "solid"
    find: bool = False
    own_lesions: str | None = None


def bank_with(store: Store, own_lesions: str | None) -> Bank:
    """The shipped bank and the user's own lesions (name of a blob, or None)."""
    if own_lesions is None:
        return load_bank()
    return load_bank().with_own(bank_from_bytes(_blob(store, own_lesions)))


def _blob(store: Store, name: str) -> bytes:
    held = store.get(f"blob {name}")
    if not isinstance(held, bytes):
        raise SettingsError("the backend no longer holds what was sent", remedy="Send it again.")
    return held


def bank(work: Work, step: Step) -> Result:
    """Cards and thumbnails of all lesions: uint8 `[row, column]` under `NAME.picture`."""
    wanted = parameters_of(BankParameters, work.parameters)
    step.progress(0, 1, "looking into the lesion bank")
    held = bank_with(work.store, wanted.own_lesions)
    pictures = {f"{name}.picture": thumbnail(held.lesion(name)) for name in held.cards}
    return arrays_result(pictures, {"cards": [dataclasses.asdict(card) for card in held.cards.values()]})


def thumbnail(lesion: Lesion) -> Any:
    """uint8 `[row, column]`: the lesion's widest slice on lung, in a lung window."""
    alpha = lesion.alpha.astype(np.float32) / 65535
    k = int(alpha.sum(axis=(1, 2)).argmax())
    lung = lesion.card.background_hu if lesion.card.background_hu is not None else -860.0
    hu = alpha[k] * lesion.intensity_hu[k] + (1 - alpha[k]) * lung
    side = max(hu.shape)
    square = np.full((side, side), lung, dtype=np.float32)
    top, left = (side - hu.shape[0]) // 2, (side - hu.shape[1]) // 2
    square[top : top + hu.shape[0], left : left + hu.shape[1]] = hu
    import cv2

    low, high = THUMBNAIL_WINDOW_HU
    picture = cv2.resize(square, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    return np.clip(255 * (picture - low) / (high - low), 0, 255).astype(np.uint8)


def cut_lesion(work: Work, step: Step) -> Result:
    """The outlined lesion, cut out, beside the own ones that there were: `lesions` holds a bank file's bytes."""
    wanted = parameters_of(CutParameters, work.parameters)
    if not (0 < len(wanted.name) <= LONGEST_NAME and wanted.name.isprintable()):
        raise SettingsError("the lesion needs a name", remedy=f"Give one of up to {LONGEST_NAME} characters.")
    own = None if wanted.own_lesions is None else bank_from_bytes(_blob(work.store, wanted.own_lesions))
    if wanted.name in load_bank().cards or wanted.name in REQUEST_TYPES or (own and wanted.name in own.cards):
        raise SettingsError(f"the bank has a lesion '{wanted.name}' already", remedy="Choose another name.")
    arrays, document = unpack_arrays(_blob(work.store, wanted.mask))
    corner = document.get("corner") if isinstance(document, dict) else None
    inside = arrays.get("inside")
    if (
        not isinstance(corner, list)
        or len(corner) != 3
        or not all(isinstance(value, int) for value in corner)
        or inside is None
        or inside.ndim != 3
    ):
        raise SettingsError("the outline is no mask with a corner", remedy="Send it again.")
    step.progress(0, 2, "cutting the lesion out")
    lesion = own_lesion(
        work.background(),
        (corner[0], corner[1], corner[2]),
        inside.astype(bool),
        name=wanted.name,
        lesion_type=wanted.type,
        find=wanted.find,
    )
    step.progress(1, 2, "adding it to your own lesions")
    packed = bank_bytes([*([] if own is None else _lesions(own)), lesion])
    return arrays_result(
        {"lesions": np.frombuffer(packed, dtype=np.uint8), "picture": thumbnail(lesion)},
        {"card": dataclasses.asdict(lesion.card)},
    )


def _lesions(held: Bank) -> list[Lesion]:
    return [held.lesion(name) for name in held.cards]
