"""The location prior's material and trainers: erasing, shams, crops without a hint, a tiny run."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt

from HiResMedSynthLib.errors import PlacementError, ReadError
from HiResMedSynthLib.patient_split import fold_of
from Training import erased_store
from Training.build_location_prior import KUB_BINS, stone_density, stone_places
from Training.erased_pairs import GROWN_MM, RING_MM, erase, erased, paint
from Training.erased_store import load_erased
from Training.location_crops import INNER_MM, SIDE_PX, draw_crop, draw_shams, draw_window, render
from Training.location_data import SIDE, LungPatch, grey_to_hu, load_patches
from Training.train_location import main
from Training.train_yolo import main as train_yolo
from Training.train_yolo import write_crops

SPACING = 0.7
PATIENTS = 12


def picture(seed: int, *, centre: tuple[int, int] = (64, 64)) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """HU and lesion: lung beside a chest wall, one vessel, a round nodule of 5 mm."""
    rng = np.random.default_rng(seed)
    row, column = np.indices((SIDE, SIDE))
    hu = np.full((SIDE, SIDE), -860.0) + rng.normal(0, 20, (SIDE, SIDE))
    hu[:, 112:] = 40
    hu[np.abs(row - 20 - column // 4) < 2] = 20
    lesion = np.hypot(row - centre[0], column - centre[1]) * SPACING < 2.5
    hu[lesion] = 40
    return hu.astype(np.float32), lesion


def patch(seed: int = 0) -> LungPatch:
    hu, lesion = picture(seed)
    lung = np.zeros(hu.shape, dtype=bool)
    lung[:, :112] = True
    return LungPatch(patient_id=f"P{seed}", hu=hu, lung=lung, lesion=lesion, spacing_mm=SPACING)


def write_folder(folder: Path, *, patients: int = PATIENTS, readers: int = 4) -> Path:
    """A folder in the trainer's input format."""
    folder.mkdir(parents=True)
    grey, masks, rows = [], [], []
    for index in range(patients):
        hu, lesion = picture(index)
        grey.append(np.clip((hu + 1024) / 8, 0, 255).astype(np.uint8))
        masks.append(lesion.astype(np.uint8) * readers)
        rows.append({"patient_id": f"P{index}", "sheet": "images_0.png", "row0": 0, "col0": index * SIDE,
                     "pixel_spacing_mm": SPACING})  # fmt: skip
    Image.fromarray(np.concatenate(grey, axis=1)).save(folder / "images_0.png")
    Image.fromarray(np.concatenate(masks, axis=1)).save(folder / "readers_0.png")
    with (folder / "patches.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "patches")


@pytest.fixture(scope="module")
def cache(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache") / "erased.npz"
    load_erased(folder, path, shams=12)
    return path


def run(folder: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["--data", str(folder), "--preset", "location_tiny", "--out", str(out), *more])


def test_grey_is_matched_to_hu_whatever_its_scale() -> None:
    hu, lesion = picture(0)
    for low, step in ((-1024, 8), (-2000, 14)):
        matched = grey_to_hu(np.clip((hu - low) / step, 0, 255).astype(np.uint8))
        assert np.median(matched[40:60, :100]) == pytest.approx(-860, abs=step)
        assert np.median(matched[lesion]) == pytest.approx(40, abs=1.5 * step)


def test_an_erased_lesion_looks_like_the_lung_around_it() -> None:
    item = erased(patch(), np.random.default_rng(0), shams=30)
    hu = item.patch.hu.copy()
    paint(hu, item.true)
    inside = hu[item.patch.lesion]
    assert inside.mean() == pytest.approx(-860, abs=15)
    assert inside.std() == pytest.approx(20, abs=8)
    changed = hu != item.patch.hu
    assert changed.sum() == len(item.true.fill) + len(item.true.haze)


def test_haze_around_a_lesion_is_taken_off_and_vessels_stay() -> None:
    plain = patch()
    away = distance_transform_edt(~plain.lesion) * SPACING
    hazy = plain.hu + np.where(away > 0, 30 * np.clip((6.5 - away) / 1.5, 0, 1), 0).astype(np.float32)
    row, column = np.indices(hazy.shape)
    vessel = (np.abs(column - 64) < 2) & (row < 64 - 2.5 / SPACING)  # runs into the nodule
    hazy[vessel] = 20
    item = erased(replace(plain, hu=hazy), np.random.default_rng(0), shams=4)
    hu = hazy.copy()
    paint(hu, item.true)
    ring = (away > GROWN_MM) & (away <= GROWN_MM + 1) & ~vessel & (np.abs(column - 64) > 5)
    assert hazy[ring].mean() > -840
    assert hu[ring].mean() == pytest.approx(-860, abs=5)
    beyond = away > GROWN_MM + RING_MM + SPACING
    assert np.array_equal(hu[beyond], hazy[beyond])
    assert (hu[vessel & (away > GROWN_MM)] > -50).all()  # of 20, less the haze


def test_of_two_places_that_are_close_no_haze_is_taken_off_a_fill() -> None:
    item = erased(patch(), np.random.default_rng(0), shams=30)
    near = min(item.shams, key=lambda sham: np.hypot(sham.centre[0] - 64, sham.centre[1] - 64))
    hu = item.patch.hu.copy()
    paint(hu, near, item.true)
    for place in (near, item.true):
        assert np.array_equal(hu[place.rows, place.columns], place.fill)


def test_shams_lie_in_lung_apart_from_the_true_site_and_off_the_vessel() -> None:
    item = erased(patch(), np.random.default_rng(0), shams=30)
    for sham in item.shams:
        assert np.hypot(sham.centre[0] - 64, sham.centre[1] - 64) * SPACING >= item.apart_mm
        assert item.patch.lung[sham.rows, sham.columns].all()
        assert len(sham.fill) <= len(item.true.fill)
    vessel = [abs(sham.centre[0] - 20 - sham.centre[1] / 4) for sham in item.shams]
    assert min(vessel) > 2


def test_erasing_works_in_volumes() -> None:
    rng = np.random.default_rng(0)
    hu = rng.normal(-850, 20, (9, 40, 40)).astype(np.float32)
    mask = np.zeros(hu.shape, dtype=bool)
    mask[3:6, 17:23, 17:23] = True
    nothing = np.zeros_like(mask)
    fill = erase(hu, mask, lung=~nothing, dense=nothing, spacing_mm=(2.0, 0.7, 0.7), rng=rng)
    assert fill.shape == (mask.sum(),)
    assert fill.mean() == pytest.approx(-850, abs=10)
    assert fill.std() == pytest.approx(20, abs=6)


def test_a_lesion_outside_the_lung_is_refused() -> None:
    hu, lesion = picture(0, centre=(64, 122))
    lung = np.zeros(hu.shape, dtype=bool)
    lung[:, :112] = True
    outside = LungPatch(patient_id="P", hu=hu, lung=lung, lesion=lesion, spacing_mm=SPACING)
    with pytest.raises(PlacementError, match="outside the lung"):
        erased(outside, np.random.default_rng(0))


def test_in_crops_the_true_site_is_anywhere_alike() -> None:
    item = erased(patch(), np.random.default_rng(0), shams=30)
    rng = np.random.default_rng(1)
    places = []
    for _ in range(300):
        window = draw_window(item, rng)
        assert window is not None
        places.append([(at + 0.5) * SPACING - low for at, low in zip(item.true.centre, window.corner_mm, strict=True)])
    shares = (np.array(places) - INNER_MM) / (window.side_mm - 2 * INNER_MM)
    assert shares.mean() == pytest.approx(0.5, abs=0.05)
    assert shares.std() == pytest.approx(1 / np.sqrt(12), abs=0.03)


def test_a_crops_sites_do_not_touch_and_are_where_it_says() -> None:
    item = erased(patch(), np.random.default_rng(0), shams=30)
    rng = np.random.default_rng(2)
    window = draw_window(item, rng)
    assert window is not None
    shams = next(drawn for drawn in (draw_shams(item, window, rng) for _ in range(200)) if len(drawn) > 1)
    crop = render(item, window, shams)
    seen = render(item, window, [], visible=True)
    gaps = np.linalg.norm(crop.sites[:, None] - crop.sites[None], axis=-1)[~np.eye(len(crop.sites), dtype=bool)]
    assert gaps.min() * SPACING >= item.apart_mm - 0.1
    row, column = np.rint(seen.sites[0]).astype(int)
    assert seen.hu[row, column] > 0 > crop.hu[row, column]
    assert np.array_equal(seen.fits > 0, crop.fits > 0)
    turned = render(item, window, [], visible=True, symmetry=7)
    row, column = np.rint(turned.sites[0]).astype(int)
    assert turned.hu[row, column] > 0
    assert turned.sites.min() >= 0 and turned.sites.max() < SIDE_PX


def test_a_tiny_run(folder: Path, cache: Path, tmp_path: Path) -> None:
    result = run(folder, tmp_path / "run", "--cache", str(cache))
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "run" / "report.json").read_text())["description"]
    assert told["plan"]["task"] == "location-ct" and told["fold"] == 0
    items, _ = load_erased(folder, cache)
    assert sum(fold_of(item.patch.patient_id) != 0 for item in items) > told["patients"]


