"""Defined terms that an export may repeat: a code string that is none of them may hold anything, even a name."""

from __future__ import annotations

import math

# PS3.3 C.7.3.1.1.1
MODALITIES = frozenset((
    "CT", "MR", "CR", "DX", "MG", "XA", "RF", "RG", "US", "NM", "PT", "PX", "IO", "OP", "ES", "XC", "OT",
))  # fmt: skip
# PS3.3 C.7.3.1.1.2
PATIENT_POSITIONS = frozenset((
    "HFP", "HFS", "HFDR", "HFDL", "FFDR", "FFDL", "FFP", "FFS", "LFP", "LFS", "RFP", "RFS", "AFDR", "AFDL", "PFDR",
    "PFDL",
))  # fmt: skip
# PS3.3 C.8.1.1.1 and C.8.11.1
VIEW_POSITIONS = frozenset(("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO",))  # fmt: skip
# PS3.16 Annex L, those that a radiograph or body CT is of
PAIRED_BODY_PARTS = frozenset((
    "BREAST", "BRONCHUS", "CLAVICLE", "EXTREMITY", "HIP", "KIDNEY", "LUNG", "RIB", "SHOULDER",
))  # fmt: skip
BODY_PARTS = PAIRED_BODY_PARTS | frozenset((
    "ABDOMEN", "ABDOMENPELVIS", "AORTA", "BACK", "BLADDER", "BRAIN", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS",
    "COLON", "CSPINE", "HEAD", "HEADNECK", "HEART", "LIVER", "LSPINE", "MEDIASTINUM", "NECK", "NECKCHEST", "PELVIS",
    "SKULL", "SPINE", "SSPINE", "STERNUM", "TSPINE", "TLSPINE", "WHOLEBODY",
))  # fmt: skip


def term(value: str | None, allowed: frozenset[str], otherwise: str = "") -> str:
    """The value if it is one of the allowed terms, else `otherwise`."""
    return value if value in allowed else otherwise


def finite(value: float | None) -> float | None:
    """The value, or None where it is missing or no finite number."""
    return value if value is not None and math.isfinite(value) else None
