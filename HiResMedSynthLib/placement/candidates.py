"""Places for lesions: drawn from a heatmap, tested with the whole footprint, and the nearest one that fits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.placement.danger_map import DangerMap

Index = tuple[int, int, int]
OUTSIDE_IMAGE = "outside the image"
SEARCH_MM, SEARCH_FLAT_MM = 60.0, 150.0  # in a volume; in one slice, where it costs little
CHECKED_PER_ROUND = 256
MOST_CHECKED = 20_000  # placements tested one by one before the search gives up


class PlaceSampler:
    """Draws voxels of a heatmap again and again; holds the cumulative weights of its non-zero voxels once.

    Raises:
        PlacementError: the heatmap is zero everywhere.
    """

    def __init__(self, heat: NDArray[np.float32]) -> None:
        flat = np.ascontiguousarray(heat).reshape(-1)
        self._voxels = np.flatnonzero(flat > 0).astype(np.int32 if flat.size < 2**31 else np.int64)
        if len(self._voxels) == 0:
            raise PlacementError(
                "no tissue of this image is permitted", remedy="Take smaller margins, or another slice or background."
            )
        self._cumulative = np.cumsum(flat[self._voxels], dtype=np.float64)
        self._shape = heat.shape

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """`[count, 3]` (slice, row, column) of voxels drawn with the heatmap's probability, with repetition."""
        ranks = np.searchsorted(self._cumulative, rng.random(count) * self._cumulative[-1], side="right")
        voxels = self._voxels[np.minimum(ranks, len(self._voxels) - 1)].astype(np.int64)
        return np.stack(np.unravel_index(voxels, self._shape), axis=1)


def candidates(
    heat: NDArray[np.float32],
    *,
    count: int,
    rng: np.random.Generator,
    spacing_mm: tuple[float, float, float],
    min_distance_mm: float = 10.0,
    apart_from: Sequence[Index] = (),
    fits: Callable[[Index], bool] | None = None,
) -> list[Index]:
    """Up to `count` (slice, row, column) places drawn from the heatmap, at least `min_distance_mm` apart.

    They keep the distance to `apart_from` too, and `fits` is True of each. Fewer come back where no further place was
    found in 50 draws for each one asked.
    """
    taken = list(apart_from)
    wanted = len(taken) + count
    step = np.asarray(spacing_mm)
    for place in PlaceSampler(heat).draw(rng, 50 * max(count, 1)):
        if len(taken) == wanted:
            break
        apart = (np.asarray(taken).reshape(-1, 3) - place) * step
        index = (int(place[0]), int(place[1]), int(place[2]))
        if (np.einsum("ij,ij->i", apart, apart) >= min_distance_mm**2).all() and (fits is None or fits(index)):
            taken.append(index)
    return taken[len(apart_from) :]


def footprint_problem(
    danger_map: DangerMap, footprint: NDArray[np.bool_], corner: Index, *, allow: Collection[str] = ()
) -> tuple[str, ...]:
    """Names of what a footprint at `corner` would touch, most first; empty where all of it is permitted.

    Args:
        danger_map: forbidden classes of the image.
        footprint: `[slice, row, column]` bool patch.
        corner: (slice, row, column) index of the patch's first voxel in the image.
        allow: classes that count as permitted.
    """
    if not _inside(danger_map.shape, footprint, corner):
        return (OUTSIDE_IMAGE,)
    region = tuple(slice(low, low + size) for low, size in zip(corner, footprint.shape, strict=True))
    return tuple(name for name in danger_map.classes_in(region, footprint) if name not in allow)


