"""Power in bands: white noise is flat, an upsampled image has none at the top, padding doesn't count."""

from __future__ import annotations

import numpy as np
import pytest

from HiResMedSynthLib.evaluation.band_power import BANDS_CYCLES_PER_PIXEL, band_power


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2, (512, 512))


def test_white_noise_has_its_variance_in_every_band(noise: np.ndarray) -> None:
    np.testing.assert_allclose(band_power(noise), 4, rtol=0.12)


def test_a_wave_is_in_its_own_band_only() -> None:
    wave = np.sin(2 * np.pi * 0.15 * np.arange(512))[None, :].repeat(512, axis=0)
    power = band_power(wave)
    assert int(power.argmax()) == BANDS_CYCLES_PER_PIXEL.index((0.1, 0.2))
    assert np.delete(power, power.argmax()).max() < 1e-3 * power.max()


def test_an_upsampled_image_shows_at_once(noise: np.ndarray) -> None:
    upsampled = noise[:128, :128].repeat(4, axis=0).repeat(4, axis=1)
    assert band_power(upsampled)[-1] < 0.1 * band_power(upsampled)[0]


def test_only_the_field_counts(noise: np.ndarray) -> None:
    padded = np.pad(noise, ((64, 32), (0, 100)), constant_values=50)
    np.testing.assert_allclose(band_power(padded, field=(64, 0, 512, 512)), band_power(noise))
