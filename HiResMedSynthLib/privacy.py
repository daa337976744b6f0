"""Whether a film is a near copy of one that a model learned from, judged from small descriptors of the training films.

Everything is computed from the film at 64 px. Two descriptors, both int8 and both random projections onto signs:

- whole: the film blurred to 24 x 24, normalised, less the mean training film: 64 numbers a film;
- patches: 8 x 8 overlapping windows of 16 px, each less its mean over its SD: 16 numbers a window. At each place the
  films stand in an order of its own, so that the windows of one film can't be read off and put together.

A film is compared at the best of 25 small shifts. It is a near copy where its likeness to the nearest training film is
above the 95 % point of films that were held out of training, as a whole or in the share of its windows that are.
No proof of privacy: it finds copies, not what else a model may have learned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import weights
from HiResMedSynthLib.errors import SettingsError

KIND = "background-descriptors"
NAME_SUFFIX = "_descriptors"
SIDE, LOW, SHIFT = 64, 24, 2
WHOLE, WINDOW, GRID, NUMBERS = 64, 16, 8, 16
PLACES = GRID**2
POOLED = WINDOW // 2  # a window is halved before it is projected
SOFT = 0.15  # added to a window's SD (of a film of SD 1), so that flat windows don't count
WHOLE_UNIT, PATCH_UNIT = 0.5, 8.0  # the values of 127
PERCENT = 95.0  # point of the held-out films that a copy lies above
FEWEST_HELD_OUT = 8
Pixels = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """How near a film is to the training films.

    Attributes:
        whole: likeness (correlation of descriptors, at most 1) to the nearest one.
        nearest: its number among the descriptors.
        patch_share: share of the film's windows that are nearer to a training film's than 95 % of held-out ones are.
        patches: [64] likeness of each window to the nearest, row by row.
        why: why it counts as a near copy; "" where it doesn't.
    """

    whole: float
    nearest: int
    patch_share: float
    patches: Pixels
    why: str


@dataclass(frozen=True, kw_only=True)
class CopyRate:
    """Of some films: shares of near copies, and of their windows; of held-out films each is near 5 %."""

    films: int
    whole: float
    by_patches: float
    either: float
    windows: float


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingDescriptors:
    """Descriptors of a model's training films, with what held-out films say.

    Attributes:
        whole: int8 [film, 64].
        patches: int8 [place, film, 16], each place in an order of its own.
        mean: [24 * 24] the mean training film, blurred and normalised.
        whole_threshold: likeness of a whole film from which it is a near copy.
        patch_thresholds: [place] likeness of a window from which it is one.
        share_threshold: share of such windows from which the film is one.
        held_out: how many films the thresholds come from.
    """

    whole: NDArray[np.int8]
    patches: NDArray[np.int8]
    mean: Pixels
    whole_threshold: float
    patch_thresholds: Pixels
    share_threshold: float
    held_out: int

    def __post_init__(self) -> None:
        films = len(self.whole)
        shapes: dict[str, tuple[NDArray[Any], str, tuple[int, ...]]] = {
            "whole": (self.whole, "int8", (films, WHOLE)),
            "patches": (self.patches, "int8", (PLACES, films, NUMBERS)),
            "mean": (self.mean, "float32", (LOW * LOW,)),
            "patch_thresholds": (self.patch_thresholds, "float32", (PLACES,)),
        }
        sound = films > 0 and all(a.dtype.name == kind and a.shape == shape for a, kind, shape in shapes.values())
        numbers = (*self.mean, *self.patch_thresholds, self.whole_threshold, self.share_threshold)
        if not (sound and np.isfinite(numbers).all()):
            raise weights.ModelError(
                "the descriptors of the training films are damaged", remedy="Make them anew, or reinstall."
            )

    def nearness(self, film: Pixels) -> Nearness:
        """How near a film [row, column] of any size, values in -1..1, is to the training films."""
        shifted = _shifts(small_film(film))
        likeness = _unit(_whole_numbers(shifted, self.mean)) @ _unit(self.whole.astype(np.float32)).T
        best = likeness.max(axis=0)  # [film]
        windows = _patch_numbers(shifted).swapaxes(0, 1)  # [place, shift, number]
        held = self.patches.astype(np.float32) * (PATCH_UNIT / 127)
        squares = (windows**2).sum(-1)[:, :, None] + (held**2).sum(-1)[:, None] - 2 * windows @ held.swapaxes(1, 2)
        patches = (1 - squares.min(axis=(1, 2)) / (2 * POOLED**2)).astype(np.float32)
        whole, share = float(best.max()), float((patches > self.patch_thresholds).mean())
        return Nearness(
            whole=whole,
            nearest=int(best.argmax()),
            patch_share=share,
            patches=patches,
            why=self._why(whole, share),
        )

    def why_copy(self, film: Pixels) -> str:
        """Why the film counts as a near copy of a training film; "" where it doesn't."""
        return self.nearness(film).why

    def copy_rate(self, films: Iterable[Pixels]) -> CopyRate:
        """Shares of near copies among some films.

        Raises:
            SettingsError: there is no film.
        """
        found = [self.nearness(film) for film in films]
        if not found:
            raise SettingsError("a copy rate needs films", remedy="Give at least one.")
        whole = np.array([one.whole > self.whole_threshold for one in found])
        by_patches = np.array([one.patch_share > self.share_threshold for one in found])
        return CopyRate(
            films=len(found),
            whole=float(whole.mean()),
            by_patches=float(by_patches.mean()),
            either=float((whole | by_patches).mean()),
            windows=float(np.mean([one.patch_share for one in found])),
        )

    def _why(self, whole: float, share: float) -> str:
        if whole > self.whole_threshold:
            return (
                f"likeness {whole:.3f} to the nearest training film, where {PERCENT:.0f} % of unlearned films "
                f"stay below {self.whole_threshold:.3f}"
            )
        if share > self.share_threshold:
            return (
                f"{share:.0%} of its windows are nearer to a training film's than {PERCENT:.0f} % of unlearned films' "
                f"are, where {PERCENT:.0f} % of unlearned films have no more than {self.share_threshold:.0%} of them"
            )
        return ""


