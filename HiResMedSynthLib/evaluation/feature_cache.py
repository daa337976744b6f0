"""Measured numbers of pictures on disk, by a hash of what they were measured on: the same picture is measured once.

It holds numbers only, no pixels and no names. A damaged entry is measured anew; the folder may be thrown away.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER_VARIABLE = "HIRESMEDSYNTH_CACHE"


def cache_folder() -> Path:
    """Where this system keeps what programs may lose; HIRESMEDSYNTH_CACHE names another folder."""
    own = os.environ.get(FOLDER_VARIABLE)
    if own:
        return Path(own)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "hiresmedsynth"


class FeatureCache:
    """Arrays of numbers by key.

    Args:
        folder: where; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else folder / "evaluation"

    def get(self, *key: object) -> NDArray[np.float64] | None:
        """The numbers of that key; None where there are none, or they are damaged."""
        if self._folder is None:
            return None
        try:
            found = np.load(self._file(key), allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        sound = isinstance(found, np.ndarray) and found.dtype == np.float64 and found.ndim == 1
        return found if sound else None

    def put(self, numbers: NDArray[np.float64], *key: object) -> None:
        """Keeps the numbers; a cache that can't be written is no error."""
        if self._folder is None:
            return
        file = self._file(key)
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=file.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as stream:
                    np.save(stream, numbers, allow_pickle=False)
                Path(name).replace(file)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    def _file(self, key: tuple[object, ...]) -> Path:
        assert self._folder is not None
        digest = hashlib.sha256("|".join(map(str, key)).encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest}.npy"
