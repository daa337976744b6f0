"""The anatomy that hides a nodule on a chest film: ribs and vessels, structures of about 5 to 25 mm in the lungs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORK_MM = 1.0
FINE_MM, COARSE_MM = 2.0, 10.0  # sigmas between which a structure counts
INWARDS_MM = 6.0  # from the lungs' border: it is no structure of theirs
AROUND_MM = 8.0  # of a lesion: what hides it
FEWEST_PIXELS = 400
MAD_TO_SD = 1.4826


@dataclass(frozen=True, kw_only=True, eq=False)
class FilmAnatomy:
    """Structures of nodule size in the lungs of a film.

    Args:
        band: float32 `[row, column]` on pixels of about 1 mm, the film's units, dense = positive.
        inside: bool, same shape: where that means something.
        per_pixel: (rows, columns) of it that a pixel of the film takes.
        spread: robust standard deviation over the lungs; 0 where too little of them is seen.
    """

    band: NDArray[np.float32]
    inside: NDArray[np.bool_]
    per_pixel: tuple[float, float]
    spread: float

    def around(self, corner: tuple[int, int], shape: tuple[int, int]) -> float:
        """Standard deviation in and 8 mm around a patch of the film; that of the whole where too little is seen."""
        box = []
        for low, size, step in zip(corner, shape, self.per_pixel, strict=True):
            first = math.floor(low * step - AROUND_MM / WORK_MM)
            box.append(slice(max(first, 0), max(math.ceil((low + size) * step + AROUND_MM / WORK_MM), 1)))
        chosen = self.band[box[0], box[1]][self.inside[box[0], box[1]]]
        return float(chosen.std()) if chosen.size >= 100 else self.spread


def film_anatomy(film: NDArray[Any], lungs: NDArray[np.bool_], *, spacing_mm: tuple[float, float]) -> FilmAnatomy:
    """The structures of a film.

    Args:
        film: `[row, column]`, dense = high.
        lungs: same shape.
        spacing_mm: (row, column).
    """
    import cv2
    from scipy.ndimage import distance_transform_edt

    rows, columns = (max(1, round(n * s / WORK_MM)) for n, s in zip(film.shape, spacing_mm, strict=True))
    share = cv2.resize(lungs.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    inside = share > 0.5
    small = cv2.resize(film.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    level = float(np.median(small[inside])) if inside.any() else 0.0
    weighted = np.where(inside, small - level, 0.0).astype(np.float32)

    def smooth(sigma: float) -> NDArray[np.float32]:
        weight = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), sigma)
        return np.asarray(cv2.GaussianBlur(weighted, (0, 0), sigma) / np.maximum(weight, 1e-3), dtype=np.float32)

    band = smooth(FINE_MM / WORK_MM) - smooth(COARSE_MM / WORK_MM)
    deep = np.asarray(distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1] > INWARDS_MM / WORK_MM)
    values = band[deep]
    spread = MAD_TO_SD * float(np.median(np.abs(values - np.median(values)))) if len(values) >= FEWEST_PIXELS else 0.0
    return FilmAnatomy(band=band, inside=deep, per_pixel=(rows / film.shape[0], columns / film.shape[1]), spread=spread)
