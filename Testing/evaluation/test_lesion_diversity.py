"""Overlaps, copies, volumes and pieces against hand-worked numbers."""

from __future__ import annotations

import numpy as np
import pytest

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation import lesion_diversity as diversity
from Testing.evaluation.lesions import ball, textured


def box(low: tuple[int, int, int], high: tuple[int, int, int], size: int = 8) -> np.ndarray:
    """A box of alpha 1 and 140 HU."""
    grid = np.zeros((2, size, size, size), np.float32)
    grid[(slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))] = 1
    return grid


def test_sixteen_different_symmetries_the_first_untouched() -> None:
    grid = np.random.default_rng(0).normal(size=(2, 4, 4, 4))
    turned = list(diversity.symmetries(grid))
    assert len({value.tobytes() for value in turned}) == 16
    np.testing.assert_array_equal(turned[0], grid)
    for value in turned:  # the slice axis stays the slice axis
        assert {plane.sum().round(9) for plane in value[0]} == {plane.sum().round(9) for plane in grid[0]}


def test_dice_by_hand_and_over_turns() -> None:
    lying, standing = box((2, 3, 1), (4, 5, 7)), box((2, 1, 3), (4, 7, 5))  # 2x2x6 along columns and along rows
    assert diversity.dice_of(lying, standing) == pytest.approx(2 * 8 / 48)
    assert diversity.best_dice_of(lying, standing) == 1
    # along the slice axis: no quarter turn in plane brings it there
    assert diversity.best_dice_of(lying, box((1, 3, 2), (7, 5, 4))) < 0.5


def test_the_copy_is_found_though_mirrored_and_turned() -> None:
    rng = np.random.default_rng(1)
    reals = np.stack([textured(rng, sigma=1.0) for _ in range(6)])
    copy = np.rot90(reals[4], 1, axes=(2, 3))[:, ::-1]
    found = diversity.nearest_real(np.stack([copy, reals[2]]), reals)
    assert found.dice_index.tolist() == found.correlation_index.tolist() == [4, 2]
    np.testing.assert_allclose(found.dice, 1)
    np.testing.assert_allclose(found.correlation, 1, rtol=1e-5)
    others = np.zeros((2, 6), bool)
    others[0, 4] = True
    found = diversity.nearest_real(np.stack([copy, reals[2]]), reals, exclude=others)
    assert found.dice_index[0] != 4
    assert found.dice[0] < 1
    assert found.correlation[0] < 0.999
    with pytest.raises(SettingsError):
        diversity.nearest_real(reals, reals, exclude=np.ones((6, 6), bool))


def test_pairwise_dice_by_hand() -> None:
    one, two = box((0, 0, 0), (2, 2, 2)), box((0, 0, 0), (2, 2, 4))  # 8 voxels inside 16
    assert diversity.pairwise_dice(np.stack([one, one])) == 1
    assert diversity.pairwise_dice(np.stack([one, two, box((4, 4, 4), (6, 6, 6))])) == pytest.approx(16 / 24 / 3)
    with pytest.raises(SettingsError):
        diversity.pairwise_dice(one[np.newaxis])


def test_volumes_by_hand() -> None:
    half = box((0, 0, 0), (2, 2, 2))
    half[1] *= 0.5
    volumes = diversity.volumes_mm3(np.stack([half, box((0, 0, 0), (2, 2, 4))]), np.array([2.0, 0.5]))
    np.testing.assert_allclose(volumes, [4 * 8, 16 / 8])
    assert diversity.volume_percentiles(np.arange(1, 102) * 2.0, np.full(101, 2.0)) == pytest.approx((6, 51, 96))


def test_pieces() -> None:
    two = box((0, 0, 0), (2, 2, 2))
    assert diversity.is_one_piece(two)
    two[1, 5:7, 5:7, 5:7] = 0.1
    assert diversity.is_one_piece(two)  # too thin to be seen
    two[1, 5:7, 5:7, 5:7] = 0.3
    assert not diversity.is_one_piece(two)
    assert not diversity.is_one_piece(np.zeros((2, 8, 8, 8)))


def test_reconstruction_error_in_hu() -> None:
    real = ball(5.0, hu=40.0)
    assert diversity.reconstruction_rmse_hu(real, real) == 0
    denser = real.copy()
    denser[0] += 0.025 * (real[1] > 0.5)
    assert diversity.reconstruction_rmse_hu(denser, real) == pytest.approx(25, rel=1e-3)
    with pytest.raises(SettingsError):
        diversity.reconstruction_rmse_hu(real, np.zeros_like(real))
