"""Real small and real read-only disks, as tmpfs; tests that need one are skipped where mounting isn't allowed."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TOTAL = 2 * 2**20


def _mount(*arguments: str) -> None:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no command mount here")
    if done.returncode != 0:
        pytest.skip(f"mounting a small disk isn't allowed here ({done.stderr.strip()})")


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 2 MiB at `folder`, which is made."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={TOTAL}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def all_but(disk: Path, free: int) -> Iterator[None]:
    """The disk full but for about so many bytes (whole pages of 4 KiB)."""
    ballast = disk / ".ballast"
    held = sum(path.stat().st_blocks * 512 for path in disk.rglob("*") if path.is_file())
    with ballast.open("wb") as stream, contextlib.suppress(OSError):
        stream.write(bytes(TOTAL - held - free))
        stream.flush()
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """The disk, with whatever is on it, can't be written meanwhile, not by root either."""
    _mount("-o", "remount,ro", str(disk))
    try:
        yield
    finally:
        _mount("-o", "remount,rw", str(disk))
