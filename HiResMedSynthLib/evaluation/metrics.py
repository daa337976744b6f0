"""Measures of one image against another: the one home of every metric of a pair.

SSIM is a map here, so that it can be averaged inside and outside a mask (the paper's Table 6); it agrees with
scikit-image and torchmetrics (tested) and is several times as fast, which 1,000 pairs need.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError

SSIM_SIGMA, SSIM_REACH = 1.5, 5  # a Gaussian of 11 x 11 (Wang et al., 2004)
SSIM_K = (0.01, 0.03)
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales (Wang et al., 2003)
SMALLEST_MS = (2 * SSIM_REACH) * 2 ** (len(MS_WEIGHTS) - 1) + 1  # px: the coarsest scale must hold the Gaussian
PAPER_BITS = 24  # n of the paper's Eq. 20
PAPER_DB = 20 * math.log10((2**PAPER_BITS - 1) / 255)  # what it adds to PSNR, whatever the images are


def dice(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Overlap of two masks, 0..1: 2 |A and B| / (|A| + |B|); 1 where both are empty.

    Raises:
        SettingsError: the shapes differ.
    """
    _same_shape(one, other)
    a, b = one.astype(bool), other.astype(bool)
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total


def psnr(
    reference: NDArray[Any], image: NDArray[Any], *, data_range: float, mask: NDArray[np.bool_] | None = None
) -> float:
    """Peak signal-to-noise ratio in dB with an explicit peak (paper, Eqs. 20-21); infinite for equal images.

    Args:
        reference, image: same shape.
        data_range: span of the values that are possible.
        mask: same shape, where to measure; None: everywhere.

    Raises:
        SettingsError: the shapes differ, the range is not above zero, or the mask is empty.
    """
    _same_shape(reference, image)
    if not data_range > 0:
        raise SettingsError("PSNR needs a data range above zero", remedy="Give the span of possible values.")
    error = _mean_square(reference, image, mask)
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


def nmse(reference: NDArray[Any], image: NDArray[Any], *, mask: NDArray[np.bool_] | None = None) -> float:
    """Squared error over the squares of the reference, 0 for equal images; NaN where the reference is all zero.

    Raises:
        SettingsError: as `psnr`.
    """
    _same_shape(reference, image)
    power = _mean_square(reference, np.zeros_like(reference), mask)
    return _mean_square(reference, image, mask) / power if power > 0 else math.nan


def ssim_map(reference: NDArray[Any], image: NDArray[Any], *, data_range: float) -> NDArray[np.float64]:
    """SSIM around each pixel, `[row, column]` (paper, Eq. 22): Gaussian of 11 x 11 and SD 1.5, K .01 and .03.

    The five pixels at each border see the image mirrored; `ssim` leaves them out, as scikit-image does.

    Raises:
        SettingsError: the shapes differ, an image is smaller than the Gaussian, or the range is not above zero.
    """
    return _structure(reference, image, data_range)[0]


def ssim(
    reference: NDArray[Any], image: NDArray[Any], *, data_range: float, mask: NDArray[np.bool_] | None = None
) -> float:
    """Mean structural similarity, at most 1; inside a mask the mean of the map there.

    Raises:
        SettingsError: as `ssim_map`, or the mask is empty.
    """
    return mean_of_map(ssim_map(reference, image, data_range=data_range), mask)


def mean_of_map(values: NDArray[np.float64], mask: NDArray[np.bool_] | None = None) -> float:
    """Mean of an SSIM map inside a mask; without one, all of it but its border.

    Raises:
        SettingsError: the mask is empty.
    """
    if mask is None:
        return float(values[SSIM_REACH:-SSIM_REACH, SSIM_REACH:-SSIM_REACH].mean())
    _filled(mask)
    return float(values[mask].mean())


def ms_ssim(
    reference: NDArray[Any], image: NDArray[Any], *, data_range: float, mask: NDArray[np.bool_] | None = None
) -> float:
    """Multi-scale SSIM over five scales, each the mean of 2 x 2 (Wang et al., 2003); 0 where a scale is below zero.

    Raises:
        SettingsError: as `ssim`, or a side is below 161 pixels.
    """
    return mean_over_scales(ms_ssim_maps(reference, image, data_range=data_range), mask)


