"""Whether a film is a near copy of one that a model learned from, judged from 128 bytes of each training film.

A film is looked at at 64 px, as what lies between two blurs (ribs, vessels, edges), its contrast evened out so that
exposure doesn't count, in 4 x 4 tiles. Of each tile of each training film 64 signs are kept: of mixtures of the tile's
cosine coefficients, drawn once for all models (locality-sensitive hashing by random projections). That tells films
apart and doesn't rebuild them (docs/privacy.md shows the best attempt).

A new film is moved, turned, enlarged and mirrored in many ways; in each its tiles are compared with those of each
training film at the same place. Likeness is counted over a quarter of the film (2 x 2 tiles), a half, 3 x 3 tiles and
all, so that a copied part is found too. A film is a near copy where one of the four lies above the `PERCENT` % point of
films of other patients. No proof of privacy: it finds copies, not what else a model may have learned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import weights
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.whole_tensors import read_tensors

KIND = "background-descriptors"
NAME_SUFFIX = "_descriptors"
NO_DESCRIPTORS = "the model has no descriptors of its training films beside it: copies of them can't be looked for"
SIDE, TILE = 64, 16
ROW = SIDE // TILE  # tiles along a side
SIGNS = 64  # kept of a tile
FINEST = 9.0  # half cosine waves across a tile
FINE_PX, COARSE_PX, EVEN_PX = 0.6, 2.0, 4.0  # SDs: structure lies between the first two blurs; contrast is evened out
CLIP = 2.0  # of evened values, whose SD is about 1: no edge or marker decides alone
PLAIN_PERCENT = 40.0  # tiles with less structure than so many of the training films' count less
SHIFT = 6  # px each way
SCALES = (0.83, 0.88, 0.94, 1.0, 1.06, 1.13, 1.2)
DEGREES = (-4.0, 0.0, 4.0)
PARTS = ("a quarter", "a half", "nine sixteenths", "the whole")
PERCENT = 99.0  # point of films of other patients that a near copy lies above,
MARGIN = 1.02  # by so much: there are four limits, and few films to tell the point by
FEWEST_HELD_OUT = 8
Pixels = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """How near a film is to the training films.

    Attributes:
        likeness: of the best part of each size in `PARTS` at the best position: about 1 for a copy of the whole film,
            and the root of its share of the tiles for a part of it (0.5 for a quarter).
        nearest: number of the training film that it lies nearest to, by the part that stands out most.
        why: why it counts as a near copy; "" where it doesn't.
    """

    likeness: tuple[float, ...]
    nearest: int
    why: str

    @property
    def whole(self) -> float:
        """Likeness of the film as a whole."""
        return self.likeness[-1]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingDescriptors:
    """Descriptors of a model's training films, with what films of other patients say.

    Attributes:
        signs: uint8 [film, 16 tiles, 8]: 64 signs of each tile, packed.
        scale: [n] SD of each cosine coefficient over the training films' tiles.
        plain: structure from which a tile counts in full.
        limits: likeness above which a film is a near copy, for each size in `PARTS`.
        unlearned: how many films of other patients the limits come from.
    """

    signs: NDArray[np.uint8]
    scale: Pixels
    plain: float
    limits: tuple[float, ...]
    unlearned: int

    def __post_init__(self) -> None:
        sound = (
            self.signs.dtype == np.uint8
            and self.signs.ndim == 3
            and len(self.signs) > 0
            and self.signs.shape[1:] == (ROW**2, SIGNS // 8)
            and self.scale.shape == (len(_cosines()),)
            and len(self.limits) == len(PARTS)
            and bool(np.isfinite([*self.scale, *self.limits, self.plain]).all())
            and min(*self.scale, *self.limits, self.plain) > 0
        )
        if not sound:
            raise weights.ModelError(
                "the descriptors of the training films are damaged", remedy="Make them anew, or reinstall."
            )

    def likeness(self, film: Pixels) -> Pixels:
        """[size of part, training film]: likeness of the best part of each size at the best position.

        Raises:
            SettingsError: the film isn't [row, column] of any size from 8 on, of finite numbers.
        """
        mixture, kept = _mixture(self.scale), self._unpacked()
        best = np.zeros((len(PARTS), len(self.signs)), dtype=np.float32)
        for warped in _warps(evened(small_film(film))):
            numbers = _windows(warped) @ mixture
            numbers /= np.maximum(np.linalg.norm(numbers, axis=-1, keepdims=True), 1e-6)
            weight = np.clip(_structure(warped) / self.plain, 0, 1)
            tiles = _near_places(numbers * weight[..., np.newaxis])
            evidence = _sums(_near_places(weight[..., np.newaxis] ** 2))
            for size, (sums, seen) in enumerate(zip(_sums(np.matmul(tiles, kept)), evidence, strict=True)):
                found = sums / (ROW * np.sqrt(np.maximum(seen, 1)))
                for sign in (1, -1):  # a negative is a copy as well
                    np.maximum(best[size], (sign * found).max(axis=(0, 1)), out=best[size])
        return best

    def nearness(self, *versions: Pixels) -> Nearness:
        """How near a film [row, column] of any size is to the training films; the nearest of its versions counts."""
        return self._judged(np.max([self.likeness(film) for film in versions], axis=0))

    def why_copy(self, film: Pixels) -> str:
        """Why the film counts as a near copy of a training film; "" where it doesn't."""
        return self.nearness(film).why

    def copy_rate(self, films: Iterable[Pixels]) -> float:
        """Share of near copies among some films; of films that weren't learned a few in a hundred.

        Raises:
            SettingsError: there is no film.
        """
        found = [bool(self.why_copy(film)) for film in films]
        if not found:
            raise SettingsError("a copy rate needs films", remedy="Give at least one.")
        return float(np.mean(found))

    def _judged(self, likeness: Pixels) -> Nearness:
        excess = likeness / np.array(self.limits, dtype=np.float32)[:, np.newaxis]
        size, nearest = np.unravel_index(int(excess.argmax()), excess.shape)
        why = ""
        if excess[size, nearest] > 1:
            why = (
                f"{PARTS[size]} of it resembles a training image more than {PERCENT:.0f} of 100 images of other "
                f"patients do ({likeness[size, nearest]:.2f}; theirs stay below {self.limits[size]:.2f})"
            )
        return Nearness(likeness=tuple(float(v) for v in likeness.max(axis=1)), nearest=int(nearest), why=why)

    def _unpacked(self) -> Pixels:
        """[tile row, tile column, sign, film] of such a size that a tile's product with itself is about 1."""
        signs = np.unpackbits(self.signs, axis=-1).astype(np.float32) * 2 - 1
        signs = np.ascontiguousarray(signs.transpose(1, 2, 0)) * np.float32(np.sqrt(np.pi / 2 / SIGNS))
        return signs.reshape(ROW, ROW, SIGNS, -1)


