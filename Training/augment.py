"""Augmentation of films, drawn then applied: no flips (heart and stomach have a side).

Interpolation takes power from the finest detail, so every warp reads a finer film than it writes and averages down.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class FilmChange:
    """One drawn change.

    Attributes:
        shift: (row, column) as a share of the canvas.
        rotation_deg: about the canvas's centre.
        scale: above 1 magnifies.
        elastic: [2, 5, 5] control points of a cubic B-spline, as a share of the canvas.
        gamma: exponent of the grey value in 0..1.
    """

    shift: tuple[float, float]
    rotation_deg: float
    scale: float
    elastic: Pixels
    gamma: float


def draw_film_change(rng: np.random.Generator) -> FilmChange:
    """A change within what positioning and exposure do: 5 %, 4 degrees, 8 %, 1 % elastic, gamma 0.8-1.25."""
    return FilmChange(
        shift=(float(rng.uniform(-0.05, 0.05)), float(rng.uniform(-0.05, 0.05))),
        rotation_deg=float(rng.uniform(-4, 4)),
        scale=float(rng.uniform(0.94, 1.08)),
        elastic=rng.normal(0, 0.014, (2, 5, 5)).astype(np.float32),
        gamma=float(np.exp(rng.uniform(np.log(0.8), np.log(1.25)))),
    )


def apply_film_change(
    film: Pixels, mask: NDArray[np.bool_], change: FilmChange, *, corner: tuple[int, int], size: int
) -> tuple[Pixels, Pixels]:
    """(film, mask) of a square part of the changed canvas: rows and columns from `corner`, `size` on a side.

    `film` is [row, column] in -1..1; the mask returned is 1 inside the field and 0 outside it.
    """
    canvas = film.shape[0]
    middle = (canvas - 1) / 2
    rows, columns = (np.arange(first, first + size, dtype=np.float32) for first in corner)
    bent = [canvas * (_weights(rows, canvas) @ part @ _weights(columns, canvas).T) for part in change.elastic]
    y = rows[:, None] - middle - change.shift[0] * canvas
    x = columns[None, :] - middle - change.shift[1] * canvas
    angle = np.deg2rad(change.rotation_deg)
    sine, cosine = np.float32(np.sin(angle) / change.scale), np.float32(np.cos(angle) / change.scale)
    source_row = (cosine * y - sine * x + middle + bent[0]).astype(np.float32)
    source_column = (sine * y + cosine * x + middle + bent[1]).astype(np.float32)
    moved = cv2.remap(film, source_column, source_row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.remap(
        mask.astype(np.float32), source_column, source_row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return apply_gamma(np.asarray(moved, dtype=np.float32), change.gamma), np.asarray(inside, dtype=np.float32)


def _weights(positions: Pixels, canvas: int) -> Pixels:
    """[position, 5]: cubic B-spline weights of five control points spread over the canvas; fading beyond them."""
    distance = np.abs((positions[:, None] + 0.5) * 5 / canvas - 0.5 - np.arange(5, dtype=np.float32))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def apply_gamma(film: Pixels, gamma: float) -> Pixels:
    """The film in -1..1 with another exposure: its grey value in 0..1 to the power of gamma."""
    return (2 * np.power(np.clip((film + 1) / 2, 0, 1), np.float32(gamma)) - 1).astype(np.float32)


def reduce(image: Pixels, factor: int) -> Pixels:
    """[row / factor, column / factor]: the mean of each factor x factor block."""
    rows, columns = image.shape
    blocks = image.reshape(rows // factor, factor, columns // factor, factor)
    mean: Pixels = blocks.mean(axis=(1, 3), dtype=np.float32)
    return mean
