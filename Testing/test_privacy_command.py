"""`privacy check` on folders as users have them, and a near copy that is taken as a background only when accepted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

from HiResMedSynthLib import weights
from HiResMedSynthLib.case_file import read_case
from HiResMedSynthLib.export.image_file import write_image_file
from HiResMedSynthLib.image import MedicalImage, Window
from HiResMedSynthLib.privacy import KIND, describe, write_descriptors
from HiResMedSynthLib.privacy_record import ACCEPTED, NEAR_COPY, is_near_copy
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.synthetic_words import HOLDS_COMPOSED
from HiResMedSynthLib.weights import Card
from Testing.background.tiny_cascade import add_tiny
from Testing.planted_copies import CHANGES, Pixels
from Testing.test_cli import run
from Testing.test_privacy import chest

CT_SLICE = 6


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with the model `ours` and descriptors of twelve films, and `bare` without any."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.STORE_VARIABLE, str(folder / "models"))
        add_tiny(folder, name="ours")
        add_tiny(folder, name="bare")
        card = Card(name="x", kind=KIND, data="phantoms", licence="CC0-1.0", attribution="nobody")
        found = describe([chest(seed) for seed in range(12)], [chest(1000 + seed) for seed in range(8)])
        write_descriptors(folder / "x.safetensors", found, card)
        weights.add(folder / "x.safetensors", "ours_descriptors")
        yield folder


def save(film: Pixels, path: Path) -> None:
    """PNG tells no pixel spacing; NRRD says 430 mm, the model's whole canvas."""
    grey = np.round((film.clip(-1, 1) + 1) * 32767).astype(np.uint16)
    if path.suffix == ".png":
        Image.fromarray(grey).save(path)
        return
    spacing = (430 / film.shape[0], 430 / film.shape[1])
    image = MedicalImage(pixels=grey[np.newaxis], modality="DX", pixel_spacing_mm=spacing, spacing_source="header")
    write_image_file(image, path, how="a phantom")


@pytest.mark.usefixtures("store")
def test_near_copies_in_a_folder_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    films = tmp_path / "films"
    (films / "more").mkdir(parents=True)
    save(chest(2002), films / "a.nrrd")
    (films / "notes.txt").write_text("no film")
    check = ("privacy", "check", films, "--model", "ours")
    assert run(monkeypatch, *check) == 0
    told = "1 file(s), compared with what ours learned from (12 training images): 0 near copies, 0 not judged"
    assert told in capsys.readouterr().out
    save(CHANGES["rotation"](chest(3), np.random.default_rng(0))[:, ::-1], films / "more" / "b.nrrd")
    assert run(monkeypatch, *check, "--json", tmp_path / "told.json") == 1
    said = capsys.readouterr().out
    assert "NEAR COPY" in next(line for line in said.splitlines() if "ours  more/b.nrrd" in line)
    told = {film["file"]: film for film in json.loads((tmp_path / "told.json").read_text())["films"]}
    assert [told[name]["near_copy"] for name in ("a.nrrd", "more/b.nrrd")] == [False, True]
    assert max(told["more/b.nrrd"]["likeness"]) > 0.5


@pytest.mark.usefixtures("store")
def test_a_training_film_squeezed_to_a_square_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Image.fromarray(chest(4)[16:240, 24:233]).resize((256, 256))  # as ChestX-ray14 comes: no size in mm
    save(np.asarray(inner, dtype=np.float32), tmp_path / "raw.png")
    assert run(monkeypatch, "privacy", "check", tmp_path, "--model", "ours", "--json", tmp_path / "told.json") == 1
    told = json.loads((tmp_path / "told.json").read_text())["films"][0]
    assert told["near_copy"]
    assert max(told["likeness"]) > 0.55


@pytest.mark.usefixtures("store")
def test_a_squeezed_training_film_is_known_whatever_size_it_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in ((4, "learned"), (2002, "other")):  # one pixel is as wide as high, it says: the truth is 4 to 5
        inner = Image.fromarray(chest(seed)[:, 24:232]).resize((256, 256))
        save(np.asarray(inner, dtype=np.float32), tmp_path / f"{name}.nrrd")
    assert run(monkeypatch, "privacy", "check", tmp_path, "--model", "ours") == 1
    learned, other = capsys.readouterr().out.splitlines()[:2]
    assert learned.startswith("NEAR COPY")
    assert other.startswith("no copy")


@pytest.mark.usefixtures("store")
def test_a_ct_slice_is_not_judged_by_a_model_of_films(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ct_series_folder: Path
) -> None:
    slice_file = sorted(ct_series_folder.glob("*.dcm"))[CT_SLICE]
    assert run(monkeypatch, "privacy", "check", slice_file, "--model", "ours") == 1
    assert "it is of modality CT, and what the model knows is chest films only" in capsys.readouterr().out


