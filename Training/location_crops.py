"""Crops of erased pictures in which nothing tells where the true site is but the lung around it.

The nodule sits at the middle of its picture, so a crop is at most half a picture wide and lies at random: within it the
true site is as likely at one place as at another, and so are the shams. No two erasures of a crop touch, and all have
the same shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.placement.location_network import PIXEL_MM
from Training.erased_pairs import ErasedPatch, Erasure, paint

SIDE_PX = 64
INNER_MM = 3.0  # sites keep this distance from the crop's border
SMALLEST_MM = 30.0
MOST_THROWN = 16
TRIES = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Crop:
    """A crop `[SIDE_PX, SIDE_PX]` on the network's grid.

    Args:
        hu: float32.
        lung: bool.
        fits: float32, 0..1: where centres of this shape may lie; 0 outside the crop's inner part.
        sites: float32 `[n, 2]` (row, column) of the erased centres, the true one first.
    """

    hu: NDArray[np.float32]
    lung: NDArray[np.bool_]
    fits: NDArray[np.float32]
    sites: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A square part of a picture: upper left corner (row, column) and side, in mm."""

    corner_mm: tuple[float, float]
    side_mm: float

    def holds(self, place: Erasure, spacing_mm: float) -> bool:
        """Whether the centre of an erasure lies in its inner part."""
        return all(
            INNER_MM <= (at + 0.5) * spacing_mm - corner <= self.side_mm - INNER_MM
            for at, corner in zip(place.centre, self.corner_mm, strict=True)
        )


def draw_window(item: ErasedPatch, rng: np.random.Generator) -> Window | None:
    """A random window, the true site anywhere in its inner part alike; None where the picture is too small for it."""
    spacing = item.patch.spacing_mm
    width = len(item.patch.hu) * spacing
    places = [(at + 0.5) * spacing for at in item.true.centre]
    side = min(SIDE_PX * PIXEL_MM, *(min(at, width - at) + INNER_MM for at in places))
    if side < SMALLEST_MM:
        return None
    corner = [at - rng.uniform(INNER_MM, side - INNER_MM) for at in places]
    return Window(corner_mm=(corner[0], corner[1]), side_mm=side)


def draw_shams(item: ErasedPatch, window: Window, rng: np.random.Generator) -> list[int]:
    """Numbers of the shams that fall into the window, of some thrown at the whole picture; empty where two touch.

    A window with a clash is given up as a whole, one with the true site too: to throw again, or to keep those that fit,
    would leave more shams where the true site leaves more room, and so tell it by its place in the crop. The picture's
    list holds no sham that touches the true site; as many as would have are made up for by chance.
    """
    count = min(len(item.shams), int(rng.integers(1, MOST_THROWN + 1)))
    near, far = _room(item, window)
    if rng.random() > np.exp(-count * near / max(far, 1e-6)):
        return []
    thrown = rng.choice(len(item.shams), count, replace=False)
    chosen = [int(index) for index in thrown if window.holds(item.shams[index], item.patch.spacing_mm)]
    centres = np.array([item.shams[index].centre for index in chosen]).reshape(-1, 2) * item.patch.spacing_mm
    gaps = np.hypot(*(centres[:, np.newaxis] - centres[np.newaxis]).transpose(2, 0, 1))
    clash = (gaps < item.apart_mm) & ~np.eye(len(chosen), dtype=bool)
    return [] if clash.any() else chosen


def _room(item: ErasedPatch, window: Window) -> tuple[float, float]:
    """Where the shape fits: in the window but touching the true site; in the whole picture, not touching it."""
    rows, columns = (np.arange(length, dtype=np.float64) for length in item.fits.shape)
    spacing = item.patch.spacing_mm
    gap = np.hypot((rows - item.true.centre[0])[:, np.newaxis], columns - item.true.centre[1]) * spacing
    held = [
        ((axis + 0.5) * spacing - low >= INNER_MM) & ((axis + 0.5) * spacing - low <= window.side_mm - INNER_MM)
        for axis, low in zip((rows, columns), window.corner_mm, strict=True)
    ]
    touching = gap < item.apart_mm
    inside = np.logical_and(held[0][:, np.newaxis], held[1])
    return float(item.fits[touching & inside].sum()), float(item.fits[~touching].sum())


