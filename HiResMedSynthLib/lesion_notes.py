"""What a user should know of single lesions of a case: one sentence each, which names the lesion by its number."""

from __future__ import annotations

from collections.abc import Sequence

from HiResMedSynthLib.case import PlacedLesion
from HiResMedSynthLib.ground import Ground
from HiResMedSynthLib.lesion_in_mr import notes_for_mr

FAINTEST_CNR = 0.25  # by Rose's rule (5 SD of a mean) only a lesion of 400 pixels could be told from the noise there


def notes_on(lesions: Sequence[PlacedLesion], ground: Ground) -> tuple[str, ...]:
    """The notes on lesions as they were placed on this ground."""
    found = [note for lesion in lesions if (note := _thin(lesion, ground))]
    found += [note for lesion in lesions if (note := _unseen(lesion))]
    return (*found, *(notes_for_mr(lesions) if ground.domain == "mr" else ()))


def _thin(lesion: PlacedLesion, ground: Ground) -> str:
    """What a lesion that is thinner than the slices loses, in words; empty for the others."""
    slice_mm = max(ground.image.slice_spacing_mm, ground.image.slice_thickness_mm or 0.0)
    if ground.is_projection or lesion.diameter_mm >= slice_mm:
        return ""
    shown = "it shows fainter than it is, as a real one would"
    if _was_asked(lesion):
        shown = "it has the contrast asked for, where a real one would show fainter"
    return (
        f"lesion {lesion.number} ({lesion.diameter_mm:.1f} mm) is thinner than the slices ({slice_mm:g} mm): {shown}, "
        "and its mask is coarse"
    )


def _unseen(lesion: PlacedLesion) -> str:
    """That a lesion can't be seen, being as dense as its surroundings on request; empty for the others."""
    is_without_noise = lesion.cnr == 0 and lesion.contrast != 0  # any contrast shows there
    if not _was_asked(lesion) or is_without_noise or abs(lesion.cnr) >= FAINTEST_CNR:
        return ""
    return (
        f"lesion {lesion.number} is {abs(lesion.cnr):.2f} times the noise apart from its surroundings, as was asked "
        "for: it can't be seen, though mask and boxes tell it"
    )


def _was_asked(lesion: PlacedLesion) -> bool:
    return lesion.request.contrast is not None or lesion.request.cnr is not None
