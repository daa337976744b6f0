"""How likely a nodule is by how far a place lies from the lung's border and from the nearest vessel.

Learned on lung pictures whose nodule had been erased, against sham erasures in the same lung
(`Training/distance_rule.py`; docs/results/location_prior.md): nodules lie within a centimetre of the border more often
than deeper. It knows nothing of the place in the whole lung: multiply it with the density of `location.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.image import MedicalImage

BRIGHT_HU = -550.0  # smoothed: vessels of about 2 mm and more
SMOOTH_MM = 0.6


@dataclass(frozen=True, kw_only=True, eq=False)
class DistanceTable:
    """Log ratio of real places of nodules to other places where their shape fits.

    Args:
        edges_mm: float64 `[k]`, lower edges of the bins; the last bin is open.
        log_ratio: float64 `[k, k]` by distance from the border and from the nearest vessel.
    """

    edges_mm: NDArray[np.float64]
    log_ratio: NDArray[np.float64]

    def of(self, border_mm: NDArray[np.float32], vessel_mm: NDArray[np.float32]) -> NDArray[np.float32]:
        """The log ratio for arrays of distances, linear between the middles of the bins."""
        middles = np.append((self.edges_mm[1:] + self.edges_mm[:-1]) / 2, self.edges_mm[-1])
        last = len(middles) - 1
        at = [np.interp(mm, middles, np.arange(last + 1)) for mm in (border_mm, vessel_mm)]
        low = [np.minimum(a.astype(np.int64), last - 1) for a in at]
        part = [a - b for a, b in zip(at, low, strict=True)]
        table = self.log_ratio
        near = table[low[0], low[1]] * (1 - part[1]) + table[low[0], low[1] + 1] * part[1]
        far = table[low[0] + 1, low[1]] * (1 - part[1]) + table[low[0] + 1, low[1] + 1] * part[1]
        return np.asarray(near * (1 - part[0]) + far * part[0], dtype=np.float32)


@cache
def shipped_table() -> DistanceTable:
    """The table that ships (prior_data/README.md: source, licence)."""
    path = files("HiResMedSynthLib.placement") / "prior_data" / "lung_distances.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    return DistanceTable(edges_mm=np.array(told["edges_mm"], float), log_ratio=np.array(told["log_ratio"], float))


def bright(hu: NDArray[np.float32], pixel_mm: float) -> NDArray[np.bool_]:
    """`[row, column]` pixels of vessels (and whatever else is dense)."""
    import cv2

    return np.asarray(cv2.GaussianBlur(hu, (0, 0), SMOOTH_MM / pixel_mm) > BRIGHT_HU)


def distances_mm(
    hu: NDArray[np.float32], lung: NDArray[np.bool_], pixel_mm: float, *, most_mm: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance of each pixel of a slice from the lung's border and from the nearest vessel, `most_mm` at most.

    Args:
        hu: float32 `[row, column]`.
        lung: its vessels are part of it.
        pixel_mm: square pixels.
        most_mm: what is told where there is no border or no vessel in the picture.
    """
    return _away(~lung, pixel_mm, most_mm), _away(bright(hu, pixel_mm) & lung, pixel_mm, most_mm)


def _away(things: NDArray[np.bool_], pixel_mm: float, most_mm: float) -> NDArray[np.float32]:
    import cv2

    if not things.any():
        return np.full(things.shape, most_mm, dtype=np.float32)
    pixels = cv2.distanceTransform((~things).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(np.minimum(pixels * np.float32(pixel_mm), most_mm), dtype=np.float32)


def distance_heat(image: MedicalImage, lungs: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How likely a nodule is by its distances; float32 `[slice, row, column]`, mean 1 over the lungs of a slice, 0
    outside them.

    Args:
        image: a chest CT in HU.
        lungs: `[slice, row, column]`, vessels included.
    """
    table = shipped_table()
    most_mm = float(table.edges_mm[-1])
    _, row_mm, column_mm = image.spacing_mm
    pixel_mm = (row_mm + column_mm) / 2  # the pixels of a CT are square
    heat = np.zeros(image.shape, dtype=np.float32)
    for index in np.flatnonzero(lungs.any(axis=(1, 2))):
        part = bounding_box(lungs[index], 2)
        inside = lungs[index][part]
        border, vessel = distances_mm(image.pixels[index][part].astype(np.float32), inside, pixel_mm, most_mm=most_mm)
        plane = np.zeros(inside.shape, dtype=np.float32)
        plane[inside] = np.exp(table.of(border[inside], vessel[inside]))
        heat[index][part] = plane / plane[inside].mean()
    return heat
