"""The table of baselines: what it takes for real, what it calls far, whom it pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from HiResMedSynthLib.evaluation.feature_cache import FeatureCache
from Testing.benchmarks import baselines_measures
from Testing.benchmarks.baselines import joined, made_films, real_films, sheet
from Testing.benchmarks.baselines_measures import (
    CROP,
    FilmSet,
    copy_share,
    distances,
    measured,
    paired,
    power_ratios,
)
from Training.film_data import Film
from Training.film_data import FilmSet as TrainingFilms


def films(name: str, count: int, *, shift: float = 0.0, seed: int = 0) -> FilmSet:
    """Films of count patients, drawn normally."""
    rng = np.random.default_rng(seed)
    return FilmSet(
        name=name,
        groups=tuple(f"{name} {k}" for k in range(count)),
        features={"texture": rng.normal(shift, 1, (count, 6))},
        power=rng.uniform(1, 2, (count, 3)) * (1 + shift),
        small=rng.random((count, 256, 256), dtype=np.float32),
        likeness=rng.random(count),
        copies=np.zeros(count, dtype=bool),
    )


def test_a_set_of_the_same_kind_is_within_the_floor_and_another_beyond() -> None:
    real = films("real", 40)
    same, other = distances(real, films("same", 20, seed=1)), distances(real, films("other", 20, shift=3, seed=2))
    assert same["texture"]["frechet"]["within_floor"]
    assert not other["texture"]["frechet"]["within_floor"]
    assert other["texture"]["frechet"]["a_side"] == 20
    assert other["texture"]["kid"]["value"] > same["texture"]["kid"]["interval"][1]
    assert other["texture"]["coverage"]["value"] < 0.1
    ratios = power_ratios(real, films("other", 20, shift=1, seed=2))
    assert all(one["interval"][0] < 2 < one["interval"][1] for one in ratios)
    assert all(one["interval"][0] > 1.5 for one in ratios)


def test_no_film_is_paired_with_its_own_patient_and_the_nearest_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines_measures, "st_lpips_of", lambda a, b: float(np.abs(a - b).mean()))
    real = films("real", 6)
    alike = FilmSet(**{**vars(real), "groups": tuple("ABCDEF"), "small": 0.99 * real.small})
    found = paired(alike, real, nearest=True)  # other patients: each finds its own pixels
    assert found["ssim"]["value"] > 0.99
    assert found["psnr_db"]["value"] > 40
    own = paired(real, real, nearest=True)  # its own pixels are its own patient's
    assert own["ssim"]["value"] < 0.2
    assert own["ssim"]["pairs"] == 6
    shares = copy_share(FilmSet(**{**vars(real), "copies": np.array([True, True, False, False, False, False])}))
    assert (shares["copies"], shares["of"]) == (2, 6)
    assert shares["interval"][0] < 1 / 3 < shares["interval"][1]


def test_real_films_are_those_whose_field_holds_the_square_and_whose_size_is_known() -> None:
    edge = (1024 - CROP) // 2
    fields = [(0, 0, 1024, 1024), (edge, edge, CROP, CROP), (edge + 1, 0, 900, 1024), (0, 0, edge + CROP - 1, 1024)]
    listed = [
        Film(name=str(k), patient=f"p{k}", label=0, held_out=k == 1, field=field) for k, field in enumerate(fields)
    ]
    listed.append(Film(name="5", patient="p5", label=0, held_out=False, field=fields[0], whole=False))
    pixels = np.zeros((5, 1024, 1024), dtype=np.float32)
    real = TrainingFilms(pixels=pixels, films=tuple(listed), spacing_mm=0.42)
    assert [patient for patient, _ in real_films(real, held_out=False)] == ["p0"]
    ((patient, film),) = real_films(real, held_out=True)
    assert patient == "p1"
    assert film.min() == film.max() == 0.5


def test_films_of_a_folder_are_measured_once_and_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in (1, 2):
        grey = rng.integers(0, 65536, (1024, 1024)).astype(np.uint16)
        Image.fromarray(grey).save(tmp_path / f"cxr-{number:04d}.png")
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "sheet.png")
    cache = FeatureCache(tmp_path / "kept")
    first = measured("made", made_films(tmp_path), cache, spaces=("texture at 96 px",))
    assert first.groups == ("cxr-0001", "cxr-0002")
    assert first.features["texture at 96 px"].shape == (2, 125)
    assert np.isnan(first.likeness).all()
    assert 0.4 < first.small.mean() < 0.6
    again = measured("made", made_films(tmp_path), cache, spaces=("texture at 96 px",))
    np.testing.assert_array_equal(again.power, first.power)
    assert len(joined(first, again).groups) == 4
    sheet([[film for _, film in made_films(tmp_path)]], tmp_path / "sheet.jpg")
    with Image.open(tmp_path / "sheet.jpg") as picture:
        assert picture.size == (256, 128)
