"""Pictures whose lesion was erased, and sham erasures of the same shape at healthy places of the same lung.

Both are filled alike: a membrane (HiResMedSynthLib/inpaint.py) between the parenchyma around, vessels and chest wall
left out, plus grain copied from parenchyma close by, at the median level of the lung around. The haze that lesions
leave around the fill is taken off by shells, from shams' surroundings too. A network that tells true from sham can do
so by the surroundings only; Testing/benchmarks/location_control.py measures what the fills give away.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.inpaint import inpaint
from HiResMedSynthLib.placement.surroundings import bright
from Training.location_data import LungPatch

GROWN_MM = 3.5  # erased beyond the readers' outlines: the tissue 2 to 3 mm beyond them is still 18 HU denser
LARGEST_MM = 20.0  # of larger ones the spicules and the pulled vessels would stay
INSIDE_LUNG = 0.9  # of a lesion's shape
BRIGHT_SHARE = 0.1  # of a sham's shape that may show vessels
MARGIN_MM, RIM_MM = 12.0, 4.0  # around an erasure: where grain and level, and the membrane's rim come from
LEVEL_MM = (1.5, 10.0)  # distances between which the fill's mean level is taken: haze close to lesions gave them away
RING_MM, SHELL_MM = 3.0, 0.8  # beyond the fill: as far as haze is taken off, fading from half way; in shells so wide
LEAST_PIXELS = 8  # of a shell whose level is told
VESSEL_MM = 0.7  # around dense things: their blur is no parenchyma
COARSE_MM = 1.2  # grain is what is finer than this
GAP_MM = 2.0  # between two erasures
TRIES = 40
SHAMS = 100
SEED = 12
ERASING = repr(  # pictures erased otherwise are made anew
    (2, GROWN_MM, RING_MM, SHELL_MM, LEVEL_MM, RIM_MM, MARGIN_MM, VESSEL_MM, COARSE_MM, GAP_MM, SEED)
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Erasure:
    """A filled place.

    Args:
        centre: (row, column) of the shape's centre of mass.
        rows, columns: of the filled pixels.
        fill: float32, HU-like, in their order.
        ring_rows, ring_columns: of the pixels around.
        haze: float32, HU to take off there, in their order.
    """

    centre: tuple[float, float]
    rows: NDArray[np.int16]
    columns: NDArray[np.int16]
    fill: NDArray[np.float32]
    ring_rows: NDArray[np.int16]
    ring_columns: NDArray[np.int16]
    haze: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class ErasedPatch:
    """A picture, its true erasure and its shams.

    Args:
        patch: as it was.
        true: where the lesion was.
        shams: places of healthy lung, uniform over where the shape fits; they may overlap one another.
        fits: float32 `[row, column]`: share of the shape's eight symmetries that fit when centred there.
        apart_mm: centres of two erasures of this shape at this distance don't touch.
    """

    patch: LungPatch
    true: Erasure
    shams: tuple[Erasure, ...]
    fits: NDArray[np.float32]
    apart_mm: float


def paint(hu: NDArray[np.float32], *places: Erasure) -> None:
    """Erases those places, each named once, in that picture: the haze around all of them, then the fills."""
    for place in places:
        hu[place.ring_rows, place.ring_columns] -= place.haze
    for place in places:
        hu[place.rows, place.columns] = place.fill


def erase(
    hu: NDArray[np.float32],
    mask: NDArray[np.bool_],
    *,
    lung: NDArray[np.bool_],
    dense: NDArray[np.bool_],
    spacing_mm: tuple[float, ...],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """The values that fill `mask` (in the order of its pixels): membrane plus grain. 2-D and 3-D alike.

    Args:
        hu: the picture or volume.
        mask: the place, within the lung.
        lung, dense: lung; vessels and other dense things, which neither rim nor grain is taken from.
        spacing_mm: along each axis.
        rng: draws where the grain comes from.

    Raises:
        PlacementError: there is no parenchyma around.
    """
    window = bounding_box(mask, [round(MARGIN_MM / step) for step in spacing_mm])
    hu, mask = hu[window], mask[window]
    tissue, away, around = _around(mask, lung[window], dense[window], spacing_mm)
    if tissue.sum() < mask.sum() / 4 or not around.any():
        raise PlacementError("there is too little lung around a lesion to fill it from", remedy="Leave it out.")
    sigma = [COARSE_MM / step for step in spacing_mm]
    weight = gaussian_filter(tissue.astype(np.float32), sigma)
    smooth = gaussian_filter(np.where(tissue, hu, 0).astype(np.float32), sigma) / np.maximum(weight, 1e-3)
    membrane = np.zeros(hu.shape, dtype=np.float32)
    rim = bounding_box(away <= RIM_MM)
    if tissue[rim].any():
        membrane[rim] = inpaint(smooth[rim], ~tissue[rim], spacing_mm=spacing_mm)
    filled = membrane[mask] + _grain(hu - smooth, tissue, mask, rng)
    return np.asarray(filled - filled.mean() + np.median(hu[around]), dtype=np.float32)


def haze(
    hu: NDArray[np.float32],
    mask: NDArray[np.bool_],
    *,
    lung: NDArray[np.bool_],
    dense: NDArray[np.bool_],
    spacing_mm: tuple[float, ...],
) -> NDArray[np.float32]:
    """How far the shells around `mask` lie above the lung around, fading to 0 at `RING_MM`; 0 elsewhere.

    A lesion's blur and what its readers left outside of their outlines; arguments as in `erase`.
    """
    tissue, away, around = _around(mask, lung, dense, spacing_mm)
    above = np.zeros(hu.shape, dtype=np.float32)
    if around.any():
        middles = np.arange(SHELL_MM / 2, RING_MM, SHELL_MM)
        shells = [tissue & (np.abs(away - middle) <= SHELL_MM / 2) for middle in middles]
        level = hu[around].mean()
        excess = [hu[shell].mean() - level if shell.sum() >= LEAST_PIXELS else 0.0 for shell in shells]
        ring = lung & ~mask & (away <= RING_MM)
        fade = np.minimum(2 * (1 - away[ring] / RING_MM), 1)
        above[ring] = np.interp(away[ring], middles, excess) * fade
    return above


def _grain(
    residual: NDArray[np.float32], tissue: NDArray[np.bool_], mask: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Grain in the order of the mask's pixels: the residual of tissue elsewhere, shifted and mirrored as a whole."""
    places = np.argwhere(mask)
    centre = np.rint(places.mean(axis=0)).astype(np.int64)
    sources = np.argwhere(tissue)
    best, most = None, -1.0
    for _ in range(TRIES):
        flips = rng.choice([-1, 1], mask.ndim)
        moved = (places - centre) * flips + sources[rng.integers(len(sources))]
        held = ((moved >= 0) & (moved < mask.shape)).all(axis=1)
        at = tuple(np.where(held[:, np.newaxis], moved, 0).T)
        good = held & tissue[at]
        if good.mean() > most:
            best, most = (at, good), float(good.mean())
        if most == 1.0:
            break
    assert best is not None
    at, good = best
    spare = tuple(sources[rng.integers(len(sources), size=len(places))].T)
    return np.where(good, residual[at], residual[spare])


