"""Measures of one image against another: the one home of every metric.

So far what the placement rules and the tests need; the evaluation grows here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError


def dice(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Overlap of two masks, 0..1: 2 |A and B| / (|A| + |B|); 1 where both are empty.

    Raises:
        SettingsError: the shapes differ.
    """
    _same_shape(one, other)
    a, b = one.astype(bool), other.astype(bool)
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total


def psnr(reference: NDArray[Any], image: NDArray[Any], *, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB with an explicit peak (paper, Eqs. 20-21); infinite for equal images.

    Raises:
        SettingsError: the shapes differ or the range is not above zero.
    """
    _same_shape(reference, image)
    if not data_range > 0:
        raise SettingsError("PSNR needs a data range above zero", remedy="Give the span of possible values.")
    error = float(np.mean((reference.astype(np.float64) - image.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


def _same_shape(one: NDArray[Any], other: NDArray[Any]) -> None:
    if one.shape != other.shape:
        raise SettingsError(
            f"images of shapes {one.shape} and {other.shape} can't be compared", remedy="Resample one to the other."
        )
