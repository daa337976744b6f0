"""Where a nodule must not go in a chest CT: everything but lung parenchyma, by a rule on Hounsfield units."""

from __future__ import annotations

from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger import DangerMap
from HiResMedSynthLib.placement.lungs_ct import find_chest_regions
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.regions_ct import danger_of_regions

METHOD = "rule: thresholds and connectedness in HU"


def danger_lung_ct(image: MedicalImage, *, margins: Margins) -> DangerMap:
    """The danger map of a chest CT by rule: one slice, a few thick ones or a volume.

    Raises:
        GeometryError: the spacing is unknown.
        PlacementError: no lung is in the image.
    """
    spacing_mm = image.spacing_mm
    regions = find_chest_regions(image.pixels, spacing_mm=spacing_mm)
    return danger_of_regions(regions, spacing_mm=spacing_mm, margins=margins, method=METHOD)
