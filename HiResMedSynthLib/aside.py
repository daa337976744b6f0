"""A file (`written_aside`) or folder (`swap`) that stands under its name only when it is whole."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

AT_WORKING_FOLDER, EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE, renameat2(2)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A new name beside `path` for the block to write to; the file then takes the place of `path`.

    Where the block fails nothing new is left, and what stood there before still does.

    Raises:
        OSError: the folder can't be written.
    """
    ending = "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix
    aside = new_name_beside(path, ending.lower())  # writers know lower case alone
    aside.touch(exist_ok=False)
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def new_name_beside(path: Path, ending: str = "") -> Path:
    """A hidden name beside `path` that nobody has: unlike tempfile's files, what is made there has the user's umask."""
    return path.absolute().parent / f".{path.stem[:40]}-{secrets.token_hex(8)}{ending}"


def swap(fresh: Path, out: Path) -> None:
    """Gives the folder `fresh` the name `out`; `fresh` is then the earlier folder of that name, if there was one.

    Where the system can't exchange names at one instant, a process that is killed between two renames leaves the
    earlier folder under a hidden name, from which `bring_back` returns it.

    Raises:
        OSError: a name can't be changed; both folders then have their own.
    """
    if not out.exists():
        fresh.rename(out)
    elif not _exchanged(fresh, out):
        earlier = _earlier(out)
        shutil.rmtree(earlier, ignore_errors=True)  # of a process that was killed when all but this was done
        out.rename(earlier)
        try:
            fresh.rename(out)
        finally:
            if not out.exists():
                earlier.rename(out)
        earlier.rename(fresh)


def bring_back(out: Path) -> None:
    """Gives a folder its name again that a `swap` was killed in taking away: to be called before `out` is judged."""
    with suppress(OSError):
        if not (out := out.resolve()).exists():  # a link's own target is what was swapped
            _earlier(out).rename(out)


def _earlier(out: Path) -> Path:
    return out.absolute().parent / f".{out.name}.hiresmedsynth-earlier"


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the names of both were exchanged: Linux can on most disks; Python has no call for it."""
    import ctypes

    try:
        exchange = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old C library
        return False
    names = AT_WORKING_FOLDER, os.fsencode(one), AT_WORKING_FOLDER, os.fsencode(other)
    return bool(exchange(*names, EXCHANGE) == 0)