def describe(
    training: Sequence[Pixels], held_out: Sequence[Pixels], patients: Sequence[str] | None = None
) -> TrainingDescriptors:
    """Descriptors of the training films; limits from films held out, and from each training film against the others.

    Args:
        training: films [row, column], values in -1..1.
        held_out: films of other patients.
        patients: whose each training film is; None: each of another patient.

    Raises:
        SettingsError: no training film, or too few held out.
    """
    whose = np.array(patients if patients is not None else range(len(training)))
    unlearned = len(held_out) + (len(training) if len(set(whose)) > 1 else 0)
    if not len(training) or not len(held_out) or unlearned < FEWEST_HELD_OUT:
        raise SettingsError(
            f"{len(training)} training and {len(held_out)} held-out films are too few for a copy check",
            remedy=f"Give at least one of each, and {FEWEST_HELD_OUT} that can be compared with another patient's.",
        )
    even = [evened(small_film(film)) for film in training]
    tiles = np.concatenate([_tiles(film) for film in even]) @ _cosines().T
    scale = np.maximum(tiles.std(axis=0), 1e-3).astype(np.float16).astype(np.float32)
    structure = np.concatenate([_structure(film)[::TILE, ::TILE].ravel() for film in even])
    open_ended = TrainingDescriptors(
        signs=signs_of(np.stack(even), scale),
        scale=scale,
        plain=max(float(np.percentile(structure, PLAIN_PERCENT)), 1e-3),
        limits=(2.0,) * len(PARTS),
        unlearned=0,
    )
    found = [open_ended.likeness(film).max(axis=1) for film in held_out]
    for film, patient in zip(training, whose, strict=True):
        if (others := whose != patient).any():
            found.append(open_ended.likeness(film)[:, others].max(axis=1))
    return TrainingDescriptors(
        signs=open_ended.signs,
        scale=scale,
        plain=open_ended.plain,
        limits=tuple(float(limit) for limit in limits_of(np.array(found))),
        unlearned=len(found),
    )


