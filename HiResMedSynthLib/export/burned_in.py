"""What is known of text in the pixels, and what a user is told of it: nothing here can see text."""

from __future__ import annotations

from HiResMedSynthLib.export.defined_terms import term
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read_oddities import BURNED_IN_CLASSES


def burned_in(image: MedicalImage) -> str:
    """Burned In Annotation: "YES", "NO" or "" where nobody says (PS3.3 C.7.6.1.1.1)."""
    return term(image.facts.burned_in_annotation, frozenset(("YES", "NO")))


def burned_in_warning(image: MedicalImage) -> str | None:
    """What to look at before the case is shared; None where nothing speaks for text."""
    if image.blanked:
        return (
            f"{len(image.blanked)} box(es) blanked, so Burned In Annotation is NO on your word: "
            "look at the picture for text outside them"
        )
    known = burned_in(image)
    if known == "YES":
        return (
            "text is burned into the pixels (BurnedInAnnotation YES) and stays there: "
            "blank it with --mask-box ROW0,COL0,ROW1,COL1 before you share the case"
        )
    if not known and image.slices == 1 and image.modality in BURNED_IN_CLASSES:
        return (
            "nobody says whether text is burned into the pixels: look before you share the case, "
            "and blank it with --mask-box ROW0,COL0,ROW1,COL1"
        )
    return None
