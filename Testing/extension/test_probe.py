"""What a Python that the user names says of itself, or that it says nothing of use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from HiResMedSynthPanel.installation import probe, probe_command, read_probe
from HiResMedSynthPanel.wheel_folder import read_requirements
from packaging.requirements import Requirement

from Testing.extension.conftest import ROOT


def test_probe_of_the_projects_own_interpreter() -> None:
    answer = probe(Path(sys.executable), ROOT, timeout_s=60)
    assert answer.usable, answer.sentence
    assert answer.device == "cpu" or answer.device.startswith("cuda ")
    assert answer.missing == ()
    assert answer.python == ".".join(map(str, sys.version_info[:3]))


def test_probe_says_that_the_library_is_not_there(tmp_path: Path) -> None:
    answer = read_probe(probe_answer(library=False), 0, Path("p"))
    assert "Install the extension again" in answer.problem


def script(tmp_path: Path, body: str) -> Path:
    file = tmp_path / "mein pythön"
    file.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    file.chmod(0o755)
    return file


@pytest.mark.skipif(os.name == "nt", reason="shell scripts")
@pytest.mark.parametrize(
    "body", ["sleep 60", "sleep 60 & sleep 60", "yes", "yes hiresmedsynth_probe", "echo hello; exec sleep 60"]
)
def test_probe_of_a_program_that_hangs(tmp_path: Path, body: str) -> None:
    answer = probe(script(tmp_path, body), ROOT, timeout_s=0.5)
    assert "took too long and was stopped" in answer.sentence


@pytest.mark.skipif(os.name == "nt", reason="shell scripts")
@pytest.mark.parametrize(
    "body", ["exit 0", "echo hello", "printf '\\377\\000[[['", 'echo \'{"hiresmedsynth_probe": 1, "python": 3}\'']
)
def test_probe_of_a_program_that_prints_rubbish(tmp_path: Path, body: str) -> None:
    answer = probe(script(tmp_path, body), ROOT)
    assert "didn't answer like a Python" in answer.sentence
    assert "exit code 0" in answer.sentence


def test_probe_of_what_is_no_program(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path, Path("nul\0byte")):
        assert "can't be started" in probe(path, ROOT).sentence


def probe_answer(**changes: object) -> str:
    versions = {Requirement(line).name: "99" for line in read_requirements()}
    facts = {"python": "3.12.10", "versions": versions, "library": True, "device": "cpu", **changes}
    kept = {key: value for key, value in facts.items() if value is not None}
    return "noise\n" + json.dumps({**kept, "hiresmedsynth_probe": 1}) + "\nmore noise"


def test_answers_are_read() -> None:
    here = Path("python")
    assert read_probe(probe_answer(), 0, here).sentence == "Python 3.12.10 with torch 99; computes on cpu."
    assert "needs 3.11 or newer" in read_probe(probe_answer(python="3.9.1"), 0, here).problem
    assert "half an answer" in read_probe(probe_answer(versions=None), 1, here).problem
    assert (
        "can't be loaded (OSError: x.dll)"
        in read_probe(probe_answer(device=None, device_error="OSError: x.dll"), 0, here).problem
    )
    assert "exit code -11" in read_probe(probe_answer(device=None), -11, here).problem
    slow = read_probe(probe_answer(device=None), None, here)
    assert slow.usable
    assert "slow to load" in slow.sentence


def test_the_probe_works_in_isolated_mode_too(tmp_path: Path) -> None:
    (tmp_path / "HiResMedSynthLib").mkdir()
    program, *rest = probe_command(Path(sys.executable), tmp_path).arguments
    answer = subprocess.run([program, "-I", *rest], capture_output=True, text=True, check=True, timeout=120)
    assert read_probe(answer.stdout, 0, Path(program)).usable
