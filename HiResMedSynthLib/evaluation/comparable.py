"""Whether two sets of images may be compared: modality, size, spacing, window, number, and no patient on both sides.

Every picture is looked at once and only its facts are kept. Near copies are found by the thumbnails of the check of
labelled folders (`annotation_facts.thumbnail`), also mirrored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.annotation_facts import FILMS, THUMBNAIL_PX, thumbnail
from HiResMedSynthLib.annotation_sets import NEAR_COPY
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation.image_sets import Picture, Source, pictures, read_source
from HiResMedSynthLib.image import MedicalImage, Window
from HiResMedSynthLib.synthetic_words import is_synthetic

SPACING_RATIO = 1.25  # of the medians of the two sides
DARK = 0.25  # of the range of the stored bits: pictures that fill less and have no window would be shown black
SAME_STEP = 1.5
SAME_WINDOW = 0.01  # of its width: headers count ends in or out
MOST_LISTED = 8
FEWEST = 2
Progress = Callable[[int, int, str], None]


class UnlikeScaleError(SettingsError):
    """The two sides differ in size or scale, which resampling would even out."""


class SharedPatientError(SettingsError):
    """A patient is on both sides; `pairs` lists (real, synthetic, why)."""

    def __init__(self, pairs: Sequence[Shared], *, remedy: str) -> None:
        self.pairs = tuple(pairs)
        shown = "; ".join(f"{one.real} and {one.synthetic} ({one.why})" for one in pairs[:MOST_LISTED])
        more = f"; and {len(pairs) - MOST_LISTED} more" if len(pairs) > MOST_LISTED else ""
        super().__init__(f"the same patient is on both sides: {shown}{more}", remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class Shared:
    """One patient on both sides: names of the pictures, and how it was seen."""

    real: str
    synthetic: str
    why: str


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureFacts:
    """What is kept of a picture.

    Args:
        name, group, source: as in `Picture`.
        sha256: of its pixels; `whole_sha256` of those of its whole source.
        backgrounds: hashes of all that a case may have been composed on: its whole source, and each slice of it.
        kind: "CT", "film", another modality, or "" where nobody said.
        size: (rows, columns).
        spacing_mm: (row, column), None where unknown.
        window: its own display window; None where its file tells none.
        shown: that window, else the range of its bits.
        bright_is_dense: whether large values are drawn bright.
        step: distance of neighbouring values in modality units; 0 for numbers with a fraction.
        own_window: whether its window shows less, or more, than the range of its bits.
        fills: share of the range of its stored bits that its brightest pixels reach (1 for HU).
        synthetic: whether its header says that it is no real image.
        lesions: whether somebody marked lesions in its source.
        described: whether a file beside it tells how it was made.
        thumbnail: float32 `[1024]`.
    """

    name: str
    group: str
    source: Source
    sha256: str
    whole_sha256: str
    backgrounds: frozenset[str]
    kind: str
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    window: Window | None
    shown: Window
    bright_is_dense: bool
    step: float
    own_window: bool
    fills: float
    synthetic: bool
    lesions: bool
    described: bool
    thumbnail: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """How every picture of both sides is brought to values 0..1.

    Args:
        size: (rows, columns) that all have, or are brought to.
        resampled: whether some are.
        window: one window for all; None: each its own, or the range of its bits.
        unit: what 1 is: "1500 HU", "the full range"...
        kind: of the images.
        windows_differ: whether more of one side than of the other are seen in a window of their own.
        step: grey values are rounded to this, for 8 bits beside 16 would be told by that alone; 0: they are not.
    """

    size: tuple[int, int]
    resampled: bool
    window: Window | None
    unit: str
    kind: str
    windows_differ: bool = False
    step: float = 0.0

    def values(self, image: MedicalImage) -> NDArray[np.float32]:
        """`[row, column]` 0..1, bright = dense, of a single slice."""
        import cv2

        unit = image.shown(image.pixels[0], self.window or image.window or full_range(image))
        if unit.shape != self.size:
            unit = cv2.resize(unit, self.size[::-1], interpolation=cv2.INTER_AREA)
        if self.step:
            unit = np.round(unit / np.float32(self.step)) * np.float32(self.step)
        return np.ascontiguousarray(unit, dtype=np.float32)


def survey(sources: Sequence[Source], *, most: int, progress: Progress, what: str) -> list[PictureFacts]:
    """Facts of all pictures of a side; each source is read once and let go. `most`: as `pictures`."""
    found = []
    for done, source in enumerate(sources):
        progress(done, len(sources), f"{what}: {source.name}")
        loaded = read_source(source)
        chosen = pictures(source, loaded, most=most)
        of_source = loaded.image.pixel_sha256, backgrounds(loaded.image)
        found += [
            _facts(picture, source, *of_source, loaded.lesions is not None, loaded.described) for picture in chosen
        ]
    progress(len(sources), len(sources), f"{what}: looked at")
    return found


def backgrounds(image: MedicalImage) -> frozenset[str]:
    """Hashes of the image and of each of its slices: a case names the one that it was composed on."""
    return frozenset((image.pixel_sha256, *(image.single_slice(k).pixel_sha256 for k in range(image.slices))))


def _facts(
    picture: Picture, source: Source, whole: str, held: frozenset[str], lesions: bool, described: bool
) -> PictureFacts:
    image = picture.image
    return PictureFacts(
        name=picture.name,
        group=picture.group,
        source=source,
        sha256=image.pixel_sha256,
        whole_sha256=whole,
        backgrounds=held,
        kind=_kind(image),
        size=(image.rows, image.columns),
        spacing_mm=image.pixel_spacing_mm,
        window=image.window,
        shown=image.window or full_range(image),
        bright_is_dense=image.bright_is_dense,
        step=0.0 if image.pixels.dtype.kind == "f" else abs(image.rescale[0]),
        own_window=_own_window(image),
        fills=_fills(image),
        synthetic=is_synthetic(image.oddities),
        lesions=lesions,
        described=described,
        thumbnail=thumbnail(image),
    )


def _kind(image: MedicalImage) -> str:
    if image.units == "HU":
        return "CT"
    return "film" if image.modality in FILMS else "" if image.modality in ("OT", "SC") else image.modality


def full_range(image: MedicalImage) -> Window:
    """The window of the image's stored bits; of numbers without bits that of the pixels themselves."""
    low, high = image.value_limits
    if image.pixels.dtype.kind == "f" and image.bits_stored is None:
        low, high = float(image.pixels.min()), float(image.pixels.max())
    return Window(center=(low + high) / 2, width=max(high - low, 1e-6))


