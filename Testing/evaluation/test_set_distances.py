"""Distances between sets: by hand, with their floors, and drawn by patient."""

from __future__ import annotations

import math

import numpy as np
import pytest

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation.resampling import (
    bonferroni,
    comparable_groups,
    difference,
    mean_interval,
    paired_p,
    resamples,
    share_interval,
    shifted_interval,
    smallest_paired_p,
    splits,
)
from HiResMedSynthLib.evaluation.set_distances import (
    NAMES,
    Pool,
    frechet_of_many,
    kid,
    manifold,
    set_distances,
    standardised,
)


def patients(count: int, each: int = 1, name: str = "p") -> list[str]:
    return [f"{name}{k}" for k in range(count) for _ in range(each)]


def found(one: np.ndarray, other: np.ndarray, **options: int) -> dict[str, object]:
    pool = Pool(one, other)
    groups = patients(len(one)), patients(len(other), name="s")
    return {one.name: one for one in set_distances(pool, *groups, seed=0, draws=60, **options)}


def test_kid_by_hand() -> None:
    # one feature, kernel (xy + 1)^3: within X 1, within Y (1 * 2 + 1)^3 = 27, across mean of 1, 1, 8, 27
    assert kid(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])) == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)
    with pytest.raises(SettingsError):
        kid(np.zeros((1, 3)), np.zeros((4, 3)))


def test_kid_has_no_bias() -> None:
    rng = np.random.default_rng(0)
    drawn = [kid(*rng.normal(size=(2, 12, 6))) for _ in range(300)]
    assert abs(np.mean(drawn)) < 3 * np.std(drawn) / math.sqrt(300)
    assert min(drawn) < 0 < max(drawn)


def test_several_images_of_a_patient_make_no_set_look_apart_from_its_like() -> None:
    """Slices of one patient are like each other: counted as strangers they add to KID, the more the more there are."""
    rng = np.random.default_rng(4)
    drawn: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(40):
        centres = np.repeat(rng.normal(size=(48, 6)), 4, axis=0)
        slices = centres + 0.2 * rng.normal(size=centres.shape)
        groups = patients(24, 4), patients(24, 4, name="s")
        for told, values in drawn.items():
            pool = Pool(slices[:96], slices[96:], groups if told else None)
            values.append(float(pool.measures(np.arange(96), np.arange(96, 192))[1]))
    told, untold = (np.mean(drawn[key]) for key in (True, False))
    assert abs(told) < 0.2 * untold
    assert untold > 6 * np.std(drawn[False]) / math.sqrt(40)


def test_precision_recall_density_coverage_by_hand() -> None:
    real, fake = np.array([0.0, 1.0, 2.0, 10.0]), np.array([0.5, 1.5, 30.0])
    tables = [np.abs(a[:, None] - b[None, :]) for a, b in ((real, real), (fake, fake), (real, fake))]
    precision, recall, density, coverage = manifold(*tables, 1)
    assert precision == pytest.approx(2 / 3)  # 30 lies in no ball of a real one (radii 1, 1, 1, 8)
    assert recall == pytest.approx(4 / 4)  # 30 reaches 28.5 far, back to 10 and 2; the others lie near .5 and 1.5
    assert density == pytest.approx((2 + 2 + 0) / 3)  # .5 lies in the balls of 0 and 1, 1.5 in those of 1 and 2
    assert coverage == pytest.approx(3 / 4)
    with pytest.raises(SettingsError, match="4 a side"):
        manifold(*tables, 3)


def test_images_of_the_same_patient_are_no_neighbours() -> None:
    real, fake = np.array([0.0, 0.1, 2.0, 6.0]), np.array([1.0, 1.1, 8.0])
    tables = [np.abs(a[:, None] - b[None, :]) for a, b in ((real, real), (fake, fake), (real, fake))]
    patients = np.array([0, 0, 1, 2]), np.array([0, 0, 1])
    # nearest of another patient: real 2, 1.9, 1.9, 4 away; synthetic 7, 6.9, 6.9
    assert manifold(*tables, 1, patients=patients) == pytest.approx((1, 1, (3 + 3 + 1) / 3, 1))
    # by image: real .1, .1, 1.9, 4 away, synthetic .1, .1, 6.9: 1 and 1.1 lie in the ball of 2 only, 8 in that of 6
    assert manifold(*tables, 1) == pytest.approx((1, 2 / 4, (1 + 1 + 1) / 3, 2 / 4))
    # the second neighbour of 2 is 2 away, of 6 it would be .1 or 0; of two patients there is no second to the third
    assert manifold(*tables, 2, patients=(np.array([0, 0, 1, 1]), patients[1]))[2] == pytest.approx((4 + 4 + 1) / 3 / 2)