def limits_of(largest: Pixels) -> Pixels:
    """[size of part]: the limits, from the largest likenesses of films of other patients [film, size of part]."""
    return np.asarray(MARGIN * np.percentile(largest, PERCENT, axis=0), dtype=np.float32)


def write_descriptors(path: Path, descriptors: TrainingDescriptors, card: weights.Card) -> None:
    """Writes them as a model file; the card's kind must be `KIND`."""
    if card.kind != KIND:
        raise weights.ModelError(f"descriptors are of kind {KIND}, not {card.kind}", remedy="Correct the card.")
    arrays = {"signs": descriptors.signs, "scale": descriptors.scale.astype(np.float16)}
    numbers = {name: getattr(descriptors, name) for name in ("plain", "limits", "unlearned")}
    weights.write_model(path, arrays, card, metadata={"limits": json.dumps(numbers)})


def read_descriptors(path: Path) -> TrainingDescriptors:
    """The descriptors in a file.

    Raises:
        ModelError: it is none, or is damaged.
    """
    try:
        arrays, numbers = read_tensors(path, "limits", "np")
        return TrainingDescriptors(
            signs=arrays["signs"],
            scale=arrays["scale"].astype(np.float32),
            plain=float(numbers["plain"]),
            limits=tuple(float(limit) for limit in numbers["limits"]),
            unlearned=int(numbers["unlearned"]),
        )
    except (OSError, KeyError, TypeError, ValueError, OverflowError) as problem:
        raise weights.ModelError(
            "these are no descriptors of training films, or they are damaged",
            where=path.name,
            remedy="Make them anew with Training.pack_descriptors, or reinstall.",
        ) from problem


def descriptors_of(model_name: str) -> TrainingDescriptors | None:
    """The descriptors that stand beside a model, under its name with `_descriptors`; None where there are none.

    Raises:
        ModelError: they are there but damaged.
    """
    name = f"{model_name}{NAME_SUFFIX}"
    there = {model.card.name for model in weights.models(KIND)} | set(weights.damaged())
    return read_descriptors(weights.find(name, KIND).path) if name in there else None


def small_film(film: Pixels) -> Pixels:
    """[64, 64]: the mean of each area of the film.

    Raises:
        SettingsError: it is no picture.
    """
    if film.ndim != 2 or min(film.shape) < 8 or not np.isfinite(film).all():
        raise SettingsError(f"an array of shape {film.shape} is no film", remedy="Give one film [row, column].")
    rows, columns = (_areas(count, SIDE) for count in film.shape)
    return np.asarray(rows @ film.astype(np.float32) @ columns.T, dtype=np.float32)


def evened(film: Pixels) -> Pixels:
    """[64, 64]: what lies between two blurs of a small film, over its own size nearby; within -2..2."""
    fine, coarse, near = (_gaussian(SIDE, sd) for sd in (FINE_PX, COARSE_PX, EVEN_PX))
    band = fine @ film @ fine.T - coarse @ film @ coarse.T
    size = np.sqrt(np.maximum(near @ band**2 @ near.T, 0))
    return np.asarray(CLIP * np.tanh(band / ((size + size.mean() + 1e-6) * CLIP)), dtype=np.float32)


def signs_of(even: Pixels, scale: Pixels) -> NDArray[np.uint8]:
    """uint8 [film, 16, 8]: what is stored of evened films [film, 64, 64]."""
    return np.packbits(np.stack([_tiles(film) for film in even]) @ _mixture(scale) > 0, axis=-1)


