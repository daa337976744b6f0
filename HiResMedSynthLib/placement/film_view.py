"""How a chest film was taken and is held, where that is no view that the placement knows: told, not refused."""

from __future__ import annotations

import numpy as np

from HiResMedSynthLib.errors import PlacementError, SettingsError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.domain import guess_domain
from HiResMedSynthLib.placement.lungs_cxr import fit_chest

# View Position (PS3.3 C.8.1.1.1, C.8.11.1) of other than frontal films; LATERAL is common though not defined
OTHER_VIEWS = {
    **dict.fromkeys(("LL", "RL", "LATERAL"), "a lateral"),
    **dict.fromkeys(("LLO", "RLO", "LAO", "RAO", "LPO", "RPO"), "an oblique"),
}


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
    film = image.pixels[0].astype(np.float32) * np.float32(1 if image.bright_is_dense else -1)
    if max(_likeness(film[::-1], image), _likeness(film[::-1, ::-1], image)) > _likeness(film, image):
        found.append(
            "the film seems to be upside down: turned or flipped; check the side marker and put it right, or upper and "
            "lower are wrong, and left and right too if it was turned"
        )
    return tuple(found)


def doubts_about(image: MedicalImage) -> tuple[str, ...]:
    """The `view_warnings` of an image that is one chest film by its header; of others nothing."""
    try:
        chest = image.slices == 1 and guess_domain(image) == "cxr"
    except SettingsError:
        return ()
    return view_warnings(image) if chest else ()


def _likeness(film: np.ndarray, image: MedicalImage) -> float:
    """How well the mean chest fits; -1 where it doesn't."""
    try:
        return fit_chest(np.ascontiguousarray(film), pixel_spacing_mm=image.spacing_mm[1:]).likeness
    except PlacementError:
        return -1.0
