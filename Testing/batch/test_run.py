"""Runs: killed and resumed, stopped, with broken backgrounds, on a full disk: nothing twice, nothing lost."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import RLELossless

from HiResMedSynthLib import weights
from HiResMedSynthLib.batch import making
from HiResMedSynthLib.batch.estimate import summary
from HiResMedSynthLib.batch.making import Outcome, record_path
from HiResMedSynthLib.batch.plan import Plan
from HiResMedSynthLib.batch.run import Finished, check_target, run
from HiResMedSynthLib.case_file import read_case
from HiResMedSynthLib.errors import ExportError, SettingsError
from HiResMedSynthLib.lesion.own import source_texts
from HiResMedSynthLib.mark import amplitude_for
from HiResMedSynthLib.privacy_record import NEAR_COPY
from HiResMedSynthLib.provenance import provenance_of
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.synthetic_words import COMPOSED, HOLDS_COMPOSED
from Testing.batch.conftest import COMMAND
from Testing.batch.small_scans import files_in, made_here, plan_of, write_scans, write_spec

ONE_SIDE = 'formats = ["yolo"]\nsplit = { train = 1 }'


def here(plan: Plan, out: Path) -> Callable[[Sequence[Sequence[int]]], Iterator[Outcome]]:
    return lambda groups: made_here(plan, out, groups)


def run_here(plan: Plan, out: Path) -> Finished:
    return run(plan, out, workers=1, on_case=lambda _done, _all, _outcome: None, engine=here(plan, out))


def hears_ctrl_c() -> None:
    """In the child: SIGINT ends it, also where the tests run in the background of a shell, which ignores it there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def started(spec: Path, out: Path, workers: int = 2) -> subprocess.Popen[str]:
    arguments = [*COMMAND, str(spec), "--out", str(out), "--workers", str(workers)]
    return subprocess.Popen(
        arguments, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hears_ctrl_c
    )


