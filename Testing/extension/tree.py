"""The repository as a stranger clones it: its files, and what git knows of their history."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "HiResMedSynth"
LIBRARY = ROOT / "HiResMedSynthLib"


def git(*arguments: str, folder: Path = ROOT) -> str:
    """What git prints in that folder; skips the test outside a checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: the list of the repository's files is unknown")
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8", check=True).stdout


def bytes_of_history(folder: Path) -> int:
    """What HEAD's history takes in .git; an object that the checkout happens to store twice counts once."""
    return int(git("rev-list", "--disk-usage", "--objects", "HEAD", folder=folder))


def files_below(folder: Path) -> set[str]:
    """Paths, relative to the folder, of its files that git tracks or would track."""
    names = set(git("ls-files", "-coz", "--exclude-standard", folder=folder).split("\0"))
    return {name for name in names if name and (folder / name).is_file()}


def listed(folder: Path, variable: str) -> list[str]:
    """The values of a variable in the folder's CMakeLists.txt, in their order there."""
    text = (folder / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.search(rf"set\({variable}\s+([^)]*)\)", text)
    assert found, f"{folder.name}/CMakeLists.txt sets no {variable}"
    return found[1].split()
