"""How large real lung nodules are, and how that depends on where they lie (prior_data/README.md: source, licence).

Nodules near the midplane are larger than those near the chest wall; the table has thirds by the distance from the
midplane. `draw_case` draws the size first, then accepts a place as often as a nodule of that size lies there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError


@dataclass(frozen=True, kw_only=True, eq=False)
class SizeHistory:
    """Diameters (sphere of equal volume) of LIDC nodules.

    Args:
        levels: float64 `[k]`, 0..1.
        all_mm: float32 `[k]`, their quantiles at `levels`.
        by_third_mm: float32 `[3, k]`, the same near the midplane, between, and near the chest wall.
        edges: float32 `[2]`, where the thirds part: distance from the midplane over half the lung box's width.
    """

    levels: NDArray[np.float64]
    all_mm: NDArray[np.float32]
    by_third_mm: NDArray[np.float32]
    edges: NDArray[np.float32]

    def diameter_mm(self, share: float, range_mm: tuple[float, float]) -> float:
        """The diameter that this share (0..1) of the nodules within the range doesn't reach.

        Raises:
            SettingsError: no nodule on record is of that size.
        """
        low, high = range_mm
        first, last = (float(np.interp(mm, self.all_mm, self.levels)) for mm in (low, high))
        if high < self.all_mm[0] or low > self.all_mm[-1]:
            raise SettingsError(
                f"no nodule of {low:g} to {high:g} mm is on record ({self.all_mm[0]:.1f} to {self.all_mm[-1]:.0f} mm)",
                remedy="Choose other sizes, or sizes 'even'.",
            )
        wanted = float(np.interp(first + share * (last - first), self.levels, self.all_mm))
        return min(max(wanted, low), high)

    def third(self, aside: float) -> int:
        """0 near the midplane, 1 between, 2 near the chest wall; `aside` as `edges`."""
        return int(np.searchsorted(self.edges, aside, side="right"))

    def likelihood(self, diameter_mm: float) -> NDArray[np.float64]:
        """`[3]` how often a nodule of the third has that size, over the most of the three: 0..1."""
        at = min(max(int(np.searchsorted(self.all_mm, diameter_mm)), 1), len(self.levels) - 1)
        low, high = self.all_mm[max(at - 2, 0)], self.all_mm[min(at + 1, len(self.levels) - 1)]  # a band, not a point
        shares = np.array([np.diff(np.interp((low, high), row, self.levels))[0] for row in self.by_third_mm])
        return np.asarray(np.maximum(shares, 1e-3) / max(float(shares.max()), 1e-3))


@cache
def shipped_sizes() -> SizeHistory:
    """The history that ships with the library."""
    with (files("HiResMedSynthLib.placement") / "prior_data" / "location_prior.npz").open("rb") as handle:
        stored = np.load(handle, allow_pickle=False)
        return SizeHistory(
            levels=stored["size_levels"],
            all_mm=stored["size_quantiles_mm"],
            by_third_mm=stored["size_by_zone_mm"],
            edges=stored["size_zone_edges"],
        )
