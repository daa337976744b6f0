"""The grain of a scan's noise, and fields drawn from it."""

from __future__ import annotations

import numpy as np
import pytest

from HiResMedSynthLib import measure
from HiResMedSynthLib.joining.noise_texture import LAGS, noise_texture
from Testing.joining.phantom import lung


@pytest.mark.parametrize("grain_px", [0.0, 0.7])
def test_the_grain_of_parenchyma_is_found_and_drawn(grain_px: float) -> None:
    hu = lung((6, 128, 128), noise_hu=20, grain_px=grain_px, wall=False)
    texture = noise_texture(hu)
    assert texture.pixels > 10_000
    one_on = texture.correlation[LAGS, LAGS + 1]
    # the local mean takes some of the coarse grain with it
    assert one_on == pytest.approx(0.0 if grain_px == 0 else np.exp(-1 / (4 * grain_px**2)), abs=0.13)
    field = texture.field((4, 200, 200), np.random.default_rng(3))
    assert measure.noise(field) == pytest.approx(1, rel=0.05)
    drawn = np.corrcoef(field[:, :, 1:].ravel(), field[:, :, :-1].ravel())[0, 1]
    assert drawn == pytest.approx(one_on, abs=0.05)
    assert abs(field.mean()) < 0.1


def test_slices_that_look_alike_give_fields_that_do() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(0, 15, (1, 96, 96))
    hu = np.concatenate([first * 0.8 + 0.6 * rng.normal(0, 15, first.shape) if k else first for k in range(2)]) - 860
    texture = noise_texture(np.round(hu).astype(np.int16))
    assert texture.likeness == pytest.approx(0.8, abs=0.08)
    field = texture.field((6, 80, 80), rng)
    assert np.corrcoef(field[1:].ravel(), field[:-1].ravel())[0, 1] == pytest.approx(texture.likeness, abs=0.06)


def test_vessels_and_walls_are_not_taken_for_noise() -> None:
    hu = lung((4, 128, 128), noise_hu=10)
    hu[:, 40:44, 70:] = 40  # a vessel
    plain = lung((4, 128, 128), noise_hu=10, wall=False)
    assert np.allclose(noise_texture(hu).correlation, noise_texture(plain).correlation, atol=0.06)


@pytest.mark.parametrize("hu", [np.full((3, 60, 60), -860), np.zeros((1, 60, 60)), np.full((1, 8, 8), -860)])
def test_without_parenchyma_or_noise_a_usual_grain_is_taken_and_named(hu: np.ndarray) -> None:
    texture = noise_texture(hu.astype(np.int16))
    assert texture.pixels == 0
    assert texture.source.startswith("default")
    assert measure.noise(texture.field((2, 150, 150), np.random.default_rng(0))) == pytest.approx(1, rel=0.1)


def test_in_a_scan_too_noisy_for_its_grain_to_be_read_it_is_no_coarser_than_it_is() -> None:
    noise = np.random.default_rng(0).normal(0, 80, (1, 40, 40))
    texture = noise_texture(np.round(noise - 860).astype(np.int16))
    assert texture.source.startswith("default")
    field = texture.field((2, 150, 150), np.random.default_rng(0))
    assert measure.noise(field) == pytest.approx(1, rel=0.05)
    assert field.std() < 1.2  # 2.8 with the usual grain


def test_the_same_stream_gives_the_same_field() -> None:
    texture = noise_texture(lung(noise_hu=10))
    one, other = (texture.field((3, 20, 30), np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one, other)
