"""A folder that replaces another is never gone: killed at every line of the way, on systems of both kinds."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from HiResMedSynthLib import aside
from HiResMedSynthLib.aside import bring_back, swap
from HiResMedSynthLib.errors import ExportError
from HiResMedSynthLib.export.folder import export
from Testing.batch.small_scans import files_in
from Testing.export.cases import composition_in, ct_image

FILE = aside.__file__
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")


def no_exchange(_one: Path, _other: Path) -> bool:
    return False


@pytest.fixture(params=["exchange", "two renames"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "two renames":  # as on macOS, Windows and some network disks
        monkeypatch.setattr(aside, "_exchanged", no_exchange)
    elif sys.platform != "linux":
        pytest.skip("only Linux exchanges names")
    return str(request.param)


def killed_at_line(number: int, action: Callable[[], object]) -> bool:
    """Runs the action in a child that kills itself before the so-many-th line of aside.py; whether it came so far."""

    def count(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal number
        if frame.f_code.co_filename != FILE:
            return None
        if event == "line":
            number -= 1
            if number == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return count

    if (child := os.fork()) == 0:
        sys.settrace(count)
        action()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def folder(path: Path, word: str) -> Path:
    path.mkdir()
    for name in ("a", "b"):
        (path / name).write_text(word)
    return path


def test_a_folder_that_is_named_by_a_link_is_brought_back_to_the_place_that_the_link_names(tmp_path: Path) -> None:
    (link := tmp_path / "link").symlink_to(folder(tmp_path / "out", "old"))
    (tmp_path / "out").rename(tmp_path / ".out.hiresmedsynth-earlier")  # killed after the first of two renames
    bring_back(link)
    assert set(files_in(link).values()) == {b"old"}


@needs_fork
def test_whenever_it_is_killed_one_of_both_is_there_whole(system: str, tmp_path: Path) -> None:
    seen = set()
    for line in range(1, 100):
        place = tmp_path / str(line)
        place.mkdir()
        out, fresh = folder(place / "out", "old"), folder(place / ".fresh", "new")
        killed = killed_at_line(line, lambda fresh=fresh, out=out: swap(fresh, out))  # type: ignore[misc]
        assert out.exists() or system == "two renames"
        bring_back(out)
        found = set(files_in(out).values())
        assert files_in(out).keys() == {"a", "b"}
        assert len(found) == 1
        seen |= found
        swap(folder(place / ".third", "third"), out)  # what the kill left is in nobody's way
        assert files_in(out) == {"a": b"third", "b": b"third"}
        if not killed:
            break
    assert not killed
    assert seen == {b"old", b"new"}


def test_the_earlier_folder_is_handed_over(system: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    swap(folder(tmp_path / "one", "1"), out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    swap(folder(tmp_path / "two", "2"), out)
    assert files_in(tmp_path) == {"out/a": b"2", "out/b": b"2", "two/a": b"1", "two/b": b"1"}


def test_a_name_that_cannot_be_changed_leaves_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "_exchanged", no_exchange)
    out = folder(tmp_path / "out", "old")
    with pytest.raises(FileNotFoundError):
        swap(tmp_path / "missing", out)
    assert files_in(tmp_path) == {"out/a": b"old", "out/b": b"old"}


@needs_fork
def test_an_earlier_case_is_brought_back_by_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "case"
    export(composition_in(ct_image()), out, with_preview=False)
    before = files_in(out)
    monkeypatch.setattr(aside, "_exchanged", no_exchange)
    rename = Path.rename

    def rename_and_die(path: Path, target: Path) -> Path:
        rename(path, target)
        os.kill(os.getpid(), signal.SIGKILL)
        return target

    if (child := os.fork()) == 0:
        monkeypatch.setattr(Path, "rename", rename_and_die)
        export(composition_in(ct_image(), lesions=2), out, overwrite=True, with_preview=False)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert not out.exists()
    with pytest.raises(ExportError, match="already exists"):
        export(composition_in(ct_image(), lesions=2), out, with_preview=False)
    assert files_in(out) == before


def test_a_case_behind_a_link_is_replaced_there(tmp_path: Path) -> None:
    (tmp_path / "roomy").mkdir()
    link = tmp_path / "case"
    link.symlink_to(tmp_path / "roomy")
    export(composition_in(ct_image()), link, overwrite=True, with_preview=False)
    assert link.is_symlink()
    assert (tmp_path / "roomy" / "case.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case", "roomy"]


def test_a_case_that_came_there_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "case"

    def progress(_done: int, _total: int, what: str) -> None:
        if what == "case written":
            out.mkdir()
            (out / "thesis.tex").write_text("mine")

    with pytest.raises(ExportError, match="already exists"):
        export(composition_in(ct_image()), out, with_preview=False, progress=progress)
    assert files_in(tmp_path) == {"case/thesis.tex": b"mine"}
