"""A disk that is really full, at whatever byte, or read-only: a clear refusal, and no half a thing under any name."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from HiResMedSynthLib import weights
from HiResMedSynthLib.annotations import read_annotations, write_annotations
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.evaluation.reader_study import StudyError, open_study
from HiResMedSynthLib.evaluation.study_answers import AnswersFile, read_answers
from HiResMedSynthLib.export.folder import export
from HiResMedSynthLib.export.identity import OutputIdentity
from HiResMedSynthLib.export.image_file import write_image_file
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import read_image
from Testing.background.tiny_cascade import write_tiny
from Testing.batch.conftest import COMMAND
from Testing.batch.small_scans import files_in, plan_of, write_scans, write_spec
from Testing.batch.test_run import run_here
from Testing.evaluation.study_folders import ct_slice, picture_folder, small_study
from Testing.export.cases import composition_in, ct_image, film_image
from Testing.faults.disks import all_but, read_only, small_disk
from Testing.test_cli import run

CASE = composition_in(ct_image(), lesions=2)
FILM = film_image()
HU_SLICE = MedicalImage(pixels=np.random.default_rng(0).integers(-900, 90, (1, 90, 90)).astype(np.int16), modality="CT")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def left_on(disk: Path) -> list[str]:
    """What lies on a disk besides the ballast."""
    return sorted(files_in(disk).keys() - {".ballast"}) + [str(p) for p in disk.rglob("*") if p.is_dir()]


# -- what is written in one go -----------------------------------------------------------------------------------------
def export_case(target: Path) -> None:
    export(CASE, target, pair=True, with_preview=False, identity=OutputIdentity(seed="s"))


def write_marks(target: Path) -> None:
    write_annotations([ct_slice(seed, (20, 20), 3) for seed in range(2)], target)
    assert len(read_annotations(target)) == 2


def image_writer(image: MedicalImage, name: str) -> Callable[[Path], None]:
    def write(target: Path) -> None:
        target.mkdir()
        try:
            write_image_file(image, target / name, how="made for a test")
        except HiResMedSynthError:
            target.rmdir()  # fails where anything is in it
            raise
        assert np.array_equal(read_image(target / name).pixels, image.pixels)

    return write


WRITERS: dict[str, tuple[Callable[[Path], None], tuple[int, ...]]] = {  # with so many KiB free
    "case": (export_case, (0, 8, 36, 100, 160, 190, 230, 600)),
    "annotations": (write_marks, (0, 4, 8, 16, 28, 44, 200)),
    "film.dcm": (image_writer(FILM, "film.dcm"), (0, 4, 8)),
    "film.png": (image_writer(FILM, "film.png"), (0, 4, 8)),
    "slice.nrrd": (image_writer(HU_SLICE, "slice.nrrd"), (0, 4, 8, 12, 40)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_fills_up_anywhere(name: str, disk: Path, tmp_path: Path) -> None:
    write, sizes = WRITERS[name]
    write(tmp_path / "roomy")
    outcomes = []
    for free in sizes:
        with all_but(disk, free * 1024):
            try:
                write(disk / "out")
            except HiResMedSynthError as error:
                outcomes.append("refused")
                assert "disk" in str(error) or "space" in str(error)
                assert left_on(disk) == [], f"{free} KiB free"
                continue
        outcomes.append("written")
        assert files_in(disk / "out").keys() == files_in(tmp_path / "roomy").keys()
        shutil.rmtree(disk / "out")
    assert (outcomes[0], outcomes[-1]) == ("refused", "written")


def test_an_earlier_case_outlives_a_full_disk(disk: Path) -> None:
    export_case(disk / "out")
    before = files_in(disk / "out")
    for free in (0, 8, 100):
        with all_but(disk, free * 1024), pytest.raises(HiResMedSynthError):
            export(CASE, disk / "out", pair=True, with_preview=False, overwrite=True)
        assert files_in(disk) == {f"out/{name}": content for name, content in before.items()}


# -- commands ----------------------------------------------------------------------------------------------------------
def commands(data: Path, out: Path) -> dict[str, tuple[object, ...]]:
    return {
        "compose": ("compose", data / "film.png", "--domain", "cxr", "--spacing-mm", 3, "--danger", "rule", "--size-mm",
                    "30:40", "--out", out / "case"),
        "danger": ("danger", data / "ct", "--danger", "rule", "--out", out / "danger.nrrd"),
        "prior": ("prior", data / "ct", "--danger", "rule", "--out", out / "prior.nii.gz"),
        "candidates": ("candidates", data / "ct", "--danger", "rule", "-k", 60, "--out", out / "places.mrk.json"),
        "lesion show": ("lesion", "show", "solid-10mm-a", "--out", out / "lesion.png"),
        "lesion sample": ("lesion", "sample", "solid-10mm-a", "--count", 1, "--out", out / "samples"),
        "study new": ("study", "new", data / "real", data / "made", "--count", 8, "--readers", "A", "--out", out / "s"),
        "models add": ("models", "add", data / "model.safetensors"),
        "generate": ("generate", "--model", "ours", "--count", 2, "--out", out / "films"),
        "reconstruct": ("reconstruct", data / "film.png", "--model", "ours", "--out", out / "again.dcm"),
        "evaluate": ("evaluate", data / "real", data / "made", "--perceptual-pairs", 0, "--report", out / "report"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def data(ct_series_folder: Path, cxr_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small inputs of every command."""
    folder = tmp_path_factory.mktemp("inputs")
    write_scans(ct_series_folder, folder, ("PATIENT",))
    (folder / "scan0").rename(folder / "ct")
    film = read_image(cxr_file)
    write_image_file(replace(film, pixels=film.pixels[:, ::8, ::8].copy()), folder / "film.png", how="made for a test")
    picture_folder(folder / "real", 24)
    picture_folder(folder / "made", 8, first=100)
    card = weights.Card(name="mine", kind="lesion-singan", data="-", licence="CC0-1.0", attribution="-")
    weights.write_model(folder / "model.safetensors", {"a": np.zeros(20_000, np.uint8)}, card)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.STORE_VARIABLE, str(folder / "store"))
        weights.add(write_tiny(folder, name="ours"))
    return folder


