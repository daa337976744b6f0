"""The fixed segmenter that the benchmark of use asks: it finds a ball, leaves a vessel, and stays in reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from Testing.benchmarks import segmenter_dice
from Testing.benchmarks.segmenter_dice import Grower, dice

SPACING_MM = (1.0, 0.7, 0.7)
SHAPE = (24, 40, 40)


def scene(*, vessel: bool) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """(HU, mask) of a solid ball of 10 mm in lung, on a vessel of 2 mm if wanted."""
    grid = [(index - n // 2) * step for index, n, step in zip(np.indices(SHAPE), SHAPE, SPACING_MM, strict=True)]
    ball = np.sqrt(sum(axis**2 for axis in grid)) <= 5.0
    dense = ball | (vessel & (np.hypot(grid[0], grid[1]) <= 1.0))
    noise = np.random.default_rng(0).normal(0, 10, SHAPE)
    return np.round(gaussian_filter(np.where(dense, 40.0, -860.0), 0.6) + noise).astype(np.int16), ball


@pytest.mark.parametrize("vessel", [False, True])
def test_it_finds_the_ball_and_leaves_the_vessel(vessel: bool) -> None:
    hu, ball = scene(vessel=vessel)
    found = Grower(share=0.5, opening_mm=1.5, reach=1.6)(hu, ball, SPACING_MM)
    assert dice(found, ball) > 0.9
    assert not found[12, 20, :8].any()


def test_it_grows_no_farther_than_it_may() -> None:
    hu, ball = scene(vessel=True)
    grid = [(index - n // 2) * step for index, n, step in zip(np.indices(SHAPE), SHAPE, SPACING_MM, strict=True)]
    found = Grower(share=0.3, opening_mm=0.0, reach=1.0)(hu, ball, SPACING_MM)
    assert found.any()
    assert np.sqrt(sum(axis**2 for axis in grid))[found].max() < 6.5  # half the box of the ball, and half a slice


def test_where_nothing_is_dense_it_finds_nothing_much() -> None:
    ball = scene(vessel=False)[1]
    flat = np.full(SHAPE, -860, np.int16)
    assert dice(Grower(share=0.5, opening_mm=1.0, reach=1.0)(flat, ball, SPACING_MM), ball) == 0


def test_dice_by_hand() -> None:
    one, other = np.array([True, True, False, False]), np.array([True, False, True, True])
    assert dice(one, other) == pytest.approx(2 / 5)
    assert dice(one & False, other & False) == 0


def test_a_folder_without_networks_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter_dice, "nodules", lambda _: [])
    line = [str(tmp_path), "--singan", str(tmp_path), "--out", str(tmp_path / "dice.csv")]
    refused = CliRunner().invoke(segmenter_dice.main, line)
    assert refused.exit_code == 1
    assert "holds no network of a lesion of the bank" in refused.output
