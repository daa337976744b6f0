"""`hiresmedsynth data check` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from Testing.labelled_folders import put_text, yolo
from Testing.test_architecture import heavy_modules_after
from Testing.test_cli import run


def test_a_sound_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = yolo(tmp_path / "in")
    report, told = tmp_path / "new" / "check", tmp_path / "new" / "check.json"
    assert run(monkeypatch, "data", "check", folder, "--report", report, "--json", told) == 0
    shown = capsys.readouterr().out
    assert "nothing is wrong in it, but no trainer takes it" in shown
    assert "Holds pixels of patients" in shown
    facts = json.loads(told.read_text())
    assert (facts["images"], facts["problems"], facts["trainers"]) == (4, [], [])
    assert (report / "report.html").read_text().count("<figure>") == 4


def test_a_bad_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = yolo(tmp_path / "in")
    put_text("labels/f0.txt", "5 .5 .5 .1 .1")(folder)
    assert run(monkeypatch, "data", "check", folder, "--json", tmp_path / "check.json") == 1
    shown = capsys.readouterr().out
    assert "1 problem(s) stop training" in shown
    assert "labels/f0.txt, line 1" in shown
    (problem,) = json.loads((tmp_path / "check.json").read_text())["problems"]
    assert problem["where"] == "labels/f0.txt, line 1"
    assert problem["remedy"]


def test_no_folder_and_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "data", "check", tmp_path / "none") == 1
    assert "there is no such folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert run(monkeypatch, "data", "check", yolo(tmp_path / "in"), "--report", tmp_path / "file") == 1
    assert "can't be written" in capsys.readouterr().err
    assert run(monkeypatch, "data") in (0, 2)
    assert run(monkeypatch, "data", "check") == 2


def test_help_loads_nothing_heavy() -> None:
    statement = (
        "from HiResMedSynthLib.cli.main import cli\nimport contextlib, io\n"
        "with contextlib.redirect_stdout(io.StringIO()): cli.main(['data', 'check', '--help'], standalone_mode=False)"
    )
    assert heavy_modules_after(statement) == set()
