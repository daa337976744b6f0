"""What `generate` leaves where it is cut off, fails, or finds an earlier call: whole films, all on record."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from HiResMedSynthLib.background.cascade import FilmCascade
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.read import read_image
from Testing.generate.calls import generate


@pytest.mark.parametrize("whole", [0, 2])
def test_ctrl_c_keeps_whole_files_only(
    whole: int, tmp_path: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_after(patch, whole, KeyboardInterrupt())
    out = tmp_path / "films"
    assert generate(patch, out, "--count", 5) == 130
    said = capsys.readouterr().err
    if whole:
        assert "2 of 5 image(s) are whole" in said
        assert sorted(path.name for path in out.iterdir()) == [
            "cxr-0000.dcm", "cxr-0001.dcm", "generated.json", "sheet.png",
        ]  # fmt: skip
        assert len(json.loads((out / "generated.json").read_text())["images"]) == 2
    else:
        assert "Cancelled" in said
        assert not out.exists()


def test_only_an_earlier_call_is_replaced(
    made: Path, tmp_path: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "films"
    shutil.copytree(made, out)
    assert generate(patch, out, "--size", 32) == 1
    assert "already exists" in capsys.readouterr().err
    (out / "letter.txt").write_text("mine")
    assert generate(patch, out, "--size", 32, "--overwrite") == 1
    assert "letter.txt" in capsys.readouterr().err
    (out / "letter.txt").unlink()
    assert generate(patch, out, "--size", 32, "--overwrite") == 0
    assert [path.name for path in sorted(out.iterdir())] == ["cxr-0000.dcm", "generated.json", "sheet.png"]


def cut_after(patch: pytest.MonkeyPatch, whole: int, error: BaseException) -> None:
    """Lets that many images be made, then raises."""
    real, calls = FilmCascade.finish, []

    def cut(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > whole:
            raise error
        return real(*arguments, **named)

    patch.setattr(FilmCascade, "finish", cut)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [SettingsError("near copies only", remedy="x"), KeyboardInterrupt(), MemoryError()])
def test_what_fails_before_the_first_image_replaces_nothing(
    error: BaseException, made: Path, tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "films"
    shutil.copytree(made, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    cut_after(patch, 0, error)
    assert generate(patch, out, "--size", 32, "--seed", 6, "--overwrite") != 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_what_fails_later_leaves_old_and_new_on_record(
    made: Path, tmp_path: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "films"
    shutil.copytree(made, out)
    with pytest.MonkeyPatch.context() as cut:
        cut_after(cut, 2, SettingsError("near copies only", remedy="x"))
        assert generate(cut, out, "--size", 32, "--seed", 7, "--count", 5, "--overwrite") == 1
    said = capsys.readouterr().err
    assert "near copies only" in said
    assert "Stopped: 2 of 5 image(s) are whole" in said
    assert names_in(out) == [f"cxr-000{seed}.dcm" for seed in (5, 6, 7, 8)] + ["generated.json", "sheet.png"]
    record = json.loads((out / "generated.json").read_text())
    assert [one["seed"] for one in record["images"]] == [7, 8]
    assert record["images_of_an_earlier_call"] == ["cxr-0005.dcm", "cxr-0006.dcm"]
    assert read_image(out / "cxr-0007.dcm").rows == 32
    assert read_image(out / "cxr-0006.dcm").rows == 256
    assert generate(patch, out, "--size", 32, "--overwrite") == 0
    assert names_in(out) == ["cxr-0000.dcm", "generated.json", "sheet.png"]
    assert "images_of_an_earlier_call" not in json.loads((out / "generated.json").read_text())


def test_an_error_in_a_new_folder_leaves_a_record(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    cut_after(patch, 1, SettingsError("near copies only", remedy="x"))
    assert generate(patch, tmp_path / "films", "--size", 32, "--count", 3) == 1
    assert names_in(tmp_path / "films") == ["cxr-0000.dcm", "generated.json", "sheet.png"]


def test_no_image_is_ever_without_its_record(
    tmp_path: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk is full when the second record is to be written; a later call takes up what is there."""
    out, real, records = tmp_path / "films", Path.write_text, []

    def full(path: Path, text: str, **options: Any) -> int:
        if path.suffix == ".json":
            records.append(path)
            if len(records) > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, text, **options)

    with pytest.MonkeyPatch.context() as cut:
        cut.setattr(Path, "write_text", full)
        assert generate(cut, out, "--size", 32, "--count", 3) == 1
    assert "No space left" in capsys.readouterr().err
    assert names_in(out) == ["cxr-0000.dcm", "generated.json"]
    assert [one["file"] for one in json.loads((out / "generated.json").read_text())["images"]] == ["cxr-0000.dcm"]
    (out / ".cxr-0001-0123456789abcdef.dcm").write_bytes(b"cut off")  # as a call leaves it that is killed
    records.clear()
    with pytest.MonkeyPatch.context() as cut:
        cut.setattr(Path, "write_text", full)
        assert generate(cut, out, "--size", 32, "--seed", 4, "--count", 2, "--overwrite") == 1
    record = json.loads((out / "generated.json").read_text())
    assert [one["file"] for one in record["images"]] == ["cxr-0004.dcm"]
    assert record["images_of_an_earlier_call"] == ["cxr-0000.dcm"]  # what was cut off is no image, and is gone
    assert names_in(out) == ["cxr-0000.dcm", "cxr-0004.dcm", "generated.json"]
    assert generate(patch, out, "--size", 32, "--seed", 4, "--overwrite") == 0
    assert names_in(out) == ["cxr-0004.dcm", "generated.json", "sheet.png"]


@pytest.mark.parametrize("there", [False, True])
def test_an_image_that_cannot_take_its_name_leaves_the_record_as_it_was(
    there: bool, tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    """On Windows so where a viewer holds the old one open."""
    out, real = tmp_path / "films", Path.replace
    assert not there or generate(patch, out, "--size", 32, "--sex", "M") == 0
    before = (out / "generated.json").read_bytes() if there else None

    def held(path: Path, target: Path) -> Path:
        if target.suffix == ".dcm":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, target)

    with pytest.MonkeyPatch.context() as cut:
        cut.setattr(Path, "replace", held)
        assert generate(cut, out, "--size", 32, "--sex", "F", "--overwrite") == 1
    assert out.exists() is there
    if there:
        assert (out / "generated.json").read_bytes() == before
        assert names_in(out) == ["cxr-0000.dcm", "generated.json", "sheet.png"]
