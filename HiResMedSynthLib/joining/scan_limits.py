"""Where a CT's values were cut off before it came to us: written with a window, or in too few bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOWEST_CEILING_HU = 1500  # cortical bone and metal lie above: a scan that ends below and piles up there was cut
HIGHEST_FLOOR_HU = -950  # air lies below
PILED_UP = 1e-3  # share of the voxels at the outermost value; of an uncut scan hardly any voxel holds its largest


@dataclass(frozen=True, kw_only=True)
class ScanLimits:
    """Smallest and largest HU that this CT can hold; None: nothing was cut."""

    floor_hu: int | None = None
    ceiling_hu: int | None = None

    def cut(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """HU cut as the scan's were."""
        if self.floor_hu is None and self.ceiling_hu is None:
            return values
        return np.asarray(np.clip(values, self.floor_hu, self.ceiling_hu))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What that means for a lesion, one sentence for each side."""
        told = []
        if self.ceiling_hu is not None:
            told.append(f"this CT was cut at {self.ceiling_hu} HU: lesions are cut too, calcium and bone look alike")
        if self.floor_hu is not None:
            told.append(f"this CT was cut at {self.floor_hu} HU: lung and air look alike, noise is measured too low")
        return tuple(told)


def scan_limits(pixels: NDArray[np.integer]) -> ScanLimits:
    """Where a CT was cut, by values that pile up at its ends.

    Args:
        pixels: HU `[slice, row, column]`.
    """
    low, high = int(pixels.min()), int(pixels.max())
    cut_above = high < LOWEST_CEILING_HU and float(np.mean(pixels == high)) > PILED_UP
    cut_below = low > HIGHEST_FLOOR_HU and float(np.mean(pixels == low)) > PILED_UP
    return ScanLimits(floor_hu=low if cut_below else None, ceiling_hu=high if cut_above else None)