def test_sets_of_one_distribution_lie_within_the_floor_and_a_shifted_one_beyond() -> None:
    rng = np.random.default_rng(1)
    real, like, shifted = rng.normal(size=(60, 10)), rng.normal(size=(30, 10)), rng.normal(size=(30, 10)) + 1.0
    same, other = found(real, like), found(real, shifted)
    assert list(same) == list(NAMES)
    assert same["frechet"].within_floor
    assert same["kid"].within_floor
    assert {"frechet", "kid", "precision", "coverage"} <= {name for name, one in other.items() if not one.within_floor}
    assert other["frechet"].low > same["frechet"].high
    for one in (*same.values(), *other.values()):
        assert one.patients == 30
        assert one.low <= one.value <= one.high


def test_the_floor_seldom_cries_wolf_with_more_features_than_images() -> None:
    """Sets of one distribution: about one in twenty may lie beyond the floor."""
    rng = np.random.default_rng(8)
    beyond = dict.fromkeys(NAMES, 0)
    for _ in range(24):
        pool = Pool(rng.normal(size=(24, 60)), rng.normal(size=(12, 60)))
        for one in set_distances(pool, patients(24), patients(12), seed=0, draws=20):
            beyond[one.name] += not one.within_floor
    assert max(beyond.values()) <= 5, beyond  # at 5 % more than 5 of 24 come less than once in 500 times


def test_a_copied_image_is_told_by_recall_and_coverage() -> None:
    rng = np.random.default_rng(2)
    real = rng.normal(size=(40, 5))
    one_mode = real[:1] + 0.05 * rng.normal(size=(20, 5))  # the mode of a generator that has collapsed
    measured = found(real, one_mode)
    assert measured["precision"].value > 0.5
    assert not measured["recall"].within_floor
    assert not measured["coverage"].within_floor


def test_a_share_of_nothing_has_an_interval() -> None:
    rng = np.random.default_rng(3)
    measured = found(rng.normal(size=(20, 4)), rng.normal(size=(10, 4)) + 50)
    assert measured["precision"].value == 0
    assert measured["precision"].high == pytest.approx(1 - 0.025 ** (1 / 10))  # exact for 0 of 10


def test_too_few_patients_are_refused_with_the_number_needed() -> None:
    rng = np.random.default_rng(4)
    images, few = rng.normal(size=(60, 3)), rng.normal(size=(60, 3))
    with pytest.raises(SettingsError, match="16 real"):
        set_distances(Pool(images, few), patients(15, 4), patients(15, 4), seed=0)  # 60 images, but 15 patients
    with pytest.raises(SettingsError, match="8 synthetic"):
        set_distances(Pool(images, few), patients(60), patients(5, 12), seed=0)


def test_frechet_extrapolated_loses_the_bias_of_small_sets() -> None:
    rng = np.random.default_rng(5)
    real, like = rng.normal(size=(200, 8)), rng.normal(size=(100, 8))
    pool = Pool(real, like)
    groups = patients(200), patients(100)
    at_n = {one.name: one for one in set_distances(pool, *groups, seed=0, draws=20)}["frechet"]
    many, floor = frechet_of_many(pool, *groups, seed=0)
    assert abs(many) < 0.8 * at_n.value
    assert abs(floor) < 0.5 * at_n.floor


def test_standardised_by_the_real_set() -> None:
    real = np.array([[1.0, 5.0, 0.0], [3.0, 5.0, 1e9]])
    first, second = standardised(real, np.array([[5.0, 9.0, 1e12]]))
    np.testing.assert_allclose(first, [[-1, -1], [1, 1]])  # the even feature is left out
    np.testing.assert_allclose(second, [[3, 5]])  # and what is absurd is cut


