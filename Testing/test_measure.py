"""Noise, rings and contrast against images of known properties."""

from __future__ import annotations

import numpy as np
import pytest

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
