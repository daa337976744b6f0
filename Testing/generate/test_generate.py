"""`generate` as a user meets it, with an untrained model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from HiResMedSynthLib import weights
from HiResMedSynthLib.background import make
from HiResMedSynthLib.background.find_model import BackgroundModel
from HiResMedSynthLib.placement.domain import guess_domain
from HiResMedSynthLib.privacy import KIND, describe, write_descriptors
from HiResMedSynthLib.privacy_record import is_near_copy
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.weights import Card
from Testing.background.tiny_cascade import write_tiny
from Testing.generate.calls import generate
from Testing.test_architecture import heavy_modules_after
from Testing.test_cli import run


def test_films_are_marked_dicom_of_nobody_with_their_spacing(made: Path, model: BackgroundModel) -> None:
    assert sorted(path.name for path in made.iterdir()) == [
        "cxr-0005.dcm", "cxr-0006.dcm", "cxr-0007.dcm", "generated.json", "sheet.png",
    ]  # fmt: skip
    data = [pydicom.dcmread(path) for path in sorted(made.glob("*.dcm"))]
    for one in data:
        assert one.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
        assert one.SyntheticData == "YES"
        assert one.PatientIdentityRemoved == "YES"
        assert one.BurnedInAnnotation == "NO"
        assert one.DerivationDescription.startswith("SYNTHETIC: a new image by the model ours")
        assert "trained model" in one.ContributingEquipmentSequence[0].ContributionDescription
        assert (one.PatientSex, one.BodyPartExamined, one.ViewPosition) == ("F", "CHEST", "PA")
        assert str(one.PatientName).startswith("SYNTHETIC^")
        assert [float(value) for value in one.PixelSpacing] == pytest.approx([1.68, 1.68])
    assert len({one.PatientID for one in data}) == 3
    image = read_image(made / "cxr-0006.dcm")
    assert guess_domain(image) == "cxr"
    assert image.pixel_spacing_mm == pytest.approx((1.68, 1.68))
    np.testing.assert_array_equal(image.pixels, make.generate(model, seed=6, sex="F").image.pixels)


def test_the_record_tells_how_to_make_them_again(made: Path, model: BackgroundModel) -> None:
    record = json.loads((made / "generated.json").read_text())
    assert record["synthetic"] is True
    assert record["model"] == {"name": "ours", "sha256": model.sha256}
    assert [(one["file"], one["seed"], one["sex"]) for one in record["images"]] == [
        (f"cxr-{seed:04d}.dcm", seed, "F") for seed in (5, 6, 7)
    ]
    assert record["copies_looked_for"] is False
    assert (record["device"], record["precision"]) == ("cpu", "float32")
    assert {"hiresmedsynth", "torch", "numpy"} <= set(record["versions"])
    assert str(made) not in json.dumps(record)
    with Image.open(made / "sheet.png") as sheet:
        assert sheet.width > 3 * 380


def test_a_film_is_the_same_in_every_format_and_whatever_the_count(
    made: Path, tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    film = read_image(made / "cxr-0007.dcm")
    for form in ("png", "nrrd"):
        assert generate(patch, tmp_path / form, "--seed", 7, "--sex", "F", "--format", form) == 0
        again = read_image(tmp_path / form / f"cxr-0007.{form}")
        np.testing.assert_array_equal(again.pixels, film.pixels)
    assert again.pixel_spacing_mm == pytest.approx((1.68, 1.68))
    assert b"SYNTHETIC" in (tmp_path / "nrrd" / "cxr-0007.nrrd").read_bytes()
    with Image.open(tmp_path / "png" / "cxr-0007.png") as picture:
        assert "SYNTHETIC" in picture.info["Description"]


def test_a_lung_slice_has_hounsfield_units(
    tmp_path: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(patch, "generate", "--model", "our-ct", "--out", tmp_path / "a") == 0
    assert "few patients" in capsys.readouterr().err
    image = read_image(tmp_path / "a" / "lung-ct-0000.dcm")
    assert (image.units, image.modality) == ("HU", "CT")
    assert run(patch, "generate", "--model", "our-ct", "--format", "png", "--out", tmp_path / "b") == 1
    assert "Hounsfield" in capsys.readouterr().err


def test_near_copies_are_drawn_again_and_told(
    tmp_path: Path, patch: pytest.MonkeyPatch, model: BackgroundModel, capsys: pytest.CaptureFixture[str]
) -> None:
    """The film of seed 5 was planted among the training films."""
    learned, others = (
        [make.generate(model, seed=seed, size=32).coarse for seed in seeds] for seeds in ((5, 90, 91), range(100, 109))
    )
    descriptors = describe(learned, others)
    card = Card(name="x", kind=KIND, data="noise", licence="CC0-1.0", attribution="nobody")
    write_descriptors(tmp_path / "x.safetensors", descriptors, card)
    weights.add(tmp_path / "x.safetensors", "ours_descriptors")
    try:
        common = ("--seed", 5, "--size", 64)
        assert generate(patch, tmp_path / "a", *common) == 0
        said = capsys.readouterr()
        assert "seed 5 was drawn again: the whole of it resembles a training image" in said.err
        assert "1 near copies" in said.out
        assert generate(patch, tmp_path / "b", *common, "--keep-copies") == 0
        assert "seed 5 is near a training image" in capsys.readouterr().err
    finally:
        weights.remove("ours_descriptors")
    first, kept = (json.loads((tmp_path / name / "generated.json").read_text())["images"][0] for name in "ab")
    assert (len(first["redrawn"]), first["near_copy"], kept["redrawn"], kept["near_copy"]) == (1, False, [], True)
    assert kept["likeness_to_training_film"][-1] > 0.8 > first["likeness_to_training_film"][-1]
    assert [is_near_copy(tmp_path / name / "cxr-0005.dcm") for name in "ab"] == [False, True]
    assert "drawn again 1 time" in pydicom.dcmread(tmp_path / "a" / "cxr-0005.dcm").DerivationDescription
    np.testing.assert_array_equal(
        read_image(tmp_path / "b" / "cxr-0005.dcm").pixels, make.generate(model, seed=5, size=64).image.pixels
    )


def test_a_film_is_varied(made: Path, tmp_path: Path, patch: pytest.MonkeyPatch, cxr_file: Path) -> None:
    common = ("--like", cxr_file, "--spacing-mm", "0.342,0.4175")
    assert generate(patch, tmp_path / "a", *common, "--strength", 0.5, "--count", 2) == 0
    images = [read_image(path) for path in sorted((tmp_path / "a").glob("*.dcm"))]
    given = read_image(cxr_file)
    assert images[0].rows == pytest.approx(given.rows * 0.342 / 1.68, abs=1)
    assert images[0].columns == pytest.approx(given.columns * 0.4175 / 1.68, abs=1)
    assert not np.array_equal(images[0].pixels, images[1].pixels)
    record = (tmp_path / "a" / "generated.json").read_text()
    assert json.loads(record)["strength"] == 0.5
    assert str(cxr_file) not in record
    assert "variant (strength 0.5)" in pydicom.dcmread(tmp_path / "a" / "cxr-0000.dcm").DerivationDescription


@pytest.mark.parametrize("domain", ["../escaped", "{folder}/victim"])
def test_a_model_cannot_write_outside_the_folder(
    domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "models"))
    weights.add(write_tiny(tmp_path, name="evil", domain=domain.format(folder=tmp_path)))
    assert run(monkeypatch, "generate", "--model", "evil", "--out", tmp_path / "out", "--size", 32) == 1
    assert "its domain" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.dcm"))


def test_each_image_is_told_by_lines_of_its_own(
    tmp_path: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--model", "our-ct", "--size", 32, "--count", 2)
    assert run(patch, "generate", *common, "--out", tmp_path / "a") == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("[")] == ["[1/2] seed 0 is written", "[2/2] seed 1 is written"]
    patch.setattr("sys.stderr.isatty", lambda: True)
    assert run(patch, "generate", *common, "--out", tmp_path / "b") == 0
    said = capsys.readouterr().err
    assert "\r\x1b[KWARNING: the model learned from few patients" in said  # what stood on the line is cleared first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "nothing"), "no model 'nothing'"),
        (("--domain", "kub"), "no model that makes kub backgrounds"),
        (("--model", "our-ct", "--domain", "cxr"), "makes lung-ct, not cxr"),
        (("--model", "ours", "--strength", "0.3"), "no effect without --like"),
        (("--model", "ours", "--size", "9999"), "size of 9999"),
        (("--model", "ours", "--like", "nowhere.png"), "no such file"),
    ],
)
def test_impossible_calls_are_refused(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    patch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(patch, "generate", *arguments, "--out", tmp_path / "out") == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["generate", "reconstruct"])
def test_help_is_fast_and_has_examples(
    command: str, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(patch, command, "--help") == 0
    said = capsys.readouterr().out
    assert f"hiresmedsynth {command}" in said
    assert "a model of yours" in " ".join(said.split())
    assert command == "reconstruct" or "CT slices" not in said
    assert heavy_modules_after(f"import HiResMedSynthLib.cli.{command}") == set()
