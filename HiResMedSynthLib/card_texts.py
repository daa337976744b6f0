"""The texts of a model's card: all of them, and whether one names a place on some machine."""

from __future__ import annotations

import math
import re
from typing import Any

PATH_PATTERN = re.compile(r"(?:^|[\s\"'(=,;])(?:~?/[^\s/]|[A-Za-z]:[\\/]|\\\\)|file:", re.IGNORECASE)
FILE_PATTERN = re.compile(  # a relative path that ends like a data file; an address's first part has a dot
    r"(?:^|[\s\"'(=,;])(?:\.{1,2}|[\w-]{1,99})(?:[\\/][^\s\\/]{1,99}){0,20}[\\/][^\s\\/]{0,99}"
    r"\.(?:dcm|dicom|nii|gz|nrrd|mh[ad]|raw|png|jpe?g|tiff?|np[yz]|safetensors|ckpt|pth?|pkl|csv|json|txt|zip|h5)\b",
    re.IGNORECASE,
)


def texts_in(value: Any) -> list[str]:
    """All texts in a nested value.

    Raises:
        ValueError: it holds what a card can't; its text says what, for the message.
    """
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in texts_in(part)]
    if isinstance(value, list | tuple):
        return [text for part in value for text in texts_in(part)]
    if value is not None and not isinstance(value, bool | int | float):
        raise ValueError("a value that can't be")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number that isn't finite")
    return []


def names_a_place(text: str) -> bool:
    """Whether a text holds a path or the name of a data file."""
    return bool(PATH_PATTERN.search(text) or FILE_PATTERN.search(text))