def nearest_permitted(
    forbidden: NDArray[np.bool_],
    footprint: NDArray[np.bool_],
    corner: Index,
    *,
    spacing_mm: tuple[float, float, float],
) -> Index | None:
    """The corner nearest to `corner` (in mm) at which the whole footprint is permitted; None where there is none.

    Looks at whole-voxel moves of at most `SEARCH_MM`, in one slice `SEARCH_FLAT_MM`. Voxels are ruled out at once where
    the footprint's largest inner ball doesn't fit (distance transform of a crop); the others are tested one by one,
    nearest first.

    Args:
        forbidden: `[slice, row, column]`, True = forbidden.
        footprint: `[slice, row, column]` bool patch; every voxel of it must be permitted.
        corner: (slice, row, column) of the patch's first voxel; may lie outside the image.
        spacing_mm: (slice, row, column).
    """
    shape, size = forbidden.shape, footprint.shape
    farthest = SEARCH_FLAT_MM if shape[0] == 1 else SEARCH_MM
    if not footprint.any() or any(small > large for small, large in zip(size, shape, strict=True)):
        return None
    for radius in (12.0, 30.0, farthest):  # near places cost little
        found = _nearest_within(forbidden, footprint, corner, spacing_mm=spacing_mm, search_mm=radius)
        if found is not None:
            return found
    return None


def _nearest_within(
    forbidden: NDArray[np.bool_],
    footprint: NDArray[np.bool_],
    corner: Index,
    *,
    spacing_mm: tuple[float, float, float],
    search_mm: float,
) -> Index | None:
    from scipy.ndimage import distance_transform_edt

    shape, size = forbidden.shape, footprint.shape
    padded = np.pad(footprint, 1)
    depth = distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    heart = np.unravel_index(int(np.argmax(depth)), size)  # centre of the largest ball inside the footprint
    reach = [int(search_mm // step) for step in spacing_mm]
    low = [max(0, c - r) for c, r in zip(corner, reach, strict=True)]
    high = [min(n - s, c + r) for n, s, c, r in zip(shape, size, corner, reach, strict=True)]
    if any(a > b for a, b in zip(low, high, strict=True)):
        return None
    crop = tuple(slice(a, b + s) for a, b, s in zip(low, high, size, strict=True))
    permitted = ~forbidden[crop]
    room = distance_transform_edt(permitted, sampling=spacing_mm) if forbidden[crop].any() else None
    count = [b - a + 1 for a, b in zip(low, high, strict=True)]
    at_heart = tuple(slice(int(h), int(h) + n) for h, n in zip(heart, count, strict=True))
    ball = float(depth[heart])
    possible = permitted[at_heart] if room is None else room[at_heart] >= ball - 1e-3
    moves = np.argwhere(possible)
    if len(moves) == 0:
        return None
    away = (moves + np.asarray(low) - np.asarray(corner)) * np.asarray(spacing_mm)
    distance = np.einsum("ij,ij->i", away, away)
    within = distance <= search_mm**2
    moves, distance = moves[within], distance[within]
    inside = np.argwhere(footprint)
    order = np.argsort(distance, kind="stable")[:MOST_CHECKED]
    for start in range(0, len(order), CHECKED_PER_ROUND):
        some = moves[order[start : start + CHECKED_PER_ROUND]]
        fits = _fit(permitted, inside, some)
        if fits is not None:
            first, second, third = (int(value) for value in some[fits] + np.asarray(low))
            return first, second, third
    return None


def _fit(permitted: NDArray[np.bool_], inside: NDArray[np.int64], moves: NDArray[np.int64]) -> int | None:
    """Index of the first move at which all footprint voxels are permitted, or None."""
    alive = np.arange(len(moves))
    strides = np.array([permitted.shape[1] * permitted.shape[2], permitted.shape[2], 1])
    flat, starts, offsets = permitted.reshape(-1), moves @ strides, inside @ strides
    # a few scattered voxels refuse most moves, so the whole footprint is read for few
    for part in itertools.chain((offsets[:: max(1, len(offsets) // 64)],), np.array_split(offsets, 4)):
        alive = alive[flat[starts[alive, np.newaxis] + part].all(axis=1)]
        if len(alive) == 0:
            return None
    return int(alive[0])


def _inside(shape: tuple[int, ...], footprint: NDArray[np.bool_], corner: Index) -> bool:
    return all(c >= 0 and c + s <= n for c, s, n in zip(corner, footprint.shape, shape, strict=True))
