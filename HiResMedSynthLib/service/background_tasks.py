"""Jobs that make backgrounds: new ones or variants of the image that was sent, and an image rebuilt from its codes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.service.client import plain_header
from HiResMedSynthLib.service.jobs import JobCancelledError, Result, Step, chosen_device
from HiResMedSynthLib.service.messages import arrays_result, header_of, parameters_of

if TYPE_CHECKING:
    from HiResMedSynthLib.background.find_model import BackgroundModel
    from HiResMedSynthLib.background.make import MadeImage
    from HiResMedSynthLib.service.tasks import Work

MOST_IMAGES = 16  # of one job
FilmSeed = Annotated[int, Field(ge=0, le=2**53)]
Sex = Literal["F", "M"]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateParameters:
    """Parameters of generate; the job's image, if there is one, is varied by `strength` (its slice `slice_index`)."""

    domain: str | None = None
    model: str | None = None
    count: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 1
    seed: FilmSeed = 0
    sex: Sex | None = None
    strength: Share = 0.5
    size: Annotated[int, Field(ge=1, le=4096)] | None = None
    slice_index: int | None = None
    keep_copies: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructParameters:
    """Parameters of reconstruct; `slice_index`: which slice of a volume."""

    domain: str | None = None
    model: str | None = None
    seed: FilmSeed = 0
    sex: Sex | None = None
    slice_index: int | None = None


def generate(work: Work, step: Step) -> Result:
    """Pixels ("1.pixels" ...) and `images` as document: header, seed, how, and why films before it were refused.

    A job that is cancelled with some images made is done with those; `asked` tells how many it should have made.
    """
    from HiResMedSynthLib.background.make import generate as make
    from HiResMedSynthLib.privacy import NO_DESCRIPTORS, descriptors_of

    wanted = parameters_of(GenerateParameters, work.parameters)
    like = None if work.image is None else _one_slice(work.image, wanted.slice_index)
    step.progress(0, wanted.count, "loading the model")
    model = _model(work, step, wanted.model, wanted.domain)
    descriptors = descriptors_of(model.name)
    if descriptors is None:
        step.note(NO_DESCRIPTORS)
    arrays: dict[str, Any] = {}
    told: list[dict[str, Any]] = []
    said: set[str] = set()
    for index in range(wanted.count):
        seed = wanted.seed + index
        try:
            made = make(
                model,
                seed=seed,
                sex=wanted.sex,
                like=like,
                strength=wanted.strength if like is not None else 1.0,
                size=wanted.size,
                why_copy=None if descriptors is None or wanted.keep_copies else descriptors.why_copy,
                on_step=lambda name, index=index, seed=seed: step.progress(  # type: ignore[misc]
                    index, wanted.count, f"image {index + 1}, seed {seed}: {name}"
                ),
            )
        except JobCancelledError:
            if not told:
                raise
            step.note(f"cancelled: {len(told)} of {wanted.count} images were made")
            break
        arrays[f"{index + 1}.pixels"] = made.image.pixels
        told.append(_told(made))
        for note in (*made.notes, *made.redrawn_notes):
            if note not in said:
                said.add(note)
                step.note(note)
    document = {"model": model.identity, "domain": model.cascade.domain, "images": told, "asked": wanted.count}
    return arrays_result(arrays, document)


def reconstruct(work: Work, step: Step) -> Result:
    """`pixels` of the image rebuilt, and its header."""
    from HiResMedSynthLib.background.domain_values import domain_like
    from HiResMedSynthLib.background.make import reconstruct as rebuild

    wanted = parameters_of(ReconstructParameters, work.parameters)
    image = _one_slice(work.background(), wanted.slice_index)
    domain = wanted.domain
    if domain is None and wanted.model is None:
        domain = domain_like(image)
    step.progress(0, 1, "loading the model")
    model = _model(work, step, wanted.model, domain)
    steps = list(model.cascade.stages)
    made = rebuild(
        model,
        image,
        seed=wanted.seed,
        sex=wanted.sex,
        on_step=lambda name: step.progress(steps.index(name), len(steps), name),
    )
    for note in made.notes:
        step.note(note)
    told = {"model": model.identity, "domain": model.cascade.domain, **_told(made)}
    return arrays_result({"pixels": made.image.pixels}, told)


def _model(work: Work, step: Step, name: str | None, domain: str | None) -> BackgroundModel:
    """The model, kept for the next job."""
    from HiResMedSynthLib.background.find_model import find_background, load_background

    found, device = find_background(name, domain, on_note=step.note), chosen_device(step.device)

    def loaded() -> tuple[BackgroundModel, int]:
        return load_background(found, device), 2 * found.card.bytes  # stored in half precision

    model: BackgroundModel = work.store.get_or_make(
        f"background {device} {found.card.name} {found.card.sha256}", loaded
    )
    return model


def _one_slice(image: MedicalImage, index: int | None) -> MedicalImage:
    if index is None:
        if image.slices > 1:
            raise SettingsError(f"the image has {image.slices} slices, the model takes one", remedy="Choose one slice.")
        return image
    return image.single_slice(index)


def _told(made: MadeImage) -> dict[str, Any]:
    return {
        "header": plain_header(header_of(made.image)),
        "seed": made.seed,
        "sex": made.sex,
        "how": made.how,
        "redrawn": list(made.redrawn),
        "notes": list(made.notes),
    }
