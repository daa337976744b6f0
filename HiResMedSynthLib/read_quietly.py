"""Reading quietly: no warnings, and pydicom doesn't judge values; what is odd in a file is told as an oddity instead.

Both are switches of the whole process, and each user of them puts back what it found. Threads that overlap would put
back one another's: so the first to come turns a switch, and the last to go turns it back.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


class _Shared:
    """A context of the process that several threads are in at once; `make` gives one that is entered and left once."""

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._inside, self._held = 0, make()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._held = self._make()
                self._held.__enter__()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._held.__exit__(None, None, None)


@contextmanager
def _silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _tolerance() -> Iterator[None]:
    import pydicom

    with pydicom.config.disable_value_validation():
        yield


without_warnings = _Shared(_silence)
_without_validation = _Shared(_tolerance)


@contextmanager
def quietly() -> Iterator[None]:
    """The context in which DICOM files are parsed, in any number of threads."""
    with without_warnings(), _without_validation():
        yield
