"""New backgrounds from a seed, variants of an image, and an image rebuilt from its codes; all by one cascade.

The coarse film is drawn first, told the field and whatever codes are kept of a given image; only a film that may stand
(no near copy of a training film) gets its detail. The same seed makes the same film.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from HiResMedSynthLib.background.canvas import Pixels, Placed, filled, laid_back, place, resized
from HiResMedSynthLib.background.cascade import REBUILDING, SEXES, FilmCascade, SamplingSettings
from HiResMedSynthLib.background.domain_values import DomainValues, image_of, values_of
from HiResMedSynthLib.background.find_model import BackgroundModel
from HiResMedSynthLib.background.find_prior import BackgroundPrior
from HiResMedSynthLib.background.memory import require_memory, stage_sides
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.image import MedicalImage

SIZES_PX = (32, 4096)
MOST_TRIES = 10
REGIONS = 4  # random numbers along a side of the field whose level sets are the regions kept, as in training
FEW_PATIENTS = "the model learned from few patients: its new images resemble theirs; better rebuild or vary your own"
TRIES, CODES, DETAIL, PRIOR = 0, 1, 2, 3  # streams of a seed
OnStep = Callable[[str], None]
WhyCopy = Callable[[Pixels], str]


@dataclass(frozen=True, kw_only=True)
class MadeImage:
    """An image that was made.

    Attributes:
        image: of one slice, with its pixel spacing.
        coarse: [side, side] the first stage's film in -1..1, by which copies are looked for first.
        finished: [side, side] the whole canvas in -1..1, not yet resampled or cut; copies are looked for by it too.
        how: in one clause: by which model, from what, with which seed.
        seed, sex: as they were asked for.
        redrawn: why each film that was drawn before this one was refused.
        notes: what a reader should know, one sentence each.
    """

    image: MedicalImage
    coarse: Pixels
    finished: Pixels
    how: str
    seed: int
    sex: str | None
    redrawn: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def redrawn_notes(self) -> tuple[str, ...]:
        """The same as sentences that name the seed."""
        return tuple(f"seed {self.seed} was drawn again: {reason}" for reason in self.redrawn)


def generate(
    model: BackgroundModel,
    *,
    seed: int,
    sex: str | None = None,
    like: MedicalImage | None = None,
    strength: float = 1.0,
    size: int | None = None,
    prior: BackgroundPrior | None = None,
    why_copy: WhyCopy | None = None,
    settings: SamplingSettings | None = None,
    on_step: OnStep | None = None,
) -> MadeImage:
    """A new image, or a variant of one.

    Args:
        model: what makes it.
        seed: of everything drawn.
        sex: "F", "M" or None for either.
        like: an image of one slice whose codes are partly kept; the variant covers the same area, its pixel spacing
            follows from the image's own and is unknown where that is.
        strength: share of its codes drawn anew, in connected regions; 1 keeps none.
        size: side in pixels (of the model's whole canvas); None: the model's own. Others are resampled from the
            nearest larger stage, the spacing told accordingly.
        prior: draws the codes that no given image tells; None: they are left to the flow.
        why_copy: says of a film [side, side], coarse and finished, why it must not stand, "" where it may; such a film
            is drawn again from the seed's next stream. Not asked for variants of an image that is itself refused.
        settings: how to sample.
        on_step: told each stage's name before it starts.

    Raises:
        SettingsError: an impossible choice, too little memory, or nothing but near copies.
    """
    cascade, values = model.cascade, values_of(model.cascade.domain)
    if sex not in SEXES:
        raise SettingsError(f"there is no sex '{sex}' to choose", remedy="Give F or M, or leave it out.")
    if not 0 <= strength <= 1:
        raise SettingsError(f"a strength of {strength:g} can't be", remedy="Give 0 (keep all) to 1 (keep nothing).")
    size = size or cascade.side
    if not SIZES_PX[0] <= size <= SIZES_PX[1]:
        raise SettingsError(f"a size of {size} pixels can't be made", remedy=f"Give {SIZES_PX[0]} to {SIZES_PX[1]}.")
    last = next((name for name, side in stage_sides(cascade).items() if side >= size), list(cascade.stages)[-1])
    require_memory(cascade, last)
    placed = None if like is None else _placed(like, cascade, values)
    notes = [] if placed is None else list(placed.notes)
    if values.few_patients and (placed is None or strength == 1):
        notes.append(FEW_PATIENTS)
    share = 0.0 if placed is None else 1 - strength
    codes, known = _codes(cascade, placed, known_regions(seed, cascade.grid, share))
    inside = _film_mask(cascade, placed)
    if why_copy is not None and placed is not None:
        coarse = resized(placed.film, cascade.film_side, cascade.film_side)
        if why_copy(coarse):
            notes.append("the given image is, or is near to, one that the model learned from: copies aren't refused")
            why_copy = None
    redrawn: list[str] = []
    while True:
        _say(on_step, next(iter(cascade.stages)))
        told = codes, known
        if prior is not None and not bool(known.all()):
            stream = _stream(seed, PRIOR, len(redrawn))
            told = prior.complete(codes, known, cascade=cascade, inside=inside, seed=stream, sex=sex)
        film = _coarse_film(cascade, _stream(seed, TRIES, len(redrawn)), sex, *told, inside, settings)
        reason = "" if why_copy is None else why_copy(_pixels(film))
        if not reason:
            detail = torch.Generator().manual_seed(_stream(seed, DETAIL, 0))
            finished = cascade.finish(film, detail, until=last, settings=settings, on_step=on_step)
            reason = "" if why_copy is None else why_copy(finished)  # its detail can bring a part of it nearer
        if not reason:
            break
        redrawn.append(reason)
        if len(redrawn) == MOST_TRIES:
            raise SettingsError(
                f"seed {seed}: {MOST_TRIES} images in a row were near copies of training images ({reason})",
                remedy="Take another seed, or --keep-copies if you may.",
            )
    spacing_mm: float | None = cascade.stages[last].spacing_mm * finished.shape[0] / size
    if size > cascade.side:
        notes.append(f"enlarged from {cascade.side} pixels: it holds no finer detail")
    made = resized(finished, size, size).clip(-1, 1)
    if placed is not None:
        made = made[_box_of(placed, cascade.side, size)]
        spacing_mm = None if placed.spacing_mm is None else placed.spacing_mm * cascade.side / size
    origin = "a new image" if placed is None else f"a variant (strength {strength:g}) of an image of the user"
    return MadeImage(
        image=image_of(
            values, made, spacing_mm=spacing_mm, spacing_source="header" if like is None else like.spacing_source
        ),
        coarse=_pixels(film),
        finished=finished,
        how=f"{origin} by the model {model.identity}"
        + ("" if prior is None else f", codes by the prior {prior.how}")
        + f", seed {seed}"
        + ("" if sex is None else f", sex {sex}"),
        seed=seed,
        sex=sex,
        redrawn=tuple(redrawn),
        notes=tuple(notes),
    )


def reconstruct(
    model: BackgroundModel,
    image: MedicalImage,
    *,
    seed: int = 0,
    sex: str | None = None,
    on_step: OnStep | None = None,
) -> MadeImage:
    """The image encoded and drawn again from its codes alone, on its own grid and grey range (`cascade.REBUILDING`).

    Args:
        model: what encodes and draws.
        image: one slice of any size; it is resampled to the model's canvas, its padding left out of the field.
        seed: of what the codes leave open.
        sex: as in `generate`.
        on_step: as in `generate`.

    Raises:
        SettingsError: several slices, too small, blank, or too little memory.
    """
    cascade, values = model.cascade, values_of(model.cascade.domain)
    if sex not in SEXES:
        raise SettingsError(f"there is no sex '{sex}' to choose", remedy="Give F or M, or leave it out.")
    last = list(cascade.stages)[-1]
    require_memory(cascade, last)
    placed = _placed(image, cascade, values)
    codes, known = _codes(cascade, placed, torch.ones(1, 1, cascade.grid, cascade.grid))
    _say(on_step, next(iter(cascade.stages)))
    film = _coarse_film(cascade, _stream(seed, TRIES, 0), sex, codes, known, _film_mask(cascade, placed), REBUILDING)
    detail = torch.Generator().manual_seed(_stream(seed, DETAIL, 0))
    made = cascade.finish(film, detail, until=last, settings=REBUILDING, on_step=on_step)
    count = cascade.grid**2
    notes = [*placed.notes, f"drawn from {count} codes: anatomy as a whole is kept, fine detail is invented"]
    return MadeImage(
        image=laid_back(made, placed, replace(image, window=image.display_window())),
        coarse=_pixels(film),
        finished=made,
        how=f"an image of the user rebuilt from its codes by the model {model.identity}, seed {seed}",
        seed=seed,
        sex=sex,
        notes=tuple(notes),
    )


def known_regions(seed: int, grid: int, share: float) -> Tensor:
    """[1, 1, grid, grid] 0 or 1: that share of the codes is known, in regions: a smooth random field above a threshold.

    A larger share of the same seed holds a smaller one.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(CODES,))))
    numbers = torch.from_numpy(rng.random((REGIONS, REGIONS)).astype(np.float32))[None, None]
    smooth = nn.functional.interpolate(numbers, size=grid, mode="bicubic", align_corners=False)
    rank = smooth.flatten().argsort().argsort()
    return (rank < round(share * grid**2)).float().reshape(1, 1, grid, grid)


