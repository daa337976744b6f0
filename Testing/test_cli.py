"""The command line as a user meets it: what it writes, what it says, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from HiResMedSynthLib.choices import LESION_TYPES
from HiResMedSynthLib.cli import main as command_line
from HiResMedSynthLib.read import read_image

FILM = ("--domain", "cxr", "--spacing-mm", "0.342,0.4175")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of `hiresmedsynth ARGUMENTS`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["hiresmedsynth", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def composed(ct_series_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("composed") / "case"
    with pytest.MonkeyPatch.context() as patch:
        code = run(
            patch,
            "compose",
            ct_series_folder,
            "--lesions",
            2,
            "--seed",
            7,
            "--size-mm",
            "10:15",
            "--pair",
            "--out",
            out,
        )
    assert code == 0
    return out


def test_numpy_counts_on_one_thread_unless_told_otherwise() -> None:
    """Where both cores were busy its waiting threads made `privacy check` fifteen times slower."""
    code = (
        "import os, sys; from HiResMedSynthLib.cli import main; assert 'numpy' not in sys.modules\n"
        "sys.argv = ['hiresmedsynth', '--version']\n"
        "try: main.main()\nexcept SystemExit: print(os.environ['OPENBLAS_NUM_THREADS'])"
    )
    for told, expected in ({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3"):
        kept = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
        done = subprocess.run([sys.executable, "-c", code], env=kept | told, capture_output=True, text=True, check=True)
        assert done.stdout.split()[-1] == expected


def test_compose_writes_the_whole_case(composed: Path) -> None:
    case = json.loads((composed / "case.json").read_text())
    assert len(case["lesions"]) == 2
    written = sorted((composed / "dicom").glob("*.dcm"))
    assert len(written) == 12
    for file in written:
        data = pydicom.dcmread(file)
        assert data.SyntheticData == "YES"
        assert data.PatientID
    assert (composed / "segmentation.dcm").is_file()
    assert (composed / "preview.png").is_file()


def test_a_case_is_replayed_from_its_own_folder(
    composed: Path, ct_series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the background written by --pair, and from the original series: the same pixels both times."""
    assert run(monkeypatch, "compose", "--case", composed / "case.json", "--out", tmp_path / "a") == 0
    assert run(monkeypatch, "compose", ct_series_folder, "--case", composed, "--out", tmp_path / "b") == 0
    for file in sorted((composed / "dicom").glob("*.dcm")):
        first = pydicom.dcmread(file).pixel_array
        for folder in (tmp_path / "a", tmp_path / "b"):
            assert np.array_equal(first, pydicom.dcmread(folder / "dicom" / file.name).pixel_array)
    assert (tmp_path / "a" / "case.json").read_bytes() == (composed / "case.json").read_bytes()


@pytest.mark.parametrize("how", ["one slice", "a left-handed volume"])
def test_a_pair_replays_its_own_case(
    how: str,
    ct_series_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source: list[object] = [ct_series_folder, "--slice", 6]
    if how != "one slice":
        import SimpleITK as sitk

        image = read_image(ct_series_folder)
        volume = sitk.GetImageFromArray(image.pixels[7:4:-1].copy())
        odd = 0.8314043283462524  # DICOM's 16 characters don't hold it
        volume.SetSpacing((odd, odd, image.slice_spacing_mm))
        volume.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, -1))
        sitk.WriteImage(volume, str(tmp_path / "turned.nrrd"))
        source = [tmp_path / "turned.nrrd"]
    assert run(monkeypatch, "compose", *source, "--size-mm", "10:12", "--pair", "--out", tmp_path / "a") == 0
    told = capsys.readouterr().out
    assert re.search(r"contrast -?\d+ HU", told)
    assert bool(re.search(r"mm \(its mask here [\d.]+\)", told)) == (how == "one slice")
    assert run(monkeypatch, "compose", "--case", tmp_path / "a", "--out", tmp_path / "b") == 0
    ours, again = (read_image(tmp_path / name / "dicom") for name in ("a", "b"))
    assert ours.pixel_sha256 == again.pixel_sha256


