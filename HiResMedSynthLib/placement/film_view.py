"""What a film shows and how it is held, where that is no view that the placement knows: told, not refused."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import PlacementError, SettingsError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.domain import guess_domain
from HiResMedSynthLib.placement.lungs_cxr import fit_chest

# View Position (PS3.3 C.8.1.1.1, C.8.11.1) of other than frontal films; LATERAL is common though not defined
OTHER_VIEWS = {
    **dict.fromkeys(("LL", "RL", "LATERAL"), "a lateral"),
    **dict.fromkeys(("LLO", "RLO", "LAO", "RAO", "LPO", "RPO"), "an oblique"),
}
# 60 NIH films have .68 and more, of 60 Hannover films two in a hundred less than .49, twenty cuts of the film projected
# from the abdomen CT at most .35
CHEST_LIKENESS = 0.5


def view_warnings(image: MedicalImage) -> tuple[str, ...]:
    """What of a chest film's view makes its danger map and prior doubtful, one sentence each.

    Upside down is a film on which the mean chest fits better once the film is flipped or turned: so told right on all
    of 257 films, as they were and mirrored, flipped and turned. Which of the two it was, the fit doesn't tell: it would
    be wrong on 14 of them, and the lesion then on the wrong side.
    """
    found = []
    view = image.facts.view_position
    if view in OTHER_VIEWS:
        found.append(
            f"by its header this is {OTHER_VIEWS[view]} view ({view}): where lesions may go is known for frontal "
            "chest films only"
        )
    if image.pixel_spacing_mm is None:
        return tuple(found)
    film = _dense_bright(image)
    if max(_likeness(film[::-1], image), _likeness(film[::-1, ::-1], image)) > _likeness(film, image):
        found.append(
            "the film seems to be upside down: turned or flipped; check the side marker and put it right, or upper and "
            "lower are wrong, and left and right too if it was turned"
        )
    return tuple(found)


def abdomen_warnings(image: MedicalImage) -> tuple[str, ...]:
    """Why a film that is taken for an abdominal one may be a chest film, by its header or its look; else nothing."""
    part = (image.facts.body_part_examined or "").upper()
    known = image.pixel_spacing_mm is not None
    if "CHEST" in part or "THORAX" in part:
        why = f"by its header this film shows a chest ({part})"
    elif known and _likeness(_dense_bright(image), image) >= CHEST_LIKENESS:
        why = "this film looks like a chest film"
    else:
        return ()
    return (f"{why}: it is taken for an abdominal one (kub), and stones are placed; --domain cxr takes it for a chest",)


def doubts_about(image: MedicalImage) -> tuple[str, ...]:
    """The `view_warnings` of an image that is one chest film by its header; of others nothing."""
    try:
        chest = image.slices == 1 and guess_domain(image) == "cxr"
    except SettingsError:
        return ()
    return view_warnings(image) if chest else ()


def _dense_bright(image: MedicalImage) -> NDArray[np.float32]:
    """The film `[row, column]`, dense = high."""
    return np.asarray(image.pixels[0].astype(np.float32) * np.float32(1 if image.bright_is_dense else -1))


def _likeness(film: NDArray[np.float32], image: MedicalImage) -> float:
    """How well the mean chest fits; -1 where it doesn't."""
    try:
        return fit_chest(np.ascontiguousarray(film), pixel_spacing_mm=image.spacing_mm[1:]).likeness
    except PlacementError:
        return -1.0