def _placed(image: MedicalImage, cascade: FilmCascade, values: DomainValues) -> Placed:
    return place(image, values=values, side=cascade.side, spacing_mm=cascade.spacing_mm)


def _codes(cascade: FilmCascade, placed: Placed | None, known: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [1, digits, grid, grid] of the image, zero where there is none, and which of them are known."""
    if placed is None:
        return torch.zeros(1, len(cascade.first.code_shape.levels), *known.shape[2:]), torch.zeros_like(known)
    return cascade.encode(placed.film, placed.inside), known


def _film_mask(cascade: FilmCascade, placed: Placed | None) -> Tensor:
    """[1, 1, h, w] of the first stage, 1 inside the field."""
    side = cascade.film_side
    if placed is None:
        return torch.ones(1, 1, side, side)
    inside = torch.from_numpy(placed.inside.astype(np.float32))[None, None]
    return (nn.functional.avg_pool2d(inside, len(placed.inside) // side) > 0.5).float()


def _coarse_film(
    cascade: FilmCascade,
    stream: int,
    sex: str | None,
    codes: Tensor,
    known: Tensor,
    inside: Tensor,
    settings: SamplingSettings | None,
) -> Tensor:
    """[1, 1, h, w] in -1..1: the first stage's film, told its field; filled from the nearest pixel outside it."""
    generator = torch.Generator().manual_seed(stream)
    film = cascade.coarse(generator, sex=sex, codes=codes, known=known, inside=inside, settings=settings)
    return torch.from_numpy(filled(_pixels(film.clamp(-1, 1)), inside[0, 0].numpy() > 0))[None, None]


def _stream(seed: int, purpose: int, number: int) -> int:
    """A seed for torch: each purpose of the user's seed and each try has its own."""
    return int(np.random.SeedSequence(seed, spawn_key=(purpose, number)).generate_state(1, np.uint64)[0] >> 1)


def _box_of(placed: Placed, canvas: int, size: int) -> tuple[slice, slice]:
    """Where the image's rectangle lies on a canvas of `size` pixels."""
    top, left, rows, columns = (round(value * size / canvas) for value in placed.box)
    return slice(top, top + max(rows, 1)), slice(left, left + max(columns, 1))


def _pixels(film: Tensor) -> Pixels:
    array: Pixels = film[0, 0].numpy()
    return array


def _say(on_step: OnStep | None, name: str) -> None:
    if on_step is not None:
        on_step(name)
