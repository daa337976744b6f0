"""The detector that asks whether made data is of use: its windows, the controls it is compared with, tiny runs."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.evaluation.utility import auc_of
from HiResMedSynthLib.patient_split import chooses, fold_of
from Testing.training.test_site_material import site
from Testing.training.test_train_location import SPACING, patch, write_folder
from Training.controls import carve_mixed, copy_pasted
from Training.detector_data import (
    BLANK_HU,
    INNER_MM,
    SIDE_MM,
    SIDE_PX,
    DetectorPicture,
    Window,
    fixed_windows,
    pixels,
)
from Training.location_data import LungPatch
from Training.loop import LoopSettings
from Training.loop import run as train
from Training.picture_loop import PictureLesson
from Training.score_detectors import main as score
from Training.train_detector import Detector, DetectorTask, answers, held_out_windows, main, read_pictures


def windows_of(kind: str, count: int = 200) -> list[Window]:
    rng = np.random.default_rng(0)
    picture = DetectorPicture(patch=patch())
    return [window for _ in range(count) if (window := picture.draw(kind, rng)) is not None]


def held_out_windows_without_a_lesion_show_none_of_it() -> None:
    bright = replace(patch(), hu=np.where(patch().lesion, 3000.0, -860.0).astype(np.float32))
    for kind in ("dense", "lung"):
        drawn = windows_of(kind)
        assert len(drawn) > 150
        for window in drawn:
            assert min(window.corner_mm) >= 0 and max(window.corner_mm) + SIDE_MM <= len(bright.hu) * SPACING
            seen = replace(window, picture=DetectorPicture(patch=bright))
            assert pixels(seen).max() < -800
        assert not any(window.lesion for window in drawn)


def test_the_point_is_anywhere_in_the_window_alike() -> None:
    for kind in ("lesion", "lung"):
        drawn = windows_of(kind, 400)
        offsets = np.array([(np.array(w.point) + 0.5) * SPACING - w.corner_mm for w in drawn])
        shares = (offsets - INNER_MM) / (SIDE_MM - 2 * INNER_MM)
        assert shares.min() >= 0 and shares.max() <= 1
        assert shares.mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.06)
        assert shares.std() == pytest.approx(1 / np.sqrt(12), abs=0.03)


def test_dense_points_lie_on_the_vessel() -> None:
    rows, columns = np.array([window.point for window in windows_of("dense")]).T
    assert (np.abs(rows - 20 - columns // 4) < 4).mean() > 0.6  # the others at the chest wall
    assert patch().lung[rows.astype(int), columns.astype(int)].all()


def test_pixels_are_the_pictures_own_whichever_way_they_are_turned() -> None:
    window = windows_of("lesion", 1)[0]
    row, column = np.rint(((np.array(window.point) + 0.5) * SPACING - window.corner_mm) / 0.7 - 0.5).astype(int)
    plain = pixels(window)
    assert plain.shape == (SIDE_PX, SIDE_PX) and plain[row, column] > 0
    turned = [pixels(window, symmetry=k) for k in range(8)]
    assert len({picture.tobytes() for picture in turned}) == 8
    assert all(np.array_equal(np.sort(picture.ravel()), np.sort(plain.ravel())) for picture in turned)


def test_a_blank_hides_the_lesion_and_has_the_same_form_elsewhere() -> None:
    lesion, lung = (
        replace(window, corner_mm=tuple((np.array(window.point) + 0.5) * SPACING - SIDE_MM / 2))
        for window in (windows_of("lesion", 1)[0], windows_of("lung", 1)[0])
    )
    shown = [pixels(window, blank=True) for window in (lesion, lung)]
    assert pixels(lesion).max() > 0 > shown[0].max()
    assert np.array_equal(shown[0] == BLANK_HU, shown[1] == BLANK_HU)
    assert pixels(lesion).max() > 0  # the picture itself stays


def test_copy_paste_changes_the_outline_and_nothing_else() -> None:
    host, donor = patch(1), replace(patch(2), hu=np.where(patch(2).lesion, 300.0, -500.0).astype(np.float32))
    made = copy_pasted(host, donor, (90.0, 40.0), np.random.default_rng(0))
    assert made is not None and made.patient_id == host.patient_id
    assert np.argwhere(made.lesion).mean(axis=0) == pytest.approx([90, 40], abs=0.6)
    assert made.lesion.sum() == pytest.approx(donor.lesion.sum(), rel=0.1)
    assert np.array_equal(made.hu[~made.lesion], host.hu[~made.lesion])
    assert (made.hu[made.lesion] > -100).all() and np.median(made.hu[made.lesion]) == 300
    coarse = copy_pasted(replace(host, spacing_mm=2 * SPACING), donor, (90.0, 40.0), np.random.default_rng(0))
    assert coarse is not None and coarse.lesion.sum() == pytest.approx(donor.lesion.sum() / 4, rel=0.3)


def test_carvemix_takes_some_with_their_rim_and_some_without_their_edge() -> None:
    host, donor = patch(1), replace(patch(2), hu=np.where(patch(2).lesion, 300.0, -500.0).astype(np.float32))
    carved, marked = [], []
    for seed in range(40):
        made = carve_mixed(host, donor, (90.0, 40.0), np.random.default_rng(seed))
        assert made is not None
        carved.append(int((made.hu != host.hu).sum()))
        marked.append(int(made.lesion.sum()))
        assert not (made.lesion & (made.hu == host.hu)).any()
    area = int(donor.lesion.sum())
    assert min(carved) < 0.6 * area and max(carved) > 1.8 * area
    assert max(marked) <= 1.1 * area  # a rim is no lesion
    assert 10 <= sum(count > 1.05 * area for count in carved) <= 30


def test_what_would_reach_out_of_the_lung_is_not_pasted() -> None:
    for paste in (copy_pasted, carve_mixed):
        assert paste(patch(1), patch(2), (60.0, 111.0), np.random.default_rng(0)) is None
        assert paste(patch(1), patch(2), (400.0, 40.0), np.random.default_rng(0)) is None


def anywhere(seed: int) -> LungPatch:
    """A nodule anywhere in lung without vessels or walls: the crop has nothing else to tell."""
    rng = np.random.default_rng(seed)
    centre = rng.integers(30, 98, 2)
    away = np.hypot(*(np.indices((128, 128)) - centre[:, None, None])) * SPACING
    hu = np.where(away < 2.5, 40, -860) + rng.normal(0, 20, away.shape)
    return LungPatch(
        patient_id=f"P{seed}", hu=hu.astype(np.float32), lung=away >= 0, lesion=away < 2.5, spacing_mm=SPACING
    )


@pytest.fixture(scope="module")
def pictures() -> list[LungPatch]:
    return [anywhere(seed) for seed in range(24)]


def test_windows_without_a_lesion_keep_clear_of_every_lesion_of_the_picture() -> None:
    one = anywhere(3)
    away = np.hypot(*(np.indices((128, 128)) - np.array((64, 100))[:, None, None])) * SPACING
    hu = np.where(away < 4, 40, one.hu).astype(np.float32)
    beside = replace(one, hu=hu, lung=one.lung & (away > 4), others=((64.0, 100.0, 4.0),))
    windows = [
        window for window in fixed_windows([DetectorPicture(patch=beside)], each=40, seed=1) if not window.lesion
    ]
    assert windows
    low, high = (np.array((64, 100)) + 0.5) * SPACING - 4, (np.array((64, 100)) + 0.5) * SPACING + 4
    for window in windows:
        corner = np.array(window.corner_mm)
        assert (corner >= high).any() or (corner + SIDE_MM <= low).any()


def taught(pictures: list[LungPatch], out: Path, *, blank: bool) -> float:
    task = DetectorTask([pictures[:12]], pictures[12:], batch=16, without=("lung",), blank=blank)
    torch.manual_seed(0)
    settings = LoopSettings(
        learning_rate=5e-3, steps=40, warm_up=5, average=0.9, precision="float32", report_every=40, sheet_every=40
    )
    network = train(Detector([8, 16]), PictureLesson(task), settings, out=out, description={})
    windows = fixed_windows([DetectorPicture(patch=one) for one in pictures[12:]], each=4, seed=1)
    windows = [window for window in windows if window.kind != "dense"]
    scores = answers(network, np.stack([pixels(window, blank=blank) for window in windows]))
    return auc_of(np.array([window.lesion for window in windows]), scores)


def test_it_learns_the_lesion_and_nothing_about_the_crop(pictures: list[LungPatch], tmp_path: Path) -> None:
    assert taught(pictures, tmp_path / "seen", blank=False) > 0.9
    assert 0.3 < taught(pictures, tmp_path / "blank", blank=True) < 0.7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("real") / "patches", patients=40)


def run(folder: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["--data", str(folder), "--preset", "detector_tiny", "--out", str(out), *more])


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_tiny_run_tests_on_patients_that_it_never_saw(folder: Path, tmp_path: Path) -> None:
    result = run(folder, tmp_path / "run", "--share", "0.5")
    assert result.exit_code == 0, result.output
    names = [f"P{k}" for k in range(40)]
    held_out = {name for name in names if fold_of(name) == 0}
    rows = rows_of(tmp_path / "run")
    assert {row["patient"] for row in rows} == held_out
    assert [row["kind"] for row in rows[:20]] == ["lesion"] * 4 + ["dense"] * 8 + ["lung"] * 8
    told = json.loads((tmp_path / "run" / "report.json").read_text())["description"]
    assert told["patients"] == round(sum(not chooses(name) for name in set(names) - held_out) / 2)
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_cut_run_goes_on_to_the_same_weights(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "whole").exit_code == 0
    assert run(folder, tmp_path / "cut", "--steps", "2").exit_code == 0
    assert run(folder, tmp_path / "cut", "--resume").exit_code == 0
    whole, cut = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "cut")
    assert "Give --resume" in run(folder, tmp_path / "cut").output


def test_runs_are_compared_on_the_same_windows(folder: Path, tmp_path: Path) -> None:
    made = write_folder(tmp_path / "made", patients=20)
    assert run(folder, tmp_path / "real").exit_code == 0
    both = run(folder, tmp_path / "both", "--synthetic", str(made))
    names = [f"P{k}" for k in range(20)]
    left_out = sum(fold_of(name) == 0 or chooses(name) for name in names)
    assert f"{20 - left_out} synthetic pictures train, {left_out} left out" in both.output
    assert run(folder, tmp_path / "only", "--synthetic", str(made), "--only-synthetic").exit_code == 0
    folders = [str(tmp_path / name) for name in ("real", "both", "only")]
    table = CliRunner().invoke(score, [*folders, "--out", str(tmp_path / "table.md")])
    assert table.exit_code == 0, table.output
    lines = [line.split(" | ")[0] for line in table.output.splitlines() if line.startswith("| ")]
    assert lines[2:] == ["| real", "| real + synthetic", "| synthetic"]
    assert (tmp_path / "table.md").read_text() == table.output[:-1]
    twice = CliRunner().invoke(score, [folders[0], folders[0]])
    assert twice.exit_code == 1 and "two runs of seed 1" in twice.output
    empty = CliRunner().invoke(score, [str(tmp_path)])
    assert empty.exit_code == 1 and "no scores here" in empty.output


def test_a_sites_own_volumes_are_read_and_strangers_are_warned_of(folder: Path, tmp_path: Path) -> None:
    volumes = site(tmp_path / "in")
    read = read_pictures(volumes)
    assert {one.patient_id for one in read} == {"p0", "p1", "p2"}
    assert all(abs(float(one.hu[one.lesion].mean()) - 20) < 40 for one in read)
    result = run(folder, tmp_path / "run", "--synthetic", str(volumes))
    assert "3 synthetic pictures train, 0 left out" in result.output and "make sure" in result.output


def test_bad_input_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    few = write_folder(tmp_path / "few", patients=2)
    for words, result in (
        ("no share 0", run(folder, out, "--share", "0")),
        ("nothing to train on", run(folder, out, "--only-synthetic")),
        ("can't be split in three", run(few, out)),
        ("no nodule pictures", run(tmp_path, out)),
        ("no preset", CliRunner().invoke(main, ["--data", str(folder), "--out", str(out), "--preset", "none"])),
    ):
        assert result.exit_code == 1 and words in result.output and "Traceback" not in result.output
    assert not out.exists()


def test_pictures_without_room_for_a_window_are_refused(pictures: list[LungPatch]) -> None:
    narrow = [replace(one, spacing_mm=0.2) for one in pictures]  # 26 mm across
    for sources in ([narrow[:12]], [pictures[:12], narrow[:12]]):
        with pytest.raises(ReadError, match="no windows both"):
            DetectorTask(sources, pictures[12:], batch=4)


def test_every_detector_is_tested_on_the_same_windows(pictures: list[LungPatch]) -> None:
    one, other = ([window.corner_mm for window in held_out_windows(pictures)] for _ in range(2))
    assert len(one) > 200 and one == other
