"""Windows of lung pictures for a nodule detector: those with a lesion, and others of the same pictures without one.

Both kinds are cut from the same pictures by the same rule, so that scanner, grain and grey scale tell nothing: a point
is drawn (the lesion's centre, or a pixel of the lung), and the window lies at random around it, wholly in the picture.
The point is anywhere in the window alike. Half of the windows without a lesion are drawn on vessels, fissures, walls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from HiResMedSynthLib.placement.surroundings import bright
from Training.location_data import LungPatch

SIDE_PX, PIXEL_MM = 40, 0.7
SIDE_MM = SIDE_PX * PIXEL_MM
INNER_MM = 4.0  # the point keeps this distance from the window's border
CLEAR_MM = 2.0  # between a lesion and a window without one
TRIES = 30
BLANK_HU, GROWN_MM = -860.0, 3.5


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectorPicture:
    """A lung picture that windows are drawn from."""

    patch: LungPatch

    @cached_property
    def places(self) -> dict[str, NDArray[np.int64]]:
        """(row, column) of the pixels that a point of each kind may be: the lesion's centre, dense things, all lung."""
        patch = self.patch
        away = distance_transform_edt(~patch.lesion) * patch.spacing_mm
        clear = patch.lung & (away > CLEAR_MM + INNER_MM)
        return {
            "lesion": np.rint(np.argwhere(patch.lesion).mean(axis=0, keepdims=True)).astype(np.int64),
            "dense": np.argwhere(clear & bright(patch.hu, patch.spacing_mm)),
            "lung": np.argwhere(clear),
        }

    @cached_property
    def stencil(self) -> NDArray[np.int64]:
        """(row, column) of the grown lesion, from its centre."""
        grown = distance_transform_edt(~self.patch.lesion) * self.patch.spacing_mm <= GROWN_MM
        return np.asarray(np.argwhere(grown) - self.places["lesion"])

    @cached_property
    def _boxes_mm(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """What a window without a lesion keeps clear of: (low, high) of each lesion."""
        seen, spacing = np.argwhere(self.patch.lesion), self.patch.spacing_mm
        boxes = [(seen.min(axis=0) * spacing, (seen.max(axis=0) + 1) * spacing)]
        for row, column, radius_mm in self.patch.others:
            centre = (np.array((row, column)) + 0.5) * spacing
            boxes.append((centre - radius_mm, centre + radius_mm))
        return [(low - CLEAR_MM, high + CLEAR_MM) for low, high in boxes]

    def draw(self, kind: str, rng: np.random.Generator) -> Window | None:
        """A window of that kind: "lesion", "dense" or "lung"; None where the picture has no room for one."""
        places, spacing = self.places[kind], self.patch.spacing_mm
        size_mm = np.array(self.patch.hu.shape) * spacing
        for _ in range(TRIES if len(places) else 0):
            point = places[rng.integers(len(places))]
            corner = (point + 0.5) * spacing - rng.uniform(INNER_MM, SIDE_MM - INNER_MM, 2)
            inside = (corner >= 0).all() and (corner + SIDE_MM <= size_mm).all()
            apart = all((corner >= high).any() or (corner + SIDE_MM <= low).any() for low, high in self._boxes_mm)
            if inside and (apart or kind == "lesion"):
                return Window(
                    picture=self, kind=kind, corner_mm=(float(corner[0]), float(corner[1])),
                    point=(float(point[0]), float(point[1])),
                )  # fmt: skip
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """A window of `picture`: its upper left corner (row, column) in mm, and its point there; `kind` says what it is."""

    picture: DetectorPicture
    kind: str
    corner_mm: tuple[float, float]
    point: tuple[float, float]

    @property
    def lesion(self) -> bool:
        """Whether a lesion is in it."""
        return self.kind == "lesion"


def fixed_windows(pictures: Sequence[DetectorPicture], *, each: int, seed: int) -> list[Window]:
    """Up to `each` windows with a lesion, twice as many of each kind without, of every picture; the same each time."""
    windows = []
    for index, picture in enumerate(pictures):
        rng = np.random.default_rng((seed, index))
        for kind, count in (("lesion", each), ("dense", 2 * each), ("lung", 2 * each)):
            windows += [window for _ in range(count) if (window := picture.draw(kind, rng)) is not None]
    return windows


def pixels(window: Window, *, symmetry: int = 0, blank: bool = False) -> NDArray[np.float32]:
    """HU `[SIDE_PX, SIDE_PX]` of a window.

    Args:
        window: which.
        symmetry: one of the eight of the square.
        blank: paint the form of the picture's lesion over the window's point, whether the lesion lies there or not:
            what is left tells a window with a lesion only by its surroundings.
    """
    patch = window.picture.patch
    hu, spacing = patch.hu, patch.spacing_mm
    if blank:
        places = window.picture.stencil + np.rint(window.point).astype(np.int64)
        rows, columns = places[((places >= 0) & (places < hu.shape)).all(axis=1)].T
        hu = hu.copy()
        hu[rows, columns] = BLANK_HU
    scale = PIXEL_MM / spacing
    row, column = ((corner + 0.5 * PIXEL_MM) / spacing - 0.5 for corner in window.corner_mm)
    matrix = np.array([[scale, 0, column], [0, scale, row]], dtype=np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(hu, matrix, (SIDE_PX, SIDE_PX), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    turned = np.rot90(cut.T if symmetry & 4 else cut, symmetry & 3)
    return np.ascontiguousarray(turned, dtype=np.float32)
