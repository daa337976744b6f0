"""A chest film that is no upright frontal one: said in so many words, wherever it is used, and not refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.film_view import abdomen_warnings, doubts_about, view_warnings
from HiResMedSynthLib.read import read_image
from Testing.test_cli import FILM, run

UPSIDE_DOWN = "upside down"


@pytest.fixture(scope="module")
def film(cxr_file: Path) -> MedicalImage:
    return read_image(cxr_file, spacing_mm=(0.342, 0.4175))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_film_that_stands_on_its_head_is_noticed(film: MedicalImage, mirrored: bool, inverted: bool) -> None:
    pixels = film.pixels[:, :, ::-1] if mirrored else film.pixels
    pixels = pixels.max() - pixels if inverted else pixels
    kind = {"photometric": "MONOCHROME1" if film.bright_is_dense else "MONOCHROME2"} if inverted else {}
    upright = replace(film, pixels=np.ascontiguousarray(pixels), **kind)
    assert view_warnings(upright) == ()
    for wrong in (pixels[:, ::-1], pixels[:, ::-1, ::-1]):  # flipped, turned: only the side marker tells which
        (told,) = view_warnings(upright.with_pixels(np.ascontiguousarray(wrong)))
        assert f"{UPSIDE_DOWN}: turned or flipped; check the side marker" in told


def test_a_view_that_the_header_tells_is_noticed(film: MedicalImage) -> None:
    for view, words in (("LL", "a lateral view (LL)"), ("RAO", "an oblique view (RAO)")):
        (told,) = view_warnings(replace(film, facts=replace(film.facts, view_position=view)))
        assert words in told
    for view in (None, "PA", "AP"):
        assert view_warnings(replace(film, facts=replace(film.facts, view_position=view))) == ()


def test_commands_say_it_and_the_case_keeps_it(
    cxr_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pydicom.dcmread(cxr_file)
    data.decompress()
    data.PixelData = np.ascontiguousarray(data.pixel_array[::-1]).tobytes()
    data.ViewPosition = "LL"
    data.save_as(tmp_path / "turned.dcm")
    out = ("--out", tmp_path / "case", "--fusion", "alpha", "--size-mm", "12:15", "--danger", "rule")
    assert run(monkeypatch, "compose", tmp_path / "turned.dcm", *FILM, *out) == 0
    case = json.loads((tmp_path / "case" / "case.json").read_text())
    assert run(monkeypatch, "candidates", tmp_path / "turned.dcm", *FILM, "-k", 1, "--danger", "rule") == 0
    said = capsys.readouterr()
    for words in ("a lateral view (LL)", UPSIDE_DOWN):
        assert said.err.count(words) == 2  # of both commands
        assert any(words in oddity for oddity in case["background"]["oddities"])


def test_inspect_tells_it_of_chest_films_alone(
    film: MedicalImage,
    cxr_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    header = pydicom.dcmread(cxr_file)
    header.ViewPosition = "LL"
    header.save_as(tmp_path / "side.dcm")
    run(monkeypatch, "inspect", tmp_path / "side.dcm")
    assert "a lateral view (LL)" in capsys.readouterr().out
    assert doubts_about(replace(film, modality="OT")) == ()
    assert doubts_about(replace(film, pixel_spacing_mm=None, spacing_source="unknown")) == ()


def test_a_chest_film_taken_for_an_abdomen_is_noticed_by_its_look_and_its_header(
    film: MedicalImage, cxr_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    wished = ("danger", cxr_file, *FILM, "--domain", "kub", "--danger", "rule", "--out", tmp_path / "danger.nrrd")
    assert run(monkeypatch, *wished) == 0
    assert "this film looks like a chest film: it is taken for an abdominal one (kub)" in capsys.readouterr().err
    grain = np.random.default_rng(0).permutation(film.pixels.ravel()).reshape(film.shape)
    belly = film.with_pixels(grain)  # no chest by its look
    assert abdomen_warnings(belly) == ()
    (told,) = abdomen_warnings(replace(belly, facts=replace(belly.facts, body_part_examined="CHEST")))
    assert "by its header this film shows a chest (CHEST)" in told
    assert abdomen_warnings(replace(belly, facts=replace(belly.facts, body_part_examined="ABDOMEN"))) == ()
