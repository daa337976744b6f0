"""The grain of a scan's noise: how alike it is from pixel to pixel and from slice to slice, and fields drawn like it.

Measured on quiet parenchyma (of an MR: quiet tissue) less its local mean, so that anatomy counts as little as may be.
Only the form is used: the strength is measured at each place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import measure

SLICES_READ = 6
PARENCHYMA_HU = (-1000.0, -700.0)
LOCAL_PX = 3.0  # sigma of the local mean: coarser structure is anatomy
LOUDEST = 3.0  # robust standard deviations: what sticks out farther is a vessel
MAD_TO_SD = 1.4826
LAGS = 6  # pixels over which the noise is compared with itself
FEWEST_PIXELS = 1500
FEWEST_FOR_SPREAD = 60  # pixels: enough to tell how coarse the grain is, not how it looks
DEFAULT_SIGMA_PX = 0.6  # of the blur that gives white noise the grain of a usual chest kernel
LARGEST_LIKENESS = 0.95
IMMERKAER_GRID = 64
Quiet = Callable[[NDArray[Any]], NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseTexture:
    """The form of a scan's noise.

    Args:
        correlation: float `[2 x 6 + 1, 2 x 6 + 1]`, of a pixel's noise with that of the pixel so many rows and columns
            on; 1 in the middle. Its Fourier transform is the noise power spectrum.
        likeness: the same with the next slice's pixel.
        pixels: how many were read; 0: too few, a usual grain is taken.
    """

    correlation: NDArray[np.float64]
    likeness: float
    pixels: int

    @property
    def source(self) -> str:
        """Where the grain comes from, for case.json."""
        return f"{self.pixels} quiet pixels" if self.pixels else "default: too few quiet pixels"

    def field(self, shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        """A random field `[slice, row, column]` of which `measure.noise` reads 1."""
        rows, columns = (n + 2 * LAGS for n in shape[1:])  # room, so that no edge meets its opposite
        rows, columns = max(rows, 4 * LAGS), max(columns, 4 * LAGS)
        gain = np.sqrt(self._power(rows, columns))
        white = rng.standard_normal((shape[0], rows, columns))
        planes = np.fft.ifft2(np.fft.fft2(white) * gain).real[:, : shape[1], : shape[2]]
        planes /= self._immerkaer_reading()
        fresh = np.sqrt(1.0 - self.likeness**2)
        for k in range(1, shape[0]):
            planes[k] = self.likeness * planes[k - 1] + fresh * planes[k]
        return np.asarray(planes, dtype=np.float64)

    def _power(self, rows: int, columns: int) -> NDArray[np.float64]:
        grid = np.zeros((rows, columns))
        lags = np.arange(-LAGS, LAGS + 1)
        grid[np.ix_(lags % rows, lags % columns)] = self.correlation
        return np.asarray(np.maximum(np.fft.fft2(grid).real, 0.0))

    def _immerkaer_reading(self) -> float:
        """What `measure.noise` reads of the field before it is scaled."""
        second = 2.0 - 2.0 * np.cos(2.0 * np.pi * np.fft.fftfreq(IMMERKAER_GRID))
        response = np.outer(second, second) / 6.0
        return float(np.sqrt(np.mean(response**2 * self._power(IMMERKAER_GRID, IMMERKAER_GRID))))


def parenchyma(plane: NDArray[Any]) -> NDArray[np.bool_]:
    """What may be parenchyma in a slice of a chest CT."""
    return np.asarray((plane > PARENCHYMA_HU[0]) & (plane < PARENCHYMA_HU[1]))


def noise_texture(hu: NDArray[Any], quiet_in: Quiet = parenchyma) -> NoiseTexture:
    """The grain of a scan's noise, from a few of its slices; the same image always gives the same.

    Args:
        hu: `[slice, row, column]`.
        quiet_in: the part of a slice `[row, column]` in which nothing but noise is looked for.
    """
    total, weight = np.zeros((2 * LAGS + 1,) * 2), np.zeros((2 * LAGS + 1,) * 2)
    along = np.zeros(3)
    pixels, squares, fine = 0, 0.0, 0.0
    for k in np.unique(np.linspace(0, len(hu) - 1, min(len(hu), SLICES_READ)).round().astype(int)):
        airy = quiet_in(hu[k])
        crop = _box(airy)
        if crop is None:
            continue
        here, quiet = _grain(hu[k][crop], airy[crop])
        pixels += int(quiet.sum())
        squares += float(np.vdot(here, here))
        fine += int(quiet.sum()) * measure.noise(hu[k][crop], quiet)
        _correlate(here, quiet.astype(np.float32), total, weight)
        if len(hu) > 1:
            beside = hu[k + 1 if k + 1 < len(hu) else k - 1]
            there, also = _grain(beside[crop], quiet_in(beside)[crop])
            both = quiet & also
            along += (here * there)[both].sum(), (here**2)[both].sum(), (there**2)[both].sum()
    if pixels < FEWEST_PIXELS or total[LAGS, LAGS] <= 0 or weight.min() <= 0:
        # little is quiet where noise is strong and sharp: the usual grain would be three times that noise
        known = pixels >= FEWEST_FOR_SPREAD and fine > 0
        sigma = _sigma_of(np.sqrt(squares * pixels) / fine) if known else DEFAULT_SIGMA_PX
        return NoiseTexture(correlation=_blurred_white(sigma), likeness=0.0, pixels=0)
    covariance = total / weight
    covariance = (covariance + covariance[::-1, ::-1]) / 2
    taper = np.hanning(2 * LAGS + 3)[1:-1]
    correlation = covariance / covariance[LAGS, LAGS] * np.sqrt(np.outer(taper, taper))
    alike = along[0] / np.sqrt(along[1] * along[2]) if along[1] > 0 and along[2] > 0 else 0.0
    likeness = float(np.clip(alike, 0.0, LARGEST_LIKENESS))
    return NoiseTexture(correlation=correlation, likeness=likeness, pixels=pixels)


def _blurred_white(sigma_px: float) -> NDArray[np.float64]:
    """The correlation of white noise blurred by that sigma."""
    lags = np.arange(-LAGS, LAGS + 1)
    one = np.exp(-(lags**2) / (4 * max(sigma_px, 1e-3) ** 2))
    return np.outer(one, one)


def _sigma_of(spread: float) -> float:
    """The blur of white noise whose SD is so many times what `measure.noise` reads of it; the usual one at most."""
    tried = np.linspace(0.0, DEFAULT_SIGMA_PX, 13)
    textures = (NoiseTexture(correlation=_blurred_white(sigma), likeness=0.0, pixels=0) for sigma in tried)
    return float(np.interp(spread, [1.0 / texture._immerkaer_reading() for texture in textures], tried))


def _box(airy: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """The bounding box of what may be parenchyma; None if there is none."""
    rows, columns = np.flatnonzero(airy.any(axis=1)), np.flatnonzero(airy.any(axis=0))
    if min(len(rows), len(columns)) < 4 * LAGS:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _grain(plane: NDArray[Any], airy: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(the plane less its local mean, 0 where it isn't quiet parenchyma; where it is)."""
    from scipy.ndimage import binary_erosion, gaussian_filter

    values = plane.astype(np.float32)
    airy = binary_erosion(airy, np.ones((3, 3)))
    quiet = np.asarray(airy)
    residual = np.zeros_like(values)
    for _ in range(2):  # the second time without vessels, which would lift the mean beside them
        share = gaussian_filter(quiet.astype(np.float32), LOCAL_PX, truncate=3.0)
        mean = gaussian_filter(np.where(quiet, values, 0.0), LOCAL_PX, truncate=3.0) / np.maximum(share, 1e-3)
        residual = values - mean
        if not quiet.any():
            break
        spread = MAD_TO_SD * float(np.median(np.abs(residual[quiet])))
        quiet = airy & (np.abs(residual) <= LOUDEST * spread)
    return np.where(quiet, residual, np.float32(0.0)), quiet


def _correlate(
    grain: NDArray[np.float32], quiet: NDArray[np.float32], total: NDArray[np.float64], weight: NDArray[np.float64]
) -> None:
    """Adds the products of the grain with itself at all lags, and the number of pairs, to the sums."""
    rows, columns = grain.shape
    for down in range(LAGS + 1):
        for across in range(-LAGS, LAGS + 1):
            if down == 0 and across < 0:
                continue
            first = slice(0, rows - down), slice(max(0, -across), columns - max(0, across))
            second = slice(down, rows), slice(max(0, across), columns - max(0, -across))
            product = float(np.vdot(grain[first], grain[second]))
            pairs = float(np.vdot(quiet[first], quiet[second]))
            for r, c in {(down, across), (-down, -across)}:
                total[LAGS + r, LAGS + c] += product
                weight[LAGS + r, LAGS + c] += pairs