def test_the_cache_gives_what_was_made_and_knows_its_pictures_and_the_erasing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "data", patients=3)
    made, _ = load_erased(folder, tmp_path / "erased.npz", shams=3)
    kept, _ = load_erased(folder, tmp_path / "erased.npz", shams=3)
    for name in ("rows", "fill", "ring_columns", "haze"):
        assert np.array_equal(getattr(made[1].shams[-1], name), getattr(kept[1].shams[-1], name))
    assert [item.apart_mm for item in made] == [item.apart_mm for item in kept]
    monkeypatch.setattr(erased_store, "ERASING", "another")
    assert len(load_erased(folder, tmp_path / "erased.npz", shams=2)[0][0].shams) == 2
    other, _ = load_erased(write_folder(tmp_path / "more", patients=4), tmp_path / "erased.npz", shams=3)
    assert len(other) == 4


def test_the_detectors_crops_and_boxes(folder: Path, cache: Path, tmp_path: Path) -> None:
    items, _ = load_erased(folder, cache)
    count = write_crops(items[:2], tmp_path / "crops", crops=2, visible=True, seed=0)
    labels = sorted((tmp_path / "crops" / "labels").glob("*.txt"))
    assert len(labels) == count == 4  # most windows hold two sites that touch: drawn again
    for label in labels:
        _, column, row, width, _ = map(float, label.read_text().split())
        side = np.asarray(Image.open(tmp_path / "crops" / "images" / f"{label.stem}.png"))
        assert side[int(row * len(side)), int(column * len(side))] > 200
        assert width * SIDE_PX * 0.7 == pytest.approx(5.0, abs=1.0)


