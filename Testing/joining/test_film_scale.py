"""The grey scale and the sharpness of films, on films made to order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.joining.film_anatomy import film_anatomy
from HiResMedSynthLib.joining.film_contrasts import FilmReference
from HiResMedSynthLib.joining.film_scale import FilmScale, abdomen_scale, chest_scale, projected_scale
from HiResMedSynthLib.joining.film_sharpness import DEFAULT_WIDTH_MM, film_sharpness
from HiResMedSynthLib.project import project

SQUARE = (0.5, 0.5)
REFERENCE = FilmReference(detail=5.0, step=90.0, lung_range=80.0, mediastinum_range=150.0, spine=20.0)
SHAPE = (400, 500)


def regions() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(lungs, mediastinum) of a film: two boxes and what lies between them."""
    lungs, dense = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    lungs[60:340, 60:200] = lungs[60:340, 300:440] = True
    dense[60:340, 200:300] = True
    return lungs, dense


def chest() -> NDArray[np.float64]:
    """mm of water: lungs with ribs, a denser middle that varies."""
    row, column = np.indices(SHAPE)
    lungs, dense = regions()
    film = np.where(lungs, 100 + 8 * np.sin(2 * np.pi * row / 30) + 0.1 * column, 20.0)
    return np.where(dense, 200 + 0.3 * row, film)


def scale_of(film: NDArray[np.float64]) -> FilmScale | None:
    lungs, dense = regions()
    return chest_scale(film, lungs, dense, film_anatomy(film, lungs, spacing_mm=SQUARE), REFERENCE)


def test_a_film_in_other_units_has_a_scale_in_those() -> None:
    one, other = scale_of(chest()), scale_of(7 * chest() - 300)
    assert one is not None
    assert other is not None
    assert other.grey_per_mm == pytest.approx(7 * one.grey_per_mm, rel=1e-4)
    assert other.shares == one.shares


def test_a_film_that_compresses_what_is_dense_gives_less_contrast_there() -> None:
    plain = chest()
    bent = np.where(plain > 190, 190 + 0.5 * (plain - 190), plain)
    straight, compressed = scale_of(plain), scale_of(bent)
    assert straight is not None
    assert compressed is not None
    assert compressed.shares[1] == pytest.approx(0.5 * straight.shares[1], rel=0.05)
    lung, dense = compressed.knots
    slopes = compressed.at(np.array([lung - 40, lung, (lung + dense) / 2, dense, dense + 99]))
    assert slopes[0] == slopes[1] == compressed.grey_per_mm
    assert slopes[1] > slopes[2] > slopes[3] == slopes[4]


def test_lungs_full_of_lines_or_disease_do_not_make_a_nodule_brighter() -> None:
    lungs, _ = regions()
    blotchy = gaussian_filter(np.random.default_rng(0).normal(0, 1, SHAPE), 8)
    film = chest() + np.where(lungs, 40 * blotchy / blotchy.std(), 0.0)
    clean, diseased = scale_of(chest()), scale_of(film)
    assert clean is not None
    assert diseased is not None
    assert "clean lungs" not in clean.source
    assert "clean lungs" in diseased.source
    assert diseased.grey_per_mm == pytest.approx(2.8 * (diseased.knots[1] - diseased.knots[0]) / REFERENCE.step)


def test_a_film_without_structure_or_lungs_has_no_scale() -> None:
    lungs, dense = regions()
    flat = np.full(SHAPE, 90.0)
    assert chest_scale(flat, lungs, dense, film_anatomy(flat, lungs, spacing_mm=SQUARE), REFERENCE) is None
    none = np.zeros_like(lungs)
    assert chest_scale(chest(), none, dense, film_anatomy(chest(), none, spacing_mm=SQUARE), REFERENCE) is None


def test_an_abdominal_film_is_scaled_by_its_spine() -> None:
    spine = np.zeros(SHAPE, bool)
    spine[:, 220:280] = True
    film = np.where(spine, 90.0, 50.0)
    found = abdomen_scale(film, spine, ~spine, REFERENCE, column_mm=0.5)
    assert found is not None
    assert found.grey_per_mm == pytest.approx(40 / 20)
    assert "not modelled" in found.source
    assert abdomen_scale(np.full(SHAPE, 50.0), spine, ~spine, REFERENCE, column_mm=0.5) is None
    assert abdomen_scale(film, spine & False, ~spine, REFERENCE, column_mm=0.5) is None


def test_only_a_film_projected_here_has_a_known_scale() -> None:
    hu = np.full((20, 30, 40), -1000, np.int16)
    hu[5:15, 10:20, 10:30] = 0
    ct = MedicalImage(
        pixels=hu, modality="CT", units="HU", pixel_spacing_mm=(2.0, 2.0), spacing_source="header",
        positions_lps_mm=np.array([[0.0, 0.0, 2.0 * k] for k in range(20)]),
    )  # fmt: skip
    film = project(ct)
    scale = projected_scale(film)
    assert scale is not None
    assert scale.contrast_is == "attenuation-derived"
    assert film.pixels.max() == pytest.approx(scale.grey_per_mm * 20.0, abs=1)  # ten voxels of water along the ray
    assert projected_scale(replace(film, oddities=())) is None


def stripes(sigma_mm: float) -> NDArray[np.float64]:
    """Bands with straight edges of that blur, and a little noise."""
    film = np.zeros(SHAPE)
    for k in range(0, SHAPE[1], 100):
        film[:, k : k + 50] = 100.0
    soft = gaussian_filter(film, sigma_mm / SQUARE[0])
    return np.asarray(soft + np.random.default_rng(0).normal(0, 0.5, SHAPE))


@pytest.mark.parametrize("sigma_mm", [0.5, 1.0, 2.0])
def test_the_sharpness_is_that_of_the_films_edges(sigma_mm: float) -> None:
    found = film_sharpness(stripes(sigma_mm), spacing_mm=SQUARE)
    assert found.count > 200
    assert found.edge_width_mm == pytest.approx(2.563 * sigma_mm, rel=0.2)


def test_a_film_without_edges_gets_a_default_that_is_named() -> None:
    for film in (np.full(SHAPE, 7.0), np.random.default_rng(0).normal(100, 5, SHAPE)):
        found = film_sharpness(film, spacing_mm=SQUARE)
        assert (found.edge_width_mm, found.count) == (DEFAULT_WIDTH_MM, 0)
        assert found.source.startswith("default")
