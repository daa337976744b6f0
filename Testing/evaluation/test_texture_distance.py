"""Frechet distance against closed forms; filters against waves; textures told apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import sqrtm

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation import texture_distance as texture
from Testing.evaluation.lesions import ball, textured


def test_frechet_of_two_lines_by_hand() -> None:
    # one feature: (mu_A - mu_B)^2 + (sd_A - sd_B)^2; SDs with n - 1: of -1, 1 it is sqrt(2), of 4, 10 it is 3 sqrt(2)
    distance = texture.frechet(np.array([[-1.0], [1.0]]), np.array([[4.0], [10.0]]))
    assert distance == pytest.approx(7**2 + (2 * math.sqrt(2)) ** 2)


def test_frechet_agrees_with_the_matrix_root() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(90, 6)) + 0.5
    first, second = np.cov(one.T), np.cov(other.T)
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert texture.frechet(one, other) == pytest.approx(expected, rel=1e-6)


def test_frechet_with_fewer_places_than_features() -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(size=(5, 40))
    assert texture.frechet(one, one) == pytest.approx(0, abs=1e-9)
    assert texture.frechet(one, one + 2.0) == pytest.approx(40 * 4)
    with pytest.raises(SettingsError):
        texture.frechet(one, one[:, :3])
    with pytest.raises(SettingsError):
        texture.frechet(one[:1], one)


def test_a_filter_answers_its_own_wave_and_no_constant() -> None:
    assert len(texture.filter_bank()) == 27
    flat = texture.filter_features(np.full((1, 64, 64), 50.0))
    assert flat.shape == (64 * 64, 28)
    np.testing.assert_allclose(flat[:, 0], 50)
    np.testing.assert_allclose(flat[:, 1:], 0, atol=1e-9)
    columns = np.arange(64)
    wave = 30 * np.cos(2 * np.pi * columns / 6)[None, None, :].repeat(64, axis=1)
    response = texture.filter_features(wave).reshape(64, 64, 28)[32, 16:48]
    largest = np.abs(response[:, 1:]).max(axis=0)
    even_of_6 = 2 * texture.ORIENTATIONS  # the first filter of the second wavelength: along the columns
    assert largest[even_of_6] == pytest.approx(30, rel=0.02)
    assert largest[even_of_6 + 4] < 3  # across
    assert largest[-3:].max() < 33


def test_cuts_are_middle_planes_in_hu() -> None:
    grid = ball(5.0, hu=40.0)
    grid[0, 8] = 0.3  # the middle slice, all of it
    planes = texture.cuts(grid, size=64)
    assert planes.shape == (3, 64, 64)
    np.testing.assert_allclose(planes[0], -560, atol=0.01)
    assert planes[1][32, 2] == pytest.approx(-560, abs=100)  # seen from the side: a bright line
    assert planes[1][2, 2] == pytest.approx(-860, abs=1)
    with pytest.raises(SettingsError):
        texture.cuts(np.zeros((3, 4, 4, 4)))


def test_the_distance_grows_with_what_differs() -> None:
    fine = [textured(np.random.default_rng(k), sigma=0.5) for k in range(4)]
    alike = [textured(np.random.default_rng(10 + k), sigma=0.5) for k in range(4)]
    coarse = [textured(np.random.default_rng(k), sigma=1.5) for k in range(4)]
    assert texture.texture_distance(fine[0], fine[0]) == pytest.approx(0, abs=1e-3)
    own, same, other = (
        texture.filter_features(np.concatenate([texture.cuts(grid)[:, 26:38, 26:38] for grid in grids]))[:, 1:]
        for grids in (fine, alike, coarse)
    )  # inside the balls: only texture differs
    assert texture.frechet(own, other) > 5 * texture.frechet(own, same)
    brighter = [grid + np.array([0.1, 0])[:, None, None, None] for grid in fine]
    assert texture.texture_distance(fine, brighter) == pytest.approx(100, rel=0.01)  # a shift of the mean only


def test_sifid_of_an_image_with_itself_and_another() -> None:
    fine, coarse = textured(np.random.default_rng(0), sigma=0.5), textured(np.random.default_rng(0), sigma=1.5)
    assert texture.sifid_vgg(fine, fine) == pytest.approx(0, abs=1e-6)
    assert texture.sifid_vgg(fine, coarse) > 1e-5
