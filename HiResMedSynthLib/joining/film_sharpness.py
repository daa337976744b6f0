"""How sharp a film is: the width of its own sharpest edges (ribs, clavicles, vessels, borders), measured once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import measure
from HiResMedSynthLib.edge_profile import Edges, edges, joined

BORDER_SHARE = 1 / 12  # of each side: collimation and letters
LEVELS = (15, 30, 50, 70, 85)  # percentiles of grey along whose borders edges are looked for
SMOOTH_PX = 1.0  # before a level's border is taken: it should follow anatomy, not grain
MOST_EDGES = 1000  # a level
STEP_SHARE, STEP_NOISES = 0.06, 8.0  # least step of an edge: of the film's grey range, and over its noise
OFF_MIDDLE = 0.2  # of the step: how far a level may lie from the middle of an edge that it finds
SHARP = 5  # percentile of the widths: anatomy is mostly blunt, its sharpest borders show the film
LONGER_FROM_MM = 2.9  # rays of a CT hold edges up to this width; wider ones need longer rays
FEWEST_EDGES = 200
DEFAULT_WIDTH_MM = 1.1  # median of 31 NIH films


@dataclass(frozen=True, kw_only=True)
class FilmSharpness:
    """The sharpness of a film.

    Args:
        edge_width_mm: 10-90 % width of its sharpest edges.
        count: edges measured; 0: too few were found, the width is a default.
    """

    edge_width_mm: float
    count: int

    @property
    def source(self) -> str:
        """Where the width comes from, for case.json."""
        return f"{self.count} edges of the film" if self.count else "default: too few edges on this film"


def film_sharpness(film: NDArray[Any], *, spacing_mm: tuple[float, float]) -> FilmSharpness:
    """The sharpness of a film; the same film always gives the same.

    Args:
        film: `[row, column]`, any grey scale.
        spacing_mm: (row, column).
    """
    rows, columns = (round(n * BORDER_SHARE) for n in film.shape)
    middle = film[rows : film.shape[0] - rows, columns : film.shape[1] - columns].astype(np.float32)
    found = _widths(middle, spacing_mm, 1.0)
    if len(found) >= FEWEST_EDGES and np.percentile(found, SHARP) > LONGER_FROM_MM:
        found = _widths(middle, spacing_mm, 2.0)
    if len(found) < FEWEST_EDGES:
        return FilmSharpness(edge_width_mm=DEFAULT_WIDTH_MM, count=0)
    return FilmSharpness(edge_width_mm=round(float(np.percentile(found, SHARP)), 3), count=len(found))


def _widths(middle: NDArray[np.float32], spacing_mm: tuple[float, float], longer: float) -> NDArray[np.float64]:
    """10-90 % widths in mm along rays that many times as long as a CT's."""
    from scipy.ndimage import gaussian_filter

    low, high = np.percentile(middle, [2, 98])
    least = max(STEP_NOISES * measure.noise(middle), STEP_SHARE * float(high - low))
    smooth = gaussian_filter(middle, SMOOTH_PX)
    brightest, darkest = middle.max(), middle.min()
    parts: list[Edges] = []
    if high > low:
        for level in np.percentile(smooth, LEVELS):
            rays = edges(
                middle, smooth > level, spacing_mm=(spacing_mm[0] / longer, spacing_mm[1] / longer), most=MOST_EDGES
            )
            # what is cut off at an end of the scale looks sharper than it is
            whole = (rays.high < brightest) & (rays.low > darkest)
            # a level that grazes a plateau finds no edge of its own
            halfway = np.abs(level - (rays.high + rays.low) / 2) <= OFF_MIDDLE * (rays.high - rays.low)
            parts.append(rays.where(whole & halfway & (rays.high - rays.low >= least)))
    return np.asarray(joined(parts).width_mm * longer)
