"""draw_case(background, settings, seed) -> Case: every random choice and every retry, bounded and logged.

Each lesion draws from streams of its own, derived from the case's seed and the request's: adding, moving or deleting
one leaves the others bit for bit (with their places pinned: `Case.pinned_settings`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.asked_place import refused_place
from HiResMedSynthLib.case import BackgroundReference, Case, CaseSettings, LesionRequest, PlacedLesion
from HiResMedSynthLib.draw_lesion import (
    DrawnShape,
    Index,
    draw_shape,
    generator_of,
    split_place,
)
from HiResMedSynthLib.errors import ForbiddenPlaceError, HiResMedSynthError, PlacementError, SettingsError
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.lesion.bank import Bank, load_bank
from HiResMedSynthLib.lesion.generators import Generator
from HiResMedSynthLib.lesion_in_mr import check_settings
from HiResMedSynthLib.lesion_in_scan import judged, with_strands
from HiResMedSynthLib.lesion_notes import notes_on
from HiResMedSynthLib.lesion_on_film import judged_on_film
from HiResMedSynthLib.place_lesion import place_shape
from HiResMedSynthLib.placement.candidates import footprint_problem, nearest_permitted
from HiResMedSynthLib.versions import installed_versions

SHAPES_TRIED = 6  # sizes and forms: then a lesion without room is given up, one unlike real ones taken at its best
SHAPES_KEPT = 64  # forms kept on a ground, a few hundred KiB each
PLACES_TRIED = 400  # for each of them
SIZES_TRIED = 6  # halvings, to tell how large a lesion would have found room
SHAPE_STREAM, PLACE_STREAM, NOISE_STREAM, STRAND_STREAM = 0, 1, 2, 3
LARGEST_IN_ROOM = 0.8  # of the largest free disc: a footprint is wider than its sphere, and never quite round
FILM_NARROWEST = 5.0  # of the values where lesions may go: lesions are stored in whole steps
ANOTHER_LESION = "another lesion"
Progress = Callable[[int, int, str], None]


def draw_case(
    background: MedicalImage,
    settings: CaseSettings,
    seed: int,
    *,
    bank: Bank | None = None,
    ground: Ground | None = None,
    source_slice: int | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
) -> Case:
    """A case for this background: all choices made, lesions rendered on its grid.

    Args:
        background: the image; its spacing must be known.
        settings: what is wanted.
        seed: whole number from 0 up; the same seed gives the same case.
        bank: the lesions to choose from; None: the shipped bank.
        ground: the background already prepared (`prepare_ground`); None: prepared here.
        source_slice: slice of the source series that `background` is, for the record.
        progress: called with (done, total, what).
        device: where networks prepare the background: "cpu", or a GPU of torch's.

    Raises:
        PlacementError: a place that was asked for is forbidden, or there is no room left.
        SettingsError, GeometryError, BankError: a request that can't be met here.
    """
    if seed < 0:
        raise SettingsError(f"a seed of {seed} can't be", remedy="Give a whole number from 0 up.")
    report = progress or (lambda _done, _total, _what: None)
    total = len(settings.requests) + 1
    report(0, total, "looking where lesions may go")
    if ground is None:
        ground = prepare_ground(
            background, domain=settings.domain, margins=settings.margins, placement=settings.placement, by_slice=True,
            device=device,
        )  # fmt: skip
    elif (ground.margins, ground.placement) != (settings.margins, settings.placement) or settings.domain not in (
        None,
        ground.domain,
    ):
        raise SettingsError(
            "the background was prepared for other margins, another domain or another way to find places",
            remedy="Prepare it anew with these settings.",
        )

    def looking(done: int, of: int, what: str) -> None:
        report(0, total, f"{what}, slice {done} of {of}")

    if any(request.place is None or request.zone is not None for request in settings.requests):
        ground.look_everywhere(looking)  # a place is drawn from all slices, a zone told by them
    if ground.domain == "mr":
        check_settings(settings, ground)
    elif ground.is_projection and ground.signal_range[1] - ground.signal_range[0] < FILM_NARROWEST:
        low, high = ground.signal_range
        raise SettingsError(
            f"this film's values span only {low:g} to {high:g} where lesions may go: too few for whole steps",
            remedy="Multiply them (by 1000, say) and store them as whole numbers first.",
        )
    elif any(limits and limits[0] < 0 for one in settings.requests for limits in (one.contrast, one.cnr)):
        raise SettingsError(
            "a lesion that is less dense than its surroundings can't be made: all of the bank's are denser",
            remedy="Give --contrast and --cnr from 0 up; below zero they are for MR.",
        )
    log = [note] if (note := settings.placement.fallback(ground.domain)) else []
    drawing = _Drawing(
        ground=ground, settings=settings, seed=seed, bank=bank or load_bank(), log=log, lesions=[], looking=looking
    )
    # Places that were asked for come first, so that drawn ones keep clear of them; numbers follow the requests.
    order = sorted(range(len(settings.requests)), key=lambda k: settings.requests[k].place is None)
    for done, index in enumerate(order, start=1):
        report(done, total, f"drawing lesion {done} of {len(order)}")
        try:
            drawing.add(index + 1, settings.requests[index])
        except HiResMedSynthError as error:
            error.lesion = index + 1
            raise
    report(total, total, "case drawn")
    reference = BackgroundReference.of(background, domain=ground.domain, source_slice=source_slice)
    doubts = ground.warnings if settings.fusion == "better" else ground.view_warnings
    lesions = sorted(drawing.lesions, key=lambda lesion: lesion.number)
    reference = replace(reference, oddities=(*reference.oddities, *doubts, *notes_on(lesions, ground)))
    return Case(
        background=reference,
        settings=replace(settings, domain=ground.domain),
        seed=seed,
        lesions=tuple(lesions),
        placement_method=ground.method,
        bank_sha256=drawing.bank.sha256,
        log=tuple(drawing.log),
        versions=installed_versions(),
    )


@dataclass
class _Drawing:
    """A case in the making."""

    ground: Ground
    settings: CaseSettings
    seed: int
    bank: Bank
    log: list[str]
    lesions: list[PlacedLesion]
    looking: Progress
    occupied: NDArray[np.bool_] | None = None
    generators: dict[tuple[str, str | None, str | None], Generator] = field(default_factory=dict)

    def add(self, number: int, request: LesionRequest) -> None:
        """Draws one lesion and adds it; raises PlacementError where it can't go.

        One that looks unlike real lesions is drawn again; after the last try the least unlike is taken, and the case's
        log says so.
        """
        self._refuse_giant(number, request)
        place_rng = self._stream(request, PLACE_STREAM)
        visible = False
        best: tuple[float, str, PlacedLesion] | None = None
        for attempt in range(request.attempt, request.attempt + SHAPES_TRIED):
            tried = replace(request, attempt=attempt)
            shape = self._shape(tried)
            if not shape.mask.any():
                self.log.append(
                    f"lesion {number}: {shape.diameter_mm:.1f} mm is too thin for these voxels, drawn again"
                )
                continue
            visible = True
            try:
                anchor = self._anchor(number, shape, tried, place_rng)
            except ForbiddenPlaceError:
                if best is None:
                    raise
                anchor = None  # this form doesn't fit where an earlier one did
            if anchor is None:
                self.log.append(f"lesion {number}: no room for one of {shape.diameter_mm:.1f} mm, drawn again")
                continue
            lesion = self._placed(number, shape, tried, anchor)
            # of real stones there are too few to judge by, of lesions in MR none
            if self.settings.fusion != "better" or self.ground.domain in ("kub", "mr"):
                self._accept(lesion)
                return
            lesion, verdict = (judged_on_film if self.ground.is_projection else judged)(lesion, self.ground)
            if best is None or verdict.excess < best[0]:
                best = verdict.excess, verdict.words, lesion
            if verdict.accepted:
                break
            if request.keep_shape:
                self.log.append(f"lesion {number}: unlike real ones ({verdict.words}), kept as it was drawn")
                break
            self.log.append(f"lesion {number}: unlike real ones ({verdict.words}), drawn again")
        if best is None:
            self._give_up(number, request, visible=visible)
        excess, words, lesion = best
        if excess > 0 and not request.keep_shape:
            self.log.append(f"lesion {number}: no try was quite like real ones; the nearest is taken ({words})")
        self._accept(replace(lesion, request=replace(lesion.request, keep_shape=True)))

    def _anchor(self, number: int, shape: DrawnShape, request: LesionRequest, rng: np.random.Generator) -> Index | None:
        """The voxel asked for, or one drawn; None: no room."""
        if shape.anchor is None:
            return self._drawn_anchor(number, shape, request, rng)
        self._check_asked_place(number, shape, shape.anchor)
        return shape.anchor

    def _placed(self, number: int, shape: DrawnShape, request: LesionRequest, anchor: Index) -> PlacedLesion:
        if request.place is not None and request.zone is not None and not self.ground.lies_in(anchor, request.zone):
            request = replace(request, zone=None)  # a place goes before a zone, which must not be told of it
        return place_shape(
            shape, self.ground, number=number, request=request, anchor=anchor, fusion=self.settings.fusion,
            noise_rng=self._stream(request, NOISE_STREAM, request.attempt),
        )  # fmt: skip

    def _shape(self, request: LesionRequest) -> DrawnShape:
        """The request's form; one that was drawn on this ground before, at the same offset from its voxel, is reused.

        So a lesion that is dragged by whole voxels is rendered once, and those beside it not again.
        """
        rng, ground = self._stream(request, SHAPE_STREAM, request.attempt), self.ground
        generator = self._generator(request)
        if request.place is None:
            return draw_shape(request, ground, self.bank, rng, fusion=self.settings.fusion, generator=generator)
        anchor, fraction = split_place(request.place, one_slice=ground.image.slices == 1)
        form = replace(request, place=fraction, contrast=None, cnr=None, keep_shape=False)
        key = (form, self.seed, self.settings.fusion, self.bank.sha256, generator.identity)
        shape = ground.shapes.get(key)
        if shape is None:
            shape = draw_shape(request, ground, self.bank, rng, fusion=self.settings.fusion, generator=generator)
            ground.shapes[key] = shape
            while len(ground.shapes) > SHAPES_KEPT:
                del ground.shapes[next(iter(ground.shapes))]
        return replace(shape, anchor=anchor)

    def _generator(self, request: LesionRequest) -> Generator:
        """The request's generator; its model is looked up and checked once for a case."""
        key = (request.generator, request.model, request.model_sha256)
        if key not in self.generators:
            self.generators[key] = generator_of(request)
        return self.generators[key]

    def _refuse_giant(self, number: int, request: LesionRequest) -> None:
        """A lesion that can fit nowhere is refused before it is rendered."""
        needed_mm = request.size_mm[0] / LARGEST_IN_ROOM
        if request.place is not None:
            there = min(max(round(request.place[0]), 0), self.ground.image.slices - 1)
            if self.ground.room_in_slice_mm(there) >= needed_mm:
                return  # the other slices need not be looked at
        self.ground.look_everywhere(self.looking)
        room_mm = self.ground.room_mm
        if room_mm < needed_mm:
            raise PlacementError(
                f"a lesion of {request.size_mm[0]:g} mm is too big here: the largest free place is {room_mm:.0f} mm "
                f"across, and with what reaches beyond its diameter a lesion needs {1 / LARGEST_IN_ROOM:g} times that",
                remedy=f"{self._what_fits(number, request)}smaller margins, or take another slice or image.",
            )

    def _give_up(self, number: int, request: LesionRequest, *, visible: bool) -> NoReturn:
        if visible:
            raise PlacementError(
                f"there is no room left for a lesion of {request.size_mm[0]:g} mm or more: {len(self.lesions)} of "
                f"{len(self.settings.requests)} lesions fitted",
                remedy=f"{self._what_fits(number, request)}fewer lesions, a smaller distance or margins, or take "
                "another background.",
            )
        slice_mm, row_mm, column_mm = self.ground.image.spacing_mm
        needed = 1.3 * max(row_mm, column_mm, 0.0 if self.ground.is_projection else slice_mm)
        raise SettingsError(
            f"a lesion of {request.size_mm[0]:g} to {request.size_mm[1]:g} mm fills no voxel of "
            f"{slice_mm:g} x {row_mm:g} x {column_mm:g} mm by half, so it would have no mask",
            remedy=f"Ask for larger lesions here: --size-mm {math.ceil(needed)}:{math.ceil(2 * needed)} or more.",
        )

    def _what_fits(self, number: int, request: LesionRequest) -> str:
        """Beginning of a remedy: how large a lesion finds room where this one doesn't."""
        largest = math.floor(self._largest_that_fits(number, request))
        return f"One of {largest} mm still fits (--size-mm {largest}); or ask for " if largest else "Ask for "

    def _largest_that_fits(self, number: int, request: LesionRequest) -> float:
        """Diameter in mm of about the largest lesion that finds room where this one doesn't; 0: none that was tried."""
        fits, too_small, too_large = 0.0, 0.0, min(request.size_mm[0], LARGEST_IN_ROOM * self.ground.room_mm)
        for _ in range(SIZES_TRIED if too_large >= 1 else 0):
            middle = (too_small + too_large) / 2
            tried = replace(request, size_mm=(middle, middle), sizes="even", attempt=0)
            shape = self._shape(tried)
            logged = len(self.log)
            if not shape.mask.any():  # thinner than these voxels
                too_small = middle
            elif self._drawn_anchor(number, shape, tried, self._stream(tried, PLACE_STREAM)):
                fits = too_small = middle
            else:
                too_large = middle
            del self.log[logged:]
        return fits

    def _stream(self, request: LesionRequest, *purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, request.seed, *purpose])))

    def _problem(self, shape: DrawnShape, corner: Index) -> tuple[str, ...]:
        problem = footprint_problem(self.ground.danger_map, shape.footprint, corner, allow=shape.allow)
        if not problem and self.occupied is not None:
            region = tuple(slice(low, low + size) for low, size in zip(corner, shape.footprint.shape, strict=True))
            if (self.occupied[region] & shape.footprint).any():
                return (ANOTHER_LESION,)
        if not problem and shape.needs is not None and shape.needs not in self._touched(shape, corner):
            return (f"no {shape.needs}",)
        return problem

    def _touched(self, shape: DrawnShape, corner: Index) -> tuple[str, ...]:
        region = tuple(slice(low, low + size) for low, size in zip(corner, shape.footprint.shape, strict=True))
        return self.ground.danger_map.classes_in(region, shape.footprint)

    def _check_asked_place(self, number: int, shape: DrawnShape, anchor: Index) -> None:
        corner = shape.corner_at(anchor)
        problem = self._problem(shape, corner)
        if not problem:
            return
        self.ground.look_everywhere(self.looking)
        forbidden = self.ground.forbidden(shape.allow)
        if self.occupied is not None:
            forbidden = forbidden | self.occupied
        nearest = nearest_permitted(forbidden, shape.footprint, corner, spacing_mm=self.ground.image.spacing_mm)
        raise refused_place(number, shape, anchor, problem, nearest, self.ground.image)

    def _drawn_anchor(
        self, number: int, shape: DrawnShape, request: LesionRequest, rng: np.random.Generator
    ) -> Index | None:
        """A voxel drawn from the prior around which the whole footprint is permitted, or None: no room."""
        vetoes: Counter[str] = Counter()
        found = None
        for place in self.ground.sampler(shape.allow, request.zone).draw(rng, PLACES_TRIED):
            anchor = (int(place[0]), int(place[1]), int(place[2]))
            if request.sizes == "history" and rng.random() > self.ground.size_likelihood(shape.diameter_mm, anchor):
                continue
            problem = self._problem(shape, shape.corner_at(anchor))
            if not problem:
                found = anchor
                break
            vetoes[problem[0]] += 1
        if vetoes:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(vetoes.items()))
            self.log.append(f"lesion {number}: {vetoes.total()} drawn place(s) vetoed ({reasons})")
        return found

    def _accept(self, lesion: PlacedLesion) -> None:
        if len(self.settings.requests) > 1:
            self._occupy(lesion)  # without its strands: they must not decide where others may go
        self.lesions.append(self._connected(lesion))

    def _connected(self, lesion: PlacedLesion) -> PlacedLesion:
        """The lesion with its strands, where these belong to the fusion; whatever other lesions there are."""
        if self.settings.fusion != "better" or self.ground.domain != "lung-ct":
            return lesion
        card = self.bank.cards.get(lesion.bank_entry)
        return with_strands(
            lesion, self.ground, spiculation=None if card is None else card.spiculation,
            rng=self._stream(lesion.request, STRAND_STREAM),
        )  # fmt: skip

    def _occupy(self, lesion: PlacedLesion) -> None:
        """Marks the lesion's footprint and `min_distance_mm` around it."""
        from scipy.ndimage import distance_transform_edt

        image = self.ground.image
        if self.occupied is None:
            self.occupied = np.zeros(image.shape, dtype=bool)
        spacing = image.spacing_mm
        reach = [math.ceil(self.settings.min_distance_mm / step) + 1 for step in spacing]
        low = [max(corner - r, 0) for corner, r in zip(lesion.corner, reach, strict=True)]
        high = [
            min(corner + size + r, limit)
            for corner, size, r, limit in zip(lesion.corner, lesion.alpha.shape, reach, image.shape, strict=True)
        ]
        around = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        inside = tuple(slice(c - a, c - a + n) for c, a, n in zip(lesion.corner, low, lesion.alpha.shape, strict=True))
        free = np.ones([b - a for a, b in zip(low, high, strict=True)], dtype=bool)
        free[inside] = lesion.alpha == 0
        self.occupied[around] |= distance_transform_edt(free, sampling=spacing) <= self.settings.min_distance_mm
