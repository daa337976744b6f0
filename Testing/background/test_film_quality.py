"""What is measured of a background model: on made-up films, on one real film, and the whole command on a tiny model."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from time import sleep
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import gaussian_filter

from HiResMedSynthLib.background import make
from HiResMedSynthLib.background.make import OnStep
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.evaluation import perceptual
from HiResMedSynthLib.evaluation.feature_cache import FeatureCache
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.patient_split import held_out_by_rule
from HiResMedSynthLib.placement.network import PlacementNetwork, load_network
from HiResMedSynthLib.placement.regions_film import TASK
from HiResMedSynthLib.read import read_image
from Testing.background.tiny_cascade import write_tiny
from Testing.benchmarks import film_quality_rows, film_quality_sets, film_structure
from Testing.benchmarks.film_quality import LARGEST_SHEET, main
from Testing.benchmarks.film_quality_sets import Pictures, Unit
from Testing.benchmarks.film_speed import timed
from Testing.test_privacy import chest
from Training.film_data import Film, FilmSet

TRAINED, HELD_OUT = 16, 8


def patients(count: int, *, held_out: bool) -> list[str]:
    return [str(number) for number in range(300) if held_out_by_rule(str(number)) == held_out][:count]


def pictures(name: str, units: list[Unit], masks: list[np.ndarray | None] | None = None) -> Pictures:
    names = tuple(f"{name} {k}" for k in range(len(units)))
    every = tuple(masks or [None] * len(units))
    return Pictures(name=name, units=tuple(units), masks=every, patients=names, labels=names, spacing_mm=1.68)


@pytest.fixture
def without_st_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise HiResMedSynthError("not installed", remedy="")

    monkeypatch.setattr(perceptual, "st_lpips", absent)


@pytest.mark.usefixtures("without_st_lpips")
def test_the_command_measures_a_model_and_says_what_cannot_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_few(*_: object) -> None:
        raise SettingsError("8 films are too few for a copy check", remedy="")

    monkeypatch.setattr(film_quality_rows, "describe", too_few)  # its own test is below, and it is slow
    folder = tmp_path / "films"
    folder.mkdir()
    columns = ("image", "patient_id", "orig_width", "orig_height", "orig_spacing_x_mm", "orig_spacing_y_mm", "sex")
    with (folder / "index.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(columns)
        for seed, patient in enumerate([*patients(TRAINED, held_out=False), *patients(HELD_OUT, held_out=True)]):
            Image.fromarray(((chest(seed) + 1) * 127).astype(np.uint8)).save(folder / f"{seed}.png")
            lines.writerow((f"{seed}.png", patient, 256, 256, 1.68, 1.68, "F"))
    model = write_tiny(tmp_path, name="phantom", domain="phantom")
    line = ["--model", model, "--films", folder, "--preset", "tiny", "--cache", tmp_path / "cache", "--samples", 8]
    line += ["--rebuilt", 2, "--out", tmp_path / "out", "--no-speed"]
    done = CliRunner().invoke(main, [str(part) for part in line], catch_exceptions=False)
    assert done.exit_code == 0
    (out,) = (tmp_path / "out").iterdir()
    found = json.loads((out / "film_quality.json").read_text())
    texture = found["distances"]["trained on"]["sampled"]["texture"]
    assert texture["frechet"]["patients"] == 8
    assert not texture["frechet"]["within_floor"]  # the tiny model is untrained
    assert "too few" in found["distances"]["held out"]["sampled"]["texture"]
    assert "Near copies: not measurable (8 films are too few" in done.stdout
    assert found["codes"]["held out"]["films"] == HELD_OUT
    assert 0 < found["codes"]["trained on"]["used"] <= 1
    assert found["pairs"]["held out"]["PSNR, dB"][0] < 20
    assert "not measurable at this n" in done.stdout
    assert (out / "sheet.jpg").stat().st_size <= LARGEST_SHEET
    with Image.open(out / "sheet-full.png") as sheet:
        assert sheet.size == (8 * 256, 3 * 256)
    assert len(list(out.glob("sample-*.png"))) == 8
    assert len(list(out.glob("rebuilt-*.png"))) == 4
    refused = CliRunner().invoke(main, ["--films", str(folder), "--model", str(model), "--preset", "better"])
    assert refused.exit_code != 0


def test_films_of_one_name_are_rebuilt_each_and_again_by_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = film_quality_sets.model_of(write_tiny(tmp_path, name="phantom", domain="phantom"))
    made = list[float]()

    def reconstruct(_model: object, image: MedicalImage) -> SimpleNamespace:
        made.append(float(image.pixels.mean()))
        return SimpleNamespace(image=image)

    monkeypatch.setattr(make, "reconstruct", reconstruct)
    units = [np.full((8, 8), grey, np.float32) for grey in (0.25, 0.75)]
    real = replace(pictures("real", units), labels=("IM1", "IM1"))  # PATIENT/IM1.dcm
    for times in (1, 1, 2):
        if times == 2:
            monkeypatch.setattr(film_quality_sets, "CODE", b"changed")
        again = film_quality_sets.rebuilt_pictures(model, real, tmp_path, lambda _: None)
        assert [float(unit.mean()) for unit in again.units] == pytest.approx([0.25, 0.75], abs=0.01)
        assert len(made) == 2 * times


def test_the_steps_of_a_film_add_up_to_its_whole() -> None:
    def work(told: OnStep) -> None:
        sleep(0.01)
        told("film")
        sleep(0.03)
        told("detail")

    found = timed(work)
    assert list(found) == ["whole", "preparation", "film", "detail"]
    wall, *parts = (clock for clock, _ in found.values())
    assert sum(parts) == pytest.approx(wall)
    assert parts[0] >= 0.01
    assert parts[1] >= 0.03
    assert found["whole"][1] < 0.03  # sleep is no work


@pytest.mark.usefixtures("without_st_lpips")
def test_pairs_by_hand_inside_their_masks() -> None:
    rng = np.random.default_rng(0)
    real = [rng.uniform(0.2, 0.8, (176, 192)).astype(np.float32) for _ in range(3)]
    inside = np.zeros((176, 192), bool)
    inside[:, :96] = True
    made = [np.where(inside, unit + 0.1, 0).astype(np.float32) for unit in real]
    found = film_quality_rows.pairs(pictures("a", real, [inside] * 3), pictures("b", made), seed=1)
    assert found["L1, share of the range"] == pytest.approx([0.1], abs=1e-6)  # of 3 patients there is no interval
    assert found["PSNR, dB"] == pytest.approx([20], abs=1e-4)
    assert "ST-LPIPS (VGG, 256 px)" not in found


def test_a_blur_shows_in_the_upper_bands() -> None:
    rng = np.random.default_rng(0)
    real = [rng.normal(size=(256, 256)).astype(np.float32) for _ in range(3)]
    sets = [pictures("real", real), pictures("same", real), pictures("blurred", [gaussian_filter(u, 1) for u in real])]
    found = film_quality_rows.powers(sets, seed=1)
    assert np.array(found["same"])[:, 0] == pytest.approx(1, abs=1e-6)
    ratios = np.array(found["blurred"])[:, 0]
    assert ratios[0] > 0.9
    assert ratios[-1] < 0.01


def test_a_planted_copy_is_counted_and_named() -> None:
    held_out = patients(HELD_OUT, held_out=True)
    whose = [*patients(4, held_out=False), *held_out]
    pixels = np.stack([chest(seed) for seed in range(len(whose))]).astype(np.float32)
    films = FilmSet(
        pixels=pixels,
        films=tuple(
            Film(name=f"{k}.png", patient=patient, label=0, held_out=patient in held_out, field=(0, 0, 256, 256))
            for k, patient in enumerate(whose)
        ),
        spacing_mm=1.68,
    )
    planted = gaussian_filter(pixels[3], 1.0) * 0.9
    made = pictures("made", [(film + 1) / 2 for film in (planted, chest(77))])
    found = film_quality_rows.copies(films, made, pictures("held out", []), None)["made"]
    assert found["near copies"]["found"] == 1
    assert found["nearest"][0] == "3.png"
    assert found["likeness over its limit, median and largest"][1] > 1


@pytest.fixture(scope="module")
def network() -> PlacementNetwork:
    return load_network(TASK)


@pytest.fixture(scope="module")
def film(cxr_file: Path) -> Unit:
    image = read_image(cxr_file)
    return np.asarray(image.display_window().to_unit(image.pixels[0]), dtype=np.float32)[::2, ::2]


def test_anatomy_of_a_real_film_and_of_its_mirror_image(film: Unit, network: PlacementNetwork, tmp_path: Path) -> None:
    mirrored = np.ascontiguousarray(film[:, ::-1])
    store = FeatureCache(tmp_path)
    table = film_structure.table_of(pictures("real", [film, mirrored, np.zeros_like(film)]), network, store)
    real, turned, blank = ({name: table[name][k] for name in film_structure.NAMES} for k in range(3))
    assert film_structure.sound(real)
    assert not film_structure.sound(turned)
    assert not film_structure.sound(blank)
    heart = "heart to the left, share of the lungs' width"
    assert turned[heart] == pytest.approx(-real[heart], abs=0.02)
    assert turned["right lung, cm2"] == pytest.approx(real["left lung, cm2"], rel=0.05)
    assert turned["left lines, order"] == pytest.approx(real["right lines, order"], abs=0.05)
    assert len(list(tmp_path.rglob("*.npy"))) == 3


def test_squiggles_in_place_of_ribs_lower_the_order(film: Unit, network: PlacementNetwork) -> None:
    rng = np.random.default_rng(0)
    band = gaussian_filter(rng.normal(size=film.shape), 2.0) - gaussian_filter(rng.normal(size=film.shape), 6.0)
    spoiled = (film + 0.1 * band / band.std()).astype(np.float32)
    before, after = (film_structure.structure(unit, 0.84, network) for unit in (film, spoiled))
    for name in ("right lines, order", "left lines, order"):
        assert after[name] < 0.8 * before[name]


def test_order_is_one_for_stripes_and_low_for_noise() -> None:
    lung = np.ones((96, 96), bool)
    stripes = np.sin(np.arange(96) / 2)[:, None] * np.ones(96)
    noise = np.random.default_rng(0).normal(size=(96, 96))
    high, low = (film_structure._order(unit.astype(np.float32), lung, 1.5, 5.0, 8.0) for unit in (stripes, noise))
    assert high > 0.99
    assert low < 0.5


def test_comparison_by_hand() -> None:
    known = {name: np.arange(101.0) for name in film_structure.NAMES}
    tested = {"made": {name: np.array([50.0, 96.0, np.nan, 5.0]) for name in film_structure.NAMES}}
    found = film_structure.compare(known, tested)
    assert found.ranges["lung fields"] == (5.0, 95.0)
    assert found.shares["made"]["lung fields"] == 0.5  # what can't be measured is not in the range
    assert found.medians["made"]["lung fields"] == 50.0
    assert found.sound["made"] == 0
    assert "| 50.00 (50%) |" in film_structure.markdown(found)
