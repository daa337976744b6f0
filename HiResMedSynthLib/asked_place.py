"""Why a lesion can't stand at the place that was asked for, in words, and where the nearest place is that it can."""

from __future__ import annotations

from HiResMedSynthLib.draw_lesion import DrawnShape, Index
from HiResMedSynthLib.errors import ForbiddenPlaceError
from HiResMedSynthLib.image import MedicalImage


def refused_place(
    number: int,
    shape: DrawnShape,
    anchor: Index,
    problem: tuple[str, ...],
    nearest: Index | None,
    image: MedicalImage,
) -> ForbiddenPlaceError:
    """The error of a lesion at a forbidden place.

    Args:
        number: of the lesion, from 1.
        shape: its form.
        anchor: voxel that was asked for.
        problem: what it would touch, most first.
        nearest: corner of the form's patch at the nearest permitted place; None: there is none near it.
        image: the background.
    """
    asked, moved = shape.center_at(anchor), None
    advice = "None near it is permitted at this size: choose another; inside tissue a smaller lesion may fit."
    if nearest is not None:
        step = [new - old for new, old in zip(nearest, shape.corner_at(anchor), strict=True)]
        moved = shape.center_at((anchor[0] + step[0], anchor[1] + step[1], anchor[2] + step[2]))
        advice = f"The nearest permitted place is {_words(moved, image)}."
    beyond = _beyond(asked, image)
    if beyond:
        return ForbiddenPlaceError(f"lesion {number}: {beyond}", remedy="Give a place inside the image.", nearest=moved)
    if shape.needs is not None and problem == (f"no {shape.needs}",):
        advice = f"Choose a place within reach of it, or another type than {shape.type}."
    what = f"lesion {number} ({shape.diameter_mm:.1f} mm) at {_words(asked, image)} would touch: {', '.join(problem)}"
    return ForbiddenPlaceError(what, remedy=advice, nearest=moved)


def _beyond(place: tuple[float, float, float], image: MedicalImage) -> str:
    """Which index of a place lies outside the image, in words; empty if none does."""
    for name, at, size in zip(("slice", "row", "column"), place, image.shape, strict=True):
        if not -0.5 <= at < size - 0.5:
            return f"{name} {at:g} is outside the image (0 to {size - 1})"
    return ""


def _words(place: tuple[float, float, float], image: MedicalImage) -> str:
    words = f"row {place[1]:g}, column {place[2]:g}"
    return words if image.slices == 1 else f"{words}, slice {place[0]:g}"
