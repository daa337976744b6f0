"""An invisible mark: a known pattern of plus and minus added to pixels, and found again by correlation.

The pattern is public, so the mark says where pixels are from to who wants to know; it withstands compression, not an
adversary. It is a tile of random signs, one a cell of 2 x 2 pixels, repeated over the picture and turned by the slice.

Whether it is there is judged by the sum of the signs times the filtered pixels. In pixels that know nothing of the
signs this is a Rademacher sum: it exceeds z standard deviations with a probability of at most exp(-z^2 / 2) (Hoeffding
1963), whatever the picture, so a false alarm's probability is bounded, not estimated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.image import MedicalImage

KEY = b"HiResMedSynth, synthetic, research only"
TILE, CELL = 64, 2  # pixels; 1024 signs a tile
TURN, TURNS = 8, 8  # slice k holds the tile rolled down by TURN * (k mod TURNS) rows
LEVELS = 255  # the mark is one grey level of 8 bits in the display window
SMOOTHING = 5  # side of the mean that is taken off before looking, pixels
SURE = 1e-6  # a false alarm's probability below which the mark counts as found
CERTAIN = 4.0  # the mark should stand so many times above that limit before its absence means anything: JPEG weakens it
BLOCKS = (16, 32)  # sides, in cells, of the squares that are looked at where the place is unknown

Answer = Literal["yes", "no", "cannot tell"]
Storable = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class MarkFinding:
    """What looking for the mark gave.

    Args:
        answer: "no" only where the mark would have been found, had nothing but the marking been done to the pixels.
        z: standard deviations of the pattern's sum.
        expected_z: what the mark would have given there; None where its place is unknown.
        false_alarm: upper bound of the probability of such a z without a mark, over all places looked at.
    """

    answer: Answer
    z: float
    expected_z: float | None
    false_alarm: float


def amplitude_for(image: MedicalImage) -> float:
    """How much the mark adds or takes away, in the image's units: one of 255 grey levels as it is displayed."""
    whole = 0.0 if image.pixels.dtype.kind == "f" else 1.0
    step = abs(image.rescale[0]) if image.bits_stored is not None else whole
    return max(image.display_window().width / LEVELS, step)