@pytest.mark.usefixtures("store")
def test_a_ct_slice_saved_as_a_picture_is_compared_with_slices_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ct_series_folder: Path
) -> None:
    """The model of lung CT that ships has learned from this series; a picture doesn't tell what it shows."""
    monkeypatch.setattr("HiResMedSynthLib.cli.privacy_judges.SHARES", (1.0,))  # one layout a film will do
    slices = tmp_path / "slices"
    slices.mkdir()
    image = read_image(ct_series_folder, slice_index=CT_SLICE)
    grey = Window(center=-600, width=1500).to_unit(image.pixels[0])
    Image.fromarray((255 * grey).astype(np.uint8)).save(slices / "a.png")
    shutil.copy(sorted(ct_series_folder.glob("*.dcm"))[CT_SLICE], slices / "b.dcm")
    assert run(monkeypatch, "privacy", "check", slices, "--json", tmp_path / "told.json") == 1
    picture, series, last = capsys.readouterr().out.splitlines()
    assert picture.startswith("NEAR COPY") and "lung-ct  a.png" in picture
    assert series.startswith("NEAR COPY") and "lung-ct  b.dcm" in series
    assert last.startswith("2 file(s), compared with what cxr and lung-ct learned from (157 and 96 training images)")
    told = json.loads((tmp_path / "told.json").read_text())
    assert [model["name"] for model in told["models"]] == ["cxr", "lung-ct"]
    assert [film["model"] for film in told["films"]] == ["lung-ct", "lung-ct"]
    assert run(monkeypatch, "privacy", "check", slices, "--domain", "cxr") == 1  # b.dcm is none of films
    words = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[:2]]
    assert words == [["no", "copy"], ["not", "judged"]]
    assert run(monkeypatch, "privacy", "check", slices, "--model", "ours", "--domain", "lung-ct") == 1
    assert "makes cxr, not lung-ct" in capsys.readouterr().err


@pytest.mark.usefixtures("store")
def test_a_ct_volume_is_compared_slice_by_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ct_series_folder: Path
) -> None:
    """The model of lung CT that ships has learned from this series; a slice of nothing but padding is passed over."""
    image = read_image(ct_series_folder)
    values = image.pixels[CT_SLICE - 1 : CT_SLICE + 2].astype(np.int16)
    values[2] = -3024  # beyond the scan
    volume = sitk.GetImageFromArray(values)
    volume.SetSpacing((*image.spacing_mm[:0:-1], image.spacing_mm[0]))
    sitk.WriteImage(volume, tmp_path / "a.nii.gz")
    assert run(monkeypatch, "privacy", "check", tmp_path, "--json", tmp_path / "told.json") == 1
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("NEAR COPY") and "lung-ct  a.nii.gz  (" in line
    assert "of 2 slices, most of all slice " in line
    told = json.loads((tmp_path / "told.json").read_text())["films"]
    assert [film["model"] for film in told] == ["lung-ct"]
    sitk.WriteImage(volume[:, :, 2:], tmp_path / "a.nii.gz")
    assert run(monkeypatch, "privacy", "check", tmp_path, "--domain", "lung-ct") == 1
    assert capsys.readouterr().out.startswith("not judged")


@pytest.mark.usefixtures("store")
def test_only_images_of_cases_and_data_sets_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ct_series_folder: Path
) -> None:
    monkeypatch.setattr("HiResMedSynthLib.cli.privacy_judges.SHARES", (1.0,))  # one layout a film will do
    report = pydicom.dcmread(next(ct_series_folder.glob("*.dcm")))
    report.SOPClassUID = pydicom.uid.ComprehensiveSRStorage
    case, data_set = tmp_path / "films" / "case", tmp_path / "films" / "set"
    films = (case / "dicom", case / "dicom_background", data_set / "coco" / "images", data_set / "monai" / "train")
    for place in films:
        place.mkdir(parents=True)
        save(chest(2002), place / "film.nrrd")
    for listed in (case / "case.json", data_set / "manifest.csv", data_set / "card.json"):
        listed.write_text("")
    (data_set / "pictures").mkdir()
    others = (case / "preview.png", data_set / "pictures" / "places.png", data_set / "monai/train/film_label.nii.gz")
    for other in others:
        other.write_bytes(b"no film")
    report.save_as(tmp_path / "films" / "report.dcm")
    assert run(monkeypatch, "privacy", "check", tmp_path / "films", "--model", "ours") == 0
    said = capsys.readouterr().out
    assert "4 file(s) that are no image of a patient were passed over" in said
    assert "4 file(s), compared with what ours learned from (12 training images): 0 near copies, 0 not judged" in said


