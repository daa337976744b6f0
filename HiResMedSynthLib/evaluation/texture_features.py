"""An image in numbers, without weights: first-order values of the image, of Laplacians and of wavelets; co-occurrence;
local patterns; spectrum. In the manner of radiomics; a Frechet distance on them is stable at small n (models.md 4.4).

All values are of pictures in 0..1, so grey levels mean the same in every image of one comparison.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation.band_power import BANDS_CYCLES_PER_PIXEL, power_in

VERSION = 1  # of the definitions below: stored features of another one are not used
SPACE = "texture"
SMALLEST = 32  # px
LOG_SIGMAS_PX = (1.0, 2.0, 4.0, 8.0)
WAVELET_LEVELS = 3
GREY_LEVELS = 32
LAGS_PX = (1, 3)
MOST_SAMPLED = 65_536  # pixels that percentiles are taken from
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FAINT = 1e-6  # added before a logarithm
GREY_FEATURES = ("mean", "sd", "skewness", "kurtosis", *(f"p{100 * q:.0f}" for q in QUANTILES), "entropy")
BAND_FEATURES = ("log sd", "skewness", "log kurtosis", "p5/sd", "p95/sd")
PAIR_FEATURES = ("contrast", "dissimilarity", "homogeneity", "energy", "entropy", "correlation")
PATTERNS = 10  # uniform patterns of 8 neighbours: 0..8 bright ones in one run, and the rest


@lru_cache(maxsize=1)
def feature_names() -> tuple[str, ...]:
    """Names of the features, in the order of `texture_features`."""
    bands = [f"Laplacian {sigma:g} px" for sigma in LOG_SIGMAS_PX]
    bands += [
        f"wavelet {level} {part}" for level in range(1, WAVELET_LEVELS + 1) for part in ("rows", "columns", "both")
    ]
    return (
        *(f"grey, {name}" for name in GREY_FEATURES),
        *(f"{band}, {name}" for band in bands for name in BAND_FEATURES),
        *(f"pairs at {place} size {lag} px apart, {name}" for place in ("full", "1/4") for lag in LAGS_PX
          for name in PAIR_FEATURES),
        *(f"local pattern {number} at {place} size" for place in ("full", "1/2") for number in range(PATTERNS)),
        *(f"log power {low:g}-{high:g} c/px" for low, high in BANDS_CYCLES_PER_PIXEL),
    )  # fmt: skip


def texture_features(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """[125] the features of a picture `[row, column]` in 0..1, in the order of `feature_names`.

    Raises:
        SettingsError: it is smaller than 32 pixels or not finite.
    """
    import cv2

    if image.ndim != 2 or min(image.shape) < SMALLEST or not np.isfinite(image).all():
        raise SettingsError(
            f"an array of shape {image.shape} has no texture that can be measured",
            remedy=f"Give pictures [row, column] of {SMALLEST} pixels and more.",
        )
    grey = np.ascontiguousarray(image, dtype=np.float32)
    found = _grey(grey)
    for sigma in LOG_SIGMAS_PX:
        smooth = cv2.GaussianBlur(grey, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        found += _band(sigma**2 * cv2.Laplacian(smooth, cv2.CV_32F, borderType=cv2.BORDER_REFLECT))
    half = grey
    for _ in range(WAVELET_LEVELS):
        half, details = _wavelet(half)
        found += [value for detail in details for value in _band(detail)]
    rows, columns = grey.shape
    for factor in (1, 4):
        small = grey if factor == 1 else _smaller(grey, rows // factor, columns // factor)
        levels = np.clip((small * GREY_LEVELS).astype(np.int64), 0, GREY_LEVELS - 1)
        found += [value for lag in LAGS_PX for value in _pairs(levels, lag)]
    for factor in (1, 2):
        found += _patterns(grey if factor == 1 else _smaller(grey, rows // factor, columns // factor))
    found += np.log10(power_in(grey, BANDS_CYCLES_PER_PIXEL) + FAINT**2).tolist()
    return np.array(found)


def _smaller(grey: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    import cv2

    return np.asarray(cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA))


def _moments(values: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """Mean, SD, skewness and kurtosis (3 for a normal distribution; 0 and 3 where all is even)."""
    flat = values.ravel().astype(np.float64)
    mean = float(flat.mean())
    centred = flat - mean
    square = centred * centred
    variance = float(square.mean())
    if variance < FAINT**2:
        return mean, math.sqrt(variance), 0.0, 3.0
    third, fourth = float((square * centred).mean()), float((square * square).mean())
    return mean, math.sqrt(variance), third / variance**1.5, fourth / variance**2


def _quantiles(values: NDArray[np.float32], shares: tuple[float, ...]) -> list[float]:
    flat = values.ravel()
    step = max(1, flat.size // MOST_SAMPLED) | 1  # odd, so that it falls on all columns
    return [float(value) for value in np.quantile(flat[::step], shares)]


def _grey(grey: NDArray[np.float32]) -> list[float]:
    counts = np.bincount(np.clip((grey.ravel() * 256).astype(np.int64), 0, 255), minlength=256)
    share = counts[counts > 0] / grey.size
    return [*_moments(grey), *_quantiles(grey, QUANTILES), -float((share * np.log2(share)).sum())]


def _band(values: NDArray[np.float32]) -> list[float]:
    _, sd, skewness, kurtosis = _moments(values)
    low, high = _quantiles(values, (QUANTILES[0], QUANTILES[-1]))
    return [math.log10(sd + FAINT), skewness, math.log10(kurtosis), low / (sd + FAINT), high / (sd + FAINT)]


def _wavelet(grey: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """(mean of 2 x 2, differences along rows, columns and both) of the Haar wavelet."""
    rows, columns = (2 * (n // 2) for n in grey.shape)
    a, b = grey[:rows:2, :columns:2], grey[:rows:2, 1:columns:2]
    c, d = grey[1:rows:2, :columns:2], grey[1:rows:2, 1:columns:2]
    details = [np.asarray(part / 2, np.float32) for part in (a + b - c - d, a - b + c - d, a - b - c + d)]
    return np.asarray((a + b + c + d) / 4, np.float32), details


def _pairs(levels: NDArray[np.int64], lag: int) -> list[float]:
    """Haralick's measures of the grey levels of pixels `lag` apart, over four directions."""
    return _measures(_counts(levels, ((0, lag), (lag, 0), (lag, lag), (lag, -lag))))


