"""Defined terms that an export may repeat: a code string that is none of them may hold anything, even a name."""

from __future__ import annotations

import re

# PS3.3 C.7.3.1.1.2
PATIENT_POSITIONS = frozenset((
    "HFP", "HFS", "HFDR", "HFDL", "FFDR", "FFDL", "FFP", "FFS", "LFP", "LFS", "RFP", "RFS", "AFDR", "AFDL", "PFDR",
    "PFDL",
))  # fmt: skip
# PS3.3 C.8.1.1.1 and C.8.11.1
VIEW_POSITIONS = frozenset(("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO",))  # fmt: skip
# PS3.3 C.8.3.1.1
MR_SCANNING_SEQUENCES = frozenset(("SE", "IR", "GR", "EP", "RM"))
MR_SEQUENCE_VARIANTS = frozenset(("SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "TOF", "NONE"))
MR_ACQUISITION_TYPES = frozenset(("2D", "3D"))
# PS3.16 Annex L, those that a radiograph or body CT is of
PAIRED_BODY_PARTS = frozenset((
    "BREAST", "BRONCHUS", "CLAVICLE", "EXTREMITY", "HIP", "KIDNEY", "LUNG", "RIB", "SHOULDER",
))  # fmt: skip
BODY_PARTS = PAIRED_BODY_PARTS | frozenset((
    "ABDOMEN", "ABDOMENPELVIS", "AORTA", "BACK", "BLADDER", "BRAIN", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS",
    "COLON", "CSPINE", "HEAD", "HEADNECK", "HEART", "LIVER", "LSPINE", "MEDIASTINUM", "NECK", "NECKCHEST", "PELVIS",
    "SKULL", "SPINE", "SSPINE", "STERNUM", "TSPINE", "TLSPINE", "WHOLEBODY",
))  # fmt: skip
LARGEST = 1e9  # kV, degrees, ms: what a decimal string and an integer string can hold
DIRECTION = re.compile(r"(?!.*([RL].*[RL]|[AP].*[AP]|[HF].*[HF]))[RLAPHF]{1,3}")  # one letter an axis at most


def term(value: str | None, allowed: frozenset[str], otherwise: str = "") -> str:
    """The value if it is one of the allowed terms, else `otherwise`."""
    return value if value in allowed else otherwise


def terms(values: tuple[str, ...] | None, allowed: frozenset[str]) -> tuple[str, ...]:
    """The values that are allowed terms; none where nothing is known."""
    return tuple(value for value in values or () if value in allowed)


def hanging(values: tuple[str, ...] | None) -> tuple[str, ...]:
    """Patient Orientation, such as (L, F): where rows and columns point; none where it isn't told (C.7.6.1.1.1)."""
    told = values or ()
    return told if len(told) == 2 and all(map(DIRECTION.fullmatch, told)) else ()


def finite(value: float | None) -> float | None:
    """The value, or None where it is missing, no number, or so large that it is none of an acquisition."""
    return value if value is not None and abs(value) < LARGEST else None
