"""The gate against near copies: planted ones are found by kind, whole and in part; films of other patients pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import expit

from HiResMedSynthLib import weights
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.privacy import (
    KIND,
    PARTS,
    Pixels,
    TrainingDescriptors,
    describe,
    descriptors_of,
    read_descriptors,
    small_film,
    write_descriptors,
)
from HiResMedSynthLib.weights import Card, ModelError
from Testing.planted_copies import CHANGES, mixed, part_in

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
    for width, height in ((18, 0.12), (5, 0.12)):  # what is nobody else's
        field = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), width)
        film = film + height * field / field.std()
    film = film + rng.normal(0, 0.03, film.shape)
    return np.asarray(np.clip(film, -1, 1), dtype=np.float32)


@pytest.fixture(scope="module")
def training() -> list[Pixels]:
    return [chest(seed) for seed in range(16)]


@pytest.fixture(scope="module")
def descriptors(training: list[Pixels]) -> TrainingDescriptors:
    return describe(training, [chest(1000 + seed) for seed in range(10)])


@pytest.mark.parametrize("kind", CHANGES)
def test_planted_copies_of_each_kind_are_found_and_named(
    descriptors: TrainingDescriptors, training: list[Pixels], kind: str
) -> None:
    for number in (2, 11):
        near = descriptors.nearness(CHANGES[kind](training[number], np.random.default_rng(number)))
        assert near.nearest == number
        assert near.whole > descriptors.limits[-1]
        assert "resembles a training image more than 99 of 100 images of other patients do" in near.why


def test_two_changes_at_once_are_found(descriptors: TrainingDescriptors, training: list[Pixels]) -> None:
    rng = np.random.default_rng(5)
    assert descriptors.copy_rate([mixed(film, rng) for film in training[:8]]) == 1


def test_films_of_other_patients_pass(descriptors: TrainingDescriptors) -> None:
    assert descriptors.copy_rate([chest(2000 + seed) for seed in range(12)]) <= 2 / 12  # limits of 26 films


@pytest.mark.parametrize("part", ["half", "quarter"])
def test_a_part_of_a_film_in_another_is_found(
    descriptors: TrainingDescriptors, training: list[Pixels], part: str
) -> None:
    rng = np.random.default_rng(1)
    near = [descriptors.nearness(part_in(training[k], chest(3000 + k), rng, part=part)) for k in range(8)]
    assert sum(one.why != "" and one.nearest == k for k, one in enumerate(near)) >= 6  # plain corners hold little
    assert all(one.whole < 0.75 for one in near)


def test_films_of_one_patient_do_not_raise_the_limits(training: list[Pixels]) -> None:
    twice = [*training[:2], *(CHANGES["shift"](film, np.random.default_rng(3)) for film in training[:2])]
    held_out = [chest(1000 + seed) for seed in range(8)]
    told, untold = describe(twice, held_out, ["a", "b", "a", "b"]), describe(twice, held_out)
    assert told.limits[-1] < 0.6 < untold.limits[-1]
    np.testing.assert_array_equal(told.signs, untold.signs)
    assert describe(twice[::2], held_out, ["a", "a"]).unlearned == 8  # no film of another patient among them


def test_it_works_at_any_size(descriptors: TrainingDescriptors, training: list[Pixels]) -> None:
    film = training[3]
    for size in (64, 100, 512):
        rows = np.asarray(ndimage.zoom(film, size / SIDE, order=1), dtype=np.float32)
        assert descriptors.nearness(rows).whole == pytest.approx(descriptors.nearness(film).whole, abs=0.12)
    np.testing.assert_allclose(small_film(film), film.reshape(64, 4, 64, 4).mean(axis=(1, 3)), atol=1e-6)
    for wrong in (
        np.zeros((4, 4), np.float32),
        np.zeros((1, 64, 64), np.float32),
        np.full((64, 64), np.nan, np.float32),
    ):
        with pytest.raises(SettingsError, match="no film"):
            descriptors.nearness(wrong)
    assert descriptors.why_copy(np.zeros((64, 64), np.float32)) == ""
    with pytest.raises(SettingsError, match="needs films"):
        descriptors.copy_rate([])


def test_they_are_small_and_come_back_whole(descriptors: TrainingDescriptors, tmp_path: Path) -> None:
    path = tmp_path / "x_descriptors.safetensors"
    write_descriptors(path, descriptors, CARD)
    assert descriptors.signs.nbytes == 128 * len(descriptors.signs)  # no more than that is kept of a film
    assert path.stat().st_size < descriptors.signs.nbytes + 2000
    back, film = read_descriptors(path), chest(5)
    assert back.nearness(film) == descriptors.nearness(film)
    assert (back.limits, back.unlearned) == (descriptors.limits, 26)
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
    np.testing.assert_array_equal(found.signs, descriptors.signs)
    added.path.write_bytes(added.path.read_bytes()[:-4])
    with pytest.raises(ModelError):
        descriptors_of("ours")


def test_too_few_films_and_other_files_are_refused(
    descriptors: TrainingDescriptors, training: list[Pixels], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="too few"):
        describe(training, training[:3], ["the same"] * len(training))
    with pytest.raises(SettingsError, match="too few"):
        describe([], training)
    path = tmp_path / "other.safetensors"
    weights.write_model(path, {"signs": np.zeros((3, 16, 8), np.uint8)}, CARD)
    with pytest.raises(ModelError, match="no descriptors"):
        read_descriptors(path)
    numbers = {"plain": 1.0, "limits": [0.4] * len(PARTS), "unlearned": 9}
    scale = np.ones(len(descriptors.scale), np.float16)
    sound = np.zeros((3, 16, 8), np.uint8)
    for signs, limits in ((sound[:, 1:], [0.4] * 4), (sound, [0.4, -1, 1, 1]), (sound, [0.4] * 3)):
        metadata = {"limits": json.dumps(numbers | {"limits": limits})}
        weights.write_model(path, {"signs": signs, "scale": scale}, CARD, metadata=metadata)
        with pytest.raises(ModelError, match="damaged"):
            read_descriptors(path)
