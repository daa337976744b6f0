"""The check for copies: planted ones are found, whole and in part; other films aren't; films can't be put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import expit

from HiResMedSynthLib import weights
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.privacy import (
    KIND,
    Pixels,
    TrainingDescriptors,
    describe,
    descriptors_of,
    mean_film,
    numbers_of,
    read_descriptors,
    small_film,
    write_descriptors,
)
from HiResMedSynthLib.weights import Card, ModelError

SIDE = 256
CARD = Card(name="x_descriptors", kind=KIND, data="phantoms", licence="CC0-1.0", attribution="nobody")


def chest(seed: int) -> Pixels:
    """A film with two lungs, ribs, a heart and diaphragms, all a little different for each seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    film = 0.6 - 0.2 * (x**2 + y**2) * rng.uniform(0.5, 1.5)
    for sign in (-1, 1):
        lung = 1 - ((x - sign * rng.uniform(0.36, 0.5)) / rng.uniform(0.24, 0.36)) ** 2
        lung = lung - ((y + rng.uniform(-0.1, 0.2)) / rng.uniform(0.55, 0.8)) ** 2
        film = film - rng.uniform(0.9, 1.3) * expit(20 * lung)
        ribs = np.sin(y * rng.uniform(22, 30) + sign * x * rng.uniform(3, 7) + rng.uniform(0, 6))
        film = film + 0.15 * ribs * (lung > 0)
    heart = 1 - ((x - rng.uniform(0.05, 0.25)) / rng.uniform(0.2, 0.35)) ** 2
    heart = heart - ((y - rng.uniform(0.2, 0.4)) / 0.35) ** 2
    film = film + 0.7 * expit(12 * heart)
    field = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 18)
    film = film + 0.12 * field / field.std() + rng.normal(0, 0.03, film.shape)
    return np.clip(film, -1, 1).astype(np.float32)


