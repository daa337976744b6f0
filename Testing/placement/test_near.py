"""Growing a mask by millimetres: the same as by exact distances, whichever way is the faster one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from HiResMedSynthLib.placement.near import FEW_COLUMNS, TOLERANCE_MM, within_mm


@pytest.mark.parametrize("spacing", [(5.0, 0.7, 0.7), (5.0, 0.342, 0.4175), (5.0, 2.0, 0.3), (0.5, 0.8, 0.8)])
@pytest.mark.parametrize("share", [0.002, 0.1])
def test_a_mask_grows_by_a_ball_of_that_radius(spacing: tuple[float, float, float], share: float) -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        mask = rng.random((3, *rng.integers(2, 90, 2))) < share
        mask[1, 0, 0] = True
        radius_mm = rng.uniform(0.1, 1.2 * FEW_COLUMNS * spacing[2])
        grown = within_mm(mask, radius_mm, spacing_mm=spacing)
        assert np.array_equal(grown, distance_transform_edt(~mask, sampling=spacing) <= radius_mm + TOLERANCE_MM)


def test_one_slice_is_grown_in_its_plane_whatever_its_thickness() -> None:
    mask = np.zeros((1, 9, 9), dtype=bool)
    mask[0, 4, 4] = True
    for slice_mm in (0.1, 10.0):
        assert within_mm(mask, 2.0, spacing_mm=(slice_mm, 1.0, 1.0)).sum() == 13
    assert not within_mm(np.zeros_like(mask), 2.0, spacing_mm=(1.0, 1.0, 1.0)).any()
