"""Sharpness and quiet tissue of an MR, on pictures whose blur and noise are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from HiResMedSynthLib import measure
from HiResMedSynthLib.joining.mr_scan import DEFAULT_WIDTH_PX, mr_resolution, quiet_tissue
from HiResMedSynthLib.joining.noise_texture import noise_texture
from HiResMedSynthLib.joining.scan_resolution import WIDTH_TO_SIGMA

FINE = 4  # points a pixel and side, before sampling


def organs(*, sigma_mm: float, noise: float, pixel_mm: float, scale: float = 1.0) -> NDArray[np.float64]:
    """`[1, row, column]`: ellipses of tissue in air, blurred by the scanner, with its (Rician) noise."""
    side, rng = 160, np.random.default_rng(3)
    rows, columns = np.mgrid[: side * FINE, : side * FINE] / FINE
    signal = np.where(((rows - 80) / 66) ** 2 + ((columns - 80) / 56) ** 2 < 1, 300.0, 0.0)
    for _ in range(14):
        (row, column), half = rng.uniform(40, 120, 2), rng.uniform(6, 22, 2)
        inside = ((rows - row) / half[0]) ** 2 + ((columns - column) / half[1]) ** 2 < 1
        signal = np.where(inside, rng.uniform(80, 600), signal)
    blurred = gaussian_filter(signal, sigma_mm / pixel_mm * FINE)
    sampled = blurred.reshape(side, FINE, side, FINE).mean((1, 3))
    grain = rng.normal(0, noise, (2, side, side))
    return scale * np.hypot(sampled + grain[0], grain[1])[np.newaxis]


@pytest.mark.parametrize("scale", [1.0, 90.0])
@pytest.mark.parametrize("noise", [2.0, 20.0])
@pytest.mark.parametrize(("sigma_mm", "pixel_mm"), [(0.4, 0.5), (0.8, 0.5), (1.2, 0.5), (0.8, 1.0), (1.2, 1.0)])
def test_the_width_of_edges_is_that_of_the_blur(sigma_mm: float, pixel_mm: float, noise: float, scale: float) -> None:
    pixels = organs(sigma_mm=sigma_mm, noise=noise, pixel_mm=pixel_mm, scale=scale)
    found = mr_resolution(pixels, spacing_mm=(3.0, pixel_mm, pixel_mm))
    assert found.count > 0
    assert found.edge_width_mm == pytest.approx(WIDTH_TO_SIGMA * sigma_mm, rel=0.15, abs=0.4)
    assert found.usual_width_mm >= found.edge_width_mm


@pytest.mark.parametrize("pixels", [np.full((2, 64, 64), 7), np.random.default_rng(1).normal(300, 30, (2, 64, 64))])
def test_an_image_without_edges_gets_the_width_that_sampling_makes(pixels: NDArray[np.float64]) -> None:
    found = mr_resolution(pixels, spacing_mm=(3.0, 0.8, 0.9))
    assert (found.edge_width_mm, found.count) == (pytest.approx(DEFAULT_WIDTH_PX * 0.9), 0)
    assert found.source.startswith("default")


def test_quiet_tissue_holds_no_air_and_no_borders_and_shows_the_noise_alone() -> None:
    pixels = organs(sigma_mm=0.8, noise=6.0, pixel_mm=0.8)
    quiet = quiet_tissue(pixels[0], darkest=60.0)
    assert 1500 < quiet.sum() < 0.5 * (pixels[0] >= 60).sum()
    clean = organs(sigma_mm=0.8, noise=0.0, pixel_mm=0.8)[0]
    slope = np.hypot(*np.gradient(clean))
    assert np.mean(slope[quiet] > 5) < 0.06  # the borders' slopes are above 50
    assert slope[clean > 60].max() > 50
    texture = noise_texture(pixels, lambda plane: quiet_tissue(plane, darkest=60.0))
    assert texture.pixels > 0
    field = texture.field((1, 200, 200), np.random.default_rng(0))[0]
    assert measure.noise(field) == pytest.approx(1.0, rel=0.1)
    assert field.std() == pytest.approx(1.0, rel=0.2)  # white noise in, white noise out
    assert not quiet_tissue(pixels[0], darkest=1e6).any()
