"""The words by which our files say that they are synthetic, and what they tell whoever reads a file again."""

from __future__ import annotations

from collections.abc import Sequence

SYNTHETIC_TEXT = "SYNTHETIC, research only"  # in the text of every picture and volume that we write
COMPOSED = "lesion(s) composed into an image"  # where they hold lesions; also in DICOM's Derivation Description
COMPOSED_REFUSED = (  # as a background
    "this background holds composed lesions of an earlier case: they would be in the pixels without a label"
)
HOLDS_COMPOSED = "the source holds composed lesions of an earlier case, which no label of this one tells"


def told_by_text(text: str) -> list[str]:
    """Oddities of a picture or volume by the text in its file: whether it says that it is ours, and holds lesions."""
    oddities = ["the source is itself synthetic (the text in its file says so)"] if SYNTHETIC_TEXT in text else []
    return [*oddities, HOLDS_COMPOSED] if COMPOSED in text else oddities


def is_synthetic(oddities: Sequence[str]) -> bool:
    """Whether an image with these oddities said of itself that it is no real one, or holds lesions that aren't."""
    return HOLDS_COMPOSED in oddities or any("synthetic" in oddity for oddity in oddities)


def text_by_oddities(oddities: Sequence[str]) -> str:
    """What a copy of an image with these oddities must say of itself; "" where the image is real."""
    return "; ".join([COMPOSED] * (HOLDS_COMPOSED in oddities) + [SYNTHETIC_TEXT] * is_synthetic(oddities))
