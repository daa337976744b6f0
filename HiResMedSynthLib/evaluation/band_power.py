"""Power of an image in six bands of spatial frequency: an upsampled or a blurred image shows here at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BANDS_CYCLES_PER_PIXEL = ((0.02, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5))
PATCH_PX = 256


def band_power(image: NDArray[np.floating], *, field: tuple[int, int, int, int] | None = None) -> NDArray[np.float64]:
    """[6] mean spectral power of an image [row, column] in each band, in its grey units squared.

    `field` is (top, left, rows, columns), outside which nothing counts.
    """
    return power_in(image, BANDS_CYCLES_PER_PIXEL, field=field)


def power_in(
    image: NDArray[np.floating],
    bands: Sequence[tuple[float, float]],
    *,
    field: tuple[int, int, int, int] | None = None,
) -> NDArray[np.float64]:
    """[band] mean spectral power of an image [row, column] between (low, high) cycles/pixel.

    Hann-windowed patches of 256 px (of the image's size where that is smaller), half overlapping, each minus its mean,
    all inside `field` (top, left, rows, columns), so that padding doesn't count.
    """
    top, left, rows, columns = field or (0, 0, *image.shape)
    side = min(PATCH_PX, rows, columns)
    window = np.outer(np.hanning(side), np.hanning(side))
    axis = np.fft.fftfreq(side)
    radius = np.hypot(axis[:, None], axis[None, :])
    total = np.zeros((side, side))
    starts = [
        range(first, first + length - side + 1, max(1, side // 2)) for first, length in ((top, rows), (left, columns))
    ]
    for row in starts[0]:
        for column in starts[1]:
            patch = image[row : row + side, column : column + side].astype(np.float64)
            total += np.abs(np.fft.fft2((patch - patch.mean()) * window)) ** 2
    total /= len(starts[0]) * len(starts[1]) * (window**2).sum()
    return np.array([total[(radius >= low) & (radius < high)].mean() for low, high in bands])