def erased(patch: LungPatch, rng: np.random.Generator, *, shams: int = SHAMS) -> ErasedPatch:
    """The true erasure of that picture and up to `shams` sham ones.

    Raises:
        PlacementError: the lesion isn't in the lung, is too large, or its shape fits nowhere else.
    """
    shape, lung, spacing = patch.lesion, patch.lung, patch.spacing_mm
    if (shape & lung).sum() < INSIDE_LUNG * shape.sum():
        raise PlacementError("a lesion lies outside the lung that was found", remedy="Leave it out.")
    if shape.sum() * spacing**2 > np.pi * (LARGEST_MM / 2) ** 2:
        raise PlacementError(f"a lesion is larger than {LARGEST_MM:.0f} mm", remedy="Leave it out.")
    true = _erasure(patch.hu, _grown(shape, spacing), bright(patch.hu, spacing), patch, _centre(shape), rng)
    healthy = patch.hu.copy()
    paint(healthy, true)
    dense = bright(healthy, spacing)
    turns = [_Turn.of(shape, turn, spacing) for turn in range(8)]
    apart_mm = 2 * turns[0].radius_px * spacing + GAP_MM
    fits = np.zeros(lung.shape, dtype=np.float32)
    choices = []
    for index, turn in enumerate(turns):
        fit = turn.fits(lung, dense)
        fits += fit / np.float32(len(turns))
        places = np.argwhere(fit)
        far = np.hypot(*(places + np.array(turn.off) - np.array(true.centre)).T) * spacing >= apart_mm
        choices += [(index, int(row), int(column)) for row, column in places[far]]
    made = []
    drawn = rng.integers(len(choices), size=shams) if choices else []
    for index, row, column in (choices[k] for k in drawn):
        whole = turns[index].placed((row, column), lung.shape)
        centre = (row + turns[index].off[0], column + turns[index].off[1])
        try:
            made.append(_erasure(healthy, whole, dense, patch, centre, rng))
        except PlacementError:
            continue
    if not made:
        raise PlacementError("a lesion's shape fits nowhere else in its picture", remedy="Leave it out.")
    return ErasedPatch(patch=patch, true=true, shams=tuple(made), fits=fits, apart_mm=float(apart_mm))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Turn:
    """One of the eight symmetries of a shape, with room around it.

    Args:
        shape, grown: bool stencils of one odd size.
        off: (row, column) of the centre of mass from the middle pixel.
        radius_px: of the grown shape about its centre of mass.
    """

    shape: NDArray[np.bool_]
    grown: NDArray[np.bool_]
    off: tuple[float, float]
    radius_px: float

    @classmethod
    def of(cls, shape: NDArray[np.bool_], turn: int, spacing_mm: float) -> _Turn:
        rows, columns = np.nonzero(shape)
        box = shape[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        box = np.rot90(box if turn < 4 else box.T, turn % 4)
        side = 2 * (max(box.shape) // 2 + round(GROWN_MM / spacing_mm) + 1) + 1
        small = np.zeros((side, side), dtype=bool)
        top, left = (side - box.shape[0]) // 2, (side - box.shape[1]) // 2
        small[top : top + box.shape[0], left : left + box.shape[1]] = box
        grown, (row, column) = _grown(small, spacing_mm), _centre(small)
        radius = float(np.hypot(*(np.argwhere(grown) - np.array((row, column))).T).max())
        return cls(shape=small, grown=grown, off=(row - side // 2, column - side // 2), radius_px=radius)

    def fits(self, lung: NDArray[np.bool_], dense: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Middles at which the shape lies in lung, with few vessels under it."""
        area = self.shape.sum()
        inside = _covered(self.shape, lung) >= INSIDE_LUNG * area
        return np.asarray(inside & (_covered(self.shape, dense) <= BRIGHT_SHARE * area))

    def placed(self, middle: tuple[int, int], shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """The grown shape with its middle at that pixel; what lies beyond the border is cut."""
        whole = np.zeros(shape, dtype=bool)
        half = len(self.grown) // 2
        rows, columns = (
            slice(max(0, at - half), min(end, at + half + 1)) for at, end in zip(middle, shape, strict=True)
        )
        top, left = middle[0] - half, middle[1] - half
        whole[rows, columns] = self.grown[
            rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]
        return whole


def _erasure(
    hu: NDArray[np.float32],
    grown: NDArray[np.bool_],
    dense: NDArray[np.bool_],
    patch: LungPatch,
    centre: tuple[float, float],
    rng: np.random.Generator,
) -> Erasure:
    mask = grown & patch.lung
    spacing = (patch.spacing_mm, patch.spacing_mm)
    above = haze(hu, mask, lung=patch.lung, dense=dense, spacing_mm=spacing)
    fill = erase(hu - above, mask, lung=patch.lung, dense=dense, spacing_mm=spacing, rng=rng)
    rows, columns, ring_rows, ring_columns = (at.astype(np.int16) for at in (*np.nonzero(mask), *np.nonzero(above)))
    return Erasure(
        centre=centre, rows=rows, columns=columns, fill=fill, ring_rows=ring_rows, ring_columns=ring_columns,
        haze=above[ring_rows, ring_columns],
    )  # fmt: skip


def _around(
    mask: NDArray[np.bool_], lung: NDArray[np.bool_], dense: NDArray[np.bool_], spacing_mm: tuple[float, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.bool_]]:
    """(parenchyma outside `mask`, mm from `mask`, the parenchyma that tells the level of the lung around)."""
    tissue = lung & ~_grown(dense, spacing_mm, VESSEL_MM) & ~mask
    away = np.asarray(distance_transform_edt(~mask, sampling=spacing_mm))
    return tissue, away, tissue & (away > LEVEL_MM[0]) & (away <= LEVEL_MM[1])


def _grown(
    shape: NDArray[np.bool_], spacing_mm: float | tuple[float, ...], distance_mm: float = GROWN_MM
) -> NDArray[np.bool_]:
    if not shape.any():
        return shape
    return np.asarray(distance_transform_edt(~shape, sampling=spacing_mm) <= distance_mm)


def _centre(shape: NDArray[np.bool_]) -> tuple[float, float]:
    row, column = np.argwhere(shape).mean(axis=0)
    return float(row), float(column)


def _covered(small: NDArray[np.bool_], field: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Pixels of `field` under the stencil when its middle lies at each pixel; nothing beyond the border."""
    return np.asarray(
        cv2.filter2D(
            field.astype(np.float32), cv2.CV_32F, small.astype(np.float32), borderType=cv2.BORDER_CONSTANT
        ).round()
    )