def _counts(levels: NDArray[np.int64], steps: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """[level, level] share of pairs of pixels (down, right) apart that have these levels, either way round."""
    table = np.zeros((GREY_LEVELS, GREY_LEVELS))
    rows, columns = levels.shape
    for down, right in steps:
        first = levels[: rows - down, max(0, -right) : columns - max(0, right)]
        second = levels[down:, max(0, right) : columns - max(0, -right)]
        both = np.bincount((first * GREY_LEVELS + second).ravel(), minlength=GREY_LEVELS**2)
        table += both.reshape(GREY_LEVELS, GREY_LEVELS)
    table += table.T
    return np.asarray(table / table.sum())


def _measures(table: NDArray[np.float64]) -> list[float]:
    """The measures of `PAIR_FEATURES`; an even image is wholly correlated."""
    axis = np.arange(GREY_LEVELS)
    apart = np.abs(axis[:, None] - axis[None, :])
    edge = table.sum(axis=0)
    mean = float(axis @ edge)
    variance = float((axis - mean) ** 2 @ edge)
    known = table[table > 0]
    return [
        float((apart**2 * table).sum()),
        float((apart * table).sum()),
        float((table / (1 + apart**2)).sum()),
        math.sqrt(float((table**2).sum())),
        -float((known * np.log2(known)).sum()),
        float((np.outer(axis - mean, axis - mean) * table).sum()) / variance if variance > FAINT else 1.0,
    ]


def _patterns(grey: NDArray[np.float32]) -> list[float]:
    """Shares of the ten rotation-free uniform patterns of 8 neighbours (Ojala et al., 2002)."""
    rows, columns = grey.shape
    middle = grey[1:-1, 1:-1]
    ring = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
    code = np.zeros(middle.shape, dtype=np.uint8)
    for bit, (row, column) in enumerate(ring):
        code |= (grey[row : row + rows - 2, column : column + columns - 2] >= middle).astype(np.uint8) << np.uint8(bit)
    counts = np.bincount(code.ravel(), minlength=256)
    return [float(share) for share in np.bincount(_uniform(), weights=counts, minlength=PATTERNS) / code.size]


@lru_cache(maxsize=1)
def _uniform() -> NDArray[np.int64]:
    """[256] number of bright neighbours where they lie in one run, else 9."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), PATTERNS - 1)