def _own_window(image: MedicalImage) -> bool:
    if image.window is None:
        return False
    one, other = image.window, full_range(image)
    return max(abs(one.center - other.center), abs(one.width - other.width)) > SAME_WINDOW * other.width


def _fills(image: MedicalImage) -> float:
    if image.units == "HU" or image.window is not None:
        return 1.0
    return float(np.percentile(full_range(image).to_unit(image.pixels[0]), 99.9))


def common_grid(
    real: Sequence[PictureFacts],
    synthetic: Sequence[PictureFacts],
    *,
    window: Window | None,
    resample: bool,
    pairs: bool = False,
) -> tuple[Grid, tuple[str, ...]]:
    """(how all are compared, notes for the report). `pairs`: there are pairs, so one patient is enough.

    Raises:
        SettingsError: they can't be: too few, or of different modality, window, size or spacing; says what differs.
    """
    for name, side in (("real", real), ("synthetic", synthetic)):
        groups = len({one.group for one in side})
        if len(side) < FEWEST or (groups < FEWEST and not pairs):
            raise SettingsError(
                f"the {name} side holds {len(side)} image(s) of {groups} patient(s)",
                remedy=f"Give images of at least {FEWEST} patients a side; distances between sets need 16 real and 8 "
                "synthetic ones. Slices of one volume are one patient.",
            )
    notes: list[str] = []
    marked = sum(one.synthetic for one in real)
    if marked:
        notes.append(f"{marked} images of the real side say in their header that they are synthetic")
    kind = _common_kind(real, synthetic, notes)
    unit = _common_window(real, synthetic, kind, window, notes)
    size, resampled = _common_size(real, synthetic, resample, notes)
    _check_spacing(real, synthetic, resample, notes)
    step = _common_step([*real, *synthetic], window, resampled, notes)
    own = [sum(one.own_window for one in side) / len(side) for side in (real, synthetic)]
    differ = window is None and kind != "CT" and own[0] != own[1]
    if differ:
        bare = {(one.shown.center, one.shown.width) for one in (*real, *synthetic) if one.window is None}
        alike = "; --window {:g},{:g} shows all alike".format(*bare.pop()) if len(bare) == 1 else ""
        told = "windows differ between the sides: grey values, and so distances, may differ for that alone"
        notes.append(f"{told}{alike}")
    grid = Grid(size=size, resampled=resampled, window=window, unit=unit, kind=kind, windows_differ=differ, step=step)
    return grid, tuple(notes)


