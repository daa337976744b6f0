"""`generate` and `reconstruct` as a user meets them, with an untrained model."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from HiResMedSynthLib import weights
from HiResMedSynthLib.background import make
from HiResMedSynthLib.background.cascade import FilmCascade
from HiResMedSynthLib.background.find_model import BackgroundModel
from HiResMedSynthLib.cli import main as command_line
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.placement.domain import guess_domain
from HiResMedSynthLib.privacy import KIND, describe, write_descriptors
from HiResMedSynthLib.privacy_record import is_near_copy
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.weights import Card
from Testing.background.tiny_cascade import add_tiny, write_tiny
from Testing.test_architecture import heavy_modules_after
from Testing.test_cli import run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundModel]:
    """The model `ours`, makes cxr, has no descriptors."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.STORE_VARIABLE, str(folder / "models"))
        patch.setitem(command_line.COMMANDS, "generate", ("generate", "generate_command", "Make backgrounds."))
        patch.setitem(command_line.COMMANDS, "reconstruct", ("reconstruct", "reconstruct_command", "Rebuild one."))
        add_tiny(folder, name="our-ct", domain="lung-ct")
        yield add_tiny(folder, name="ours")


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch, model: BackgroundModel) -> pytest.MonkeyPatch:
    return monkeypatch


def generate(patch: pytest.MonkeyPatch, out: Path, *more: object) -> int:
    return run(patch, "generate", "--model", "ours", "--out", out, *more)


@pytest.fixture(scope="module")
def made(model: BackgroundModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three films of the seeds 5 to 7 as DICOM."""
    out = tmp_path_factory.mktemp("made") / "films"
    with pytest.MonkeyPatch.context() as own:
        assert generate(own, out, "--count", 3, "--seed", 5, "--sex", "F") == 0
    return out


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
        assert "seed 5 was drawn again: likeness" in said.err
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


@pytest.mark.parametrize("whole", [0, 2])
def test_ctrl_c_keeps_whole_files_only(
    whole: int, tmp_path: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_after(patch, whole, KeyboardInterrupt())
    out = tmp_path / "films"
    assert generate(patch, out, "--count", 5) == 130
    said = capsys.readouterr().err
    if whole:
        assert "2 of 5 image(s) are whole" in said
        assert sorted(path.name for path in out.iterdir()) == [
            "cxr-0000.dcm", "cxr-0001.dcm", "generated.json", "sheet.png",
        ]  # fmt: skip
        assert len(json.loads((out / "generated.json").read_text())["images"]) == 2
    else:
        assert "Cancelled" in said
        assert not out.exists()


def test_only_an_earlier_call_is_replaced(
    made: Path, tmp_path: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "films"
    shutil.copytree(made, out)
    assert generate(patch, out, "--size", 32) == 1
    assert "already exists" in capsys.readouterr().err
    (out / "letter.txt").write_text("mine")
    assert generate(patch, out, "--size", 32, "--overwrite") == 1
    assert "letter.txt" in capsys.readouterr().err
    (out / "letter.txt").unlink()
    assert generate(patch, out, "--size", 32, "--overwrite") == 0
    assert [path.name for path in sorted(out.iterdir())] == ["cxr-0000.dcm", "generated.json", "sheet.png"]


def cut_after(patch: pytest.MonkeyPatch, whole: int, error: BaseException) -> None:
    """Lets that many images be made, then raises."""
    real, calls = FilmCascade.finish, []

    def cut(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > whole:
            raise error
        return real(*arguments, **named)

    patch.setattr(FilmCascade, "finish", cut)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [SettingsError("near copies only", remedy="x"), KeyboardInterrupt(), MemoryError()])
def test_what_fails_before_the_first_image_replaces_nothing(
    error: BaseException, made: Path, tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "films"
    shutil.copytree(made, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    cut_after(patch, 0, error)
    assert generate(patch, out, "--size", 32, "--seed", 6, "--overwrite") != 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_what_fails_later_leaves_old_and_new_on_record(
    made: Path, tmp_path: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "films"
    shutil.copytree(made, out)
    with pytest.MonkeyPatch.context() as cut:
        cut_after(cut, 2, SettingsError("near copies only", remedy="x"))
        assert generate(cut, out, "--size", 32, "--seed", 7, "--count", 5, "--overwrite") == 1
    said = capsys.readouterr().err
    assert "near copies only" in said
    assert "Stopped: 2 of 5 image(s) are whole" in said
    assert names_in(out) == [f"cxr-000{seed}.dcm" for seed in (5, 6, 7, 8)] + ["generated.json", "sheet.png"]
    record = json.loads((out / "generated.json").read_text())
    assert [one["seed"] for one in record["images"]] == [7, 8]
    assert record["images_of_an_earlier_call"] == ["cxr-0005.dcm", "cxr-0006.dcm"]
    assert read_image(out / "cxr-0007.dcm").rows == 32
    assert read_image(out / "cxr-0006.dcm").rows == 256
    assert generate(patch, out, "--size", 32, "--overwrite") == 0
    assert names_in(out) == ["cxr-0000.dcm", "generated.json", "sheet.png"]
    assert "images_of_an_earlier_call" not in json.loads((out / "generated.json").read_text())


def test_an_error_in_a_new_folder_leaves_a_record(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    cut_after(patch, 1, SettingsError("near copies only", remedy="x"))
    assert generate(patch, tmp_path / "films", "--size", 32, "--count", 3) == 1
    assert names_in(tmp_path / "films") == ["cxr-0000.dcm", "generated.json", "sheet.png"]


def test_no_image_is_ever_without_its_record(
    tmp_path: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk is full when the second record is to be written; a later call takes up what is there."""
    out, real, records = tmp_path / "films", Path.write_text, []

    def full(path: Path, text: str, **options: Any) -> int:
        if path.suffix == ".json":
            records.append(path)
            if len(records) > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, text, **options)

    with pytest.MonkeyPatch.context() as cut:
        cut.setattr(Path, "write_text", full)
        assert generate(cut, out, "--size", 32, "--count", 3) == 1
    assert "No space left" in capsys.readouterr().err
    assert names_in(out) == ["cxr-0000.dcm", "generated.json"]
    assert [one["file"] for one in json.loads((out / "generated.json").read_text())["images"]] == ["cxr-0000.dcm"]
    (out / ".cxr-0001-0123456789abcdef.dcm").write_bytes(b"cut off")  # as a call leaves it that is killed
    records.clear()
    with pytest.MonkeyPatch.context() as cut:
        cut.setattr(Path, "write_text", full)
        assert generate(cut, out, "--size", 32, "--seed", 4, "--count", 2, "--overwrite") == 1
    record = json.loads((out / "generated.json").read_text())
    assert [one["file"] for one in record["images"]] == ["cxr-0004.dcm"]
    assert record["images_of_an_earlier_call"] == ["cxr-0000.dcm"]  # what was cut off is no image, and is gone
    assert names_in(out) == ["cxr-0000.dcm", "cxr-0004.dcm", "generated.json"]
    assert generate(patch, out, "--size", 32, "--seed", 4, "--overwrite") == 0
    assert names_in(out) == ["cxr-0004.dcm", "generated.json", "sheet.png"]