@cache
def _signs() -> NDArray[np.float32]:
    """`[cell row, cell column]` of one tile, +1 or -1."""
    side = TILE // CELL
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(KEY).digest(side * side // 8), dtype=np.uint8))
    return bits.reshape(side, side).astype(np.float32) * 2 - 1


def pattern(rows: int, columns: int, slice_index: int) -> NDArray[np.float32]:
    """`[row, column]` of +1 and -1: the pattern of one slice."""
    tile = np.roll(np.kron(_signs(), np.ones((CELL, CELL), np.float32)), TURN * (slice_index % TURNS), axis=0)
    return np.tile(tile, (-(-rows // TILE), -(-columns // TILE)))[:rows, :columns]


def add_mark(
    pixels: NDArray[Any],
    *,
    amplitude: float,
    storable: Storable,
    inside: NDArray[np.bool_] | None = None,
    first: int = 0,
) -> None:
    """Adds the mark to `pixels` in place.

    Args:
        pixels: `[slice, row, column]`.
        amplitude: what is added or taken away, in pixel units.
        storable: `MedicalImage.storable` of the image: range, steps and type.
        inside: where it goes; None: everywhere.
        first: index in the whole image of the first slice in `pixels`.
    """
    for k, plane in enumerate(pixels):
        where = None if inside is None else inside[k]
        if where is not None and not where.any():
            continue
        marked = storable(plane.astype(np.float64) + amplitude * pattern(plane.shape[0], plane.shape[1], first + k))
        np.copyto(plane, marked, where=True if where is None else where)


def marked(image: MedicalImage, *, amplitude: float) -> MedicalImage:
    """The image with the mark all over it."""
    pixels = image.pixels.copy()
    add_mark(pixels, amplitude=amplitude, storable=image.storable)
    return image.with_pixels(pixels)


def find_at(
    pixels: NDArray[Any], inside: NDArray[np.bool_], *, amplitude: float, slices: Sequence[int] | None = None
) -> MarkFinding:
    """Whether the mark is in `pixels`, `[slice, row, column]`, at places that are known.

    Args:
        pixels: the slices.
        inside: where the mark would be; same shape.
        amplitude: how strong it would be.
        slices: indices of the slices in the whole image; None: it is the whole.
    """
    side = TILE // CELL
    seen, own = np.zeros((side, side)), np.zeros((side, side))
    for k in map(int, np.flatnonzero(inside.any(axis=(1, 2)))):
        index = k if slices is None else slices[k]
        seen += _folded(_filtered(pixels[k]) * inside[k], index)
        mark = amplitude * pattern(pixels.shape[1], pixels.shape[2], index) * inside[k]
        own += _folded(_high_pass(_high_pass(mark)) * inside[k], index)
    spread = math.sqrt(float((seen * seen).sum())) or 1.0
    z = float((seen * _signs()).sum()) / spread
    expected = float((own * _signs()).sum()) / spread
    return _judged(z, trials=1, expected_z=expected)


def find_whole(plane: NDArray[Any], *, amplitude: float) -> MarkFinding:
    """Whether the mark is all over a picture `[row, column]`, which may be a cut-out of what was marked."""
    filtered, side = _filtered(plane), TILE // CELL
    best, spread_at_best = 0.0, 1.0
    signs = np.conj(np.fft.rfft2(_signs()))
    for row in range(CELL):
        for column in range(CELL):
            tile = _folded(filtered[row:, column:], 0)
            spread = math.sqrt(float((tile * tile).sum())) or 1.0
            sums = np.fft.irfft2(np.fft.rfft2(tile) * signs, s=(side, side)) / spread
            extreme = float(sums.flat[np.abs(sums).argmax()])
            if abs(extreme) > abs(best):
                best, spread_at_best = extreme, spread
    mark = _folded(_high_pass(_high_pass(amplitude * pattern(plane.shape[0], plane.shape[1], 0))), 0)
    return _judged(best, trials=TILE * TILE, expected_z=float((mark * _signs()).sum()) / spread_at_best)


def find_anywhere(pixels: NDArray[Any]) -> MarkFinding:
    """Whether the mark is in some part of `pixels`, `[slice, row, column]`, at the places where it was put.

    Squares of 32 and 64 pixels are looked at, so a smaller part than that, or a faint one, gives "cannot tell".
    """
    from scipy.ndimage import uniform_filter

    best, trials = 0.0, 0
    for plane in pixels:
        cells = _cells(_filtered(plane))
        for block in (size for size in BLOCKS if size <= min(cells.shape)):
            spread = np.sqrt(np.maximum(uniform_filter(cells * cells, block, mode="constant"), 0.0)) * block
            spread = np.maximum(spread, 1e-6 * (spread.max() or 1.0))
            for turn in range(TURNS):
                signs = pattern(plane.shape[0] // CELL * CELL, plane.shape[1] // CELL * CELL, turn)[::CELL, ::CELL]
                sums = uniform_filter(cells * signs, block, mode="constant") * block**2
                step = block // 4
                z = (sums / spread)[step::step, step::step]
                extreme = float(z.flat[np.abs(z).argmax()])
                best = extreme if abs(extreme) > abs(best) else best
                trials += z.size
    return _judged(best, trials=max(trials, 1), expected_z=None)


def _judged(z: float, *, trials: int, expected_z: float | None) -> MarkFinding:
    """The finding; both signs count, for a picture may have been shown inverted."""
    false_alarm = min(1.0, 2 * trials * math.exp(-z * z / 2))
    limit = math.sqrt(2 * math.log(2 * trials / SURE))
    absent = expected_z is not None and expected_z >= CERTAIN * limit
    answer: Answer = "yes" if false_alarm <= SURE else "no" if absent else "cannot tell"
    return MarkFinding(answer=answer, z=z, expected_z=expected_z, false_alarm=false_alarm)


def _high_pass(plane: NDArray[Any]) -> NDArray[np.float64]:
    from scipy.ndimage import uniform_filter

    values = plane.astype(np.float64)
    return np.asarray(values - uniform_filter(values, SMOOTHING, mode="reflect"))


def _filtered(plane: NDArray[Any]) -> NDArray[np.float64]:
    """What is left of a picture when its edges are clipped to its noise; filtered twice, for the sum and its spread."""
    rest = _high_pass(plane)
    noise = 1.4826 * float(np.median(np.abs(rest))) or float(rest.std())
    return _high_pass(np.clip(rest, -3 * noise, 3 * noise))


def _cells(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over whole cells `[cell row, cell column]`."""
    rows, columns = plane.shape[0] // CELL, plane.shape[1] // CELL
    whole = plane[: rows * CELL, : columns * CELL]
    return np.asarray(whole.reshape(rows, CELL, columns, CELL).sum(axis=(1, 3)))


def _folded(plane: NDArray[np.float64], slice_index: int) -> NDArray[np.float64]:
    """Sums over all tiles, turned back: `[cell row, cell column]` of one tile."""
    cells, side = _cells(plane), TILE // CELL
    rows, columns = (-(-n // side) * side for n in cells.shape)
    padded = np.zeros((rows, columns))
    padded[: cells.shape[0], : cells.shape[1]] = cells
    tile = padded.reshape(rows // side, side, columns // side, side).sum(axis=(0, 2))
    return np.roll(tile, -TURN // CELL * (slice_index % TURNS), axis=0)
