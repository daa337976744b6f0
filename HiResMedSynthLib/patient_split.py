"""Which patients are held out, by the hash of their id: the same on every machine, and for every kind of training.

Two rules: films and masks hold out one patient in seven; nodule patches (`lidc_nodule_patches`) fall into folds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

PARTS, HELD_OUT_PART = 7, 2  # holds NIH patient 2, whose film is also the tests' film
FOLDS = 3


def held_out_by_rule(patient: str) -> bool:
    """Whether a patient is held out: one of seven parts by the SHA-256 of the id."""
    return int(_digest(patient), 16) % PARTS == HELD_OUT_PART


def held_out_patients(patients: Collection[str], labelled: Collection[str] = ()) -> frozenset[str]:
    """The patients that training never sees: those of the rule; of few patients at least one on each side.

    Where the rule leaves a side empty, the patient with the smallest hash changes sides, the same one each time.

    Args:
        patients: all of them.
        labelled: those with labels: of these, too, one stands on each side.
    """
    held = {patient for patient in patients if held_out_by_rule(patient)}
    for group in (set(labelled), set(patients)):
        if len(group) > 1 and len(held & group) in (0, len(group)):
            held ^= {min(group, key=_digest)}
    return frozenset(held)


def fold_of(patient: str, folds: int = FOLDS) -> int:
    """Part of a patient by the SHA-256 of the id; part 0 of 3 is the one that is held out of all patches."""
    return int(_digest(patient)[:8], 16) % folds


def chooses(patient: str) -> bool:
    """Whether a training patient is kept aside to choose the best weights: one in six."""
    return int(_digest(f"chooses {patient}")[:8], 16) % 6 == 0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
