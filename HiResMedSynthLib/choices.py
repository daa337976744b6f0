"""The words that a user chooses by, each list once: library, command line and panel name the same things."""

from __future__ import annotations

from typing import Literal, get_args

Domain = Literal["lung-ct", "cxr", "kub", "mr"]  # what a background shows
DOMAINS: tuple[Domain, ...] = get_args(Domain)

Zone = Literal[
    "left", "right", "upper", "lower", "left-upper", "left-lower", "right-upper", "right-lower"
]  # of the patient
ZONES: tuple[Zone, ...] = get_args(Zone)

LesionType = Literal["solid", "part-solid", "ground-glass", "calcified", "stone"]  # what a lesion of the bank is
LESION_TYPES: tuple[LesionType, ...] = get_args(LesionType)

RequestType = Literal["any", "solid", "part-solid", "ground-glass", "calcified", "juxtapleural", "stone"]
REQUEST_TYPES: tuple[RequestType, ...] = get_args(RequestType)

GeneratorName = Literal["deform", "singan", "learned"]  # where a lesion's form comes from
GENERATORS: tuple[GeneratorName, ...] = get_args(GeneratorName)

FusionName = Literal["better", "alpha", "paper"]  # how a lesion is joined
FUSIONS: tuple[FusionName, ...] = get_args(FusionName)

SizesName = Literal["even", "history"]  # how sizes are drawn
SIZES: tuple[SizesName, ...] = get_args(SizesName)

MODEL_USES = {  # what a model does, by the kind that its card names
    "background": "makes backgrounds",
    "background-prior": "writes the tokens of backgrounds",
    "background-descriptors": "tells which backgrounds copy a film",
    "lesion-flow": "draws lesions",
    "lesion-singan": "draws variants of one lesion",
    "placement": "tells where lesions go",
}


def use_of(kind: str) -> str:
    """What a model of that kind does, in words; a kind that the library doesn't know by its name."""
    return MODEL_USES.get(kind, f"is of kind {kind}")
