"""Films of a site's own folder: DICOM of any depth, unknown spacing, damaged files."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.patient_split import held_out_by_rule
from Testing.slices import DX, SECONDARY, write_slice
from Training.film_data import NEEDED, Film, FilmSet, load_films
from Training.folder_of_images import identity

TRAINING = [name for name in map(str, range(60)) if not held_out_by_rule(name)]
HELD_OUT = [name for name in map(str, range(60)) if held_out_by_rule(name)]


def chest(rows: int = 96, columns: int = 80, *, seed: int = 0) -> NDArray[np.uint16]:
    """A film of two dark lungs, the left one smaller, 12 bits."""
    row, column = np.mgrid[0:rows, 0:columns] / np.array([rows, columns])[:, None, None]
    lungs = np.exp(-(((column - 0.3) / 0.15) ** 2)) + 0.6 * np.exp(-(((column - 0.72) / 0.1) ** 2))
    grey = 3000 - 2200 * lungs * np.sin(np.pi * row) + np.random.default_rng(seed).normal(0, 30, row.shape)
    return np.asarray(grey.clip(0, 4095), dtype=np.uint16)


def write_film(path: Path, patient: str, stored: NDArray[np.uint16], **attributes: object) -> Path:
    given = {
        "PatientID": patient, "PatientSex": "F", "BitsStored": 12, "HighBit": 11, "PixelSpacing": None,
        "ImagerPixelSpacing": [2.0, 2.0], "ImagePositionPatient": None, "ImageOrientationPatient": None,
        "SliceThickness": None, "BodyPartExamined": "CHEST", "ViewPosition": "PA",
    }  # fmt: skip
    return write_slice(path, stored, modality="DX", sop_class=DX, **(given | attributes))


def film(films: FilmSet, name: str) -> tuple[NDArray[np.float32], Film]:
    index = [one.name for one in films.films].index(name)
    return films.pixels[index], films.films[index]


def test_dicom_films_of_any_depth_get_spacing_sex_and_patient(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    write_film(folder / "a" / "b" / "1.dcm", TRAINING[0], chest(96, 80), PatientSex="M")
    write_film(folder / "2", HELD_OUT[0], chest(60, 90), PixelSpacing=[1.0, 1.0])
    films = load_films(folder, tmp_path / "cache", canvas_px=128, spacing_mm=2.0)
    _, deep = film(films, "a/b/1.dcm")
    assert (deep.patient, deep.label, deep.held_out, deep.whole) == (TRAINING[0], 2, False, True)
    assert deep.field == (16, 24, 96, 80)
    _, flat = film(films, "2")
    assert (flat.patient, flat.label, flat.held_out) == (HELD_OUT[0], 1, True)
    assert flat.field[2:] == (30, 45)  # the calibrated Pixel Spacing comes before that of the detector


def test_dicom_films_are_read_in_threads_and_pydicom_is_afterwards_as_before(tmp_path: Path) -> None:
    for patient in (*TRAINING[:4], HELD_OUT[0]):
        write_film(tmp_path / "films" / patient, patient, chest())
    settings = pydicom.config.settings
    before = settings.reading_validation_mode, settings.writing_validation_mode
    assert len(load_films(tmp_path / "films", tmp_path / "cache", canvas_px=64, spacing_mm=2.0).films) == 5
    assert (settings.reading_validation_mode, settings.writing_validation_mode) == before


def test_a_picture_that_was_made_anew_is_read_anew(tmp_path: Path) -> None:
    folder, patients = tmp_path / "my films", (*TRAINING[:2], HELD_OUT[0])
    folder.mkdir()
    rows = "".join(f"a film of {patient}.png,{patient},80,90,2,2\n" for patient in patients)
    (folder / "index.csv").write_text(",".join(NEEDED) + "\n" + rows)
    for patient in patients:
        Image.fromarray(np.uint8(np.indices((90, 80)).sum(axis=0))).save(folder / f"a film of {patient}.png")
    first = load_films(folder, tmp_path / "cache", canvas_px=96, spacing_mm=2.0)
    before = identity(folder)
    (folder / "notes.txt").write_text("not listed")
    assert identity(folder) == before
    Image.fromarray(np.uint8(np.indices((90, 80)).prod(axis=0) % 200)).save(folder / f"a film of {patients[0]}.png")
    assert identity(folder) != before
    again = load_films(folder, tmp_path / "cache", canvas_px=96, spacing_mm=2.0)
    assert not np.array_equal(first.pixels, again.pixels)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    folder, stored = tmp_path / "films", chest()
    write_film(folder / "2.dcm", TRAINING[0], stored)
    inverted = (4095 - stored).astype(np.uint16)
    write_film(folder / "1.dcm", HELD_OUT[0], inverted, PhotometricInterpretation="MONOCHROME1")
    films = load_films(folder, tmp_path / "cache", canvas_px=96, spacing_mm=2.0)
    np.testing.assert_allclose(film(films, "1.dcm")[0], film(films, "2.dcm")[0], atol=2e-3)
    pixels, _ = film(films, "2.dcm")
    assert pixels[48, 8 + 24] < pixels[48, 8 + 40]  # the lung is darker than the mediastinum


def test_what_is_no_frontal_chest_film_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "films"
    write_film(folder / "1.dcm", TRAINING[0], chest())
    write_film(folder / "2.dcm", HELD_OUT[0], chest(), SOPClassUID=SECONDARY, Modality="OT", BodyPartExamined=None)
    write_film(folder / "side.dcm", TRAINING[1], chest(), ViewPosition="LL")
    write_film(folder / "foot.dcm", TRAINING[1], chest(), BodyPartExamined="FOOT")
    write_film(folder / "raw.dcm", TRAINING[1], chest(), PresentationIntentType="FOR PROCESSING")
    write_slice(folder / "ct.dcm", chest(), PatientID=TRAINING[1])
    (folder / "note.txt").write_text("no picture")
    films = load_films(folder, tmp_path / "cache", canvas_px=96, spacing_mm=2.0)
    assert sorted(one.name for one in films.films) == ["1.dcm", "2.dcm"]
    told = capsys.readouterr().err
    for reason in ("lateral view", "body part FOOT", "FOR PROCESSING", "modality CT"):
        assert f"1 DICOM file(s) left out: {reason}" in told or f"({reason})" in told, reason


def test_film_of_unknown_spacing_fills_the_canvas_and_is_not_whole(tmp_path: Path, cxr_file: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    shutil.copy(cxr_file, folder / "real.dcm")
    write_film(folder / "1.dcm", TRAINING[0], chest(90, 60), ImagerPixelSpacing=None)
    write_film(folder / "2.dcm", HELD_OUT[0], chest())
    films = load_films(folder, tmp_path / "cache", canvas_px=120, spacing_mm=2.0)
    assert (film(films, "real.dcm")[1].whole, film(films, "real.dcm")[1].field) == (False, (0, 0, 120, 120))
    assert (film(films, "1.dcm")[1].whole, film(films, "1.dcm")[1].field) == (False, (0, 20, 120, 80))
    assert film(films, "2.dcm")[1].whole


def test_border_that_the_detector_did_not_see_is_no_field(tmp_path: Path) -> None:
    folder, stored = tmp_path / "films", np.zeros((100, 90), dtype=np.uint16)
    stored[4:, 10:] = np.maximum(chest(96, 80), 1)
    write_film(folder / "1.dcm", TRAINING[0], stored, PixelPaddingValue=0)
    write_film(folder / "2.dcm", HELD_OUT[0], chest(96, 80))
    films = load_films(folder, tmp_path / "cache", canvas_px=100, spacing_mm=2.0)
    np.testing.assert_allclose(film(films, "1.dcm")[0], film(films, "2.dcm")[0], atol=2e-3)


def test_damaged_films_are_named_and_skipped_unless_most_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "films"
    for patient in (*TRAINING[:2], HELD_OUT[0]):
        write_film(folder / f"{patient}.dcm", patient, chest())
    cut = write_film(folder / "cut.dcm", TRAINING[3], chest())
    cut.write_bytes(cut.read_bytes()[:-5000])
    blank = np.full((80, 80), 7, dtype=np.uint16)
    write_film(folder / "blank.dcm", TRAINING[3], blank)
    films = load_films(folder, tmp_path / "cache", canvas_px=96, spacing_mm=2.0)
    assert {one.patient for one in films.films} == {*TRAINING[:2], HELD_OUT[0]}
    told = capsys.readouterr().err
    assert "cut.dcm" in told
    assert "blank.dcm is blank" in told
    assert "2 of 5 files" in told
    for number in range(2):
        (folder / f"junk{number}.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 300)
    with pytest.raises(ReadError, match="4 of 7 files"):
        load_films(folder, tmp_path / "cache", canvas_px=96, spacing_mm=2.0)


def test_folder_without_films_is_refused(tmp_path: Path) -> None:
    write_slice(tmp_path / "films" / "ct.dcm", chest(), PatientID="1")
    with pytest.raises(ReadError, match="no DICOM chest film"):
        load_films(tmp_path / "films", tmp_path / "cache", canvas_px=96, spacing_mm=2.0)
    with pytest.raises(ReadError, match="no such folder"):
        load_films(tmp_path / "absent", tmp_path / "cache", canvas_px=96, spacing_mm=2.0)


def write_index(folder: Path, *rows: dict[str, object]) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as lines:
        table = csv.DictWriter(lines, [*NEEDED, "sex"], restval="")
        table.writeheader()
        for row in rows:
            table.writerow(row)
            if not (folder / str(row["image"])).exists():
                Image.fromarray((chest(90, 90) >> 4).astype(np.uint8)).save(folder / str(row["image"]))


def test_index_without_spacing_makes_films_for_crops_and_needs_no_dicom_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for absent in ("pydicom", "SimpleITK"):
        monkeypatch.setitem(sys.modules, absent, None)
    known = {"orig_width": 180, "orig_height": 90, "orig_spacing_x_mm": 1, "orig_spacing_y_mm": 1}
    write_index(
        tmp_path / "films",
        {"image": "1.png", "patient_id": TRAINING[0], "sex": "m"},
        {"image": "2.png", "patient_id": HELD_OUT[0], "orig_width": 100, "orig_height": 200},
        {"image": "3.png", "patient_id": TRAINING[1], **known},
    )
    films = load_films(tmp_path / "films", tmp_path / "cache", canvas_px=120, spacing_mm=2.0)
    assert [one.whole for one in films.films] == [False, False, True]
    assert [one.field for one in films.films] == [(0, 0, 120, 120), (0, 30, 120, 60), (37, 15, 45, 90)]
    assert [one.label for one in films.films] == [2, 0, 0]


def test_list_cached_before_unknown_spacing_was_known_still_loads(tmp_path: Path) -> None:
    known = {"orig_width": 180, "orig_height": 90, "orig_spacing_x_mm": 1, "orig_spacing_y_mm": 1}
    write_index(
        tmp_path / "films", *({"image": f"{p}.png", "patient_id": p, **known} for p in (TRAINING[0], HELD_OUT[0]))
    )
    first = load_films(tmp_path / "films", tmp_path / "cache", canvas_px=96, spacing_mm=2.0)
    (cached,) = (tmp_path / "cache").glob("*.json")
    old = [
        {k: v for k, v in entry.items() if k not in ("whole", "spacing_mm")} for entry in json.loads(cached.read_text())
    ]
    cached.write_text(json.dumps(old))
    assert load_films(tmp_path / "films", tmp_path / "cache", canvas_px=96, spacing_mm=2.0).films == first.films


def test_line_of_impossible_size_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = {"orig_width": 180, "orig_height": 90, "orig_spacing_x_mm": 1, "orig_spacing_y_mm": 1}
    bad = [{"orig_spacing_x_mm": "-1"}, {"orig_width": "wide"}, {"orig_height": "0"}, {"orig_spacing_y_mm": "nan"}]
    good = [{"image": f"{p}.png", "patient_id": p, **known} for p in (*TRAINING[:4], HELD_OUT[0])]
    rows = [{"image": f"bad{k}.png", "patient_id": "x", **known, **wrong} for k, wrong in enumerate(bad)]
    write_index(tmp_path / "films", *good, *rows)
    films = load_films(tmp_path / "films", tmp_path / "cache", canvas_px=96, spacing_mm=2.0)
    assert len(films.films) == 5
    told = capsys.readouterr().err
    assert all(f"bad{k}.png" in told for k in range(4))
    assert "4 of 9 files" in told