@pytest.mark.usefixtures("store")
def test_a_place_for_verdicts_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(chest(2002), tmp_path / "a.nrrd")
    for place, why in ((tmp_path, "writes .json alone"), (tmp_path / "none" / "told.json", "can't be written there")):
        assert run(monkeypatch, "privacy", "check", tmp_path, "--model", "ours", "--json", place) == 1
        said = capsys.readouterr()
        assert why in said.err
        assert not said.out


@pytest.mark.usefixtures("store")
def test_what_can_not_be_judged_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ct_series_folder: Path
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    check = ("privacy", "check", films, "--model", "ours")
    assert run(monkeypatch, *check) == 1
    assert "holds no film" in capsys.readouterr().err
    (films / "cut.dcm").write_bytes(next(ct_series_folder.glob("*.dcm")).read_bytes()[:700])
    save(np.zeros((64, 64), np.float32), films / "blank.png")
    assert run(monkeypatch, *check) == 1
    assert "0 near copies, 2 not judged" in capsys.readouterr().out
    assert run(monkeypatch, "privacy", "check", tmp_path / "none", "--model", "ours") == 1
    assert "no such file" in capsys.readouterr().err
    assert run(monkeypatch, "privacy", "check", films, "--model", "bare") == 1
    assert "no descriptors" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["dcm", "nrrd"])
def test_a_near_copy_is_a_background_only_when_accepted(
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ct_series_folder: Path,
) -> None:
    image = read_image(ct_series_folder, slice_index=CT_SLICE)
    film, out = tmp_path / f"moved-away.{form}", tmp_path / "case"
    write_image_file(image, film, how=f"a new image; {NEAR_COPY}")
    compose = ("compose", film, "--size-mm", "10:14", "--danger", "rule", "--domain", "lung-ct")
    assert run(monkeypatch, *compose, "--out", out) == 1
    assert "--accept-near-copy" in capsys.readouterr().err
    assert not out.exists()
    assert run(monkeypatch, *compose, "--out", out, "--accept-near-copy", "--pair") == 0
    assert read_case(out).log[0] == ACCEPTED
    assert run(monkeypatch, "compose", film, "--case", out / "case.json", "--out", tmp_path / "again") == 0
    assert read_case(tmp_path / "again").log == read_case(out).log


def test_a_composed_case_is_a_background_only_when_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ct_series_folder: Path
) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    wish = ("--size-mm", "10:14", "--danger", "rule")
    assert run(monkeypatch, "compose", ct_series_folder, "--slice", CT_SLICE, *wish, "--out", first, "--pair") == 0
    assert run(monkeypatch, "compose", first, *wish, "--out", second) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "folder of a composed case" in told
    assert "first/dicom_background" in told.replace(" ", "")
    compose = ("compose", first / "dicom", *wish, "--seed", 1, "--out", second, "--pair")
    assert run(monkeypatch, *compose) == 1
    assert "--accept-composed" in capsys.readouterr().err
    assert not second.exists()
    assert run(monkeypatch, *compose, "--accept-composed") == 0
    assert HOLDS_COMPOSED in capsys.readouterr().err
    assert HOLDS_COMPOSED in read_case(second).background.oddities
    assert run(monkeypatch, "compose", "--case", second / "case.json", "--out", third) == 0
    assert HOLDS_COMPOSED in read_image(second / "dicom_background").oddities, "its pixels hold the first lesions"
    assert HOLDS_COMPOSED not in read_image(first / "dicom_background").oddities


def test_a_folder_and_a_png_say_it_too(tmp_path: Path, cxr_file: Path) -> None:
    film = read_image(cxr_file)
    for name, how in (("copy", f"a new image; {NEAR_COPY}"), ("other", "a new image")):
        (tmp_path / name).mkdir()
        write_image_file(film, tmp_path / name / "film.png", how=how)
    assert is_near_copy(tmp_path / "copy")
    assert is_near_copy(tmp_path / "copy" / "film.png")
    shutil.copy(tmp_path / "copy" / "film.png", tmp_path / "renamed.png")
    assert is_near_copy(tmp_path / "renamed.png")
    assert not is_near_copy(tmp_path / "other")
    assert not is_near_copy(tmp_path / "nowhere")


def test_the_card_of_each_shipped_background_tells_what_its_gate_catches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = [model.card.name for model in weights.models("background") if model.shipped]
    assert set(shipped) == {"cxr", "lung-ct"}
    for name in shipped:
        assert run(monkeypatch, "models", "show", name, "--json") == 0
        gate = json.loads(capsys.readouterr().out)["gate_against_copies"]
        caught, planted = map(int, gate["planted_copies_caught"].split(" (")[0].split(" of "))
        alarms, films = map(int, gate["other_patients_taken_for_copies"].split(" (")[0].split(" of "))
        assert planted >= 600
        assert caught >= 0.995 * planted
        assert alarms <= 0.05 * films
