"""danger(image, domain, ...) -> DangerMap: by the rule of the domain, or by a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from HiResMedSynthLib.choices import Domain
from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger_ct import danger_lung_ct, danger_network_ct
from HiResMedSynthLib.placement.danger_map import DangerMap, Progress
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.regions_film import danger_network_film
from HiResMedSynthLib.placement.rule_cxr import danger_cxr
from HiResMedSynthLib.placement.rule_kub import danger_kub
from HiResMedSynthLib.placement.rule_mr import danger_mr

if TYPE_CHECKING:
    from HiResMedSynthLib.placement.network import PlacementNetwork

LARGEST_VIEW_MM = 1100.0
SMALLEST_CHEST_MM = 60.0  # of the longer side of a film


def danger(
    image: MedicalImage,
    *,
    domain: Domain,
    margins: Margins,
    network: PlacementNetwork | None = None,
    progress: Progress | None = None,
    by_slice: bool = False,
) -> DangerMap:
    """The danger map of an image.

    Args:
        image: a CT in HU (lung-ct), one film (cxr, kub) or an MR, of known spacing.
        domain: what it shows.
        margins: distances added to the forbidden structures.
        network: what names the anatomy; None: the rule of the domain.
        progress: called with (slices done, slices in all).
        by_slice: a chest CT's slices are looked at when they are asked for, not now.

    Raises:
        GeometryError: the spacing is unknown.
        PlacementError: the anatomy that the domain needs is not found.
    """
    _, row_mm, column_mm = image.spacing_mm  # margins are millimetres: refuse an unknown spacing before any work
    height_mm, width_mm = image.rows * row_mm, image.columns * column_mm
    if max(height_mm, width_mm) > LARGEST_VIEW_MM:
        raise PlacementError(
            f"a picture of {height_mm:.0f} x {width_mm:.0f} mm is larger than a patient",
            remedy="Check the spacing (--spacing-mm).",
        )
    if domain == "cxr" and max(height_mm, width_mm) < SMALLEST_CHEST_MM:
        raise PlacementError(
            f"a chest film of {height_mm:.0f} x {width_mm:.0f} mm is smaller than a newborn's",
            remedy="Check the spacing (--spacing-mm).",
        )
    if domain == "mr":
        return danger_mr(image)
    if domain == "lung-ct":
        if network is None:
            return danger_lung_ct(image, margins=margins, progress=progress, by_slice=by_slice)
        return danger_network_ct(image, margins=margins, network=network, progress=progress, by_slice=by_slice)
    if network is not None:
        return danger_network_film(image, domain=domain, margins=margins, network=network)
    return (danger_cxr if domain == "cxr" else danger_kub)(image, margins=margins)
