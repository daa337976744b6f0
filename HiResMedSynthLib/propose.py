"""propose(ground, ...) -> places for lesions; judge(ground, place) -> what is wrong with a place of one's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.ground import Ground
from HiResMedSynthLib.placement.candidates import candidates, footprint_problem, nearest_permitted
from HiResMedSynthLib.placement.near import within_mm
from HiResMedSynthLib.placement.zones import Zone

FOOTPRINT = 1.4  # a lesion's footprint over its diameter: the matte is wider, the form not round
LARGEST_MM = 200.0
Index = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A place for a lesion.

    Args:
        place: (slice, row, column) index.
        lps_mm: the same in the patient, LPS millimetres.
        times_even: how much likelier it is than a permitted place drawn evenly.
        zone: that it was drawn for, or None.
    """

    place: Index
    lps_mm: tuple[float, float, float]
    times_even: float
    zone: Zone | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a lesion may stand at a place of the user's.

    Args:
        place: that was asked for.
        touches: names of the forbidden classes that it would touch, most first; empty: it may.
        nearest: the nearest place where it may, or None.
    """

    place: Index
    touches: tuple[str, ...]
    nearest: Index | None


def propose(
    ground: Ground,
    *,
    count: int,
    seed: int,
    quotas: Mapping[Zone, int] | None = None,
    diameter_mm: float = 0.0,
    min_distance_mm: float = 10.0,
    allow: Collection[str] = (),
) -> list[Proposal]:
    """Up to `count` places drawn from the prior on permitted tissue, those of the quotas first; by seed alone.

    Args:
        ground: the prepared background.
        count: places wanted in all.
        seed: whole number from 0 up.
        quotas: how many of them a zone gets at least; the others lie anywhere.
        diameter_mm: a lesion of this size fits at each place, where such places exist.
        min_distance_mm: between two places.
        allow: danger classes that count as permitted.

    Raises:
        PlacementError: nothing is permitted, or not in a zone.
        SettingsError: the quotas ask for more than `count`.
    """
    quotas = dict(quotas or {})
    if sum(quotas.values()) > count:
        raise SettingsError(
            f"the quotas ask for {sum(quotas.values())} places, the count is {count}", remedy="Raise the count."
        )
    rng = np.random.default_rng(seed)
    near = _near_forbidden(ground, diameter_mm, allow)
    permitted = int((~ground.forbidden(allow)).sum())
    everywhere = ground.heat(allow)
    chosen: list[Index] = []
    found: list[Proposal] = []
    for zone, wanted in [*quotas.items(), (None, count - sum(quotas.values()))]:
        heat = everywhere if zone is None else ground.heat(allow, zone)
        if near is not None:
            roomy = np.where(near, np.float32(0), heat)
            heat = roomy if roomy.any() else heat
        places = candidates(
            heat, count=wanted, rng=rng, spacing_mm=ground.image.spacing_mm, min_distance_mm=min_distance_mm,
            apart_from=chosen,
        )  # fmt: skip
        chosen += places
        found += [
            Proposal(
                place=place,
                lps_mm=_lps(ground, place),
                times_even=float(everywhere[place]) * permitted,
                zone=zone,
            )
            for place in places
        ]
    return found


def judge(ground: Ground, place: Index, *, diameter_mm: float, allow: Collection[str] = ()) -> Verdict:
    """Whether a ball of the size of a lesion's footprint may stand at a place, by the code that draws cases.

    Raises:
        SettingsError: the diameter can't be.
    """
    if not 0 < diameter_mm <= LARGEST_MM:
        raise SettingsError(f"a diameter of {diameter_mm} mm can't be", remedy=f"Give up to {LARGEST_MM:g} mm.")
    spacing = ground.image.spacing_mm
    ball = _ball(FOOTPRINT * diameter_mm / 2, spacing, flat=ground.image.slices == 1)
    corner = tuple(at - size // 2 for at, size in zip(place, ball.shape, strict=True))
    assert len(corner) == 3
    touches = footprint_problem(ground.danger_map, ball, corner, allow=allow)
    nearest = nearest_permitted(ground.forbidden(allow), ball, corner, spacing_mm=spacing) if touches else corner
    moved = None if nearest is None else tuple(at + size // 2 for at, size in zip(nearest, ball.shape, strict=True))
    return Verdict(place=place, touches=touches, nearest=moved)


def _near_forbidden(ground: Ground, diameter_mm: float, allow: Collection[str]) -> NDArray[np.bool_] | None:
    reach_mm = FOOTPRINT * min(diameter_mm, LARGEST_MM) / 2
    if reach_mm <= 0:
        return None
    return within_mm(ground.forbidden(allow), reach_mm, spacing_mm=ground.image.spacing_mm)


def _lps(ground: Ground, place: Index) -> tuple[float, float, float]:
    x, y, z = ground.image.index_to_lps([place])[0]
    return float(x), float(y), float(z)


def _ball(radius_mm: float, spacing_mm: tuple[float, float, float], *, flat: bool) -> NDArray[np.bool_]:
    reach = [0 if flat and axis == 0 else int(radius_mm // mm) for axis, mm in enumerate(spacing_mm)]
    axes = [np.arange(-r, r + 1) * mm for r, mm in zip(reach, spacing_mm, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return np.asarray(z**2 + y**2 + x**2 <= radius_mm**2)