def test_what_was_given_in_place_of_the_header_and_what_lies_otherwise_is_told(
    ct_series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import SimpleITK as sitk

    asked = ("--size-mm", "8:9", "--danger", "rule")
    out = tmp_path / "part"
    assert run(monkeypatch, "compose", ct_series_folder, "--spacing-mm", "0.9", *asked, "--pair", "--changed-only",
               "--out", out) == 0  # fmt: skip
    assert "WARNING: the pixel spacing given is taken in place of the file's own: the file says 0.8" in (
        capsys.readouterr().err
    )
    assert run(monkeypatch, "compose", "--case", out, "--out", tmp_path / "again") == 1
    assert "--changed-only" in (told := capsys.readouterr().err) and "the pixels differ" not in told
    image = sitk.GetImageFromArray(read_image(ct_series_folder).pixels)
    image.SetSpacing((0.841797, 0.841797, 5.0))
    image.SetDirection((1, 0, 0, 0, 0, -1, 0, 1, 0))
    sitk.WriteImage(image, str(tmp_path / "coronal.nrrd"))
    run(monkeypatch, "compose", tmp_path / "coronal.nrrd", "--danger", "rule", "--out", tmp_path / "c")
    assert "not stored as axial slices" in capsys.readouterr().err


def test_nothing_of_the_source_patient_is_in_any_output(composed: Path, ct_series_folder: Path) -> None:
    source = pydicom.dcmread(next(ct_series_folder.glob("*.dcm")))
    secrets = {str(source.PatientID), str(source.PatientName), source.StudyInstanceUID, source.SeriesInstanceUID}
    secrets |= {source.SOPInstanceUID, source.FrameOfReferenceUID, str(ct_series_folder)}
    for file in composed.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [secret for secret in secrets if secret and secret.encode() in content], file.name


def test_a_film_with_a_request_file(
    cxr_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = tmp_path / "requests.json"
    wanted.write_text('[{"size_mm": [14, 18], "seed": 3}]')
    out = tmp_path / "film"
    assert run(monkeypatch, "compose", cxr_file, *FILM, "--request", wanted, "--out", out) == 0
    assert json.loads((out / "case.json").read_text())["background"]["spacing_source"] == "assumed"
    assert re.search(r"contrast -?\d+ stored values", capsys.readouterr().out)


def bad_inputs(folder: Path, series: Path, film: Path) -> dict[str, list[object]]:
    """Name -> arguments of `compose` (without --out) that must be refused."""
    (folder / "empty").mkdir()
    (folder / "text.dcm").write_text("hello")
    (folder / "truncated.dcm").write_bytes(next(series.glob("*.dcm")).read_bytes()[:4000])
    requests = folder / "requests.json"
    requests.write_text('[{"colour": "red"}]')
    one = [series, "--slice", "6"]
    return {
        "missing file": [folder / "absent.dcm"],
        "not an image": [folder / "text.dcm"],
        "empty folder": [folder / "empty"],
        "truncated DICOM": [folder / "truncated.dcm"],
        "film without spacing": [film, "--domain", "cxr"],
        "unknown bank entry": [*one, "--bank-entry", "no-such-lesion"],
        "lesion bigger than the image": [film, *FILM, "--size-mm", "900:1000"],
        "slice that is not there": [series, "--slice", "99"],
        "stone in a lung": [*one, "--type", "stone"],
        "CT as film": [series, "--domain", "cxr"],
        "bad request file": [series, "--request", requests],
        "contrast and CNR": [series, "--contrast", "10:20", "--cnr", "1:2"],
        "point in the heart": [*one, "--at", "256,256", "--size-mm", "10:12"],
        "too many": [film, *FILM, "--lesions", "30", "--size-mm", "60:70"],
        "case of another image": [film, *FILM, "--case", folder / "case"],
        "negative margin": [series, "--pleura-margin-mm", "-1"],
        "lesion bigger than the lungs": [*one, "--size-mm", "400:400"],
        "place without slice": [series, "--at", "250,150"],
        "place with a slice on a film": [film, *FILM, "--at", "250,150,6"],
        "place in another slice": [*one, "--at", "250,150,5"],
        "more in zones than lesions": [*one, "--zone", "left=3", "--lesions", "2"],
        "more places and zones than lesions": [*one, "--at", "2,3", "--zone", "left=2", "--lesions", "2"],
        "row outside": [series, "--at", "999,150,6", "--size-mm", "10:12"],
        "rotation that is no number": [*one, "--rotation", "nan"],
        "case with other wishes": [series, "--case", folder / "case", "--fusion", "paper"],
        "requests with other wishes": [series, "--request", requests, "--type", "solid"],
    }


@pytest.mark.parametrize("name", [
    "missing file", "not an image", "empty folder", "truncated DICOM", "film without spacing", "unknown bank entry",
    "lesion bigger than the image", "slice that is not there", "stone in a lung", "CT as film", "bad request file",
    "contrast and CNR", "point in the heart", "too many", "case of another image", "negative margin",
    "lesion bigger than the lungs", "place without slice", "place with a slice on a film", "row outside",
    "place in another slice", "more in zones than lesions", "more places and zones than lesions",
    "rotation that is no number", "case with other wishes", "requests with other wishes",
])  # fmt: skip
def test_bad_input_is_refused_in_one_paragraph(
    name: str, tmp_path: Path, ct_series_folder: Path, cxr_file: Path, composed: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.copytree(composed, tmp_path / "case")
    arguments = bad_inputs(tmp_path, ct_series_folder, cxr_file)[name]
    before = sorted(tmp_path.iterdir())
    assert run(monkeypatch, "compose", *arguments, "--out", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert sorted(tmp_path.iterdir()) == before, "something was left behind"


def test_an_existing_folder_is_refused_without_overwrite(
    ct_series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    assert run(monkeypatch, "compose", ct_series_folder, "--out", tmp_path) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "keep.txt").read_text() == "mine"


WRONG_USAGE = (["compose"], ["compose", "x"], ["nonsense"], ["compose", "x", "--size-mm", "5:4", "--out", "y"])


@pytest.mark.parametrize("arguments", WRONG_USAGE)
def test_wrong_usage_exits_with_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compse"], "No such command 'compse'. Did you mean 'compose'?"),
        (["lesion", "lits"], "No such command 'lits'. Did you mean 'list'?"),
        (["compose", "x", "--lesoins", "3", "--out", "y"], "No such option '--lesoins'. Did you mean '--lesions'?"),
        (["lesion", "list", "--type", "sold"], "is not one of " + ", ".join(map(repr, LESION_TYPES))),
    ],
)
def test_a_slip_of_the_pen_is_answered_with_what_was_meant(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_bug_of_ours_is_told_without_a_traceback(
    ct_series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr("HiResMedSynthLib.compose.compose", broken)
    line = ("compose", ct_series_folder, "--slice", 6, "--size-mm", "10:12", "--out", tmp_path / "out")
    assert run(monkeypatch, *line) == 70
    assert "HIRESMEDSYNTH_DEBUG" in capsys.readouterr().err


def hears_ctrl_c() -> None:
    """In the child: SIGINT ends it, also where the tests run in the background of a shell, which ignores it there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_in_mid_export_leaves_nothing(ct_series_folder: Path, tmp_path: Path) -> None:
    """SIGINT as soon as the first DICOM file of the export appears."""
    target = tmp_path / "place" / "out"
    target.parent.mkdir()
    command = [
        str(Path(sys.executable).parent / "hiresmedsynth"),
        "compose",
        str(ct_series_folder),
        "--out",
        str(target),
    ]
    with subprocess.Popen(
        [*command, "--size-mm", "10:12", "--danger", "rule"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=hears_ctrl_c,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline and not list(target.parent.rglob("*.dcm")):
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.fail("the export ended before it could be interrupted")
    assert process.returncode == 130, said
    assert "Cancelled" in said
    assert list(target.parent.iterdir()) == []


def test_every_help_page_has_an_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in command_line.COMMANDS:
        assert run(monkeypatch, name, "--help") == 0
        assert f"hiresmedsynth {name}" in capsys.readouterr().out, name


def test_danger_and_prior_write_maps_that_lie_on_the_image(
    ct_series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import SimpleITK as sitk

    image = read_image(ct_series_folder)
    for command, suffix in (("danger", "nrrd"), ("prior", "nii.gz")):
        out, preview = tmp_path / f"{command}.{suffix}", tmp_path / f"{command}.png"
        assert run(monkeypatch, command, ct_series_folder, "--out", out, "--preview", preview) == 0
        written = sitk.ReadImage(str(out))
        assert written.GetSize() == (image.columns, image.rows, image.slices)
        point = written.TransformIndexToPhysicalPoint((5, 7, 3))
        assert point == pytest.approx(image.index_to_lps([(3, 7, 5)])[0], abs=1e-3)
        with Image.open(preview) as picture:
            assert "SYNTHETIC" not in picture.text["Description"]
        assert run(monkeypatch, command, ct_series_folder, "--out", out) == 1
        assert "--overwrite" in capsys.readouterr().err
    heat = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "prior.nii.gz")))
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "danger.nrrd")))
    assert heat.sum() == pytest.approx(1, abs=1e-3)
    assert not heat[labels != 0].any()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "danger.nrrd",
        "danger.png",
        "prior.nii.gz",
        "prior.png",
    ]


def test_a_preview_of_a_synthetic_image_says_so(
    composed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ("--slice", 6, "--danger", "rule", "--out")
    for command in ("danger", "candidates"):
        preview = tmp_path / f"{command}.png"
        out = tmp_path / ("map.nrrd" if command == "danger" else "places.csv")
        assert run(monkeypatch, command, composed / "dicom", *how, out, "--preview", preview) == 0
        with Image.open(preview) as picture:
            assert picture.text["Description"].startswith("SYNTHETIC"), command


def test_a_slice_that_is_not_there_is_not_shown(
    ct_series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--out", tmp_path / "map.nrrd", "--preview", tmp_path / "map.png", "--preview-slice", 12)
    assert run(monkeypatch, "danger", ct_series_folder, *where) == 1
    assert "not in 0..11" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_bank_is_listed_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "lesion", "list", "--type", "calcified") == 0
    assert "calcified-04mm-a" in capsys.readouterr().out
    assert run(monkeypatch, "lesion", "show", "solid-10mm-a", "--out", tmp_path / "lesion.png") == 0
    with Image.open(tmp_path / "lesion.png") as picture:
        assert picture.text["Description"].startswith("real cut-out. Armato SG")
