"""The film network's training material on phantoms: structures of a CT, their films, and what is refused."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from click.testing import CliRunner
from PIL import Image

from HiResMedSynthLib.errors import GeometryError, PlacementError, ReadError
from HiResMedSynthLib.image import MedicalImage
from Testing.placement.phantoms import chest_ct
from Testing.slices import write_slice
from Training.danger_film_data import FilmTask, as_batch, film_loss, plain_projected
from Training.danger_film_looks import apply_look, draw_look, draw_placing
from Training.danger_film_sources import Sources, read_films, read_shapes, read_sources, read_volumes
from Training.danger_film_structures import (
    AIRWAY,
    BODY,
    GRID_MM,
    HEART,
    LUNG,
    PELVIS_AT,
    RIBS,
    SPINE_AT,
    LabelledVolume,
    label_volume,
)
from Training.projected_films import PIXEL_MM, STILL, Projector, draw_view, projected_films
from Training.train_danger import main

SIZE = 64


def bony_chest(slices: int = 20) -> MedicalImage:
    """`chest_ct` with a spine at the back, two ribs a slice, and 10 cm along the body; 5 mm voxels."""
    image = chest_ct(slices, SIZE)
    row, column = np.mgrid[:SIZE, :SIZE].astype(np.float32) * (320.0 / SIZE) - 160.0
    bone = (np.abs(column) < 18) & (row > 45) & (row < 80)
    bone |= (np.abs(np.hypot(column / 140, row / 100) - 0.9) < 0.04) & (np.abs(column) > 60)
    grain = np.where((row / 5).astype(int) % 2 == (column / 5).astype(int) % 2, 300, 900)  # even, it would be blood
    return image.with_pixels(np.where(bone & (image.pixels > -500), grain, image.pixels).astype(np.int16))


@cache
def volume() -> LabelledVolume:
    return label_volume(bony_chest(), patient="phantom")


def test_the_structures_of_a_chest_are_where_they_were_put() -> None:
    found = volume()
    middle = len(found.hu) // 2
    rows, columns = found.hu.shape[1:]

    def at(structure: int, x_mm: float, y_mm: float) -> bool:
        return bool(
            found.masks[structure, middle, round(rows / 2 + y_mm / GRID_MM), round(columns / 2 + x_mm / GRID_MM)]
        )

    assert at(LUNG, -70, 10)
    assert at(LUNG, 70, 10)
    assert at(SPINE_AT, 0, 60)
    assert at(HEART, 0, 10)
    assert not at(HEART, 0, 60)
    assert at(AIRWAY, 0, -20)
    assert at(RIBS, -126, 0)
    assert at(BODY, 0, 90)
    assert not found.masks[PELVIS_AT].any()
    assert not (found.masks[RIBS] & found.masks[SPINE_AT]).any()


def test_what_is_no_volume_is_refused() -> None:
    with pytest.raises(GeometryError, match="no volume"):
        label_volume(bony_chest().single_slice(3), patient="x")
    empty = bony_chest()
    with pytest.raises(PlacementError, match="no body"):
        label_volume(empty.with_pixels(np.full_like(empty.pixels, -1000)), patient="x")


def test_a_film_is_dark_where_lung_is_thick_and_labels_turn_with_it() -> None:
    projector = Projector(volume())
    still = projector.seen(STILL)
    there, sure = still.targets()
    assert still.integral.shape == (round(100 / PIXEL_MM), round(320 / PIXEL_MM))
    body = there[BODY] & ~there[RIBS]
    assert still.integral[there[LUNG] & body].mean() < 0.7 * still.integral[there[HEART] & ~there[SPINE_AT]].mean()
    assert sure[LUNG].mean() > 0.9
    turned = projector.seen(replace(STILL, turn=(0.0, 0.2, 0.0)))
    for film in (still, turned):
        lungs, rest = film.thickness_mm[LUNG] > 80, film.thickness_mm[HEART] > 80
        assert film.integral[lungs].max() < film.integral[rest].max()
    assert np.abs(turned.thickness_mm[LUNG] - still.thickness_mm[LUNG]).max() > 50


def test_views_are_drawn_by_seed_and_kept(tmp_path: Path) -> None:
    first = projected_films(volume(), 2, seed=1, cache=tmp_path)
    again = projected_films(volume(), 2, seed=1, cache=tmp_path)
    other = projected_films(volume(), 2, seed=2)
    assert np.abs(first[1].integral - again[1].integral).max() < 1  # kept as float16
    assert np.abs(first[1].integral - other[1].integral).max() > 1
    denser = replace(volume(), hu=volume().hu + np.float32(50))  # of the same patient, with the same structures
    assert np.abs(projected_films(denser, 2, seed=1, cache=tmp_path)[1].integral - first[1].integral).max() > 1
    assert draw_view(np.random.default_rng(5)).turn == draw_view(np.random.default_rng(5)).turn


def test_a_look_changes_the_grey_and_nothing_else() -> None:
    canvas, _, _ = plain_projected(projected_films(volume(), 1, seed=1)[0])
    for seed in range(12):
        look = draw_look(np.random.default_rng(seed), projected=bool(seed % 2))
        film, covered = apply_look(canvas, look)
        assert film.shape == covered.shape == canvas.shape
        assert np.isfinite(film).all()
        assert np.array_equal(film, apply_look(canvas, look)[0])
        assert covered.any() <= look.border


def test_a_placing_shows_its_box() -> None:
    placing = draw_placing(np.random.default_rng(0), (10.0, 90.0, 20.0, 100.0))
    column, row = placing.grid()
    assert abs(float(row.mean()) - 49.5) < 6
    assert abs(float(column.mean()) - 59.5) < 6


def films_folder(folder: Path, count: int = 3, *, mask: np.ndarray | None = None) -> Path:
    """Films with two dark lungs and their masks."""
    folder.mkdir(parents=True)
    row, column = np.mgrid[:96, :96]
    lungs = np.zeros((96, 96), np.uint8)
    lungs[((column - 28) / 14) ** 2 + ((row - 48) / 30) ** 2 < 1] = 1
    lungs[((column - 68) / 14) ** 2 + ((row - 48) / 30) ** 2 < 1] = 2
    lungs[40:44, 66:70] = 3
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(["file", "patient_id", "view", "lung_mask"])
        for number in range(count):
            Image.fromarray(np.where(lungs > 0, 60, 200).astype(np.uint8)).save(folder / f"{number}.png")
            Image.fromarray(lungs if mask is None else mask).save(folder / f"{number}_mask.png")
            writer.writerow([f"{number}.png", f"p{number}", "PA", f"{number}_mask.png"])
    return folder


def test_a_real_film_says_only_what_its_mask_knows(tmp_path: Path) -> None:
    film = read_films(films_folder(tmp_path / "films"), None)[0]
    lungs = film.there[LUNG]
    assert lungs.any()
    assert not film.sure[LUNG].all()  # label 3
    assert not film.sure[[RIBS, HEART, AIRWAY]].any()
    assert (film.sure[SPINE_AT] <= lungs).all()
    assert not film.there[PELVIS_AT].any()


def test_hearts_of_people_with_like_lungs_are_lent(tmp_path: Path) -> None:
    row, column = np.mgrid[:256, :256]
    person = np.zeros((256, 256), np.uint8)
    person[((column - 75) / 37) ** 2 + ((row - 128) / 80) ** 2 < 1] |= 1
    person[((column - 181) / 37) ** 2 + ((row - 128) / 80) ** 2 < 1] |= 2
    person[(np.abs(column - 135) < 30) & (np.abs(row - 150) < 45)] |= 4
    person[(np.abs(column - 128) < 6) & (row < 110) & (row > 60)] |= 8
    np.savez(tmp_path / "covid_cxr_bitmasks_256.npz", masks=np.stack([person] * 3))
    film = read_films(films_folder(tmp_path / "films"), read_shapes(tmp_path / "covid_cxr_bitmasks_256.npz"))[0]
    heart = film.there[HEART]
    assert heart.any()
    assert not heart[: heart.shape[0] // 3].any()
    assert film.sure[HEART].mean() > 0.5
    assert film.there[AIRWAY].any()


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.full((96, 90), 1, np.uint8), "its mask"),
        (np.full((96, 96), 7, np.uint8), "no class"),
        (np.full((96, 96), 3, np.uint8), "no lung"),
    ],
)
def test_masks_that_cannot_be_are_refused(tmp_path: Path, mask: np.ndarray, words: str) -> None:
    with pytest.raises(ReadError, match=words):
        read_films(films_folder(tmp_path / "films", mask=mask), None)


def test_splits_that_cannot_be_are_refused(tmp_path: Path) -> None:
    one = read_sources([films_folder(tmp_path / "one", 1)])
    with pytest.raises(ReadError, match="one patient"):
        FilmTask(one, batch=1, hold_out=(), seed=1)
    some = read_sources([films_folder(tmp_path / "some")])
    with pytest.raises(ReadError, match="nobody here is called x"):
        FilmTask(some, batch=1, hold_out=("x",), seed=1)
    with pytest.raises(ReadError, match="empty"):
        FilmTask(some, batch=1, hold_out=("some",), seed=1)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ReadError, match="10 cm"):
        read_sources([tmp_path / "nothing"])


def test_batches_follow_the_generator_alone(tmp_path: Path) -> None:
    films = read_sources([films_folder(tmp_path / "films")]).films
    task = FilmTask(
        Sources(films=films, volumes=(volume(),), folders=("ct",)), batch=3, hold_out=("p1",), seed=1, views=2
    )
    one, same, other = (task.train_batch(np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert torch.equal(one.picture, same.picture)
    assert torch.equal(one.targets["sure"], same.targets["sure"])
    assert not torch.equal(one.picture, other.picture)
    assert one.picture.shape[1:] == (2, 192, 192)
    assert task.counts["real films held out"] == 1
    assert [batch.picture.shape[0] for batch in task.measured_batches(held_out=True)] == [1]


def test_what_is_not_known_costs_nothing() -> None:
    film, there, sure = plain_projected(projected_films(volume(), 1, seed=1)[0])
    batch = as_batch([(film, there, sure)])
    right = torch.where(batch.targets["there"], 9.0, -9.0)
    wrong_where_unsure = torch.where(batch.targets["sure"], right, -right)
    loss = film_loss(right, batch.targets["there"], batch.targets["sure"])
    assert float(loss) < 0.01
    assert float(film_loss(wrong_where_unsure, batch.targets["there"], batch.targets["sure"])) == pytest.approx(
        float(loss)
    )
    assert float(film_loss(-right, batch.targets["there"], batch.targets["sure"])) > 5


def test_the_trainer_takes_films_and_ct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("Training.danger_film_data.VIEWS", 2)
    ct = tmp_path / "ct"
    ct.mkdir()
    image = sitk.GetImageFromArray(bony_chest().pixels)
    image.SetSpacing((5.0, 5.0, 5.0))
    sitk.WriteImage(image, str(ct / "someone_ct.nrrd"))
    for number in range(20):  # two patients' series and a scout of each in one flat folder, as a PACS gives them
        for patient in ("A", "B"):
            stored = (bony_chest().pixels[number] + 1024).clip(0, 4095).astype(np.uint16)
            told = {"PatientID": patient, "SeriesInstanceUID": f"1.2.{ord(patient)}", "PixelSpacing": [5, 5]}
            place = {"ImagePositionPatient": [0, 0, 5.0 * number], "InstanceNumber": number + 1, "SliceThickness": 5}
            write_slice(
                ct / f"{patient}{number}", stored, SOPInstanceUID=f"1.3.{ord(patient)}.{number}", **told, **place
            )
            if number == 0:
                told["SeriesInstanceUID"] = f"1.2.{ord(patient)}.1"
                write_slice(ct / f"{patient}scout", stored, SOPInstanceUID=f"1.4.{ord(patient)}", **told)
    assert sorted(found.patient for found in read_volumes(ct)) == ["A", "B", "someone"]
    arguments = ["--domain", "film", "--data", str(films_folder(tmp_path / "films")), "--hold-out", "p1"]
    result = CliRunner().invoke(main, [*arguments, "--preset", "danger_tiny", "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "report.html").is_file()
    (tmp_path / "bare").mkdir()
    with pytest.raises(ReadError, match=r"No film with labels was found.*classes\.json.*lung_mask"):
        read_sources([tmp_path / "bare"])
