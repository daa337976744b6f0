"""Which model's training images a film or slice is compared with, and the verdict on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError

if TYPE_CHECKING:
    from HiResMedSynthLib.background.cascade import FilmCascade
    from HiResMedSynthLib.background.domain_values import DomainValues
    from HiResMedSynthLib.image import MedicalImage
    from HiResMedSynthLib.privacy import Nearness, Pixels, TrainingDescriptors

DOMAINS = ("cxr", "lung-ct")  # whose models judge where none is named
OnSlice = Callable[[int, int], None]
SHARES = (1.0, 0.935, 0.874, 0.817)  # of the model's canvas that a film of unknown size may cover, each way


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """A model's canvas, and the descriptors of its training images."""

    name: str
    sha256: str
    cascade: FilmCascade
    descriptors: TrainingDescriptors

    @property
    def values(self) -> DomainValues:
        """What the model's values are in an image."""
        from HiResMedSynthLib.background.domain_values import values_of

        return values_of(self.cascade.domain)


def judges(model: str | None, domain: str | None, *, on_note: Callable[[str], None]) -> list[Judge]:
    """The named model, or the domain's; of each domain one where neither is told.

    Raises:
        ModelError: there is none, it is damaged, or it makes another domain.
        SettingsError: it has no descriptors.
    """
    from HiResMedSynthLib.background.find_model import find_background, load_background
    from HiResMedSynthLib.privacy import descriptors_of

    made = []
    for one in (domain,) if model is not None or domain is not None else DOMAINS:
        found = find_background(model, one, on_note=on_note)
        descriptors = descriptors_of(found.card.name)
        if descriptors is None:
            raise SettingsError(
                f"the model '{found.card.name}' has no descriptors of its training films beside it",
                remedy="Make them with Training.pack_descriptors, and add them to the store by: models add FILE.",
            )
        made.append(
            Judge(
                name=found.card.name,
                sha256=found.card.sha256,
                cascade=load_background(found).cascade,
                descriptors=descriptors,
            )
        )
    return made


def verdict(path: Path, all_judges: Sequence[Judge], *, on_slice: OnSlice | None = None) -> dict[str, Any]:
    """near_copy True, False or None (not judged), why, and by which model; of several the one that it is nearest to.

    A CT volume is judged slice by slice, and is what its nearest slice is; `on_slice` is told (slices done, slices).
    """
    from HiResMedSynthLib.read import read_image

    try:
        image = read_image(path)
        found = list(_compared(image, fitting(image, all_judges), on_slice))
    except HiResMedSynthError as problem:
        return {"near_copy": None, "likeness": None, "why": problem.what, "model": None}
    most = max(found, key=lambda one: one.beyond)
    likeness = [round(value, 3) for value in most.near.likeness]
    why = most.near.why
    if why and image.slices > 1:
        copies = sum(bool(one.near.why) for one in found)
        why = f"{copies} of {len(found)} slices, most of all slice {most.slice_index}: {why}"
    return {"near_copy": bool(why), "likeness": likeness, "why": why, "model": most.model}


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """How far a slice is beyond a model's limit (above 1: a near copy)."""

    beyond: float
    model: str
    near: Nearness
    slice_index: int


def _compared(image: MedicalImage, asked: Sequence[Judge], on_slice: OnSlice | None) -> Iterator[_Compared]:
    """Each slice by each model; those of a volume that hold nothing but padding are passed over.

    Raises:
        SettingsError: no slice can be compared.
    """
    compared, problem = 0, None
    for index in range(image.slices):
        if on_slice is not None:
            on_slice(index, image.slices)
        one = image if image.slices == 1 else image.single_slice(index)
        for judge in asked:
            try:
                near = judge.descriptors.nearness(*versions(one, judge))
            except SettingsError as unfit:
                problem = unfit
                continue
            shares = zip(near.likeness, judge.descriptors.limits, strict=True)
            beyond = max(value / limit for value, limit in shares)
            yield _Compared(beyond=beyond, model=judge.name, near=near, slice_index=index)
            compared += 1
    if problem is not None and not compared:
        raise problem


def fitting(image: MedicalImage, all_judges: Sequence[Judge]) -> list[Judge]:
    """Those whose model has seen such images: the verdict of another would say nothing.

    A picture whose file doesn't tell what it shows (PNG, TIFF) may be a film or a CT slice in some window; a volume
    is no film.

    Raises:
        SettingsError: there is none.
    """
    from HiResMedSynthLib.read_header import RADIOGRAPHS

    kinds = {
        "CT": (True,),
        "OT": (True, False) if image.slices == 1 else (True,),
        **dict.fromkeys(RADIOGRAPHS, (False,)),
    }
    of_image = (True,) if image.units == "HU" else kinds.get(image.modality, ())
    found = [judge for judge in all_judges if judge.values.hounsfield in of_image]
    if not found:
        known = " and ".join(judge.values.shows for judge in all_judges)
        raise SettingsError(
            f"it is of modality {image.modality}, and what the model knows is {known} only",
            remedy="Name the model that knows such images: --model.",
        )
    return found


def versions(image: MedicalImage, judge: Judge) -> Iterator[Pixels]:
    """The film as it lies on the model's canvas, and in other heights and widths; none twice.

    Collections squeeze films to squares (ChestX-ray14) and some then say a size in mm that is none, so that a training
    film's own file looks like none of them. Where the size is unknown, heights and widths are tried in all pairs;
    where it is told, each proportion once.

    Raises:
        SettingsError: the image doesn't fit the canvas.
    """
    from HiResMedSynthLib.background.canvas import place
    from HiResMedSynthLib.read import with_assumed_spacing

    values, cascade = judge.values, judge.cascade
    whole_mm = cascade.side * cascade.spacing_mm
    known = image.pixel_spacing_mm is not None
    images = [image] if known or not values.by_size else []
    if values.by_size:
        images += [
            with_assumed_spacing(image, (height * whole_mm / image.rows, width * whole_mm / image.columns))
            for height in SHARES
            for width in SHARES
            if not known or max(height, width) == 1
        ]
    seen = set()
    for one in images:
        placed = place(one, values=values, side=cascade.side, spacing_mm=cascade.spacing_mm)
        if placed.box not in seen:
            seen.add(placed.box)
            yield placed.film
