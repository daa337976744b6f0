"""Which slices of a DICOM series are one stack, in which order, and where they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.read_header import SliceHeader


def one_stack(headers: list[SliceHeader], oddities: list[str]) -> list[SliceHeader]:
    """The largest group of equal size, orientation and spacing; scouts and the like are left out and counted."""

    def form(header: SliceHeader) -> str:  # a text, since a spacing that is no number doesn't equal itself
        orientation = tuple(round(v, 2) + 0.0 for v in header.orientation or ())
        return str((*header.shape, orientation, tuple(round(s, 3) for s in header.spacing or ())))

    common, _ = Counter(form(header) for header in headers).most_common(1)[0]
    usual = next(header for header in headers if form(header) == common)
    found = [header for header in headers if _alike(header, usual)]  # values may lie on both sides of a rounding edge
    if len(found) < len(headers):
        oddities.append(
            f"{len(headers) - len(found)} picture(s) of another size, orientation or spacing were left out (scouts?)"
        )
    return found


def _alike(header: SliceHeader, other: SliceHeader) -> bool:
    return (
        header.shape == other.shape
        and _close(header.orientation, other.orientation, 0.01)
        and _close(header.spacing, other.spacing, 0.001)
    )


def _close(some: Sequence[float] | None, others: Sequence[float] | None, apart: float) -> bool:
    some, others = some or (), others or ()
    return len(some) == len(others) and all(
        abs(a - b) <= apart or str(a) == str(b)
        for a, b in zip(some, others, strict=True)  # NaN doesn't equal itself
    )


def sorted_along_normal(headers: list[SliceHeader], oddities: list[str]) -> list[SliceHeader]:
    """Ascending along the slice normal; by InstanceNumber where a position is missing."""
    if len(headers) == 1:
        return headers
    if any(header.position is None or header.orientation is None for header in headers):
        oddities.append("slices have no position: sorted by InstanceNumber, one slice thickness apart")
        return sorted(headers, key=lambda header: header.instance_number)
    orientation = np.array(headers[0].orientation)
    normal = np.cross(orientation[:3], orientation[3:])
    return sorted(headers, key=lambda header: (float(np.dot(header.position or (), normal)), header.instance_number))


def positions_of(headers: list[SliceHeader], oddities: list[str]) -> NDArray[np.float64] | None:
    """[slice, 3] mm LPS; None where a slice has none, or one that is no number (told in `oddities`)."""
    if any(header.position is None or header.orientation is None for header in headers):
        return None
    positions = np.array([header.position for header in headers], dtype=np.float64)
    if not np.isfinite(positions).all():
        oddities.append("a slice position is not finite: positions were ignored")
        return None
    return positions


def median_gap(headers: list[SliceHeader]) -> float | None:
    """Median distance of neighbouring slices, where the header gives no thickness."""
    positions = positions_of(headers, [])
    if positions is None or len(positions) < 2:
        return None
    gap = float(np.median(np.linalg.norm(np.diff(positions, axis=0), axis=1)))
    return gap if gap > 0 else None