def test_crops_of_two_lesions_of_a_patient_of_any_id_are_all_there(folder: Path, cache: Path, tmp_path: Path) -> None:
    items, _ = load_erased(folder, cache)
    named = [replace(item, patch=replace(item.patch, patient_id="../Doe/John")) for item in items[:2]]
    count = write_crops(named, tmp_path / "out" / "crops", crops=2, visible=True, seed=0)
    assert len(list((tmp_path / "out" / "crops" / "labels").glob("*.txt"))) == count == 4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not any("Doe" in str(path) for path in tmp_path.rglob("*"))


def test_a_folder_with_crops_of_another_run_is_refused(folder: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "crops").mkdir(parents=True)
    options = ["--data", str(folder), "--out", str(tmp_path / "run"), "--cache", str(cache)]
    result = CliRunner().invoke(train_yolo, options)
    assert result.exit_code == 1
    assert "holds a run" in result.output


def test_crops_without_room_for_a_sham_are_skipped() -> None:
    item = erased(patch(), np.random.default_rng(0), shams=1)
    drawn = [draw_crop(item, np.random.default_rng(seed)) for seed in range(20)]
    assert any(crop is None for crop in drawn)


@pytest.mark.parametrize(("readers", "patients", "words"), [(9, 3, "number of readers"), (0, 3, "fewer than two"),
                                                            (4, 1, "fewer than two")])  # fmt: skip
def test_bad_labels_and_one_patient_are_refused(tmp_path: Path, readers: int, patients: int, words: str) -> None:
    folder = write_folder(tmp_path / "bad", readers=readers, patients=patients)
    with pytest.raises(ReadError, match=words):
        load_patches(folder)
    result = run(folder, tmp_path / "run")
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


def test_masks_of_another_size_and_a_wrong_fold_are_refused(folder: Path, tmp_path: Path) -> None:
    bad = write_folder(tmp_path / "bad", patients=3)
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(bad / "readers_0.png")
    with pytest.raises(ReadError, match="differ in size"):
        load_patches(bad)
    assert "no fold 3" in run(folder, tmp_path / "run", "--fold", "3").output
    assert "no nodule pictures" in run(tmp_path, tmp_path / "run").output


def test_stones_are_symmetric_and_above_the_crests(tmp_path: Path) -> None:
    rows = [
        {"source": f"s{k}", "variant": v, "split": "train", "cx_rel": 0.5 + side * 0.25, "cy_rel": 0.6 + 0.01 * k,
         "w_rel": 0.02, "h_rel": 0.02}
        for k in range(5) for side in (-1, 1) for v in ("a", "b")
    ]  # fmt: skip
    with (tmp_path / "kidney_stone_ct_coronal_boxes.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    places, weights = stone_places(tmp_path)
    assert weights.sum() == pytest.approx(10)
    assert np.median(places[:, 0]) == pytest.approx(60)
    assert np.unique(np.abs(places[:, 1]).round(3)) == pytest.approx([70.0])
    map_ = stone_density(places, weights).astype(np.float64)
    assert map_.shape == KUB_BINS
    assert np.array_equal(map_, map_[:, ::-1])
    assert map_.mean() == pytest.approx(1, abs=0.01)