def _common_kind(real: Sequence[PictureFacts], synthetic: Sequence[PictureFacts], notes: list[str]) -> str:
    kinds = [Counter(one.kind for one in side) for side in (real, synthetic)]
    known = {kind for counts in kinds for kind in counts if kind}
    if len(known) > 1 or ("CT" in known and any("" in counts for counts in kinds)):
        words = [
            ", ".join(f"{count} {kind or 'of unknown modality'}" for kind, count in counts.items()) for counts in kinds
        ]
        raise SettingsError(
            f"the modalities differ: real {words[0]}; synthetic {words[1]}",
            remedy="Compare like with like: CT in HU with CT in HU, films with films.",
        )
    kind = next(iter(known), "")
    if known and any("" in counts for counts in kinds):
        notes.append(f"some pictures don't tell their modality and were taken for {kind}")
    return kind


def _common_window(
    real: Sequence[PictureFacts],
    synthetic: Sequence[PictureFacts],
    kind: str,
    window: Window | None,
    notes: list[str],
) -> str:
    """What the value 1 stands for."""
    units = "HU" if kind == "CT" else "stored values"
    if window is not None:
        return f"{window.width:g} {units} (window {window.center:g}, {window.width:g})"
    both = [*real, *synthetic]
    if kind == "CT":
        found = {None if one.window is None else (one.window.center, one.window.width) for one in both}
        if len(found) > 1 or None in found:
            told = ", ".join("none" if one is None else f"{one[0]:g}/{one[1]:g}" for one in sorted(found, key=str)[:4])
            raise SettingsError(
                f"the display windows differ or are missing ({told}), so grey values can't be compared",
                remedy="Give one window for all, centre and width in HU: --window -600,1500 for lungs.",
            )
        centre, width = next(iter(found)) or (0.0, 1.0)
        return f"{width:g} HU (window {centre:g}, {width:g})"
    dark = [one for one in both if one.fills < DARK]
    if dark:
        raise SettingsError(
            f"{len(dark)} image(s) tell no window and fill {dark[0].fills:.0%} of the range of their bits only",
            where=dark[0].name,
            remedy="Give the window that they are meant to be seen in: --window CENTER,WIDTH.",
        )
    if len({one.own_window for one in both}) > 1:
        words = [f"{sum(one.own_window for one in side)} of {len(side)}" for side in (real, synthetic)]
        notes.append(
            f"{words[0]} real and {words[1]} synthetic images are seen in a window of their own, all others in the "
            "full range of their bits"
        )
    return "the display window or full range of each image"


def _common_size(
    real: Sequence[PictureFacts], synthetic: Sequence[PictureFacts], resample: bool, notes: list[str]
) -> tuple[tuple[int, int], bool]:
    sizes = [Counter(one.size for one in side) for side in (real, synthetic)]
    every = set(sizes[0]) | set(sizes[1])
    if len(every) == 1:
        return next(iter(every)), False
    words = [", ".join(f"{r} x {c} ({n})" for (r, c), n in counts.most_common(3)) for counts in sizes]
    if not resample:
        raise UnlikeScaleError(
            f"the sizes differ: real {words[0]}; synthetic {words[1]}",
            remedy="Export them alike, or add --resample: all are brought to the smallest size, by the mean of areas.",
        )
    size = min(rows for rows, _ in every), min(columns for _, columns in every)
    notes.append(f"images were resampled to {size[0]} x {size[1]}: real were {words[0]}; synthetic {words[1]}")
    return size, True


