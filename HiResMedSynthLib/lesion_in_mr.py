"""A lesion in an MR: its form and texture are a CT's; its signal is what was asked for, CT tells nothing of that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import measure
from HiResMedSynthLib.case import CaseSettings
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.ground import Ground

LUNG_HU = -860.0  # around a lesion of which nobody knows where it was cut out
NARROWEST = 20.0  # of a body's values: lesions are stored in whole steps, which would be coarser than the picture
ALPHA_INSTEAD = "fusion 'alpha' in an MR: what 'better' judges by was measured on CT and films"


def settings_for_mr(settings: CaseSettings, ground: Ground) -> CaseSettings:
    """The settings as an MR can meet them: joined by the matte alone where fusion 'better' was asked for.

    Raises:
        SettingsError: a lesion whose contrast wasn't told, or values in steps too coarse for one.
        PlacementError: nothing is permitted.
    """
    low, high = (float(value) for value in np.percentile(ground.image.pixels[ground.heat() > 0], [5, 95]))
    if high - low < NARROWEST:
        raise SettingsError(
            f"this MR's values span only {low:g} to {high:g} in the body: too few for a lesion in whole steps",
            remedy="Multiply them (by 1000, say) and store them as whole numbers first.",
        )
    if any(request.contrast is None and request.cnr is None for request in settings.requests):
        noise = measure.noise(ground.image.pixels[ground.image.slices // 2])
        raise SettingsError(
            "how bright a lesion is in an MR depends on the sequence, and the bank's lesions are CT: tell its contrast",
            remedy="Give it in this image's own units: --contrast LOW:HIGH, below zero where a lesion is darker than "
            f"its surroundings (the body holds {low:.4g} to {high:.4g} here, its noise is about {noise:.2g}), or "
            "--cnr LOW:HIGH, how many times the noise.",
        )
    return replace(settings, fusion="alpha") if settings.fusion == "better" else settings


def above_lung(density_hu: NDArray[np.float64], lung_hu: float | None) -> NDArray[np.float64]:
    """HU of a lesion above the lung that it was cut out of: what is scaled to the contrast."""
    return density_hu - (LUNG_HU if lung_hu is None else lung_hu)