def render(item: ErasedPatch, window: Window, shams: list[int], *, visible: bool = False, symmetry: int = 0) -> Crop:
    """The window with the true site (unless the lesion is to stay `visible`) and those shams erased.

    Args:
        item: the picture.
        window: the part of it.
        shams: numbers of the shams.
        visible: leave the lesion in.
        symmetry: one of the eight of the square.
    """
    patch, spacing = item.patch, item.patch.spacing_mm
    hu = patch.hu.copy()
    places = [item.true, *(item.shams[index] for index in shams)]
    paint(hu, *places[1 if visible else 0 :])
    centres = np.array([place.centre for place in places])
    sites = ((centres + 0.5) * spacing - window.corner_mm) / PIXEL_MM - 0.5
    pixels = min(SIDE_PX, int(window.side_mm / PIXEL_MM))
    inner = np.zeros((SIDE_PX, SIDE_PX), dtype=np.float32)
    edge = int(np.ceil(INNER_MM / PIXEL_MM))
    inner[edge : pixels - edge, edge : pixels - edge] = 1
    layers = [
        _resampled(hu, window, spacing, pixels),
        _resampled(patch.lung.astype(np.float32), window, spacing, pixels),
        _resampled(item.fits, window, spacing, pixels) * inner,
    ]
    if symmetry & 4:
        layers, sites = [layer.T for layer in layers], sites[:, ::-1]
    if symmetry & 2:
        layers, sites = [layer[::-1] for layer in layers], np.stack([SIDE_PX - 1 - sites[:, 0], sites[:, 1]], 1)
    if symmetry & 1:
        layers, sites = [layer[:, ::-1] for layer in layers], np.stack([sites[:, 0], SIDE_PX - 1 - sites[:, 1]], 1)
    hu, lung, fits = (np.ascontiguousarray(layer) for layer in layers)
    return Crop(hu=hu, lung=lung > 0.5, fits=fits, sites=sites.astype(np.float32))


def draw_crop(item: ErasedPatch, rng: np.random.Generator, *, visible: bool = False, symmetry: int = 0) -> Crop | None:
    """A crop with the true site and shams; None where none fell into it or two touch."""
    window = draw_window(item, rng)
    if window is None:
        return None
    shams = draw_shams(item, window, rng)
    return render(item, window, shams, visible=visible, symmetry=symmetry) if shams else None


def draw_crops(
    item: ErasedPatch, rng: np.random.Generator, count: int, *, visible: bool = False, turned: bool = False
) -> list[Crop]:
    """Up to that many crops of a picture, of `TRIES` drawn: few windows hold sites that don't touch."""
    symmetries = (int(rng.integers(8)) if turned else 0 for _ in range(TRIES))
    drawn = (draw_crop(item, rng, visible=visible, symmetry=symmetry) for symmetry in symmetries)
    return list(islice((crop for crop in drawn if crop is not None), count))


def _resampled(layer: NDArray[np.float32], window: Window, spacing_mm: float, pixels: int) -> NDArray[np.float32]:
    """The layer on the network's grid; beyond the window its last rows and columns are repeated."""
    scale = PIXEL_MM / spacing_mm
    row, column = ((corner + 0.5 * PIXEL_MM) / spacing_mm - 0.5 for corner in window.corner_mm)
    matrix = np.array([[scale, 0, column], [0, scale, row]], dtype=np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    part = cv2.warpAffine(layer, matrix, (pixels, pixels), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.pad(part, (0, SIDE_PX - pixels), mode="edge"), dtype=np.float32)