def ms_ssim_maps(reference: NDArray[Any], image: NDArray[Any], *, data_range: float) -> list[NDArray[np.float64]]:
    """Contrast and structure around each pixel of four scales, SSIM of the fifth; each half as large as the one before.

    Raises:
        SettingsError: as `ssim_map`, or a side is below 161 pixels.
    """
    if min(reference.shape) < SMALLEST_MS:
        raise SettingsError(
            f"MS-SSIM needs images of {SMALLEST_MS} pixels and more, these have {min(reference.shape)}",
            remedy="Leave it out for small images: SSIM needs 11 pixels.",
        )
    maps = []
    for scale in range(len(MS_WEIGHTS)):
        whole, contrast = _structure(reference, image, data_range)
        maps.append(whole if scale == len(MS_WEIGHTS) - 1 else contrast)
        reference, image = _halved(reference), _halved(image)
    return maps


def mean_over_scales(maps: list[NDArray[np.float64]], mask: NDArray[np.bool_] | None = None) -> float:
    """MS-SSIM of such maps; in a mask each pixel of a coarser scale counts by the mask's share of it.

    NaN for a mask that lies wholly in the last rows or columns, which the coarser scales leave out.

    Raises:
        SettingsError: the mask is empty.
    """
    if mask is None:
        means = [mean_of_map(values) for values in maps]
    else:
        _filled(mask)
        shares = [mask.astype(np.float64)]
        for _ in maps[1:]:
            shares.append(_halved(shares[-1]))
        if not shares[-1].any():
            return math.nan
        means = [float(np.average(values, weights=share)) for values, share in zip(maps, shares, strict=True)]
    return float(math.prod(max(mean, 0.0) ** weight for mean, weight in zip(means, MS_WEIGHTS, strict=True)))


def _structure(
    reference: NDArray[Any], image: NDArray[Any], data_range: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(SSIM, its part of contrast and structure) around each pixel."""
    import cv2

    _same_shape(reference, image)
    if not data_range > 0 or reference.ndim != 2 or min(reference.shape) <= 2 * SSIM_REACH:
        raise SettingsError(
            f"SSIM needs two images of 11 x 11 pixels and more and a range above zero, not {reference.shape}",
            remedy="Give whole slices and the span of possible values.",
        )

    def local(values: NDArray[np.float64]) -> NDArray[np.float64]:
        size = (2 * SSIM_REACH + 1,) * 2
        return np.asarray(cv2.GaussianBlur(values, size, SSIM_SIGMA, borderType=cv2.BORDER_REFLECT))

    x, y = reference.astype(np.float64), image.astype(np.float64)
    c1, c2 = ((k * data_range) ** 2 for k in SSIM_K)
    mx, my = local(x), local(y)
    both, squares = mx * my, mx * mx + my * my
    covariance, spread = local(x * y) - both, local(x * x + y * y) - squares
    contrast = (2 * covariance + c2) / (spread + c2)
    return contrast * (2 * both + c1) / (squares + c1), contrast


def _halved(values: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of 2 x 2 pixels; an odd last row or column is left out."""
    rows, columns = (2 * (n // 2) for n in values.shape)
    even = values[:rows, :columns].astype(np.float64)
    return np.asarray((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4)


def _mean_square(one: NDArray[Any], other: NDArray[Any], mask: NDArray[np.bool_] | None) -> float:
    difference = one.astype(np.float64) - other.astype(np.float64)
    if mask is not None:
        _filled(mask)
        difference = difference[mask]
    return float(np.mean(difference**2))


def _filled(mask: NDArray[np.bool_]) -> None:
    if not mask.any():
        raise SettingsError("the mask is empty", remedy="Measure the whole image, or give a mask with pixels.")


def _same_shape(one: NDArray[Any], other: NDArray[Any]) -> None:
    if one.shape != other.shape:
        raise SettingsError(
            f"images of shapes {one.shape} and {other.shape} can't be compared", remedy="Resample one to the other."
        )