def describe(training: Sequence[Pixels], held_out: Sequence[Pixels]) -> TrainingDescriptors:
    """Descriptors of the training films, thresholds from films of other patients that were held out.

    Raises:
        SettingsError: no training film, or too few held out.
    """
    if not len(training) or len(held_out) < FEWEST_HELD_OUT:
        raise SettingsError(
            f"{len(training)} training and {len(held_out)} held-out films are too few for a copy check",
            remedy=f"Give at least one and {FEWEST_HELD_OUT}.",
        )
    films = np.stack([small_film(film) for film in training])
    mean = mean_film(films)
    whole, windows = numbers_of(films, mean)
    ordered = np.stack([place[np.lexsort(place.T)] for place in windows.swapaxes(0, 1)])
    open_ended = TrainingDescriptors(
        whole=whole,
        patches=ordered,
        mean=mean,
        whole_threshold=1.0,
        patch_thresholds=np.ones(PLACES, dtype=np.float32),
        share_threshold=1.0,
        held_out=len(held_out),
    )
    found = [open_ended.nearness(film) for film in held_out]
    limits = np.percentile([one.patches for one in found], PERCENT, axis=0).astype(np.float32)
    shares = [(one.patches > limits).mean() for one in found]
    return TrainingDescriptors(
        whole=whole,
        patches=ordered,
        mean=mean,
        whole_threshold=float(np.percentile([one.whole for one in found], PERCENT)),
        patch_thresholds=limits,
        share_threshold=float(np.percentile(shares, PERCENT)),
        held_out=len(held_out),
    )


def write_descriptors(path: Path, descriptors: TrainingDescriptors, card: weights.Card) -> None:
    """Writes them as a model file; the card's kind must be `KIND`."""
    if card.kind != KIND:
        raise weights.ModelError(f"descriptors are of kind {KIND}, not {card.kind}", remedy="Correct the card.")
    arrays = {name: getattr(descriptors, name) for name in ("whole", "patches", "patch_thresholds")}
    arrays["mean"] = descriptors.mean.astype(np.float16)
    numbers = {name: getattr(descriptors, name) for name in ("whole_threshold", "share_threshold", "held_out")}
    weights.write_model(path, arrays, card, metadata={"thresholds": json.dumps(numbers)})


