"""The standard form of a lesion: there and back without loss, one piece, refused when it can't be a lesion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from HiResMedSynthLib.errors import BankError
from HiResMedSynthLib.lesion.bank import load_bank
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE, Lesion
from HiResMedSynthLib.lesion.lesion_grid import crop_2d, from_grid, to_grid

CARD = load_bank().cards["solid-10mm-a"]


def smooth_lesion(voxel_mm: float = 0.5, side: int = 30) -> Lesion:
    at = np.stack(np.meshgrid(*(np.arange(side) - (side - 1) / 2,) * 3, indexing="ij"))
    ball = (at[0] ** 2 + at[1] ** 2 + (at[2] * 0.8) ** 2 < (side * 0.3) ** 2).astype(float)
    alpha = gaussian_filter(ball, 1.5)
    hu = 40 + 6 * at[1] + 30 * np.sin(at[2] / 4)
    return Lesion(
        intensity_hu=np.round(hu).astype(np.int16),
        alpha=np.round(np.where(alpha < 0.01, 0, alpha) * ALPHA_ONE).astype(np.uint16),
        voxel_mm=voxel_mm,
        card=CARD,
    )


def test_a_grid_is_centred_and_filled_to_its_margin() -> None:
    lesion = smooth_lesion()
    grid = to_grid(lesion)
    assert grid.values.shape == (2, 32, 32, 32)
    assert grid.values.dtype == np.float32
    seen = np.argwhere(grid.values[1] > 0.05)
    assert 26 <= np.ptp(seen, axis=0).max() + 1 <= 29
    assert np.allclose(seen.mean(axis=0), 15.5, atol=0.3)
    volume = lesion.alpha.sum() / ALPHA_ONE * lesion.voxel_mm**3
    assert grid.values[1].sum() * grid.voxel_mm**3 == pytest.approx(volume, rel=0.01)


def test_there_and_back_keeps_the_lesion() -> None:
    grid = to_grid(smooth_lesion())
    again = to_grid(from_grid(grid.values, grid.voxel_mm, CARD))
    # the box is found anew on the new voxels: measured .010 of alpha, 9 HU
    assert again.voxel_mm == pytest.approx(grid.voxel_mm, rel=0.04)
    assert np.sqrt(np.mean((again.values - grid.values) ** 2)) < 0.02


def test_a_lesion_of_a_grid_has_the_grids_own_values() -> None:
    grid = to_grid(load_bank().lesion("solid-10mm-a"))
    lesion = from_grid(grid.values, grid.voxel_mm, CARD)
    alpha = lesion.alpha / ALPHA_ONE
    inside = alpha > 0.3
    premultiplied = alpha * (lesion.intensity_hu + 860.0) / 1000
    assert np.abs(premultiplied - grid.values[0])[inside].max() < 0.001
    assert np.abs(alpha - grid.values[1])[inside].max() < 0.001


def test_a_finer_source_is_blurred_before_it_is_thinned() -> None:
    side, voxel = 61, 0.25
    checks = np.indices((side,) * 3).sum(axis=0) % 2  # the finest texture there is
    at = np.indices((side,) * 3) - 30
    alpha = np.where((at**2).sum(axis=0) < 27**2, ALPHA_ONE, 0).astype(np.uint16)
    lesion = Lesion(intensity_hu=np.where(checks, 200, -200).astype(np.int16), alpha=alpha, voxel_mm=voxel, card=CARD)
    core = to_grid(lesion, 24).values[0][9:15, 9:15, 9:15]
    assert core.std() < 0.03  # .2 without the prefilter


def test_specks_and_the_shell_are_dropped() -> None:
    values = np.zeros((2, 32, 32, 32), np.float32)
    values[:, 10:20, 10:20, 10:20] = 0.9
    values[:, 27:29, 27:29, 27:29] = 0.9
    values[:, 0] = 0.9
    alpha = from_grid(values, 0.5, CARD).alpha
    assert alpha[15, 15, 15] > 0
    assert not alpha[26:].any()
    assert not alpha[0].any()


@pytest.mark.parametrize("fault", ["empty", "nan", "shape"])
def test_values_that_are_no_lesion_are_refused(fault: str) -> None:
    values = np.zeros((2, 16, 16, 16), np.float32)
    if fault == "nan":
        values[1, 8, 8, 8] = np.nan
    with pytest.raises(BankError) as refused:
        from_grid(values[:1] if fault == "shape" else values, 0.5, CARD)
    assert refused.value.remedy


def test_the_middle_slice_fills_its_crop() -> None:
    crop = crop_2d(load_bank().lesion("solid-16mm-a"))
    assert crop.shape == (2, 64, 64)
    seen = np.argwhere(crop[1] > 0.05)
    assert 57 <= np.ptp(seen, axis=0).max() + 1 <= 62
    assert crop[1].max() > 0.95
