"""Near copies of films as someone (or a network) could make them: one change, two changes, or a part in another film.

Films are [row, column] float32 of any size, values in -1..1; every function gives the same shape and range back.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Pixels = NDArray[np.float32]
Change = Callable[[Pixels, np.random.Generator], Pixels]
SEAM = 0.02  # of the side: over which a part planted in another film fades into it


def flip(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Left and right exchanged."""
    return film[:, ::-1].copy()


def crop(film: Pixels, rng: np.random.Generator) -> Pixels:
    """5 to 15 % of each side cut off, anywhere, the rest enlarged."""
    kept = 1 - rng.uniform(0.05, 0.15)
    corner = rng.uniform(0, 1 - kept, 2) * (np.array(film.shape) - 1)
    return _resampled(film, np.eye(2) * kept, corner)


def shift(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Moved by up to 8 % of the side each way, the edge repeated."""
    return _resampled(film, np.eye(2), rng.uniform(-0.08, 0.08, 2) * np.array(film.shape))


def rotation(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Turned by 1 to 5 degrees, the edge repeated."""
    angle = np.deg2rad(rng.uniform(1, 5) * rng.choice((-1, 1)))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (np.array(film.shape) - 1) / 2
    return _resampled(film, turn, middle - turn @ middle)


def gamma(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Another grey curve, exponent 0.6 to 1.6."""
    return np.asarray(2 * ((film.clip(-1, 1) + 1) / 2) ** rng.uniform(0.6, 1.6) - 1, dtype=np.float32)


def window(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Up to a fifth of the grey range cut off at each end, the rest stretched."""
    low, high = -1 + rng.uniform(0, 0.4), 1 - rng.uniform(0, 0.4)
    return np.asarray((2 * (film - low) / (high - low) - 1).clip(-1, 1), dtype=np.float32)


def invert(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Black for white."""
    return -film


def noise(film: Pixels, rng: np.random.Generator) -> Pixels:
    """White noise, its SD 1.5 to 6 % of the grey range."""
    return (film + rng.normal(0, rng.uniform(0.03, 0.12), film.shape)).clip(-1, 1).astype(np.float32)


def blur(film: Pixels, rng: np.random.Generator) -> Pixels:
    """A Gauss filter, its SD 0.3 to 1.2 % of the side."""
    return np.asarray(ndimage.gaussian_filter(film, rng.uniform(0.003, 0.012) * len(film)), dtype=np.float32)


def jpeg(film: Pixels, rng: np.random.Generator) -> Pixels:
    """JPEG of quality 10 to 60."""
    packed = io.BytesIO()
    grey = np.round((film.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    Image.fromarray(grey).save(packed, format="JPEG", quality=int(rng.integers(10, 61)))
    with Image.open(packed) as picture:
        return np.asarray(np.asarray(picture, dtype=np.float32) / 127.5 - 1, dtype=np.float32)


CHANGES: dict[str, Change] = {
    change.__name__: change for change in (flip, crop, shift, rotation, gamma, window, invert, noise, blur, jpeg)
}


def mixed(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Two different changes, one after the other."""
    first, second = rng.choice(list(CHANGES), 2, replace=False)
    return CHANGES[second](CHANGES[first](film, rng), rng)


def part_in(film: Pixels, other: Pixels, rng: np.random.Generator, *, part: str) -> Pixels:
    """`other` with a part of `film` at its own place: "half" (a side), "quarter" or "ninth" (a square anywhere)."""
    side = len(film)
    mask = np.zeros(film.shape, dtype=np.float32)
    if part == "half":
        axis, end = rng.integers(2), (slice(0, side // 2), slice(side // 2, side))[rng.integers(2)]
        mask[(slice(None), end) if axis else (end, slice(None))] = 1
    else:
        length = side // {"quarter": 2, "ninth": 3}[part]
        row, column = rng.integers(0, side - length + 1, 2)
        mask[row : row + length, column : column + length] = 1
    soft = ndimage.uniform_filter(mask, max(round(SEAM * side), 1))
    return np.asarray(soft * film + (1 - soft) * other, dtype=np.float32)


def _resampled(film: Pixels, matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Pixels:
    return np.asarray(ndimage.affine_transform(film, matrix, offset=offset, order=1, mode="nearest"), dtype=np.float32)
