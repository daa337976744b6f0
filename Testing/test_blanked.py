"""Boxes blanked while reading: gone before anything is drawn, recorded in the case, and replay still works."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner

from HiResMedSynthLib.case_file import read_case
from HiResMedSynthLib.cli.main import cli
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.export.burned_in import burned_in_warning
from HiResMedSynthLib.export.folder import export
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.read_blanked import with_blanked_boxes
from Testing.export.cases import composition_in, ct_image, film_image
from Testing.slices import DX, write_slice

BOX = (2, 3, 6, 20)


def text_film(path: Path, **attributes: str | None) -> Path:
    """A film with bright "text" in BOX."""
    stored = np.random.default_rng(2).integers(100, 3000, (40, 48)).astype(np.uint16)
    stored[BOX[0] : BOX[2], BOX[1] : BOX[3]] = 4000
    return write_slice(path, stored, modality="DX", sop_class=DX, BitsStored=12, HighBit=11,
                       ImagerPixelSpacing=[0.2, 0.2], SliceThickness=None, **attributes)  # fmt: skip


def test_a_blanked_box_is_black_everywhere_and_the_case_replays(tmp_path: Path) -> None:
    source = text_film(tmp_path / "film.dcm", BurnedInAnnotation="YES")
    image = read_image(source, blank=[BOX])
    composition = composition_in(image)
    exported = export(composition, tmp_path / "case", pair=True)
    assert any("box(es) blanked" in warning for warning in exported.warnings)
    for name in ("dicom", "dicom_background"):
        data = pydicom.dcmread(tmp_path / "case" / name / "IM0001.dcm")
        assert data.BurnedInAnnotation == "NO"
        assert data.pixel_array.max() < 4000
    assert np.array_equal(image.pixels[0, BOX[0] : BOX[2], BOX[1] : BOX[3]], np.full((4, 17), image.pixels.min()))
    assert json.loads((tmp_path / "case" / "case.json").read_text())["background"]["blanked"] == [list(BOX)]
    case = read_case(tmp_path / "case")
    for path in (source, tmp_path / "case" / "dicom_background"):  # what was drawn on, and what was written of it
        again = compose(read_image(path, blank=case.background.blanked), case)
        assert np.array_equal(again.image.pixels, composition.image.pixels)
    assert case.problem_with(read_image(source)) == "the pixels differ"


def test_blanking_is_dark_where_low_values_are_bright_and_changes_nothing_else() -> None:
    image = film_image(photometric="MONOCHROME1")
    blanked = with_blanked_boxes(image, [BOX, (30, 40, 40, 48)])
    assert (blanked.pixels[0, 30:40, 40:48] == image.pixels.max()).all()
    outside = np.ones(image.shape, dtype=np.bool_)
    outside[:, BOX[0] : BOX[2], BOX[1] : BOX[3]] = False
    outside[:, 30:40, 40:48] = False
    assert np.array_equal(blanked.pixels[outside], image.pixels[outside])
    assert with_blanked_boxes(image, []) is image


@pytest.mark.parametrize("box", [(0, 0, 41, 10), (5, 5, 5, 9), (-1, 0, 4, 4), (9, 9, 3, 20)])
def test_a_box_that_is_empty_or_outside_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(SettingsError, match="not inside"):
        with_blanked_boxes(film_image(), [box])


@pytest.mark.parametrize(
    ("told", "said", "written"), [("YES", "is burned into", "YES"), (None, "nobody says", "YES"), ("NO", None, "NO")]
)
def test_burned_in_text_is_warned_of_and_the_own_tag_is_careful(
    told: str | None, said: str | None, written: str, tmp_path: Path
) -> None:
    image = read_image(text_film(tmp_path / "film.dcm", BurnedInAnnotation=told))
    exported = export(composition_in(image), tmp_path / "case")
    assert [said in note for note in exported.warnings if said] == ([True] if said else [])
    assert bool(exported.warnings) == (said is not None)
    assert pydicom.dcmread(tmp_path / "case" / "dicom" / "IM0001.dcm").BurnedInAnnotation == written
    kept = json.loads((tmp_path / "case" / "case.json").read_text())["background"]["oddities"]
    assert any("burned into" in oddity for oddity in kept) == (said is not None)


def test_a_ct_series_that_says_nothing_is_not_warned_of() -> None:
    assert burned_in_warning(ct_image()) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mask-box", "0,0,2.5,9"], "whole numbers"),
        (["--mask-box", "0,0,9,9", "--case", "case.json"], "--mask-box would have no effect beside --case"),
        (["--watermark", "--case", "case.json"], "--watermark would have no effect beside --case"),
    ],
)
def test_options_that_cannot_be_are_refused_before_any_work(options: list[str], said: str, tmp_path: Path) -> None:
    film = text_film(tmp_path / "film.dcm")
    run = CliRunner().invoke(cli, ["compose", str(film), "--out", str(tmp_path / "out"), *options])
    assert said in str(run.exception)
    assert not (tmp_path / "out").exists()
