"""The machine reader: blind where there is nothing to see, sharp where there is; folds by patient; features by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation.lesion_features import FEATURES, feature_table, lesion_features
from HiResMedSynthLib.evaluation.machine_reader import (
    _packed,
    _with_detail,
    cnn_reader,
    feature_reader,
)
from HiResMedSynthLib.evaluation.reading import Reading, dealt
from Testing.evaluation.lesions import ball, textured


def feature(grid: np.ndarray, name: str) -> float:
    return float(lesion_features(grid)[FEATURES.index(name)])


def grids(seed: int, count: int, sigma: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([textured(rng, sigma=sigma) for _ in range(count)])


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{k}" for k in range(count)]


def test_features_of_a_ball_by_hand() -> None:
    grid = ball(9.0, size=32, hu=40.0)
    assert feature(grid, "sphericity") == pytest.approx(1, abs=0.06)
    assert feature(grid, "elongation") == pytest.approx(1, abs=0.01)
    assert feature(grid, "mean_hu") == pytest.approx(40, abs=0.1)
    assert feature(grid, "sd_hu") == pytest.approx(0, abs=0.1)
    assert feature(grid, "convexity") > 0.85
    assert feature(grid, "radius_spread") < 0.05
    assert feature(grid, "edge_width") == pytest.approx(0.8, abs=0.15)  # alpha .1 to .9 of an edge one voxel wide


def test_features_follow_what_they_are_named_after() -> None:
    plain = ball(9.0, size=32)
    spiked = plain.copy()
    spiked[:, 15:17, 15:17, 2:30] = plain[:, 15:17, 15:17, 15:16]
    assert feature(spiked, "spikes") > feature(plain, "spikes") + 0.01
    assert feature(spiked, "convexity") < feature(plain, "convexity") - 0.05
    soft = np.stack([gaussian_filter(channel, 1.5) for channel in plain])
    assert feature(soft, "edge_width") > 2 * feature(plain, "edge_width")
    fine, coarse = textured(np.random.default_rng(0), sigma=0.5), textured(np.random.default_rng(0), sigma=2.0)
    assert feature(fine, "autocorrelation_1") < feature(coarse, "autocorrelation_1")
    assert feature(fine, "high_band") > 1.5 * feature(coarse, "high_band")
    assert feature(fine, "local_sd_3_hu") > feature(coarse, "local_sd_3_hu")


def test_a_speck_and_an_empty_grid_have_finite_features() -> None:
    speck = np.zeros((2, 16, 16, 16), np.float32)
    speck[:, 8, 8, 8] = 1
    assert np.isfinite(feature_table([speck, np.zeros_like(speck)])).all()
    with pytest.raises(SettingsError):
        lesion_features(np.full((2, 16, 16, 16), np.nan))
    with pytest.raises(SettingsError):
        lesion_features(np.zeros((16, 16, 16)))


def test_auc_and_interval_by_hand() -> None:
    # one fold: real scores 3, 1 against made 2, 0 -> wins 3 of 4; the pair (1, 2) is lost
    reading = Reading(
        wins=np.array([[1.0, 1.0], [0.0, 1.0]]), pairs=np.ones((2, 2)),
        groups_real=np.array(["a", "b"]), groups_fake=np.array(["a", "b"]),
    )  # fmt: skip
    assert reading.auc == 0.75
    # of the bootstrap's draws (a, a), (a, b), (b, a), (b, b) the AUC is 1, .75, .75, 1
    assert reading.interval() == (0.75, 1.0)
    assert reading.subset(np.array([False, True]), np.array([True, False])).auc == 0
    assert math.isnan(reading.subset(np.array([False, False]), np.array([True, True])).auc)


def test_a_patient_is_never_in_two_folds() -> None:
    groups = np.array([*(f"p{k % 12}" for k in range(30)), *(f"p{k % 7}" for k in range(20)), *names("new", 15)])
    label = np.arange(len(groups)) < 30
    fold = dealt(groups, label, 5, np.random.default_rng(0))
    assert all(len(set(fold[groups == name])) == 1 for name in set(groups))
    assert set(fold[label]) == set(fold[~label]) == set(range(5))


def test_real_against_real_is_a_coin_toss() -> None:
    both = grids(1, 120, sigma=1.0)
    reading = feature_reader(both[:60], both[60:], names("a", 60), names("b", 60), 0, repeats=2)
    low, high = reading.interval()
    assert low < 0.5 < high
    assert 0.35 < reading.auc < 0.65
    assert 0.08 < high - low < 0.4


def test_features_tell_a_slight_blur() -> None:
    real = grids(2, 40, sigma=0.7)
    blurred = np.stack([[gaussian_filter(channel, 0.6) for channel in grid] for grid in real])
    reading = feature_reader(real, blurred, names("a", 40), names("a", 40), 0, repeats=1)
    assert reading.auc > 0.9
    assert reading.interval()[0] > 0.8


def test_the_network_tells_made_lesions_and_repeats_itself() -> None:
    real, made = grids(3, 20, sigma=1.0), grids(4, 20, sigma=1.0)
    made[:, 0] += 0.4 * made[:, 1]  # 400 HU denser
    runs = [cnn_reader(real, made, names("a", 20), names("b", 20), 5, epochs=epochs) for epochs in (5, 1, 1)]
    assert runs[0].auc > 0.9
    np.testing.assert_array_equal(runs[1].wins, runs[2].wins)


def test_the_network_sees_nothing_where_there_is_nothing() -> None:
    both = grids(7, 60, sigma=1.0)
    reading = cnn_reader(both[:30], both[30:], names("a", 30), names("b", 30), 0, epochs=3)
    low, high = reading.interval()
    assert low < 0.5 < high


def test_packing_for_the_network_loses_nothing() -> None:
    import torch

    grid = torch.from_numpy(grids(5, 1, sigma=1.0))
    packed = _packed(_with_detail(grid))
    assert packed.shape == (1, 32, 8, 8, 8)
    assert sorted(packed[0, :8].flatten().tolist()) == sorted(grid[0, 0].flatten().tolist())
    assert packed[0, 3, 4, 4, 4] == grid[0, 0, 8, 9, 9]


def test_too_few_or_unmatched_lesions_are_refused() -> None:
    few = grids(6, 12, sigma=1.0)
    with pytest.raises(SettingsError):
        feature_reader(few[:4], few[4:], names("a", 4), names("b", 8), 0)
    with pytest.raises(SettingsError):
        feature_reader(few, few, names("a", 12), names("b", 11), 0)
    with pytest.raises(SettingsError):
        cnn_reader(few, few, ["one"] * 12, names("b", 12), 0)