@pytest.mark.parametrize("there", [False, True])
def test_an_image_that_cannot_take_its_name_leaves_the_record_as_it_was(
    there: bool, tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    """On Windows so where a viewer holds the old one open."""
    out, real = tmp_path / "films", Path.replace
    assert not there or generate(patch, out, "--size", 32, "--sex", "M") == 0
    before = (out / "generated.json").read_bytes() if there else None

    def held(path: Path, target: Path) -> Path:
        if target.suffix == ".dcm":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, target)

    with pytest.MonkeyPatch.context() as cut:
        cut.setattr(Path, "replace", held)
        assert generate(cut, out, "--size", 32, "--sex", "F", "--overwrite") == 1
    assert out.exists() is there
    if there:
        assert (out / "generated.json").read_bytes() == before
        assert names_in(out) == ["cxr-0000.dcm", "generated.json", "sheet.png"]


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


def test_an_image_is_rebuilt_into_one_file(
    tmp_path: Path, patch: pytest.MonkeyPatch, cxr_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = read_image(cxr_file)
    for name in ("a.dcm", "a.png", "a.nrrd"):
        line = ("reconstruct", cxr_file, "--model", "ours", "--seed", 3, "--out", tmp_path / name)
        assert run(patch, *line) == 0
        said = capsys.readouterr()
        assert "rebuilt from its codes" in said.out
        assert "spacing is unknown" in said.err
        back = read_image(tmp_path / name)
        assert back.shape == given.shape
        assert back.pixels.max() <= given.pixels.max()
    data = pydicom.dcmread(tmp_path / "a.dcm")
    source = pydicom.dcmread(cxr_file)
    assert data.SyntheticData == "YES"
    assert data.PatientID != source.PatientID
    assert run(patch, *line) == 1
    assert "already exists" in capsys.readouterr().err
    assert run(patch, *line, "--overwrite") == 0
    assert run(patch, *line[:-1], tmp_path / "a.doc") == 1
    assert [path.name for path in sorted(tmp_path.glob("a*"))] == ["a.dcm", "a.nrrd", "a.png"]


def test_a_ct_into_the_film_model_is_told(
    tmp_path: Path, patch: pytest.MonkeyPatch, ct_series_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ("reconstruct", ct_series_folder, "--model", "ours", "--out", tmp_path / "a.dcm")
    assert run(patch, *line) == 1
    assert "--slice" in capsys.readouterr().err
    assert run(patch, *line, "--slice", 5) == 0
    assert "expect no likeness" in capsys.readouterr().err
    back, given = read_image(tmp_path / "a.dcm"), read_image(ct_series_folder, slice_index=5)
    assert (back.units, back.shape) == ("HU", given.shape)
    assert back.positions_lps_mm == pytest.approx(given.positions_lps_mm)


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


@pytest.mark.usefixtures("patch")
def test_a_ct_slice_goes_to_the_model_of_ct_that_ships(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ct_series_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = (ct_series_folder, "--slice", 5)
    assert run(monkeypatch, "generate", "--like", *one, "--strength", 0.3, "--size", 128, "--out", tmp_path / "a") == 0
    assert json.loads((tmp_path / "a" / "generated.json").read_text())["model"]["name"] == "lung-ct"
    assert "is, or is near to, one that the model learned from" in capsys.readouterr().err
    assert run(monkeypatch, "reconstruct", *one, "--out", tmp_path / "rebuilt.nrrd") == 0
    given = read_image(ct_series_folder, slice_index=5)
    rebuilt, varied = read_image(tmp_path / "rebuilt.nrrd"), read_image(tmp_path / "a" / "lung-ct-0000.dcm")
    assert (varied.units, varied.shape[1:]) == ("HU", (128, 128))
    inside = given.pixels[0] > -1100  # what the scanner saw
    known, again = (image.pixels[0].clip(-1200, 600)[inside] for image in (given, rebuilt))
    assert np.corrcoef(known, again)[0, 1] > 0.8
