"""Tubes on voxels: their matter is all there, whatever the voxels; what a radius looks like and back again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from HiResMedSynthLib.joining.tube import TISSUE_HU, filled_share, radius_of


@pytest.mark.parametrize("spacing_mm", [(0.7, 0.7, 0.7), (5.0, 0.7, 0.7), (2.0, 0.5, 0.9)])
@pytest.mark.parametrize("end", [(0.0, 0.0, 14.0), (0.0, 10.0, 10.0), (8.0, 6.0, 10.0)])
def test_a_tube_keeps_its_volume(spacing_mm: tuple[float, float, float], end: tuple[float, float, float]) -> None:
    shape = tuple(math.ceil(40.0 / step) for step in spacing_mm)
    middle = np.array(shape) / 2
    points = middle + np.linspace(0, 1, 50)[:, np.newaxis] * (np.array(end) / spacing_mm)
    radii = np.linspace(0.9, 0.5, 50)
    share = filled_share([(points, radii)], shape, spacing_mm=spacing_mm, sigma_mm=0.8)  # type: ignore[arg-type]
    length = math.dist((0, 0, 0), end)
    cone = math.pi * length / 3 * (0.9**2 + 0.9 * 0.5 + 0.5**2)
    assert share.sum() * math.prod(spacing_mm) == pytest.approx(cone, rel=0.06)
    assert share.max() <= 1.0


@pytest.mark.parametrize("radius_mm", [0.5, 0.9, 1.4])
def test_a_radius_is_read_back_from_what_the_tube_looks_like(radius_mm: float) -> None:
    from scipy.ndimage import gaussian_filter

    points = np.array([20.0, 30.2, 10.0]) + np.linspace(0, 1, 50)[:, np.newaxis] * [0.0, 0.0, 40.0]
    share = filled_share([(points, np.full(50, radius_mm))], (40, 60, 60), spacing_mm=(0.6,) * 3, sigma_mm=0.8)
    seen = gaussian_filter(share, 0.5 / 0.6).max() * (TISSUE_HU + 860)
    assert radius_of(float(seen), level_hu=-860.0, sigma_mm=0.8) == pytest.approx(radius_mm, rel=0.1)


def test_a_radius_is_finite_however_bright_and_none_for_nothing() -> None:
    assert radius_of(5000.0, level_hu=-860.0, sigma_mm=0.8) < 3.0
    assert radius_of(-5.0, level_hu=-860.0, sigma_mm=0.8) == 0.0


def test_a_tube_that_leaves_the_image_is_cut_at_its_border() -> None:
    points = np.array([2.0, 2.0, 0.0]) + np.linspace(0, 1, 30)[:, np.newaxis] * [0.0, 0.0, 20.0]
    share = filled_share([(points, np.full(30, 1.0))], (5, 5, 10), spacing_mm=(1.0,) * 3, sigma_mm=0.5)
    assert share[2, 2].min() > 0.4
    assert not filled_share([], (3, 4, 5), spacing_mm=(1.0,) * 3, sigma_mm=0.5).any()