def _common_step(both: Sequence[PictureFacts], window: Window | None, resampled: bool, notes: list[str]) -> float:
    """The coarsest step of grey values 0..1 where the images differ in it; 0 where all are alike."""
    steps = [one.step / (window or one.shown).width for one in both]
    coarse = max(steps)
    if not coarse or (coarse < SAME_STEP * min(steps) and not resampled):
        return 0.0
    notes.append(f"grey values were rounded to {round(1 / coarse) + 1} levels, the fewest that an image has")
    return coarse


def _check_spacing(
    real: Sequence[PictureFacts], synthetic: Sequence[PictureFacts], resample: bool, notes: list[str]
) -> None:
    medians = []
    for name, side in (("real", real), ("synthetic", synthetic)):
        known = [one.spacing_mm for one in side if one.spacing_mm is not None]
        if not known:
            notes.append(f"the pixel spacing of the {name} images is unknown: their scale was not compared")
            return
        medians.append(float(np.median([sum(spacing) / 2 for spacing in known])))
    first, second = medians
    if max(first, second) <= SPACING_RATIO * min(first, second):
        return
    told = f"the pixel spacings differ: real {first:.3g} mm, synthetic {second:.3g} mm"
    if not resample:
        raise UnlikeScaleError(
            told, remedy="Give images of like scale, or add --resample to compare matrices whatever their millimetres."
        )
    notes.append(f"{told}; they were compared as matrices")


def shared_patients(real: Sequence[PictureFacts], synthetic: Sequence[PictureFacts]) -> list[Shared]:
    """Pictures of one patient on both sides, one entry a synthetic picture: by identity, hash, or as a near copy."""
    by_group = {one.group: one for one in real}
    by_hash = {one.whole_sha256: one for one in real} | {one.sha256: one for one in real}
    by_background = {digest: one for one in real for digest in one.backgrounds}
    found = []
    for one, near in zip(synthetic, _nearest(real, synthetic), strict=True):
        told = one.source.background_sha256
        if one.group in by_group:
            found.append(Shared(real=by_group[one.group].name, synthetic=one.name, why="the same patient"))
        elif (match := by_hash.get(one.sha256) or by_hash.get(one.whole_sha256)) is not None:
            found.append(Shared(real=match.name, synthetic=one.name, why="equal pixels"))
        elif told and (match := by_background.get(told)) is not None:
            found.append(Shared(real=match.name, synthetic=one.name, why="composed on it, as its case.json says"))
        elif near[1] > NEAR_COPY:
            found.append(Shared(real=real[near[0]].name, synthetic=one.name, why=f"near copy, likeness {near[1]:.3f}"))
    return found


def nearest_likeness(real: Sequence[PictureFacts], synthetic: Sequence[PictureFacts]) -> NDArray[np.float64]:
    """`[synthetic]` likeness of each to the real picture most like it."""
    return np.array([likeness for _, likeness in _nearest(real, synthetic)])


def _nearest(real: Sequence[PictureFacts], synthetic: Sequence[PictureFacts]) -> Iterator[tuple[int, float]]:
    known = np.stack([one.thumbnail for one in real])
    mirrored = known.reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX)[:, :, ::-1].reshape(len(known), -1)
    for one in synthetic:
        likeness = np.maximum(known @ one.thumbnail, mirrored @ one.thumbnail)
        best = int(likeness.argmax())
        yield best, float(likeness[best])


def alike(side: Sequence[PictureFacts]) -> int:
    """How many pictures of a side are copies or near copies of one of another patient of the same side."""
    small = np.stack([one.thumbnail for one in side])
    groups = np.array([one.group for one in side])
    return int(((small @ small.T > NEAR_COPY) & (groups[:, None] != groups[None, :])).any(axis=1).sum())