def wait_for_records(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 300
    while len(list((out / ".work" / "records").rglob("*.json"))) < count:
        assert process.poll() is None and time.monotonic() < limit, "it ended before it could be killed"
        time.sleep(0.02)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Ids of the processes that this one has started, by /proc."""
    found = []
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        found += [int(pid) for pid in (task / "children").read_text().split()]
    spawned = [pid for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert spawned
    return spawned


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers in /proc")
def test_killed_at_any_time_it_goes_on_to_the_same_bytes(scans: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    process = started(scans / "spec.toml", out)
    wait_for_records(out, 2, process)
    os.kill(workers_of(process)[0], signal.SIGKILL)  # one worker: it is replaced
    wait_for_records(out, 4, process)
    process.kill()  # then the whole run
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in (out / ".work" / "records").rglob("*.json")}
    assert 4 <= len(before) < 10
    assert not (out / "manifest.csv").exists()
    done = subprocess.run([*COMMAND, str(scans / "spec.toml"), "--out", str(out)], check=False)
    assert done.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing twice
    assert files_in(out) == files_in(dataset)  # nothing lost, and not a byte else


def test_ctrl_c_keeps_what_is_done_and_says_so(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    process = started(scans / "spec.toml", out, workers=1)
    wait_for_records(out, 1, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert not (out / ".work" / "tmp").exists()
    assert not (out / "README.md").exists()


def test_nobody_is_named_in_what_is_written(scans: Path, dataset: Path) -> None:
    for name, content in files_in(dataset).items():
        for word in (b"MARKER", scans.name.encode(), b"scan0", b"spec.toml"):
            assert word not in content, name
            assert word.decode().encode("utf-16-le") not in content, name


def test_the_manifest_keeps_patients_and_donors_apart(dataset: Path) -> None:
    with (dataset / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 18  # 8 pairs and 2 negative cases
    for column in ("patient_group", "donor_groups"):
        sides: dict[str, set[str]] = {}
        for line in lines:
            for group in line[column].split():
                sides.setdefault(group, set()).add(line["side"])
        assert len(sides) > 2
        assert all(len(found) == 1 for found in sides.values())


def test_objects_are_of_one_date_and_no_uid_comes_twice(dataset: Path) -> None:
    seen: dict[str, Path] = {}
    studies: dict[Path, set[str]] = {}
    for path in sorted(dataset.rglob("*.dcm")):
        data = pydicom.dcmread(path, stop_before_pixels=True)
        assert data.SyntheticData == "YES"
        assert data.StudyDate == "20000101"
        assert seen.setdefault(data.SOPInstanceUID, path) == path
        studies.setdefault(dataset / path.relative_to(dataset).parents[-4], set()).add(data.StudyInstanceUID)
    assert len(studies) == 10
    assert all(len(uids) == 1 for uids in studies.values())
    assert len(set.union(*studies.values())) == 10


def test_a_larger_count_adds_to_what_is_there(scans: Path, tmp_path: Path) -> None:
    small, large = plan_of(scans / "spec.toml", 1), plan_of(scans / "spec.toml", 2)
    run_here(small, tmp_path / "set")
    kept = record_path(tmp_path / "set", 1).read_bytes()
    done = run_here(large, tmp_path / "set")
    assert (done.before, done.made) == (1, 1)
    assert record_path(tmp_path / "set", 1).read_bytes() == kept
    lists = files_in(tmp_path / "set")
    with pytest.raises(ExportError, match="cases up to number 2, 1 are asked for"):
        run_here(small, tmp_path / "set")  # its lists would name fewer pictures than lie in the folders
    assert files_in(tmp_path / "set") == lists


def test_a_broken_background_is_listed_and_the_rest_is_made(ct_series_folder: Path, tmp_path: Path) -> None:
    write_scans(ct_series_folder, tmp_path, ("A", "B"))
    spec = write_spec(tmp_path, cases="count = 2", output="split = { train = 1 }")
    broken = tmp_path / "scan1" / "0.dcm"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-1000])
    done = subprocess.run(
        [*COMMAND, str(spec), "--out", str(tmp_path / "set")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "1 case(s) could not be made: see failures.csv" in done.stderr
    with (tmp_path / "set" / "failures.csv").open(newline="") as stream:
        failed = list(csv.DictReader(stream))
    assert len(failed) == 1
    assert "scan1" not in str(failed)  # a path can name a person
    broken.write_bytes(whole)
    mended = run_here(plan_of(spec), tmp_path / "set")
    assert (mended.before, mended.made, mended.failures) == (1, 1, {})
    assert not (tmp_path / "set" / "failures.csv").exists()


def test_a_full_disk_ends_the_run_and_leaves_nothing_half(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, out = plan_of(scans / "spec.toml", 1), tmp_path / "set"

    def full(_source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    with monkeypatch.context() as patch:
        patch.setattr(making, "_move", full)
        with pytest.raises(making.WritingError, match=r"No space left on device.*the same command again"):
            run_here(plan, out)
    assert not (out / ".work" / "tmp").exists()
    assert {path.name for path in out.iterdir()} == {".work"}
    with monkeypatch.context() as patch:  # where memory runs out, by torch's words, it is told so
        patch.setattr(making, "_move", Mock(side_effect=RuntimeError("DefaultCPUAllocator: can't allocate memory")))
        with pytest.raises(SettingsError, match="not enough memory for it: use fewer workers"):
            run_here(plan, out)
    assert run_here(plan, out).made == 1


def test_a_data_set_on_made_films_says_whose_their_model_s_were(tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(
        "[backgrounds]\ngenerated = { count = 1, size = 512 }\n[cases]\ncount = 1\nsize_mm = [15, 25]\n"
        '[output]\nformats = ["yolo"]\n'
    )
    assert run_here(plan_of(spec), tmp_path / "set").made == 1
    told, maker = (tmp_path / "set" / "README.md").read_text(), weights.find("cxr").card
    assert maker.attribution in told and maker.licence in told and maker.sha256[:16] in told
    assert "Backgrounds: yours" not in told
    assert json.loads((tmp_path / "set" / "card.json").read_text())["film_source"]["model"] == "cxr"
    (picture,) = (tmp_path / "set" / "yolo" / "images").rglob("*.png")
    assert np.asarray(Image.open(picture)).max() > 2**15


def test_a_hopeless_spec_ends_early(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").symlink_to(scans)
    spec = tmp_path / "spec.toml"
    spec.write_text('[backgrounds]\nfiles = ["scans/scan*"]\n[cases]\ncount = 5000\ntypes = "stone"\n')
    with pytest.raises(SettingsError, match=r"none of the first 20 cases could be made.*doesn't belong"):
        run_here(plan_of(spec), tmp_path / "set")


def test_a_folder_that_may_not_be_read_is_refused(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_folder: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    plan = plan_of(scans / "spec.toml", 1)
    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(ExportError, match=r"can't be looked into \(Permission denied\)"):
        check_target(plan, tmp_path)


def test_a_folder_of_something_else_or_in_use_is_refused(scans: Path, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    plan, out = plan_of(scans / "spec.toml", 1), tmp_path / "set"
    out.mkdir()
    (out / "holiday.png").write_bytes(b"mine")
    with pytest.raises(ExportError, match="holds no data set"):
        run_here(plan, out)
    (out / "holiday.png").unlink()
    run_here(plan, out)
    (tmp_path / "scans").symlink_to(scans)
    other = plan_of(write_spec(tmp_path, cases="seed = 9\ncount = 1", files="scans/scan*"))
    with pytest.raises(ExportError, match="another spec, seed, list of backgrounds"):
        run_here(other, out)
    with (out / ".work" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ExportError, match="another run is writing"):
            run_here(plan, out)
    told = out / ".work" / "run.json"
    told.write_text(told.read_text().replace('"hiresmedsynth": "', '"hiresmedsynth": "0.0.'))
    with pytest.raises(ExportError, match="another version of hiresmedsynth"):
        run_here(plan, out)


def test_dicom_cases_take_the_forms_that_the_spec_asks_for(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").symlink_to(scans)
    output = 'seg = "labelmap"\nsr = false\ncompress = "rle"\nformats = ["dicom", "coco", "monai"]'
    spec = write_spec(
        tmp_path, files="scans/scan0", cases="count = 2\nnegatives = 0.5\nwatermark = true\nseed = 4", output=output
    )
    plan = plan_of(spec)
    assert "as dicom (SEG labelmap, no SR, rle), coco, monai; lesions marked invisibly" in summary(plan)
    done = run_here(plan, tmp_path / "set")
    assert (done.made, done.failures) == (2, {})
    positive = next(case for case in (tmp_path / "set" / "cases").rglob("case_*") if (case / "case.json").exists())
    series = list((tmp_path / "set" / "cases").rglob("IM*.dcm"))
    assert len(series) == 2
    assert {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in series} == {RLELossless}
    assert pydicom.dcmread(positive / "segmentation.dcm").SegmentationType == "LABELMAP"
    assert not list((tmp_path / "set").rglob("measurements.dcm"))
    assert read_case(positive).settings.watermark == amplitude_for(read_image(positive / "dicom"))
    assert '"watermark": true' in (tmp_path / "set" / "card.json").read_text()


def test_pictures_and_volumes_say_that_they_hold_lesions(dataset: Path, tmp_path: Path) -> None:
    """Read again they are noticed: by verify, by the cutting of lesions, and as a background."""
    with (dataset / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        for layout in ("coco", "yolo", "nnunet", "monai"):
            image = read_image(dataset / row[layout])
            assert (HOLDS_COMPOSED in image.oddities) == (row["kind"] == "lesions"), row[layout]
            assert source_texts(image)[0].startswith("cut out of a synthetic image")
            assert provenance_of(dataset / row[layout]).ours
    label = next((dataset / "nnunet").rglob("labelsTr/*.nii.gz"))
    assert HOLDS_COMPOSED not in read_image(label).oddities
    composed = next(row["coco"] for row in rows if row["kind"] == "lesions")
    spec = write_spec(tmp_path, files=str(dataset / composed), cases='count = 1\ndomain = "cxr"', output=ONE_SIDE)
    with pytest.raises(SettingsError, match="holds composed lesions of an earlier case"):
        run_here(plan_of(spec), tmp_path / "set")


def test_backgrounds_are_looked_at_with_progress(tmp_path: Path) -> None:
    """On a terminal; where nothing else tells the owner all pixels are read, which takes long before the first case."""
    for name in "abc":
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    spec = write_spec(tmp_path, files="*.png", backgrounds="")

    def said() -> str:
        terminal, theirs = os.openpty()
        try:
            subprocess.run([*COMMAND, str(spec)], stderr=theirs, check=False)  # without --out: planned, then refused
            return os.read(terminal, 2**16).decode()
        finally:
            os.close(theirs)
            os.close(terminal)

    assert "[3/3] files of backgrounds looked at\r\n" in said()
    (tmp_path / "patients.csv").write_text("file,patient\na.png,one\nb.png,two\n")
    told = said()
    assert "[2/3] files of backgrounds looked at\r\nError: patients.csv leaves this image out" in told


def test_failures_are_told_by_reason_and_backgrounds_by_a_dry_run_too(ct_series_folder: Path, tmp_path: Path) -> None:
    write_scans(ct_series_folder, tmp_path, ("A",))
    Image.new("L", (64, 64)).save(tmp_path / "scan1.png")
    Image.new("L", (65, 64)).save(tmp_path / "scan2.png")
    spec = write_spec(tmp_path, cases="count = 6", output='formats = ["yolo"]\nsplit = { train = 1 }')
    for options, first in (
        (["--dry-run", "--measure"], "2 of 4 cases tried could not be made:"),
        (["--out", str(tmp_path / "set")], "4 case(s) could not be made: see failures.csv"),
    ):
        done = subprocess.run([*COMMAND, str(spec), *options], capture_output=True, text=True, check=False)
        assert done.returncode == 3
        said = done.stderr[done.stderr.index(first) :].splitlines()
        assert len(said) == 2
        assert said[1].startswith("  2 of 4 background(s): an image of modality OT doesn't tell")
    assert "2 background(s) of 1 patient(s): a model learns" in (tmp_path / "set" / "README.md").read_text()


def test_one_picture_under_two_patients_is_noted(ct_series_folder: Path, tmp_path: Path) -> None:
    write_scans(ct_series_folder, tmp_path, ("A",))
    (tmp_path / "scan1").mkdir()
    for file in (tmp_path / "scan0").iterdir():
        data = pydicom.dcmread(file)
        data.PatientID, data.SeriesInstanceUID = "B", "1.2.826.0.1.77"
        data.save_as(tmp_path / "scan1" / file.name)
    spec = write_spec(tmp_path, files="scan*", cases="count = 4", output='formats = ["yolo"]\nsplit = { train = 1 }')
    run_here(plan_of(spec), tmp_path / "set")
    assert "stand under two patients, pixel by pixel the same" in (tmp_path / "set" / "README.md").read_text()


def test_a_near_copy_is_no_background_and_burned_in_text_is_noted(ct_series_folder: Path, tmp_path: Path) -> None:
    write_scans(ct_series_folder, tmp_path, ("A", "B"))
    for file in (tmp_path / "scan0").iterdir():
        data = pydicom.dcmread(file)
        data.DerivationDescription = f"SYNTHETIC: made for a test; {NEAR_COPY}"
        data.save_as(file)
    for file in (tmp_path / "scan1").iterdir():
        data = pydicom.dcmread(file)
        data.BurnedInAnnotation = "YES"
        data.save_as(file)
    spec = write_spec(tmp_path, cases="count = 2", output='formats = ["yolo"]\nsplit = { train = 1 }')
    done = run_here(plan_of(spec), tmp_path / "set")
    assert (done.made, len(done.failures)) == (1, 1)
    assert "near copy of a film that its model learned from" in (tmp_path / "set" / "failures.csv").read_text()
    assert "1 case(s) have a background whose header says that text is" in (tmp_path / "set" / "README.md").read_text()


def test_a_composed_case_is_no_background(ct_series_folder: Path, tmp_path: Path) -> None:
    write_scans(ct_series_folder, tmp_path, ("A", "B"))
    for file in (tmp_path / "scan0").iterdir():
        data = pydicom.dcmread(file)
        data.DerivationDescription = f"SYNTHETIC: 3 {COMPOSED}, fusion better"
        data.save_as(file)
    spec = write_spec(tmp_path, cases="count = 2", output='formats = ["coco", "dicom"]\nsplit = { train = 1 }')
    done = run_here(plan_of(spec), tmp_path / "set")
    assert (done.made, len(done.failures)) == (1, 1)
    assert "holds composed lesions of an earlier case" in (tmp_path / "set" / "failures.csv").read_text()
    for folder in (tmp_path / "set", tmp_path / "set" / "coco" / "train" / "images"):
        found = provenance_of(folder)
        assert (found.ours, found.unmarked) == (True, ())


@pytest.mark.parametrize(
    ("backgrounds", "cases", "said"),
    [
        ("spacing_mm = 1.0", "", r"cases\.domain cxr"),  # not --domain
        ("", 'domain = "cxr"', r"Give it in mm: backgrounds\.spacing_mm = \[ROW, COLUMN\]\. "),  # no word of Slicer
    ],
)
def test_a_failure_names_the_key_that_mends_it(backgrounds: str, cases: str, said: str, tmp_path: Path) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "scan.png")
    spec = write_spec(tmp_path, files="scan.png", backgrounds=backgrounds, cases=f"count = 1\n{cases}")
    with pytest.raises(SettingsError, match=rf"none of the first 1 cases.*1 of 1 background\(s\).*{said}"):
        run_here(plan_of(spec), tmp_path / "set")


def test_options_of_other_commands_stay_in_a_failure(
    ct_series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise SettingsError(
            "of another task", remedy="Train one: python -m Training.train_danger --domain film. See --domain."
        )

    write_scans(ct_series_folder, tmp_path, ("A",))
    monkeypatch.setattr(making, "draw_case", refuse)
    with pytest.raises(SettingsError, match=r"Training\.train_danger --domain film\. See cases\.domain\."):
        run_here(plan_of(write_spec(tmp_path, cases="count = 1")), tmp_path / "set")
