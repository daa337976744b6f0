"""The record of a case: what the lists, the manifest and the card of a data set need of it, in plain values.

Nothing in it names a source: patients, donors and backgrounds are numbers.
"""

from __future__ import annotations

from typing import Any

from HiResMedSynthLib.batch.layout import Entry, MadeCase
from HiResMedSynthLib.batch.plan import CasePlan, Plan
from HiResMedSynthLib.batch.split import donor_of
from HiResMedSynthLib.case import PlacedLesion
from HiResMedSynthLib.export.burned_in import burned_in


def record_of(
    plan: Plan, wanted: CasePlan, index: int, made: MadeCase, *, entries: dict[str, list[Entry]], held: int
) -> dict[str, Any]:
    """The record.

    Args:
        plan, wanted: of the data set and of the case.
        index: of the background that was taken.
        made: the case.
        entries: what each layout needs of it.
        held: bytes of its files.
    """
    case, background = made.composition.case, plan.backgrounds[index]
    return {
        "number": wanted.number,
        "name": wanted.name,
        "side": wanted.side,
        "kind": "negative" if made.negative else "lesions",
        "paired": made.paired and not made.negative,
        "domain": case.background.domain,
        "patient_group": plan.patient_groups[background.patient],
        "background": plan.background_groups[index],
        "slice": background.slice_index,
        "picture": case.background.pixel_sha256[:16],
        "seed": wanted.seed,
        "burned_in": burned_in(made.composition.image) == "YES",
        "lesions": [] if made.negative else [_lesion(plan, made, lesion) for lesion in made.composition.lesions],
        "bytes": held,
        "layouts": entries,
    }


def _lesion(plan: Plan, made: MadeCase, lesion: PlacedLesion) -> dict[str, Any]:
    card = plan.bank.cards.get(lesion.bank_entry)
    return {
        "type": lesion.type,
        "diameter_mm": round(lesion.diameter_mm, 2),
        "contrast": round(lesion.contrast, 1),
        "cnr": round(lesion.cnr, 2) if lesion.mode == "blend" else None,
        "donor": None if card is None else plan.donor_groups[donor_of(card)],
        "origin": lesion.origin,
        "place": [round(at / size, 4) for at, size in zip(lesion.center, made.composition.image.shape, strict=True)],
    }
