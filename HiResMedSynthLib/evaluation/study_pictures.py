"""The pictures of a reader study: which of a folder take part, and how all are made equal but for the image itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.evaluation.comparable import PictureFacts, Progress, Shared, backgrounds, survey
from HiResMedSynthLib.evaluation.image_sets import Loaded, Picture, Source, pictures, read_source
from HiResMedSynthLib.evaluation.reader_study import HIGHEST, StudyError
from HiResMedSynthLib.image import MedicalImage

LOWEST_HU = -1024
PERCENTS = (0.5, 99.5)  # of an image without HU: black and white of the study


@dataclass(frozen=True, kw_only=True, eq=False)
class ChosenPicture:
    """A picture that takes part.

    Args:
        facts: of its file; `source` reads it again.
        synthetic: its side.
        place: (row, column) of its largest lesion; None where none is marked.
        diameter_px: of the circle of that lesion's area.
        levels: grey values between the percentiles.
        most: how many slices of its series were looked at.
    """

    facts: PictureFacts
    synthetic: bool
    place: tuple[float, float] | None
    diameter_px: float | None
    levels: int
    most: int

    @property
    def size_mm(self) -> float | None:
        """Diameter of the circle of equal area in this slice, in mm."""
        spacing = self.facts.spacing_mm
        if self.diameter_px is None or spacing is None:
            return None
        return round(self.diameter_px * float(np.sqrt(spacing[0] * spacing[1])), 2)

    def image(self) -> MedicalImage:
        """The slice, read again."""
        held = pictures(self.facts.source, read_source(self.facts.source), most=self.most, with_lesions=True)
        return next(picture.image for picture in held if picture.name == self.facts.name)


def same_group(real: Sequence[Source], synthetic: Sequence[Source]) -> list[Shared]:
    """Sources of one patient in both folders; only headers were read for it."""
    known = {source.group: source.name for source in real}
    return [
        Shared(real=known[one.group], synthetic=one.name, why="the same patient")
        for one in synthetic
        if one.group in known
    ]


def choose(
    sources: Sequence[Source], *, synthetic: bool, needed: int, most: int, rng: np.random.Generator, progress: Progress
) -> tuple[list[ChosenPicture], list[str]]:
    """(`needed` pictures of a side, notes), by chance: every patient once before any comes twice.

    Raises:
        StudyError: it holds fewer, or real ones are wanted and one says that it is synthetic.
        ReadError: one can't be read.
    """
    side, notes = "synthetic" if synthetic else "real", list[str]()
    found: list[ChosenPicture] = []
    more: list[ChosenPicture] = []  # a source's further pictures, for want of other patients
    seen: set[str] = set()
    for source in _patients_first([sources[k] for k in rng.permutation(len(sources))]):
        if len(found) >= needed:
            break
        progress(len(found), needed, f"choosing {side} images: {source.name}")
        taken = len(seen)
        for facts, picture in _facts_of(source, most):
            if facts.synthetic and not synthetic:
                raise StudyError(
                    "an image of the real side says that it is synthetic",
                    where=facts.name,
                    remedy="Give folders in the order REAL SYNTHETIC, and keep them apart.",
                )
            if facts.sha256 in seen:
                notes.append(f"one {side} image lies there twice and was taken once")
                continue
            place, diameter = _largest_lesion(picture)
            (found if len(seen) == taken else more).append(
                ChosenPicture(
                    facts=facts,
                    synthetic=synthetic,
                    place=place,
                    diameter_px=diameter,
                    levels=_levels(picture.image),
                    most=most,
                )
            )
            seen.add(facts.sha256)
    found += more
    if len(found) < needed:
        raise StudyError(
            f"the {side} side has {len(found)} image(s), this study needs {needed}",
            remedy="Give more images, a smaller --count, or more --slices of each series.",
        )
    patients = Counter(one.facts.group for one in found[:needed])
    if len(patients) == 1:
        raise StudyError(
            f"all {side} images are of one patient", remedy="Give images of several patients: one can be known again."
        )
    if len(patients) < needed:
        notes.append(
            f"the {needed} {side} images are of {len(patients)} patients: answers to images of one patient are not "
            "independent, so intervals and p are too hopeful"
        )
    return found[:needed], notes


def _patients_first(sources: Sequence[Source]) -> list[Source]:
    turn: Counter[str] = Counter()
    order = []
    for index, source in enumerate(sources):
        order.append((turn[source.group], index))
        turn[source.group] += 1
    return [sources[index] for _, index in sorted(order)]


def _facts_of(source: Source, most: int) -> Iterator[tuple[PictureFacts, Picture]]:
    """Facts of the source's slices that take part: of a labelled series those with most lesion."""
    loaded = read_source(source)
    whole, held = loaded.image.pixel_sha256, backgrounds(loaded.image)
    for picture in pictures(source, loaded, most=most, with_lesions=True):
        alone = replace(source, name=picture.name, read=partial(Loaded, image=picture.image))
        (facts,) = survey([alone], most=1, progress=lambda *_: None, what="")
        yield replace(facts, source=source, whole_sha256=whole, backgrounds=held), picture


def _largest_lesion(picture: Picture) -> tuple[tuple[float, float] | None, float | None]:
    """((row, column), diameter of the circle of equal area in pixels) of the slice's largest lesion."""
    if picture.lesions is None or not picture.lesions.any():
        return None, None
    areas = np.bincount(picture.lesions.ravel())
    areas[0] = 0
    rows, columns = np.nonzero(picture.lesions == int(areas.argmax()))
    return (float(rows.mean()), float(columns.mean())), 2 * float(np.sqrt(areas.max() / np.pi))


def study_values(image: MedicalImage, levels: int) -> NDArray[np.uint16]:
    """`[row, column]` of a single slice in 0..4095, bright = dense: HU + 1024; else `levels` greys of its own range."""
    pixels = image.pixels[0].astype(np.float64)
    if image.units == "HU":
        return np.asarray(np.clip(np.floor(pixels + 0.5) - LOWEST_HU, 0, HIGHEST), dtype=np.uint16)
    low, high = np.percentile(pixels, PERCENTS)
    unit = np.clip((pixels - low) / max(high - low, 1e-9), 0.0, 1.0)
    unit = unit if image.bright_is_dense else 1 - unit
    return np.asarray(np.round(np.round(unit * (levels - 1)) * (HIGHEST / (levels - 1))), dtype=np.uint16)


def _levels(image: MedicalImage) -> int:
    """Grey values between the percentiles."""
    low, high = np.percentile(image.pixels[0], PERCENTS)
    values = np.unique(image.pixels[0])
    return int(((values >= low) & (values <= high)).sum())


def cut_out(pixels: NDArray[np.uint16], centre: tuple[float, float], crop: tuple[int, int]) -> NDArray[np.uint16]:
    """The part of this size around a place, moved into the image where it would stand out."""
    if any(size > whole for size, whole in zip(crop, pixels.shape, strict=True)):
        raise StudyError(
            f"a crop of {crop[0]} x {crop[1]} is larger than an image of {pixels.shape[0]} x {pixels.shape[1]}",
            remedy="Take a smaller --crop.",
        )
    row, column = (
        int(np.clip(round(c - size / 2), 0, whole - size))
        for c, size, whole in zip(centre, crop, pixels.shape, strict=True)
    )
    return pixels[row : row + crop[0], column : column + crop[1]]
