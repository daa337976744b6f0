"""written_aside(path): a file that stands under its name only when it is whole."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
