"""`reconstruct` as a user meets it, with an untrained model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest

from HiResMedSynthLib.background.find_model import BackgroundModel
from HiResMedSynthLib.read import read_image
from Testing.test_cli import run


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


def test_bfloat16_makes_nearly_the_same_pictures(
    tmp_path: Path, patch: pytest.MonkeyPatch, cxr_file: Path, model: BackgroundModel
) -> None:
    for precision in ("float32", "bfloat16"):
        told = ("--precision", precision, "--model", "ours", "--seed", 3, "--out")
        assert run(patch, "reconstruct", cxr_file, *told, tmp_path / f"{precision}.png") == 0
        assert run(patch, "generate", "--size", 64, *told, tmp_path / precision, "--format", "png") == 0
        assert json.loads((tmp_path / precision / "generated.json").read_text())["precision"] == precision
    for name in ("{}.png", "{}/cxr-0003.png"):
        here, there = (read_image(tmp_path / name.format(kind)).pixels for kind in ("float32", "bfloat16"))
        assert (here != there).any()
        assert np.abs(here.astype(float) - there).mean() < 0.05 * np.ptp(here)