def test_no_draw_shares_a_patient_between_halves() -> None:
    real, made = patients(6, 3), patients(4, 2)
    assert comparable_groups(real, made) == 3
    for one in splits(real, made, count=3, draws=20, rng=np.random.default_rng(0)):
        halves = [{real[k] for k in part} for part in (one.real, one.other_real)]
        assert not halves[0] & halves[1]
        assert len(one.real) == len(one.other_real) == 9
        assert len(set(one.synthetic)) == 6
    again = next(resamples(real, made, count=5, draws=1, rng=np.random.default_rng(0)))
    assert [len(part) for part in again] == [15, 10]


def test_intervals_by_hand() -> None:
    assert shifted_interval(10.0, np.array([0.0, 50.0, 100.0])) == pytest.approx((10 - 47.5, 10 + 47.5))
    values = np.array([1.0, 1.0, 1.0, 5.0])
    assert mean_interval(values, ["a", "a", "a", "b"], seed=0) == (1.0, 5.0)  # two patients, not four images


def test_a_difference_is_of_patients_and_has_a_floor() -> None:
    rng = np.random.default_rng(6)
    real, made = rng.normal(10, 1, 40), rng.normal(12, 1, 20)
    groups = patients(40), patients(20)
    one = difference(real, made, groups, seed=0)
    assert one is not None
    assert one.low < 2 < one.high
    assert one.floor < 1 < one.synthetic - one.real
    assert one.p < 1e-6
    same = difference(real, rng.normal(10, 1, 20), groups, seed=0)
    assert same is not None
    assert same.p > 0.05
    repeated = difference(np.repeat(real[:3], 20), np.repeat(made[:3], 20), (patients(3, 20), patients(3, 20)), seed=0)
    assert repeated is not None
    assert repeated.patients == (3, 3)
    assert repeated.p >= 0.1  # 120 images of 6 patients can't say more than 6 patients can
    assert difference(real, np.full(20, np.nan), groups, seed=0) is None


def test_rounding_of_arithmetic_is_no_difference() -> None:
    """Noise of 8-bit films takes few values; the same one comes out of two windows a hair apart."""
    rng = np.random.default_rng(0)
    steps = np.tile([1.0, 2.0, 3.0, 3.0], 5) * 0.0048450977
    real, made = (steps + shift + 3e-9 * rng.normal(size=20) for shift in (0.0, 2e-8))
    groups = patients(20), patients(20, name="s")
    one, exact = difference(real, made, groups, seed=0), difference(steps, steps, groups, seed=0)
    assert one is not None and exact is not None
    assert one.p == exact.p == 1.0
    assert one.synthetic - one.real == pytest.approx(0.0, abs=1e-12)


def test_an_interval_of_a_share_goes_by_patient_and_is_never_empty() -> None:
    hits = np.array([1.0] * 40 + [0.0] * 5)  # forty lesions of one patient, one of each of five others
    low, high = share_interval(hits, ["many"] * 40 + patients(5), seed=0)
    assert (low, high) == (0, pytest.approx(0.6412, abs=1e-4))  # the bootstrap's end, and Clopper-Pearson's for 1 of 6
    assert share_interval(np.zeros(3), patients(3), seed=0) == (0, pytest.approx(1 - 0.025 ** (1 / 3)))


@pytest.mark.parametrize("count", [2, 5, 9])
def test_the_smallest_p_of_a_paired_test_is_that_of_scipy(count: int) -> None:
    one = np.arange(count, dtype=np.float64)
    assert paired_p(one, one + np.linspace(1, 2, count), patients(count)) == pytest.approx(smallest_paired_p(count))


def test_paired_tests_and_their_correction() -> None:
    rng = np.random.default_rng(7)
    one = rng.normal(size=30)
    assert paired_p(one, one, patients(30)) == 1
    assert paired_p(one, one + 0.5 + 0.1 * rng.normal(size=30), patients(30)) < 1e-6
    assert bonferroni(0.01, 12) == pytest.approx(0.12)
    assert bonferroni(0.3, 12) == 1
