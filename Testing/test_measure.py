"""Noise, rings and contrast against images of known properties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter

from HiResMedSynthLib import measure


def test_noise_of_a_known_field_is_found_through_structure() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.indices((128, 128))
    structure = 3.0 * rows - 2.0 * columns + 400.0 * (np.hypot(rows - 60, columns - 60) < 20)
    for sd in (5.0, 20.0):
        measured = measure.noise(structure + rng.normal(0, sd, structure.shape))
        assert measured == pytest.approx(sd, rel=0.08)


def test_noise_is_measured_where_the_mask_says_slice_by_slice() -> None:
    rng = np.random.default_rng(1)
    volume = rng.normal(0, 3, (4, 64, 64))
    volume[:, 32:] *= 5
    mask = np.zeros(volume.shape, bool)
    mask[:, 36:] = True
    assert measure.noise(volume, mask) == pytest.approx(15, rel=0.1)
    assert measure.noise(np.zeros((2, 2))) == 0


def test_ring_honours_millimetres() -> None:
    mask = np.zeros((1, 41, 41), bool)
    mask[0, 20, 20] = True
    ring = measure.ring(mask, spacing_mm=(5.0, 1.0, 0.5), inner_mm=2.0, outer_mm=4.0)
    rows, columns = np.nonzero(ring[0])
    distance = np.hypot((rows - 20) * 1.0, (columns - 20) * 0.5)
    assert distance.min() > 2.0
    assert distance.max() <= 4.0
    assert (columns - 20).max() == 8


def test_contrast_of_a_disc() -> None:
    rows, columns = np.indices((64, 64))
    disc = np.hypot(rows - 32, columns - 32) < 8
    assert measure.contrast(np.where(disc, 40, -860), disc, spacing_mm=(1.0, 1.0)) == pytest.approx(900)


def nodule(*, edge_width_mm: float, noise_hu: float = 0.0, inside_noise_hu: float | None = None) -> tuple:
    """HU and outline of a ball of 14 mm in lung, 0.7 mm pixels, its edge of that 10-90 % width in plane."""
    shape, spacing = (15, 64, 64), (1.5, 0.7, 0.7)
    at = [(index - (n - 1) / 2) * step for index, n, step in zip(np.indices(shape), shape, spacing, strict=True)]
    radius = np.sqrt(sum(axis**2 for axis in at))
    sigma = edge_width_mm / 2.563 / 0.7
    hu = gaussian_filter(np.where(radius < 7, 40.0, -860.0), (0, sigma, sigma))
    rng = np.random.default_rng(4)
    strength = np.where(radius < 7, inside_noise_hu if inside_noise_hu is not None else noise_hu, noise_hu)
    return hu + strength * rng.standard_normal(shape), radius < 7, spacing


@pytest.mark.parametrize("edge_width_mm", [1.8, 2.5, 3.5])
def test_edge_width_and_rim_gradient_of_a_blurred_ball(edge_width_mm: float) -> None:
    hu, outline, spacing = nodule(edge_width_mm=edge_width_mm, noise_hu=5.0)
    found = measure.lesion_measures(hu, outline, spacing_mm=spacing)
    assert found.edge_width_mm == pytest.approx(edge_width_mm, rel=0.12)
    slope = 900 / (edge_width_mm / 2.563 * np.sqrt(2 * np.pi))
    assert found.rim_gradient_hu_mm == pytest.approx(slope, rel=0.12)
    assert found.contrast_hu == pytest.approx(900, rel=0.1)


def test_a_cut_out_rim_has_the_larger_jump_of_its_gradient() -> None:
    hu, outline, spacing = nodule(edge_width_mm=2.2)
    natural = measure.lesion_measures(hu, outline, spacing_mm=spacing)
    pasted = measure.lesion_measures(np.where(outline, 40.0, -860.0), outline, spacing_mm=spacing)
    assert pasted.gradient_jump_per_mm2 > 2 * natural.gradient_jump_per_mm2
    assert pasted.edge_width_mm < 0.6 * natural.edge_width_mm


def test_noise_inside_and_around_are_told_apart() -> None:
    hu, outline, spacing = nodule(edge_width_mm=2.2, noise_hu=20.0, inside_noise_hu=5.0)
    found = measure.lesion_measures(hu, outline, spacing_mm=spacing)
    assert found.noise_ratio == pytest.approx(4, rel=0.2)
    assert found.cnr == pytest.approx(900 / 20, rel=0.15)


def test_measures_hardly_depend_on_who_outlined() -> None:
    hu, outline, spacing = nodule(edge_width_mm=2.2, noise_hu=5.0)
    wide = binary_dilation(outline, np.ones((1, 3, 3)))
    one, other = (measure.lesion_measures(hu, drawn, spacing_mm=spacing) for drawn in (outline, wide))
    assert one.edge_width_mm == pytest.approx(other.edge_width_mm, rel=0.05)
    assert one.noise_hu == pytest.approx(other.noise_hu, rel=0.05)


def test_what_cannot_be_measured_is_nan() -> None:
    nothing = measure.lesion_measures(np.full((3, 40, 40), -860), np.zeros((3, 40, 40), bool), spacing_mm=(2, 0.7, 0.7))
    assert np.isnan([nothing.edge_width_mm, nothing.noise_ratio, nothing.contrast_hu]).all()
    outline = np.zeros((1, 40, 40), bool)
    outline[0, 18:22, 18:22] = True
    in_a_wall = measure.lesion_measures(np.where(outline, 60, 40), outline, spacing_mm=(2, 0.7, 0.7))
    assert np.isnan([in_a_wall.edge_width_mm, in_a_wall.cnr]).all()
