"""Where a lesion's strands run: along the scan's own ridges to vessels and pleura nearby, or out into the lung.

A link's way is the quickest from a structure to the lesion through a medium in which bright ridges are fast (minimal
path by fast marching; Cohen & Kimmel, IJCV 24, 1997).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.joining.belonging import SHELL_MM, Belonging, Point
from HiResMedSynthLib.joining.real_strands import Strand

LONGEST_MM = 14.0  # of a link
SMALLEST_MM3 = 8.0  # of a structure: less is noise or a stray voxel
AXIS_MM = 2.0  # a link ends at the brightest spot of what it leads to, no farther than this from where it meets it
LARGE_MM3 = 1500.0  # from here on it is wall, pleura or a large vessel, which more than one strand may reach
WALL_ENTRIES = 6  # places at which it may be reached
FOLLOWED_MM = 7.0  # a real strand that could be followed so far went on to something
RIDGE_HU, SLOWEST = 150.0, 0.25  # speed in plain parenchyma, and the excess at which it is 1 more
AIR_HU, IN_AIR = 90.0, 0.05  # below the parenchyma: an airway or a bulla, and the speed there
WANDER = 0.3  # standard deviation of the random part of log speed: no way is straight
WANDER_MM = 2.0
APART = math.cos(math.radians(35))  # of two strands, seen from the lesion
DIRECTIONS_TRIED = 40
THIN_SLICE_MM = 1.5  # in thicker slices fewer strands are seen that cross them
ROOTED_MM = 1.5  # a strand begins this deep in the lesion
FLARE, FLARE_MM = 0.6, 1.2  # it widens towards a solid lesion by that share, over that length
THICKEST_MM = {"vessel": 1.3, "pleura": 1.0, "lung": 1.0}  # radius: thicker real ones are vessels that pass
THINNEST = 0.5  # of its radius, at a free end
BEND = 0.12  # of a free strand's length: how far its middle lies off the straight line
OUTER_MM = 1.5  # how far a free strand runs past where it can still be told from the lung


@dataclass(frozen=True, kw_only=True, eq=False)
class Path:
    """A strand's axis.

    Args:
        points: `[n, 3]` voxel indices, from inside the lesion outwards, less than a voxel apart.
        radii_mm: at each.
        to: "vessel", "pleura" or "lung".
    """

    points: NDArray[np.float64]
    radii_mm: NDArray[np.float64]
    to: str


def paths(
    found: Belonging,
    wanted: list[Strand],
    *,
    spacing_mm: Point,
    one_slice: bool,
    rng: np.random.Generator,
    flare: float = FLARE,
) -> list[Path]:
    """The ways of the strands that a lesion still lacks.

    Args:
        found: the lesion at its place, with what already hangs together with it: so many less are made.
        wanted: the strands that it should have, thickest first.
        spacing_mm: (slice, row, column).
        one_slice: True: strands stay in the plane.
        rng: the lesion's own stream.
        flare: by what share of its radius a strand widens towards the lesion; vessels run into ground glass without.
    """
    going_on = [strand for strand in wanted if strand.reach_mm >= FOLLOWED_MM]
    ending = [strand for strand in wanted if strand.reach_mm < FOLLOWED_MM]
    there = sum(one.reach_mm >= FOLLOWED_MM for one in found.strands)
    links, free = going_on[there:], ending[len(found.strands) - there :]
    if not links and not free:
        return []
    centre = np.argwhere(found.region).mean(axis=0)
    taken = [np.array(one.direction) for one in found.attached]
    made: list[Path] = []
    if links:
        arrival = _arrival(found, spacing_mm, rng)
        for entry, to in _entries(found, arrival, spacing_mm):
            if len(made) == len(links):
                break
            ray = _unit((np.array(entry) - centre) * spacing_mm)
            if any(float(ray @ other) > APART for other in taken):
                continue
            taken.append(ray)
            way = _rooted(np.vstack([_descended(arrival, entry), _axis(found, entry, spacing_mm)]), centre, spacing_mm)
            made.append(_link(way, links[len(made)].radius_mm, to, spacing_mm, flare))
    for strand in (*links[len(made) :], *free):
        path = _free(found, strand, centre, taken, spacing_mm, one_slice=one_slice, rng=rng, flare=flare)
        if path is not None:
            made.append(path)
    return made


def _arrival(found: Belonging, spacing_mm: Point, rng: np.random.Generator) -> NDArray[np.float32]:
    """When a front that starts at the lesion comes to each voxel; far ones are never reached (a huge number)."""
    import SimpleITK as sitk
    from scipy.ndimage import binary_dilation, gaussian_filter

    excess = np.clip((found.smooth - found.level_hu) / RIDGE_HU, 0.0, 2.0)
    wander = gaussian_filter(rng.standard_normal(excess.shape), [WANDER_MM / step for step in spacing_mm])
    speed = np.where(found.smooth < found.level_hu - AIR_HU, IN_AIR, SLOWEST + excess) * np.exp(
        WANDER * wander / max(float(wander.std()), 1e-6)
    )
    image = sitk.GetImageFromArray(speed.astype(np.float32))
    image.SetSpacing(spacing_mm[::-1])
    rim = np.argwhere(found.region & binary_dilation(~found.region))
    march = sitk.FastMarchingImageFilter()
    march.SetTrialPoints([tuple(int(n) for n in at[::-1]) for at in rim])
    march.SetStoppingValue(LONGEST_MM / SLOWEST)
    arrival = np.minimum(sitk.GetArrayFromImage(march.Execute(image)), np.finfo(np.float32).max)
    arrival[found.region] = 0.0
    return np.asarray(arrival, dtype=np.float32)


def _entries(found: Belonging, arrival: NDArray[np.float32], spacing_mm: Point) -> list[tuple[tuple[int, ...], str]]:
    """(voxel where the front first meets it, what it is) of the structures around, the soonest first."""
    from scipy.ndimage import label

    near = (found.away_mm > SHELL_MM[0]) & (found.away_mm <= LONGEST_MM) & ~found.own
    structure = found.smooth > found.level_hu + found.faintest_hu
    pieces, count = label(structure & near)
    volumes = np.bincount(pieces.ravel(), minlength=count + 1) * math.prod(spacing_mm)
    entries = []
    for k in np.flatnonzero(volumes >= SMALLEST_MM3):
        if k == 0:
            continue
        at = np.argwhere(pieces == k)
        times = arrival[tuple(at.T)]
        large = volumes[k] >= LARGE_MM3
        order = np.argsort(times, kind="stable")[: len(at) if large else 1]
        # a wall may be reached in more than one place: `paths` keeps them apart
        entries += [
            (float(times[chosen]), tuple(int(n) for n in at[chosen]), "pleura" if large else "vessel")
            for chosen in order[:: max(len(order) // WALL_ENTRIES, 1)]
        ]
    entries.sort()
    return [(at, to) for time, at, to in entries if time < LONGEST_MM / SLOWEST]


def _axis(found: Belonging, entry: tuple[int, ...], spacing_mm: Point) -> tuple[int, ...]:
    """The brightest voxel near the entry."""
    reach = [math.floor(AXIS_MM / step) for step in spacing_mm]
    low = [max(at - n, 0) for at, n in zip(entry, reach, strict=True)]
    near = found.smooth[tuple(slice(a, at + n + 1) for a, at, n in zip(low, entry, reach, strict=True))]
    brightest = np.unravel_index(int(near.argmax()), near.shape)
    return tuple(a + int(n) for a, n in zip(low, brightest, strict=True))


def _descended(arrival: NDArray[np.float32], entry: tuple[int, ...]) -> NDArray[np.float64]:
    """`[n, 3]` the way from the lesion to the entry, from voxel to voxel against the front."""
    way = [entry]
    limits = arrival.shape
    steps = [(a, b, c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1) if (a, b, c) != (0, 0, 0)]
    while arrival[way[-1]] > 0:
        around = [tuple(p + s for p, s in zip(way[-1], step, strict=True)) for step in steps]
        inside = [at for at in around if all(0 <= n < limit for n, limit in zip(at, limits, strict=True))]
        best = min(inside, key=lambda at: float(arrival[at]))
        if arrival[best] >= arrival[way[-1]]:
            break
        way.append(best)
    return np.array(way[::-1], dtype=np.float64)


def _rooted(way: NDArray[np.float64], centre: NDArray[np.float64], spacing_mm: Point) -> NDArray[np.float64]:
    """The way without its stairs, begun inside the lesion."""
    from scipy.ndimage import gaussian_filter1d

    inwards = _unit((centre - way[0]) * spacing_mm) * min(
        ROOTED_MM, float(np.linalg.norm((centre - way[0]) * spacing_mm))
    )
    way = np.vstack([way[0] + inwards / spacing_mm, way])
    finer = np.linspace(0, len(way) - 1, 3 * len(way))
    way = np.stack([np.interp(finer, np.arange(len(way)), way[:, k]) for k in range(3)], axis=1)
    return np.asarray(gaussian_filter1d(way, 4.0, axis=0, mode="nearest"))


def _link(way: NDArray[np.float64], radius_mm: float, to: str, spacing_mm: Point, flare: float) -> Path:
    along = _along(way, spacing_mm)
    wider = flare * np.exp(-along / FLARE_MM)
    if to == "pleura":
        wider += flare * np.exp(-(along[-1] - along) / FLARE_MM)
    return Path(points=way, radii_mm=min(radius_mm, THICKEST_MM[to]) * (1.0 + wider), to=to)


def _free(
    found: Belonging,
    strand: Strand,
    centre: NDArray[np.float64],
    taken: list[NDArray[np.float64]],
    spacing_mm: Point,
    *,
    one_slice: bool,
    rng: np.random.Generator,
    flare: float,
) -> Path | None:
    """A strand that runs out into the lung; None where no direction is left for it."""
    # strands that can be seen are counted on real nodules: in thick slices they are those that lie in the plane
    flat = np.array([0.0 if one_slice else min(1.0, THIN_SLICE_MM / spacing_mm[0]), 1.0, 1.0])
    for _ in range(DIRECTIONS_TRIED):
        ray, side = _unit(rng.standard_normal(3) * flat), rng.standard_normal(3) * flat
        if any(float(ray @ other) > APART for other in taken):
            continue
        rim = _exit(found.region, centre, ray, spacing_mm)
        start = rim - min(ROOTED_MM, rim)
        length = rim - start + strand.reach_mm + OUTER_MM
        side -= (side @ ray) * ray
        share = np.linspace(0.0, 1.0, max(math.ceil(length / 0.4), 4))[:, np.newaxis]
        bent = BEND * length * 4.0 * share * (1.0 - share) * _unit(side)
        points = centre + ((start + length * share) * ray + bent) / spacing_mm
        ends = np.rint(points[-1]).astype(int)
        if ((ends < 0) | (ends >= found.region.shape)).any():
            continue
        taken.append(ray)
        along = share[:, 0] * length
        taper = 1.0 - (1.0 - THINNEST) * share[:, 0] ** 2
        radii = min(strand.radius_mm, THICKEST_MM["lung"]) * (1.0 + flare * np.exp(-along / FLARE_MM)) * taper
        return Path(points=points, radii_mm=radii, to="lung")
    return None


def _exit(region: NDArray[np.bool_], centre: NDArray[np.float64], ray: NDArray[np.float64], spacing_mm: Point) -> float:
    """How far from the centre, in mm, the lesion ends in that direction."""
    distances = np.arange(0.0, 60.0, 0.25)
    at = np.rint(centre + distances[:, np.newaxis] * ray / spacing_mm).astype(int)
    inside = ((at >= 0) & (at < region.shape)).all(axis=1)
    hits = distances[inside][region[tuple(at[inside].T)]]
    return float(hits[-1]) if len(hits) else 0.0


def _along(way: NDArray[np.float64], spacing_mm: Point) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(way, axis=0) * spacing_mm, axis=1))])


def _unit(vector: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))
