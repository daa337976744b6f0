"""Processes that take turns at what only one of them may do: by a file that is there only meanwhile."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LONGEST_WAIT_S, BETWEEN_S = 30.0, 0.02
GOES_WITH_ITS_PROCESS: int | None = getattr(os, "O_TEMPORARY", None)  # of Windows: the file is deleted with its handle


@contextmanager
def one_at_a_time(turn: Path) -> Iterator[None]:
    """Within the block no other process, and no other thread, is in a block of the same `turn`; it waits for its own.

    A process that is killed loses its turn. Where the disk knows no locks (some network disks), all go at once.

    Args:
        turn: a hidden file in a folder that is there.

    Raises:
        OSError: the folder can't be written.
        TimeoutError: another process held its turn for half a minute.
    """
    until = time.monotonic() + LONGEST_WAIT_S
    while (file := _taken(turn)) is None:
        if time.monotonic() > until:
            raise TimeoutError(errno.ETIMEDOUT, "another process is writing there")
        time.sleep(BETWEEN_S)
    try:
        yield
    finally:
        with suppress(OSError):  # before the lock is let go: who waits for it then sees that the file has no name
            turn.unlink()
        os.close(file)


def _taken(turn: Path) -> int | None:
    """The open file of a turn that is ours; None: it is another's."""
    if GOES_WITH_ITS_PROCESS is not None:
        try:
            return os.open(turn, os.O_CREAT | os.O_EXCL | os.O_RDWR | GOES_WITH_ITS_PROCESS)
        except (FileExistsError, PermissionError):  # the second: it is being deleted
            return None
    import fcntl

    file = os.open(turn, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    except OSError:  # no locks on this disk
        return file
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file), turn.stat()):
            return file
    os.close(file)  # whose turn it was took the name away
    return None