def changed(film: Pixels, seed: int = 0) -> Pixels:
    """Moved by 5 px, another exposure, noise."""
    moved = ndimage.shift(film, (5, -5), order=1, mode="nearest")
    grey = 2 * ((moved + 1) / 2).clip(0, 1) ** 1.1 - 1
    return (grey + np.random.default_rng(seed).normal(0, 0.08, film.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def training() -> list[Pixels]:
    return [chest(seed) for seed in range(40)]


@pytest.fixture(scope="module")
def descriptors(training: list[Pixels]) -> TrainingDescriptors:
    return describe(training, [chest(1000 + seed) for seed in range(24)])


def test_planted_copies_are_found_and_named(descriptors: TrainingDescriptors, training: list[Pixels]) -> None:
    for number in (0, 7, 21, 39):
        near = descriptors.nearness(changed(training[number], number))
        assert near.nearest == number
        assert near.whole > descriptors.whole_threshold
        assert near.patch_share > descriptors.share_threshold
        assert "nearest training film" in near.why
    assert descriptors.copy_rate([changed(film) for film in training[:8]]).whole == 1


def test_films_that_were_not_learned_pass(descriptors: TrainingDescriptors) -> None:
    rate = descriptors.copy_rate([chest(2000 + seed) for seed in range(30)])
    assert rate.films == 30
    assert rate.either < 0.35  # 5 % each is the aim, from thresholds of 24 films
    assert rate.windows < 0.12
    passed = [chest(2000 + seed) for seed in range(5)]
    assert any(descriptors.why_copy(film) == "" for film in passed)


def test_half_a_copy_is_found_by_its_windows(descriptors: TrainingDescriptors, training: list[Pixels]) -> None:
    halves = []
    for number in range(6):
        film = chest(3000 + number)
        film[:, : SIDE // 2] = changed(training[number])[:, : SIDE // 2]
        halves.append(film)
    rate = descriptors.copy_rate(halves)
    assert rate.by_patches == 1
    assert rate.whole < 1


def test_it_works_at_any_size(descriptors: TrainingDescriptors, training: list[Pixels]) -> None:
    film = training[3]
    likeness = descriptors.nearness(film).whole
    for size in (64, 100, 512):
        rows = np.asarray(ndimage.zoom(film, size / SIDE, order=1), dtype=np.float32)
        assert descriptors.nearness(rows).whole == pytest.approx(likeness, abs=0.05)
    np.testing.assert_allclose(small_film(film), film.reshape(64, 4, 64, 4).mean(axis=(1, 3)), atol=1e-6)
    for wrong in (
        np.zeros((4, 4), np.float32),
        np.zeros((1, 64, 64), np.float32),
        np.full((64, 64), np.nan, np.float32),
    ):
        with pytest.raises(SettingsError, match="no film"):
            descriptors.nearness(wrong)
    assert descriptors.why_copy(np.zeros((64, 64), np.float32)) == ""


def test_which_windows_belong_to_one_film_is_not_told(training: list[Pixels], descriptors: TrainingDescriptors) -> None:
    order = np.random.default_rng(0).permutation(len(training))
    other = describe([training[i] for i in order], [chest(1000 + seed) for seed in range(24)])
    np.testing.assert_allclose(other.whole, descriptors.whole[order], atol=1)
    np.testing.assert_array_equal(other.patches, descriptors.patches)  # the same, whatever the order of the films
    mean = mean_film(np.stack([small_film(film) for film in training]))
    windows = numbers_of(np.stack([small_film(film) for film in training]), mean)[1]  # [film, place, number]
    together = (descriptors.patches.swapaxes(0, 1) == windows).all(axis=-1)
    assert together.mean() < 0.1


def test_they_are_small_and_come_back_whole(descriptors: TrainingDescriptors, tmp_path: Path) -> None:
    path = tmp_path / "x_descriptors.safetensors"
    write_descriptors(path, descriptors, CARD)
    assert path.stat().st_size < 1_000_000 * 40 / 157
    back, film = read_descriptors(path), chest(5)
    assert back.nearness(film).whole == pytest.approx(descriptors.nearness(film).whole, abs=1e-3)
    assert (back.whole_threshold, back.share_threshold) == (descriptors.whole_threshold, descriptors.share_threshold)
    with pytest.raises(ModelError, match="of kind"):
        write_descriptors(path, descriptors, Card(name="x", kind="background", data="", licence="", attribution=""))


def test_they_are_found_beside_their_model(
    descriptors: TrainingDescriptors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "models"))
    assert descriptors_of("ours") is None
    write_descriptors(tmp_path / "made.safetensors", descriptors, CARD)
    added = weights.add(tmp_path / "made.safetensors", "ours_descriptors")
    found = descriptors_of("ours")
    assert found is not None
    np.testing.assert_array_equal(found.whole, descriptors.whole)
    added.path.write_bytes(added.path.read_bytes()[:-4])
    with pytest.raises(ModelError):
        descriptors_of("ours")


def test_too_few_films_and_other_files_are_refused(training: list[Pixels], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="too few"):
        describe(training, training[:3])
    with pytest.raises(SettingsError, match="too few"):
        describe([], training)
    path = tmp_path / "other.safetensors"
    weights.write_model(path, {"whole": np.zeros((3, 64), np.int8)}, CARD)
    with pytest.raises(ModelError, match="no descriptors"):
        read_descriptors(path)
    weights.write_model(
        path,
        {
            "whole": np.zeros((3, 65), np.int8),
            "patches": np.zeros((64, 3, 16), np.int8),
            "mean": np.zeros(576, np.float16),
            "patch_thresholds": np.zeros(64, np.float32),
        },
        CARD,
        metadata={"thresholds": '{"whole_threshold": 0.9, "share_threshold": 0.2, "held_out": 9}'},
    )
    with pytest.raises(ModelError, match="damaged"):
        read_descriptors(path)