def read_descriptors(path: Path) -> TrainingDescriptors:
    """The descriptors in a file.

    Raises:
        ModelError: it is none, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            arrays: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            numbers = json.loads(file.metadata()["thresholds"])
        return TrainingDescriptors(
            whole=arrays["whole"],
            patches=arrays["patches"],
            mean=arrays["mean"].astype(np.float32),
            patch_thresholds=arrays["patch_thresholds"],
            whole_threshold=float(numbers["whole_threshold"]),
            share_threshold=float(numbers["share_threshold"]),
            held_out=int(numbers["held_out"]),
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as problem:
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


def mean_film(films: Pixels) -> Pixels:
    """[576]: the mean of small films [film, 64, 64], blurred and normalised."""
    return np.asarray(_low(films).mean(axis=0), dtype=np.float32)


def numbers_of(films: Pixels, mean: Pixels) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """([film, 64], [film, place, 16]): what is stored of small films [film, 64, 64], windows still by film."""
    return _quantised(_unit(_whole_numbers(films, mean)), WHOLE_UNIT), _quantised(_patch_numbers(films), PATCH_UNIT)


def small_film(film: Pixels) -> Pixels:
    """[64, 64]: the mean of each area of the film.

    Raises:
        SettingsError: it is no picture.
    """
    if film.ndim != 2 or min(film.shape) < 8 or not np.isfinite(film).all():
        raise SettingsError(f"an array of shape {film.shape} is no film", remedy="Give one film [row, column].")
    rows, columns = (_areas(count, SIDE) for count in film.shape)
    return np.asarray(rows @ film.astype(np.float32) @ columns.T, dtype=np.float32)


def _shifts(film: Pixels) -> Pixels:
    """[25, 64, 64]: the film moved by up to two pixels each way, its edge repeated."""
    padded = np.pad(film, SHIFT, mode="edge")
    steps = range(2 * SHIFT + 1)
    return np.stack([padded[row : row + SIDE, column : column + SIDE] for row in steps for column in steps])


def _low(films: Pixels) -> Pixels:
    """[film, 576]: blurred to 24 x 24; mean 0 and SD 1 under a window that fades to the edge."""
    blur = _areas(SIDE, LOW) @ _gaussian(SIDE, 0.8)
    flat = np.asarray(blur @ films @ blur.T, dtype=np.float32).reshape(len(films), -1)
    return _normalised(flat, _fading(LOW).ravel())


def _whole_numbers(films: Pixels, mean: Pixels) -> Pixels:
    """[film, 64]: projections of what a film differs by from the mean training film."""
    return np.asarray(_unit((_low(films) - mean) * _fading(LOW).ravel()) @ _signs("whole", WHOLE, LOW * LOW).T)


def _patch_numbers(films: Pixels) -> Pixels:
    """[film, place, 16]: projections of each window, less its mean, over its SD."""
    blur = _gaussian(SIDE, 0.8)
    soft = np.asarray(blur @ films @ blur.T, dtype=np.float32)
    soft = _normalised(soft.reshape(len(films), -1), _fading(SIDE).ravel()).reshape(films.shape)
    starts = np.round(np.linspace(0, SIDE - WINDOW, GRID)).astype(int)
    windows = np.stack([soft[:, r : r + WINDOW, c : c + WINDOW] for r in starts for c in starts], axis=1)
    pooled = windows.reshape(len(soft), PLACES, POOLED, 2, POOLED, 2).mean(axis=(3, 5)).reshape(len(soft), PLACES, -1)
    pooled = pooled - pooled.mean(axis=-1, keepdims=True)
    pooled = pooled / (pooled.std(axis=-1, keepdims=True) + np.float32(SOFT))
    return np.asarray(pooled @ _signs("patch", NUMBERS, POOLED**2).T, dtype=np.float32)


def _normalised(flat: Pixels, weight: Pixels) -> Pixels:
    """[film, value] with weighted mean 0 and SD 1."""
    weight = weight / weight.sum()
    flat = flat - (flat @ weight)[:, None]
    return np.asarray(flat / np.maximum(np.sqrt(flat**2 @ weight), 1e-3)[:, None], dtype=np.float32)


def _unit(rows: Pixels) -> Pixels:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6), dtype=np.float32)


def _quantised(values: Pixels, largest: float) -> NDArray[np.int8]:
    return np.clip(np.round(values * (127 / largest)), -127, 127).astype(np.int8)


@cache
def _signs(name: str, rows: int, columns: int) -> Pixels:
    """[rows, columns] of +-1 / sqrt(rows), the same on every machine and in every version of numpy."""
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(name.encode()).digest(rows * columns // 8), dtype=np.uint8))
    signs = bits.reshape(rows, columns).astype(np.float32) * 2 - 1
    return np.asarray(signs / np.sqrt(rows), dtype=np.float32)


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


@cache
def _fading(count: int) -> Pixels:
    """[count, count]: 1 in the middle, falling towards the edge."""
    line = np.sqrt(np.hanning(count + 2)[1:-1])
    return np.asarray(np.outer(line, line), dtype=np.float32)
