"""Numbers of one image that a reader knows: grey or HU by tissue, noise and its spectrum, power by frequency."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.evaluation.band_power import BANDS_CYCLES_PER_PIXEL, power_in
from HiResMedSynthLib.measure import noise

VERSION = 1
TISSUES_HU = {"lung": (-1000.0, -500.0), "fat": (-150.0, -30.0), "soft tissue": (0.0, 100.0), "bone": (200.0, 3000.0)}
BODY_HU = -500.0
FEWEST_PIXELS = 200  # of a tissue
CURVE = tuple((low / 100, (low + 2) / 100) for low in range(1, 49, 2))  # cycles/pixel, for the plot
NPS_SIDE, NPS_SHARE, NPS_FEWEST = 32, 0.1, 8  # px; the flattest tenth of the patches, at least eight
MOST_AT_END = 0.1
FAINT = 1e-12
_POWER = tuple(f"log power {low:g}-{high:g} c/px" for low, high in BANDS_CYCLES_PER_PIXEL)
_NOISE = ("noise SD", "noise power spectrum, SD", "noise power spectrum, mean frequency")
_GREY = ("grey, mean", "grey, SD", "grey, 5th percentile", "grey, median", "grey, 95th percentile")
_OF_TISSUE = ("mean HU", "SD HU", "share of the body")
GREY_NAMES = (*_GREY, *_NOISE, *_POWER)
CT_NAMES = (*(f"{tissue}, {what}" for tissue in TISSUES_HU for what in _OF_TISSUE), *_NOISE, *_POWER)


def image_statistics(unit: NDArray[np.float32], hounsfield: NDArray[np.floating] | None = None) -> dict[str, float]:
    """Measures by name; NaN where something is not there to be measured.

    Args:
        unit: the picture `[row, column]` in 0..1.
        hounsfield: the same in HU, for CT; None for other images, whose grey is measured in their 0..1.
    """
    greys = _greys(unit) if hounsfield is None else _tissues(hounsfield)
    scale = unit if hounsfield is None else hounsfield
    power = np.log10(power_in(unit, BANDS_CYCLES_PER_PIXEL) + FAINT)
    names = GREY_NAMES if hounsfield is None else CT_NAMES
    return dict(zip(names, (*greys, noise(scale), *noise_power(scale), *map(float, power)), strict=True))


def spectrum(unit: NDArray[np.float32]) -> NDArray[np.float64]:
    """[24] log10 of the mean power in narrow bands (`CURVE`)."""
    side = min(256, *unit.shape)  # bands narrower than a frequency step of small patches hold nothing
    bands = [(low, max(high, low + 1.5 / side)) for low, high in CURVE]
    return np.log10(power_in(unit, bands) + FAINT)


def noise_power(image: NDArray[np.floating]) -> tuple[float, float]:
    """(SD of the noise, its mean frequency in cycles/pixel) in the flattest patches; NaN where there are too few.

    Patches of 32 pixels, half overlapping; those with a tenth of their pixels at the image's lowest or highest value
    (padding, saturation) left out; of the rest the tenth with the least structure once blurred. Each less the plane
    fitted to it, under a Hann window. Soft kernels have a low mean frequency, sharp ones a high one; white noise has
    0.39.
    """
    from scipy.ndimage import gaussian_filter

    rows, columns = image.shape
    step = NPS_SIDE // 2
    view = np.lib.stride_tricks.sliding_window_view(image, (NPS_SIDE, NPS_SIDE))[::step, ::step]
    patches = view.reshape(-1, NPS_SIDE, NPS_SIDE).astype(np.float64)
    smooth = gaussian_filter(image.astype(np.float32), 3.0)
    coarse = np.lib.stride_tricks.sliding_window_view(smooth, (NPS_SIDE, NPS_SIDE))[::step, ::step]
    structure = coarse.reshape(len(patches), -1).std(axis=1)
    ends = (patches == image.min()) | (patches == image.max())
    alive = np.flatnonzero(ends.mean(axis=(1, 2)) < MOST_AT_END)
    count = max(NPS_FEWEST, round(NPS_SHARE * len(alive)))
    if min(rows, columns) < NPS_SIDE or len(alive) < NPS_FEWEST:
        return math.nan, math.nan
    chosen = patches[alive[np.argsort(structure[alive], kind="stable")[:count]]]
    axis = np.linspace(-1, 1, NPS_SIDE)
    plane = np.stack([np.ones((NPS_SIDE,) * 2), *np.meshgrid(axis, axis)]).reshape(3, -1)
    flat = chosen.reshape(len(chosen), -1)
    flat = flat - flat @ np.linalg.pinv(plane) @ plane
    window = np.outer(np.hanning(NPS_SIDE), np.hanning(NPS_SIDE))
    power = np.abs(np.fft.fft2(flat.reshape(chosen.shape) * window)) ** 2
    mean = power.mean(axis=0) / (window**2).sum()
    frequency = np.fft.fftfreq(NPS_SIDE)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    seen = radius > 1.5 / NPS_SIDE  # below it the fitted plane took the power away
    total = float(mean[seen].sum())
    return math.sqrt(total) / NPS_SIDE, float((radius * mean)[seen].sum()) / max(total, FAINT)


def _tissues(hu: NDArray[np.floating]) -> list[float]:
    """Mean and SD of HU of each tissue and its share of the body; by thresholds, so borders count to either side."""
    from scipy.ndimage import binary_fill_holes, binary_opening, label

    pieces, count = label(binary_opening(hu > BODY_HU, iterations=2))
    body = np.zeros(hu.shape, dtype=bool)
    if count:
        body = binary_fill_holes(pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:])))
    found = []
    for low, high in TISSUES_HU.values():
        chosen = hu[body & (hu >= low) & (hu < high)].astype(np.float64)
        enough = chosen.size >= FEWEST_PIXELS
        found += [float(chosen.mean()), float(chosen.std())] if enough else [math.nan, math.nan]
        found.append(chosen.size / int(body.sum()) if body.any() else math.nan)
    return found


def _greys(unit: NDArray[np.float32]) -> list[float]:
    return [float(unit.mean()), float(unit.std()), *(float(value) for value in np.percentile(unit, [5, 50, 95]))]
