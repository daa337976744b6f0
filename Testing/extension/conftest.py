"""Folders of tiny wheels and a plain Python, which the tests of the installation share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from Testing.extension.wheels import FAKE_TORCH, build_wheel, write_sums

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "HiResMedSynth"))

from HiResMedSynthPanel.installation import environment_python  # noqa: E402
from HiResMedSynthPanel.wheel_folder import read_requirements  # noqa: E402


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A stand-in of the whole backend, one of which needs another, in a folder with an awkward name."""
    folder = tmp_path / "Räder für CT & MR 画像"
    folder.mkdir()
    for line in read_requirements():
        wanted = Requirement(line)
        version = str(next(iter(wanted.specifier)).version)
        is_torch = wanted.name == "torch"
        needs = ("filelock>=1", "nvidia-thing; platform_system == 'Never'") if is_torch else ()
        build_wheel(folder, wanted.name, version, requires=needs, body=FAKE_TORCH if is_torch else "")
    build_wheel(folder, "filelock", "3.1")
    build_wheel(folder, "unneeded")
    write_sums(folder)
    return folder


@pytest.fixture(scope="session")
def plain_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with pip and nothing else, under a path with a space."""
    environment = tmp_path_factory.mktemp("plain python")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, capture_output=True)
    return environment_python(environment)
