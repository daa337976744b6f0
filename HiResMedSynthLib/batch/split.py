"""Who stands on which side of a data set: patients of backgrounds and donors of lesions, nobody on two sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from HiResMedSynthLib.batch.backgrounds import identity_hash
from HiResMedSynthLib.batch.spec import DEFAULT_SPLIT, SIDES, Side
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.lesion.bank import Bank
from HiResMedSynthLib.lesion.lesion import LesionCard

Shares = Mapping[Side, float]


@dataclass(frozen=True, kw_only=True)
class Split:
    """The sides of a data set.

    Args:
        shares: of the cases, by side; they sum to 1.
        patients: hash of whose a background is -> side.
        donors: hash of whose a lesion was -> side.
        note: what a reader should know, or "".
    """

    shares: dict[Side, float]
    patients: dict[str, Side]
    donors: dict[str, Side]
    note: str = ""


def donor_of(card: LesionCard) -> str:
    """Hash of whose the lesion was; of its collection where no patient is named (one CT), of itself where none is."""
    if card.patient_id:
        return identity_hash("patient", card.patient_id)
    return identity_hash("lesion", card.collection or card.name)


def drawn_split(patients: Sequence[str], bank: Bank, wanted: Shares | None, *, seed: np.random.SeedSequence) -> Split:
    """Donors are allotted first, so that each side has lesions of each type; then the patients of the backgrounds.

    A patient who is a donor too stands on the donor's side.

    Args:
        patients: hashes of whose the backgrounds are, each once.
        bank: the lesions.
        wanted: shares of the cases; None: the usual ones, as far as there are enough patients for them.
        seed: of the draw.

    Raises:
        SettingsError: fewer patients than sides that were asked for.
    """
    shares: dict[Side, float] = {side: share for side in SIDES if (share := (wanted or DEFAULT_SPLIT).get(side))}
    note = ""
    if len(patients) < len(shares):
        if wanted is not None:
            raise SettingsError(
                f"output.split: {len(shares)} sides need as many patients, the backgrounds come from {len(patients)}",
                remedy="Add backgrounds, name their patients in patients.csv, or write split = { train = 1 }.",
            )
        kept = sorted(shares, key=lambda side: -shares[side])[: len(patients)]
        note = (
            f"the backgrounds come from {len(patients)} patient(s) as far as known, so there is no "
            f"{' and no '.join(side for side in shares if side not in kept)} side"
        )
        shares = {side: share for side, share in shares.items() if side in kept}
    total = sum(shares.values())
    shares = {side: share / total for side, share in shares.items()}
    rng = np.random.Generator(np.random.PCG64(seed))
    donors = _allotted_donors(bank, shares, rng)
    ours = {patient: donors[patient] for patient in patients if patient in donors}
    sides = _allotted(patients, shares, rng, ours)
    lacking = [side for side in shares if side not in sides.values()]
    if lacking:
        raise SettingsError(
            f"output.split: no patient is left for the side '{lacking[0]}', since lesions of the bank are theirs",
            remedy="Add backgrounds of other patients, or write split = { train = 1 }.",
        )
    return Split(shares=shares, patients=sides, donors=donors, note=note)


def _allotted_donors(bank: Bank, shares: Shares, rng: np.random.Generator) -> dict[str, Side]:
    """Rare types go first, so that no side lacks a type that there are enough donors of."""
    types: dict[str, set[str]] = {}
    for name in sorted(bank.cards):
        types.setdefault(bank.cards[name].type, set()).add(donor_of(bank.cards[name]))
    sides: dict[str, Side] = {}
    for donors in sorted(types.values(), key=lambda found: (len(found), sorted(found))):
        sides |= _allotted(sorted(donors), shares, rng, {donor: sides[donor] for donor in donors if donor in sides})
    return sides


def _allotted(
    keys: Sequence[str], shares: Shares, rng: np.random.Generator, fixed: Mapping[str, Side]
) -> dict[str, Side]:
    """Each key's side: first one for each side, largest first, then whichever side is shortest of its share."""
    result = dict(fixed)
    counts = Counter(fixed.values())
    free = [key for key in keys if key not in fixed]
    for index in rng.permutation(len(free)):
        empty = [side for side in shares if counts[side] == 0]
        side = max(empty or shares, key=lambda one: shares[one] * len(keys) - counts[one])
        result[free[index]] = side
        counts[side] += 1
    return result
