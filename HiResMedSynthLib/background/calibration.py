"""Spectral calibration: a finished film filtered so that films made have the mean power of real ones at each frequency.

A short-trained detail network draws detail of the right kind but too faint (a mean-seeking loss does). The gains are
measured once, on films made with seeds of their own against training films, and travel with the weights.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LARGEST_GAIN = 2.0  # a film that needs more isn't worth calibrating
EDGE = 32  # pixels mirrored at each side, so that opposite edges don't meet


def calibrated(
    film: NDArray[np.float32], frequencies: tuple[float, ...], gains: tuple[float, ...]
) -> NDArray[np.float32]:
    """The film [row, column] with each frequency (cycles/pixel) scaled by the gain interpolated there.

    Args:
        film: any grey scale, filtered in single precision.
        frequencies: rising; below the first the gain is 1, beyond the last it is the last one's.
        gains: one for each frequency.
    """
    from scipy import fft  # in single precision twice as fast as numpy's

    padded = np.pad(film.astype(np.float32), EDGE, mode="reflect")
    spectrum = fft.rfft2(padded) * _gain(*padded.shape, frequencies, gains)
    filtered = fft.irfft2(spectrum, s=padded.shape, overwrite_x=True)
    return np.asarray(filtered[EDGE:-EDGE, EDGE:-EDGE], dtype=np.float32)


@lru_cache(maxsize=2)
def _gain(rows: int, columns: int, frequencies: tuple[float, ...], gains: tuple[float, ...]) -> NDArray[np.float32]:
    """[rows, columns // 2 + 1]: the gain of each number of a half spectrum; the same for every film of a model."""
    radius = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :])
    gain = np.interp(radius, (0.0, frequencies[0] / 2, *frequencies), (1.0, 1.0, *gains))
    return np.asarray(gain, dtype=np.float32)


def gains_for(made: NDArray[np.float64], real: NDArray[np.float64]) -> tuple[float, ...]:
    """Amplitude gains from mean powers of films made and real ones at each frequency, within 1 / 2 .. 2."""
    wanted = np.sqrt(real / made)
    return tuple(round(float(gain), 4) for gain in np.clip(wanted, 1 / LARGEST_GAIN, LARGEST_GAIN))