@pytest.fixture
def places(data: Path, disk: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: Any) -> None:
    """What else commands write: models are added on the small disk, found on a roomy one; figures are cached there."""
    store = disk if request.node.callspec.params["name"] == "models add" else data / "store"
    monkeypatch.setenv(weights.STORE_VARIABLE, str(store))
    monkeypatch.setenv("HIRESMEDSYNTH_CACHE", str(tmp_path / "cache"))


def test_a_data_set_on_a_full_disk_says_so_though_a_worker_noticed_it(data: Path, disk: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "ct", tmp_path / "scan0")
    spec = write_spec(tmp_path, cases="count = 2")
    with all_but(disk, 100 * 1024):
        line = [*COMMAND, str(spec), "--out", str(disk / "set")]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr and "the same command" in done.stderr
    assert not (disk / "set" / ".work" / "tmp").exists()


COMMANDS = tuple(commands(Path(), Path()))
SMALL = ("danger", "prior")  # a page may hold all that they write


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_a_full_disk_says_so(
    name: str, data: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = files_in(data)
    for free in (0, 4) if name not in SMALL else (0,):
        with all_but(disk, free * 1024):
            code, told = run(monkeypatch, *commands(data, disk)[name]), capsys.readouterr().err
            assert code == 1, told
            assert "disk" in told or "space" in told
            assert "bug" not in told
            assert left_on(disk) == []
    assert files_in(data) == inputs


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_a_read_only_disk_says_so(
    name: str, data: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with read_only(disk):
        code, told = run(monkeypatch, *commands(data, disk)[name]), capsys.readouterr().err
    assert code == 1, told
    assert "Read-only" in told or "can't be" in told
    assert "bug" not in told
    assert left_on(disk) == []


@pytest.mark.parametrize("name", ["generate"])
@pytest.mark.usefixtures("places")
def test_films_that_were_whole_before_the_disk_was_full_stay(
    name: str, data: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(monkeypatch, *commands(data, tmp_path)[name]) == 0
    film = (tmp_path / "films" / "cxr-0000.dcm").stat().st_size
    for more in (0, 8, 12, 60):  # beside the first film and its record: room for nothing, or for a part of the second
        with all_but(disk, film + more * 1024 + 2 * 4096):
            capsys.readouterr()
            assert run(monkeypatch, *commands(data, disk)[name]) == 1
            told = capsys.readouterr().err
        assert "space" in told
        assert "1 of 2 image(s) are whole and stay" in told
        left = files_in(disk / "films")
        assert read_image(disk / "films" / "cxr-0000.dcm").shape == (1, 256, 256)
        assert {"cxr-0000.dcm", "generated.json"} <= left.keys() <= {"cxr-0000.dcm", "generated.json", "sheet.png"}
        assert [one["file"] for one in json.loads(left["generated.json"])["images"]] == ["cxr-0000.dcm"]
        if "sheet.png" in left:
            Image.open(disk / "films" / "sheet.png").load()
        if more < 60:
            shutil.rmtree(disk / "films")
    assert run(monkeypatch, *commands(data, disk)[name], "--overwrite") == 0, "there is room again"
    assert files_in(disk / "films").keys() == {"cxr-0000.dcm", "cxr-0001.dcm", "generated.json", "sheet.png"}


# -- what goes on ------------------------------------------------------------------------------------------------------
def test_a_data_set_goes_on_when_there_is_room_again(ct_series_folder: Path, disk: Path, tmp_path: Path) -> None:
    write_scans(ct_series_folder, tmp_path, ("A", "B"))
    plan = plan_of(write_spec(tmp_path, output="formats = ['dicom', 'monai']\nsplit = { train = 1 }"), 2)
    run_here(plan, tmp_path / "uncut")
    out = disk / "set"
    for free in (0, 60, 260):
        with all_but(disk, free * 1024), pytest.raises(HiResMedSynthError, match="space"):
            run_here(plan, out)
        if out.exists():
            whole = files_in(tmp_path / "uncut")
            assert all(content == whole[name] for name, content in files_in(out).items() if not name.startswith("."))
    run_here(plan, out)
    assert files_in(out) == files_in(tmp_path / "uncut")


def test_an_answer_that_the_disk_cannot_hold_is_not_counted(disk: Path, tmp_path: Path) -> None:
    made, _ = small_study(tmp_path)
    shutil.copytree(made.folder, disk / "study")
    study = open_study(disk / "study")
    answer = {"reader": "Ann", "choice": "real", "confidence": 3, "seconds": 1.0}
    with AnswersFile(study) as answers:
        for trial in range(1, 5):
            answers.add(trial=trial, **answer)  # type: ignore[arg-type]
    padded = study.answers_path.read_bytes() + b" " * (4096 - study.answers_path.stat().st_size - 100)
    study.answers_path.write_bytes(padded + b"\n")  # 99 bytes are left in its page: the next answer is cut off
    with all_but(disk, 0), AnswersFile(study) as answers:
        with pytest.raises(StudyError, match="No space left"):
            answers.add(trial=5, **answer)  # type: ignore[arg-type]
        with pytest.raises(StudyError, match="Make room on the disk"):
            answers.add(trial=5, **answer)  # type: ignore[arg-type]
    found = read_answers(study)
    assert [one.trial for one in found.by_reader["Ann"]] == [1, 2, 3, 4]
    assert len(found.cut_off) == 1
    with AnswersFile(study) as answers:
        assert answers.next_trial("Ann") == 5
        answers.add(trial=5, **answer)  # type: ignore[arg-type]
    assert len(read_answers(study).by_reader["Ann"]) == 5
