"""How sharp a CT is: the width of its own edges between lung and tissue, measured once for a scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.edge_profile import Edges, edges, joined

SLICES_READ = 12
TISSUE_HU = -400.0  # half-way between lung and soft tissue
LUNG_HU, SOFT_TISSUE_HU = (-960.0, -650.0), (-100.0, 250.0)  # levels that both sides of a usable edge must have
FEWEST_EDGES = 40
MOST_EDGES = 1500  # a slice; more say no more
WIDTH_TO_SIGMA = 2.563  # 10-90 % width of a step blurred by a Gaussian of sigma 1
SHARP = 30  # percentile of the widths: nine of ten real solid nodules are no sharper (n = 247, LIDC-IDRI)
# where a scan shows no usable edge: medians over 171 nodules' scans, their own edges among them (else 1.8 and 2.0)
DEFAULT_WIDTH_MM, DEFAULT_USUAL_MM = 1.9, 2.2


@dataclass(frozen=True, kw_only=True)
class ScanResolution:
    """The in-plane resolution of a scan as its edges show it.

    Args:
        edge_width_mm: 10-90 % width of a sharp edge (CT: from lung to soft tissue): nothing natural is much sharper.
        usual_width_mm: the same of a usual edge (the median); real solid nodules have 1.14 of it.
        count: edges measured; 0: too few were found, the width is a default.
    """

    edge_width_mm: float
    usual_width_mm: float
    count: int

    @property
    def sigma_mm(self) -> float:
        """Of the Gaussian that makes such an edge of a step."""
        return self.edge_width_mm / WIDTH_TO_SIGMA

    @property
    def source(self) -> str:
        """Where the width comes from, for case.json."""
        if not self.count:
            return "default: too few edges in this image"
        return f"{self.count} edges of the image"


def scan_resolution(
    hu: NDArray[Any], *, spacing_mm: tuple[float, float, float], leave_out: NDArray[np.bool_] | None = None
) -> ScanResolution:
    """The resolution of a chest CT, from a dozen of its slices; the same image always gives the same.

    The 30th percentile over all edges: sharper ones are noise and thin vessels, blunter ones run obliquely.

    Args:
        hu: `[slice, row, column]`.
        spacing_mm: (slice, row, column).
        leave_out: same shape, where no edge is measured.
    """
    found: list[Edges] = []
    for k in np.unique(np.linspace(0, len(hu) - 1, min(len(hu), SLICES_READ)).round().astype(int)):
        tissue = hu[k] > TISSUE_HU
        if leave_out is not None:
            tissue &= ~leave_out[k]
        rays = edges(hu[k], tissue, spacing_mm=spacing_mm[1:], most=MOST_EDGES)
        lung = (rays.low > LUNG_HU[0]) & (rays.low < LUNG_HU[1])
        found.append(rays.where(lung & (rays.high > SOFT_TISSUE_HU[0]) & (rays.high < SOFT_TISSUE_HU[1])))
    widths = joined(found).width_mm
    if len(widths) < FEWEST_EDGES:
        return ScanResolution(edge_width_mm=DEFAULT_WIDTH_MM, usual_width_mm=DEFAULT_USUAL_MM, count=0)
    sharp, usual = (round(float(x), 3) for x in np.percentile(widths, [SHARP, 50]))
    return ScanResolution(edge_width_mm=sharp, usual_width_mm=usual, count=len(widths))
