"""Zones of an image: the patient's left and right, upper and lower part, as a quota of lesions names them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.choices import ZONES, Domain, Zone
from HiResMedSynthLib.errors import PlacementError, SettingsError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.axes import both_lungs, film_leftwards, holds_whole_lung, is_axial, senses
from HiResMedSynthLib.placement.danger_map import LUNG_CLASSES, DangerMap


def check_zone(zone: str) -> Zone:
    """The zone of that name.

    Raises:
        SettingsError: there is none.
    """
    if zone not in ZONES:
        raise SettingsError(f"there is no zone '{zone}'", remedy=f"Choose one of {', '.join(ZONES)}.")
    return zone


def zone_mask(image: MedicalImage, danger_map: DangerMap, zone: Zone, *, domain: Domain) -> NDArray[np.bool_]:
    """The zone, bool `[slice, row, column]`.

    The middle is that of the box around the lungs (kub: around what is permitted). On a film the picture's right half
    is the patient's left, unless its header says that it is mirrored.

    Raises:
        PlacementError: of an MR; upper and lower of a CT that doesn't hold the whole lung, so that its height is
            unknown; left and right where one lung alone is in view.
    """
    if domain == "mr":
        raise PlacementError("the parts of an MR aren't known", remedy="Ask for no zone, or give a place (--at).")
    seen = danger_map.region(() if domain == "kub" else LUNG_CLASSES)
    upwards, _, leftwards = senses(image) if domain == "lung-ct" else (False, True, film_leftwards(image))
    if domain == "lung-ct" and not is_axial(image):
        raise PlacementError(
            "this CT isn't stored as axial slices, so its sides can't be told",
            remedy="Ask for no zone, or reformat it to axial slices.",
        )
    slices, rows, columns = (np.ones(count, dtype=bool) for count in image.shape)
    if "left" in zone or "right" in zone:
        if domain == "lung-ct" and not both_lungs(seen):
            raise PlacementError(
                "only one lung is in view, so left and right can't be told",
                remedy="Ask for no side, or take slices with both lungs.",
            )
        columns = _second_half(seen, 2) == (leftwards == ("left" in zone))
    if "upper" in zone or "lower" in zone:
        if domain != "lung-ct":
            rows = _second_half(seen, 1) == ("lower" in zone)
        elif holds_whole_lung(image, seen):
            slices = _second_half(seen, 0) == (upwards == ("upper" in zone))
        else:
            raise PlacementError(
                "this CT doesn't hold the whole lung, so its upper and lower part can't be told",
                remedy="Ask for left or right only, or take the whole series.",
            )
    return np.asarray(slices[:, np.newaxis, np.newaxis] & rows[:, np.newaxis] & columns)


def _second_half(region: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """True beyond the middle of the region's span along an axis."""
    inside = np.asarray(region.any(axis=tuple(other for other in range(3) if other != axis)))
    seen = np.flatnonzero(inside)
    middle = (seen[0] + seen[-1]) / 2 if len(seen) else (len(inside) - 1) / 2
    return np.asarray(np.arange(len(inside)) > middle)
