"""propose(ground, ...) -> places for lesions; judge(ground, place) -> what is wrong with a place of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.choices import RequestType, Zone
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.ground import Ground
from HiResMedSynthLib.placement.candidates import candidates, footprint_problem, nearest_permitted
from HiResMedSynthLib.placement.danger_map import MAY_TOUCH, MUST_TOUCH

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
        fits: whether a lesion of the size asked for fits there.
    """

    place: Index
    lps_mm: tuple[float, float, float]
    times_even: float
    zone: Zone | None = None
    fits: bool = True


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a lesion may stand at a place of the user's.

    Args:
        place: that was asked for.
        touches: names of the forbidden classes that it would touch, most first; empty: it may.
        missing: the class that a lesion of its type has to touch and wouldn't, or None.
        nearest: the nearest place where it may, or None.
    """

    place: Index
    touches: tuple[str, ...]
    missing: str | None
    nearest: Index | None


def propose(
    ground: Ground,
    *,
    count: int,
    seed: int,
    quotas: Mapping[Zone, int] | None = None,
    diameter_mm: float = 0.0,
    min_distance_mm: float = 10.0,
    lesion_type: RequestType = "any",
) -> list[Proposal]:
    """Up to `count` places drawn from the prior on permitted tissue, those of the quotas first; by seed alone.

    Args:
        ground: the prepared background.
        count: places wanted in all.
        seed: whole number from 0 up.
        quotas: how many of them a zone gets at least; the others lie anywhere.
        diameter_mm: a lesion of this size fits at each place, where such places were found (`Proposal.fits` tells).
        min_distance_mm: between two places.
        lesion_type: decides which classes it may touch, and which it has to.

    Raises:
        PlacementError: nothing is permitted, or not in a zone.
        SettingsError: see `check_wish` and `Ground.check_type`.
    """
    quotas = dict(quotas or {})
    check_wish(count=count, quotas=quotas, diameter_mm=diameter_mm, min_distance_mm=min_distance_mm)
    ground.check_type(lesion_type)
    allow = MAY_TOUCH.get(lesion_type, ())
    rng = np.random.default_rng(seed)
    permitted = int((~ground.forbidden(allow)).sum())
    everywhere = ground.heat(allow)
    spacing = ground.image.spacing_mm
    ball = _ball(FOOTPRINT * diameter_mm / 2, spacing, flat=ground.image.slices == 1) if diameter_mm > 0 else None

    def fits(place: Index) -> bool:
        return ball is None or _problem(ground, ball, _corner(place, ball), lesion_type) == ((), None)

    found: list[Proposal] = []
    chosen: list[Index] = []
    for zone, wanted in [*quotas.items(), (None, count - sum(quotas.values()))]:
        heat = everywhere if zone is None else ground.in_zone(everywhere, zone)
        draw = partial(
            candidates, heat, count=wanted, rng=rng, spacing_mm=spacing, min_distance_mm=min_distance_mm,
            apart_from=chosen,
        )  # fmt: skip
        places = draw(fits=fits) or draw()
        chosen += places
        found += [
            Proposal(
                place=place,
                lps_mm=_lps(ground, place),
                times_even=float(everywhere[place]) * permitted,
                zone=zone,
                fits=fits(place),
            )
            for place in places
        ]
    return found


def judge(ground: Ground, place: Index, *, diameter_mm: float, lesion_type: RequestType = "any") -> Verdict:
    """Whether a ball of the size of a lesion's footprint may stand at a place, by the code that draws cases.

    Raises:
        SettingsError: the diameter can't be; see `Ground.check_type`.
    """
    ground.check_type(lesion_type)
    if not 0 < diameter_mm <= LARGEST_MM:
        raise SettingsError(f"a diameter of {diameter_mm} mm can't be", remedy=f"Give up to {LARGEST_MM:g} mm.")
    spacing = ground.image.spacing_mm
    ball = _ball(FOOTPRINT * diameter_mm / 2, spacing, flat=ground.image.slices == 1)
    corner = _corner(place, ball)
    touches, missing = _problem(ground, ball, corner, lesion_type)
    forbidden = ground.forbidden(MAY_TOUCH.get(lesion_type, ()))
    nearest = nearest_permitted(forbidden, ball, corner, spacing_mm=spacing) if touches else corner
    moved = None if nearest is None else tuple(at + size // 2 for at, size in zip(nearest, ball.shape, strict=True))
    return Verdict(place=place, touches=touches, missing=missing, nearest=moved)


def check_wish(*, count: int, quotas: Mapping[Zone, int], diameter_mm: float, min_distance_mm: float) -> None:
    """Refuses what `propose` can't give on any image; needs none, so that nobody waits for the refusal.

    Raises:
        SettingsError: the quotas ask for more than `count` or for less than 1, a length that can't be.
    """
    if any(wanted < 1 for wanted in quotas.values()) or sum(quotas.values()) > count:
        raise SettingsError(
            f"the quotas ask for {sum(quotas.values())} places, the count is {count}",
            remedy="Give quotas of 1 and more, and a count that holds them all.",
        )
    _check_mm(diameter_mm, "diameter")
    _check_mm(min_distance_mm, "distance")


def _problem(
    ground: Ground, ball: NDArray[np.bool_], corner: Index, lesion_type: RequestType
) -> tuple[tuple[str, ...], str | None]:
    """(classes forbidden to that type that a ball there touches, the class that it has to touch and doesn't)."""
    touched, needed = footprint_problem(ground.danger_map, ball, corner), MUST_TOUCH.get(lesion_type)
    touches = tuple(name for name in touched if name not in MAY_TOUCH.get(lesion_type, ()))
    return touches, None if touches or needed in touched else needed


def _check_mm(value: float, what: str) -> None:
    if not 0 <= value <= LARGEST_MM:
        raise SettingsError(f"a {what} of {value} mm can't be", remedy=f"Give 0 to {LARGEST_MM:g} mm.")


def _corner(place: Index, ball: NDArray[np.bool_]) -> Index:
    return place[0] - ball.shape[0] // 2, place[1] - ball.shape[1] // 2, place[2] - ball.shape[2] // 2


def _lps(ground: Ground, place: Index) -> tuple[float, float, float]:
    x, y, z = ground.image.index_to_lps([place])[0]
    return float(x), float(y), float(z)


def _ball(radius_mm: float, spacing_mm: tuple[float, float, float], *, flat: bool) -> NDArray[np.bool_]:
    reach = [0 if flat and axis == 0 else int(radius_mm // mm) for axis, mm in enumerate(spacing_mm)]
    axes = [np.arange(-r, r + 1) * mm for r, mm in zip(reach, spacing_mm, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return np.asarray(z**2 + y**2 + x**2 <= radius_mm**2)
