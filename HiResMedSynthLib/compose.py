"""compose(background, case) -> Composition: pure, no choice left, no randomness."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import fusion, mark
from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.case import HALF, Case, PlacedLesion
from HiResMedSynthLib.errors import CaseError
from HiResMedSynthLib.image import MedicalImage


@dataclass(frozen=True, kw_only=True)
class Box:
    """Bounding box of a lesion's mask in one slice; indices, the maxima exclusive."""

    lesion: int
    type: str
    slice: int
    row_min: int
    column_min: int
    row_max: int
    column_max: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Composition:
    """A composed image with what was put into it.

    `image` and `background` have the same geometry; they differ only where `alpha` > 0.
    """

    image: MedicalImage
    background: MedicalImage
    case: Case

    @property
    def lesions(self) -> tuple[PlacedLesion, ...]:
        """The lesions in the order of their numbers."""
        return self.case.lesions

    @cached_property
    def alpha(self) -> NDArray[np.uint16]:
        """uint16 `[slice, row, column]`, 0..65535: share of lesion in each voxel."""
        alpha = np.zeros(self.image.shape, dtype=np.uint16)
        for lesion in self.lesions:
            np.maximum(alpha[lesion.region], lesion.alpha, out=alpha[lesion.region])
        return alpha

    @cached_property
    def instance_mask(self) -> NDArray[np.uint16]:
        """uint16 `[slice, row, column]`: number of the lesion whose alpha is >= 0.5, else 0."""
        mask = np.zeros(self.image.shape, dtype=np.uint16)
        for lesion in self.lesions:
            mask[lesion.region][lesion.alpha >= HALF] = lesion.number
        return mask

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """One box for each lesion and slice that it occupies."""
        return boxes_of(self.case)

    @cached_property
    def changed_slices(self) -> tuple[int, ...]:
        """Indices of the slices in which any alpha is > 0, ascending."""
        changed: set[int] = set()
        for lesion in self.lesions:
            changed.update(lesion.corner[0] + int(k) for k in np.flatnonzero(lesion.alpha.any(axis=(1, 2))))
        return tuple(sorted(changed))


def boxes_of(case: Case) -> tuple[Box, ...]:
    """One box for each lesion and slice that it occupies."""
    boxes = []
    for lesion in case.lesions:
        for offset, plane in enumerate(lesion.alpha >= HALF):
            if not plane.any():
                continue
            rows, columns = bounding_box(plane)
            boxes.append(
                Box(
                    lesion=lesion.number,
                    type=lesion.type,
                    slice=lesion.corner[0] + offset,
                    row_min=lesion.corner[1] + rows.start,
                    column_min=lesion.corner[2] + columns.start,
                    row_max=lesion.corner[1] + rows.stop,
                    column_max=lesion.corner[2] + columns.stop,
                )
            )
    return tuple(boxes)


def compose(background: MedicalImage, case: Case) -> Composition:
    """The background with the case's lesions in it.

    Outside the footprints (alpha > 0) the result equals the background bit for bit.

    Raises:
        CaseError: the case was drawn for another image.
    """
    _refuse_another(background, case)
    pixels = background.pixels.copy()
    _apply(pixels, case, background)
    return Composition(image=background.with_pixels(pixels), background=background, case=case)


def compose_patches(background: MedicalImage, case: Case) -> dict[int, NDArray[Any]]:
    """What `compose` writes into the region of each lesion, by its number; only the slices concerned are copied.

    Raises:
        CaseError: the case was drawn for another image.
    """
    _refuse_another(background, case)
    first = min((lesion.corner[0] for lesion in case.lesions), default=0)
    last = max((lesion.corner[0] + len(lesion.alpha) for lesion in case.lesions), default=0)
    pixels = background.pixels[first:last].copy()
    _apply(pixels, case, background, first=first)
    return {lesion.number: pixels[_shifted(lesion.region, first)] for lesion in case.lesions}


def _refuse_another(background: MedicalImage, case: Case) -> None:
    problem = case.problem_with(background)
    if problem is not None:
        raise CaseError(
            f"this case was drawn for another image: {problem}",
            remedy="Give the background whose pixel_sha256 stands in case.json, in the same slice selection.",
        )


def _apply(pixels: NDArray[Any], case: Case, background: MedicalImage, *, first: int = 0) -> None:
    """Joins the lesions into pixels that begin with slice `first` of the background, and marks them if asked to."""
    storable = background.storable
    for lesion in case.lesions:
        region, base = _shifted(lesion.region, first), lesion.intensity_base
        if lesion.mode == "add":
            fusion.add(pixels, region, lesion.intensity, lesion.alpha, storable=storable)
        elif case.settings.fusion == "paper":
            fusion.replace_and_blur_edge(pixels, region, lesion.intensity, lesion.alpha, base=base, storable=storable)
        else:
            fusion.blend(pixels, region, lesion.intensity, lesion.alpha, base=base, storable=storable)
    if case.settings.watermark > 0:
        inside = footprint(case, first=first, slices=len(pixels))
        mark.add_mark(pixels, amplitude=case.settings.watermark, storable=storable, inside=inside, first=first)


def footprint(case: Case, *, first: int = 0, slices: int | None = None) -> NDArray[np.bool_]:
    """bool `[slice, row, column]`: where any alpha is > 0, in so many slices of the background from `first`."""
    depth = case.background.shape[0] - first if slices is None else slices
    inside = np.zeros((depth, *case.background.shape[1:]), dtype=np.bool_)
    for lesion in case.lesions:
        inside[_shifted(lesion.region, first)] |= lesion.alpha > 0
    return inside


def _shifted(region: fusion.Region, first: int) -> fusion.Region:
    return slice(region[0].start - first, region[0].stop - first), region[1], region[2]
