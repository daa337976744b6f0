"""Nodules erased for the count of vetoed sites: what stays must be lung, and the wall what it was."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.benchmarks.danger_ct_sites import without_nodule
from Training.nodule_source import SourceNodule

WALL_HU, LUNG_HU, NODULE_HU = 50, -860, 30


@pytest.mark.parametrize("from_wall_mm", [0.0, 10.0])
def test_a_nodule_leaves_lung_and_no_ramp_of_the_wall(from_wall_mm: float) -> None:
    mm, wall = 0.6, 12
    hu = np.random.default_rng(0).normal(LUNG_HU, 20, (9, 56, 56))
    hu[:, :, :wall] = WALL_HU
    slices, rows, columns = np.mgrid[:9, :56, :56]
    middle = wall + (4.0 + from_wall_mm) / mm
    inside = ((slices - 4) * 1.5) ** 2 + ((rows - 28) * mm) ** 2 + ((columns - middle) * mm) ** 2 < 4.0**2
    hu[inside] = NODULE_HU
    nodule = SourceNodule(
        row={"index": "3", "dz_mm": "1.5", "dy_mm": str(mm), "dx_mm": str(mm)},
        hu=np.rint(hu).astype(np.int16),
        readers=inside.astype(np.uint8) * 3,
    )
    erased = without_nodule(nodule)
    assert erased.dtype == np.int16
    assert (erased[inside] < -700).all()
    assert abs(float(erased[inside].mean()) - LUNG_HU) < 20
    assert (erased[:, :, :wall] == WALL_HU).all()
    far = np.abs(rows - 28) * mm > 8
    assert (erased[far] == nodule.hu[far]).all()
