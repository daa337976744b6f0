"""Folders in which jobs write on their way. They hold pixels of patients: nothing of them may outlive the backend long.

A job takes its folder away itself; where the backend ends in the middle of one it is taken away then, and where the
process was killed, by a later backend.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "hiresmedsynth-job-"
LONGEST_JOB_S = 24 * 3600.0
_in_use: set[Path] = set()


@contextmanager
def job_folder() -> Iterator[Path]:
    """A new folder that only this user can read; gone afterwards."""
    place = Path(tempfile.mkdtemp(prefix=PREFIX))
    _in_use.add(place)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        _in_use.discard(place)


def remove_folders_in_use() -> None:
    """Takes away those of this process, which ends now, whatever its jobs are doing."""
    for place in list(_in_use):
        shutil.rmtree(place, ignore_errors=True)


def remove_folders_left() -> None:
    """Takes away what backends left that were killed: folders older than any job lasts."""
    for place in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or gone meanwhile
            if time.time() - place.stat().st_mtime > LONGEST_JOB_S and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)
