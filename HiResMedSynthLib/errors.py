"""The errors of the library: each says what was wrong, where, and what the reader can do about it.

Anything a user can cause is a `HiResMedSynthError`; any other exception that leaves the library is a bug of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

LONGEST_PART = 1000  # characters of a message's parts


def one_line(text: str) -> str:
    """The text without control characters and of bounded length: it may hold what a damaged file says."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text[: LONGEST_PART + 1])
    return plain if len(plain) <= LONGEST_PART else f"{plain[: LONGEST_PART - 4]} ..."


class HiResMedSynthError(Exception):
    """A problem that a user can understand and act on.

    Args:
        what: what is wrong, one sentence, without a full stop at its end.
        where: the file, folder or field concerned; None where there is none.
        remedy: what to do about it, one sentence.
    """

    def __init__(self, what: str, *, remedy: str, where: str | Path | None = None) -> None:
        self.what = what = one_line(what)
        self.where = None if where is None else str(where)
        self.remedy = remedy = one_line(remedy)
        self.lesion: int | None = None  # number of the lesion concerned, from 1 in the order of the requests
        place = "" if self.where is None else f" [{one_line(self.where)}]"
        super().__init__(f"{what.rstrip('.')}{place}. {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        """So that a worker process can send it: what it was made from is keyword-only."""
        return _received, (type(self), self.args, self.__dict__)


def _received(kind: type[HiResMedSynthError], args: tuple[Any, ...], held: dict[str, Any]) -> HiResMedSynthError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(held)
    return error


class ReadError(HiResMedSynthError):
    """An input can't be read as a medical image."""


class GeometryError(HiResMedSynthError):
    """The spacing, orientation or shape of an image doesn't allow what was asked."""


class SettingsError(HiResMedSynthError):
    """A choice of the user is impossible or contradicts another."""


class BankError(HiResMedSynthError):
    """A lesion bank is missing, damaged or doesn't hold what was asked."""


class PlacementError(HiResMedSynthError):
    """A lesion can't go where it was asked to, or there is no room left."""


class ForbiddenPlaceError(PlacementError):
    """A lesion was asked for where it must not be.

    Args:
        nearest: (slice, row, column) of the nearest permitted place; None where there is none near.
    """

    def __init__(self, what: str, *, remedy: str, nearest: tuple[float, float, float] | None) -> None:
        self.nearest = nearest
        super().__init__(what, remedy=remedy)


class CaseError(HiResMedSynthError):
    """A case can't be read, or doesn't belong to this background."""


class ExportError(HiResMedSynthError):
    """Results can't be written."""
