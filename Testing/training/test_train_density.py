"""A site's own prior of chest films: what it learns, how far it trusts few places, and its way to `prior`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import CliRunner
from PIL import Image

from HiResMedSynthLib import weights
from HiResMedSynthLib.annotation_check import check_annotations
from HiResMedSynthLib.annotation_report import as_text
from HiResMedSynthLib.cli.main import cli
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.placement.film_density import BINS, box_shares, load_density, lung_bins
from HiResMedSynthLib.placement.location import FLOOR
from HiResMedSynthLib.placement.method import PlacementMethod
from HiResMedSynthLib.placement.network import ENTRY, KIND
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.weights import Card, ModelError, write_model
from Testing.placement.test_danger_network_film import chest_film
from Training.film_density import FilmSites, histogram, learn, nats_by_patient
from Training.train_density import main, measures, read_films

EVEN = np.ones((BINS, BINS))
SPACING = (0.342, 0.4175)


def films(count: int, top: float, bottom: float, *, seed: int = 0, each: int = 1) -> list[FilmSites]:
    """Lesions of patients, anywhere between two heights of lungs that fill their box."""
    rng = np.random.default_rng(seed)
    return [
        FilmSites(
            patient=f"p{k}",
            shares=np.stack([rng.uniform(top, bottom, each), rng.uniform(0.02, 0.98, each)], axis=1),
            lung=EVEN,
        )
        for k in range(count)
    ]


def test_many_films_with_lesions_in_the_apices_teach_apices() -> None:
    found = learn(films(200, 0.0, 0.3), EVEN)
    assert found.own_share >= 0.75
    assert found.density[:8].mean() > 5 * found.density[16:].mean()
    assert found.density.mean() == pytest.approx(1, abs=0.02)
    assert nats_by_patient(found.density, films(50, 0.0, 0.3, seed=9)).mean() > 0.7


def test_films_that_show_nothing_leave_the_shipped_density_as_it_is() -> None:
    found = learn(films(150, 0.0, 1.0), EVEN)
    assert found.own_share <= 0.25
    assert np.abs(found.density - 1).mean() < 0.15


def test_few_patients_cannot_outvote_the_shipped_density_whatever_they_show() -> None:
    found = learn(films(7, 0.0, 0.2, each=30), EVEN)
    assert found.own_share <= 0.07


def test_a_patient_with_many_lesions_counts_as_one() -> None:
    crowd = FilmSites(patient="crowd", shares=np.full((60, 2), 0.9), lung=EVEN)
    others = films(60, 0.0, 0.3)
    density = histogram([*others, crowd], 1.5)
    assert density[:10].sum() > 20 * density[26:].sum()
    assert len(nats_by_patient(density, [*others, crowd])) == 61


def test_what_is_told_of_a_density_is_rarely_better_where_there_is_nothing_to_gain() -> None:
    verdicts = [measures(films(40, 0.0, 1.0, seed=seed), EVEN)["verdict"] for seed in range(20)]
    assert sum(str(verdict).startswith("better") for verdict in verdicts) <= 2
    assert str(measures(films(60, 0.0, 0.3), EVEN)["verdict"]).startswith("better")
    assert "not measurable" in str(measures(films(19, 0.0, 0.3), EVEN)["verdict"])


def test_nats_are_those_of_the_heatmap_in_the_lungs_of_the_film() -> None:
    density, lung = np.ones((BINS, BINS)), np.zeros((BINS, BINS))
    density[:4] = 9.0
    lung[:8] = 2.0
    one = FilmSites(patient="p", shares=np.array([[0.05, 0.5], [0.2, 0.5]]), lung=lung)
    high, low = (value / density.mean() + FLOOR for value in (9.0, 1.0))
    expected = np.log([2 * high / (high + low), 2 * low / (high + low)]).mean()
    assert nats_by_patient(density, [one]) == pytest.approx([expected])


def test_places_are_told_in_the_box_of_the_lungs_to_the_patients_left() -> None:
    image = chest_film(100, 80)
    lungs = np.zeros((100, 80), dtype=bool)
    lungs[20:60, 10:70] = True
    places = np.array([[20.0, 10.0], [59.0, 69.0], [39.5, 24.5]])
    shares = box_shares(image, lungs, places)
    assert shares == pytest.approx(np.array([[0.0125, 0.5 / 60], [0.9875, 1 - 0.5 / 60], [0.5, 0.25]]))
    turned = replace(image, facts=replace(image.facts, patient_orientation=("R", "F")))
    assert box_shares(turned, lungs, places)[:, 1] == pytest.approx(1 - shares[:, 1])
    assert lung_bins(image, lungs).sum() == lungs.sum()


def test_a_model_cannot_have_a_name_that_means_something_else(store: Path) -> None:
    told = CliRunner().invoke(main, ["--data", str(store), "--out", str(store / "run"), "--name", "density"])
    assert told.exit_code == 1
    assert "is a choice of --danger or --prior already" in told.output


@pytest.mark.parametrize("lesion", ["stone", "pneumothorax"])
def test_other_lesions_count_where_they_are_named(site: Path, store: Path, lesion: str) -> None:
    (site / "classes.txt").write_text(f"{lesion}\n")
    try:
        with pytest.raises(SettingsError, match=f"but: {lesion}(.|\n)*--class"):
            read_films(site)
        assert len(read_films(site, [lesion])[0]) == 9
        with pytest.raises(SettingsError, match=f"no film has a 'cyst'(.|\n)*{lesion}"):
            read_films(site, ["cyst"])
        line = next(line for line in as_text(check_annotations(site)).splitlines() if line.startswith("trainers"))
        assert "no nodule or mass" in line
    finally:
        (site / "classes.txt").write_text("nodule\n")


@pytest.fixture(scope="module")
def site(cxr_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine films of nine patients (one film, with noise of its own each), every lesion in the upper third."""
    folder = tmp_path_factory.mktemp("site")
    for part in ("images", "labels"):
        (folder / part).mkdir()
    film = read_image(cxr_file, spacing_mm=SPACING).pixels[0][::2, ::2].astype(np.float32)
    rng, lines = np.random.default_rng(3), ["file,patient,spacing_mm,modality"]
    for number in range(9):
        noisy = film + rng.normal(0, 6, film.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / "images" / f"f{number}.png")
        row, column = rng.uniform(0.2, 0.3), rng.uniform(0.25, 0.3)
        (folder / "labels" / f"f{number}.txt").write_text(f"0 {column:.4f} {row:.4f} 0.04 0.04\n")
        lines.append(f'f{number}.png,p{number},"{2 * SPACING[0]},{2 * SPACING[1]}",DX')
    (folder / "classes.txt").write_text("nodule\n")
    (folder / "patients.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "models"))
    return tmp_path


def test_from_labelled_films_to_a_heatmap(site: Path, store: Path, cxr_file: Path) -> None:
    runner = CliRunner()
    told = runner.invoke(main, ["--data", str(site), "--out", str(store / "run"), "--name", "upper"])
    assert told.exit_code == 0, told.output
    assert "not measurable with fewer than 20 patients" in told.output
    assert Image.open(store / "run" / "density.png").size == (772, 404)
    again = runner.invoke(main, ["--data", str(site), "--out", str(store / "run")])
    assert again.exit_code == 1 and "holds a run" in again.output
    added = runner.invoke(cli, ["models", "add", str(store / "run" / "best.safetensors")])
    assert added.exit_code == 0, added.output
    card = weights.find("upper", KIND).card
    assert card.details == {"task": "location-film"}
    assert not any(f"p{number}" in card.to_json() for number in range(9))

    def upper(prior: str) -> float:
        out = store / f"{prior}.nrrd"
        asked = ["prior", str(cxr_file), "--domain", "cxr", "--spacing-mm", "0.342,0.4175", "--prior", prior]
        assert runner.invoke(cli, [*asked, "--out", str(out)]).exit_code == 0
        heat = sitk.GetArrayFromImage(sitk.ReadImage(str(out)))[0]
        return float(heat[: int(0.33 * len(heat))].sum() / heat.sum())

    assert upper("upper") > upper("density") + 0.005  # nine patients: 9 % of it is theirs

    case = store / "case"
    asked = ["compose", str(cxr_file), "--domain", "cxr", "--spacing-mm", "0.342,0.4175", "--prior", "upper"]
    made = runner.invoke(cli, [*asked, "--out", str(case)])
    assert made.exit_code == 0, made.output
    method = json.loads((case / "case.json").read_text())["placement_method"]
    assert method.endswith("density of the lesions of model upper")


def test_too_few_patients_are_refused_before_anything_is_written(site: Path, store: Path) -> None:
    lines = (site / "patients.csv").read_text().splitlines()
    few = store / "few"
    (few / "images").mkdir(parents=True)
    (few / "labels").mkdir()
    for number in range(4):
        for part, end in (("images", "png"), ("labels", "txt")):
            (few / part / f"f{number}.{end}").write_bytes((site / part / f"f{number}.{end}").read_bytes())
    (few / "classes.txt").write_text("nodule\n")
    (few / "patients.csv").write_text("\n".join(lines[:5]) + "\n")
    told = CliRunner().invoke(main, ["--data", str(few), "--out", str(store / "run")])
    assert told.exit_code == 1
    assert "too few to learn a density" in told.output
    assert not (store / "run").exists()


def write(path: Path, density: np.ndarray) -> None:
    card = Card(name="ours", kind=KIND, data="films", licence="x", attribution="x", details={"task": "location-film"})
    write_model(path, {"density": density}, card, metadata={ENTRY: '{"version": 1, "task": "location-film"}'})


@pytest.mark.parametrize(
    "density", [np.ones((8, 8), np.float32), np.zeros((32, 32), np.float32), -np.ones((32, 32), np.float32)]
)
def test_a_density_that_cannot_be_is_refused(store: Path, density: np.ndarray) -> None:
    write(store / "ours.safetensors", density)
    weights.add(store / "ours.safetensors")
    with pytest.raises(ModelError, match=r"holds no density(.|\n)*train_density"):
        load_density("ours")


def test_it_is_for_chest_films_alone(store: Path) -> None:
    write(store / "ours.safetensors", np.ones((32, 32), np.float32))
    weights.add(store / "ours.safetensors")
    method = PlacementMethod(prior="ours")
    assert method.film_density("cxr") is not None
    assert method.local_factor("cxr") is None
    for domain in ("lung-ct", "kub"):
        with pytest.raises(SettingsError, match="on a chest film, not"):
            method.prior_task(domain)  # type: ignore[arg-type]