def _near_places(windows: Pixels) -> Pixels:
    """[tile row, tile column, position, value]: those of the windows [49, 49, value] near each tile's place."""
    near = np.pad(windows, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
    reach, starts = 2 * SHIFT + 1, range(0, SIDE, TILE)
    places = [[near[row : row + reach, column : column + reach] for column in starts] for row in starts]
    return np.array(places).reshape(ROW, ROW, reach**2, -1)


def _sums(tiles: Pixels) -> Iterator[Pixels]:
    """[part, position, value] for each size in `PARTS`: sums over the tiles of each part at one position."""
    pairs = tiles[:, :-1] + tiles[:, 1:]
    quarters = pairs[:-1] + pairs[1:]
    yield quarters.reshape(-1, *tiles.shape[2:])
    corners = quarters[::2, ::2]
    halves = np.concatenate([corners[0] + corners[1], corners[:, 0] + corners[:, 1]])
    yield halves
    threes = pairs[:, :-1] + tiles[:, 2:]
    yield (threes[:-2] + threes[1:-1] + threes[2:]).reshape(-1, *tiles.shape[2:])
    yield (halves[0] + halves[1])[np.newaxis]


def _warps(even: Pixels) -> Iterator[Pixels]:
    """The evened film, as it is and mirrored, in each size and turn."""
    from scipy.ndimage import affine_transform

    middle = (SIDE - 1) / 2
    for film in (even, even[:, ::-1]):
        for scale in SCALES:
            for degrees in DEGREES:
                angle = np.deg2rad(degrees)
                turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
                offset = middle - turn @ [middle, middle]
                yield np.asarray(affine_transform(film, turn, offset=offset, order=1, mode="nearest"))


def _structure(even: Pixels) -> Pixels:
    """[49, 49]: how much each window varies in the direction in which it varies least: 0 for a straight edge."""
    down, across = (np.asarray(slope, dtype=np.float32) for slope in np.gradient(even))
    a, b, c = _window_sums(down**2), _window_sums(across**2), _window_sums(down * across)
    return np.asarray((a + b) / 2 - np.sqrt(((a - b) / 2) ** 2 + c**2), dtype=np.float32)


def _window_sums(values: Pixels) -> NDArray[np.float64]:
    """[49, 49]: sums over each window."""
    total = np.pad(values.astype(np.float64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    rows = total[TILE:] - total[:-TILE]
    return np.asarray(rows[:, TILE:] - rows[:, :-TILE])


def _windows(even: Pixels) -> Pixels:
    """[49, 49, 256]: each window of a tile's size."""
    windows = np.lib.stride_tricks.sliding_window_view(even, (TILE, TILE))
    return windows.reshape(*windows.shape[:2], -1)


def _tiles(even: Pixels) -> Pixels:
    """[16, 256]"""
    return _windows(even)[::TILE, ::TILE].reshape(ROW**2, -1)


def _mixture(scale: Pixels) -> Pixels:
    """[256, sign]: from a tile's pixels to mixtures of its cosine coefficients, each over its SD."""
    return np.asarray((_drawn_signs(SIGNS, len(scale)) / scale @ _cosines()).T, dtype=np.float32)


@cache
def _cosines() -> Pixels:
    """[n, 256]: the two-dimensional cosine waves (DCT-II) of a tile up to `FINEST`, without the mean."""
    number = np.arange(TILE)
    wave = np.cos(np.pi * np.outer(number, number + 0.5) / TILE) * np.sqrt(2 / TILE)
    wave[0] /= np.sqrt(2)
    chosen = [(u, v) for u in number for v in number if 0 < u**2 + v**2 <= FINEST**2]
    return np.asarray([np.outer(wave[u], wave[v]).ravel() for u, v in chosen], dtype=np.float32)


@cache
def _drawn_signs(rows: int, columns: int) -> Pixels:
    """[rows, columns] of +-1, the same on every machine and in every version of numpy."""
    drawn = hashlib.shake_256(b"tile").digest(-(-rows * columns // 8))
    bits = np.unpackbits(np.frombuffer(drawn, dtype=np.uint8), count=rows * columns)
    return bits.reshape(rows, columns).astype(np.float32) * 2 - 1


@cache
def _areas(count: int, wanted: int) -> Pixels:
    """[wanted, count]: the mean over each of `wanted` equal parts of `count` pixels, cut pixels counted by share."""
    edges = np.linspace(0, count, wanted + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(count)
    overlap = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return np.asarray(overlap / (high - low), dtype=np.float32)


@cache
def _gaussian(count: int, sd: float) -> Pixels:
    """[count, count]: a blur along one axis, its weights summing to 1 at the edge too."""
    distance = np.arange(count)[:, None] - np.arange(count)
    weight = np.exp(-(distance**2) / (2 * sd**2))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), dtype=np.float32)
