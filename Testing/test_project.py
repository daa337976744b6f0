"""Projection: the integral of water is exact, left is left, up is up, whatever way the stack is stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from HiResMedSynthLib.errors import GeometryError, SettingsError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.project import MU_WATER_PER_MM, STORED_PER_LINE_INTEGRAL, project, project_labels

SPACING = (3.0, 1.5, 2.0)


def phantom() -> MedicalImage:
    """Water of 30 mm depth; bone at the patient's right (low columns), high up (last slices)."""
    pixels = np.full((10, 40, 30), -1000, dtype=np.int16)
    pixels[:, 10:30] = 0
    pixels[7:9, 12:16, 3:6] = 1000
    positions = np.stack([np.zeros(10), np.zeros(10), 3.0 * np.arange(10)], axis=1)
    return MedicalImage(
        pixels=pixels, modality="CT", units="HU", pixel_spacing_mm=SPACING[1:], spacing_source="header",
        positions_lps_mm=positions,
    )  # fmt: skip


def test_the_film_is_the_line_integral_of_attenuation() -> None:
    film = project(phantom())
    assert film.shape == (1, 10, 30)
    water = MU_WATER_PER_MM * 30.0 * STORED_PER_LINE_INTEGRAL
    assert int(film.pixels[0, 5, 20]) == pytest.approx(water, abs=1)
    bone = MU_WATER_PER_MM * 6.0 * STORED_PER_LINE_INTEGRAL  # 6 mm of twice water's attenuation add 6 mm of water
    assert int(film.pixels[0, 1, 4]) == pytest.approx(water + bone, abs=1)
    assert film.photometric == "MONOCHROME2"
    assert "stand-in" in film.oddities[0]
    assert film.pixel_spacing_mm == (3.0, 2.0)


def test_the_film_knows_where_it_stands() -> None:
    image = phantom()
    film = project(image)
    bone = image.index_to_lps([[8, 13, 4]])[0]
    _, row, column = film.lps_to_index([bone])[0]
    assert (round(row), round(column)) == (1, 4)


@pytest.mark.parametrize("reverse", [(True, False, False), (False, True, False), (False, False, True), (True,) * 3])
def test_the_way_of_storing_does_not_matter(reverse: tuple[bool, bool, bool]) -> None:
    image = phantom()
    flips = tuple(slice(None, None, -1 if r else 1) for r in reverse)
    corner = [n - 1 if r else 0 for n, r in zip(image.shape, reverse, strict=True)]
    slices = np.arange(10)[flips[0]]
    positions = image.index_to_lps([[s, corner[1], corner[2]] for s in slices])
    signs = np.array([[-1.0 if reverse[2] else 1.0], [-1.0 if reverse[1] else 1.0]])
    other = replace(
        image, pixels=image.pixels[flips].copy(), positions_lps_mm=positions, directions_lps=np.eye(3)[:2] * signs
    )
    assert np.array_equal(project(other).pixels, project(image).pixels)
    assert np.array_equal(project(other, axis="lateral").pixels, project(image, axis="lateral").pixels)


def test_a_finer_film_keeps_its_outline_and_level() -> None:
    film = project(phantom(), pixel_spacing_mm=(1.0, 1.0))
    assert film.shape == (1, 30, 60)
    assert int(film.pixels[0, 15, 40]) == pytest.approx(MU_WATER_PER_MM * 30.0 * STORED_PER_LINE_INTEGRAL, abs=1)


def test_labels_are_projected_to_millimetres_of_thickness() -> None:
    image = phantom()
    labels = (image.pixels == 1000).astype(np.uint8) * 7
    thickness = project_labels(labels, image)
    assert list(thickness) == [7]
    assert thickness[7].shape == (10, 30)
    assert float(thickness[7][1, 4]) == 6.0
    assert int((thickness[7] > 0).sum()) == 6
    with pytest.raises(GeometryError, match="don't fit"):
        project_labels(labels[:3], image)


def test_what_cannot_be_projected_is_refused_with_the_reason() -> None:
    image = phantom()
    with pytest.raises(GeometryError, match="one slice"):
        project(image.single_slice(0))
    with pytest.raises(SettingsError, match="Hounsfield"):
        project(replace(image, units="stored"))
    coronal = replace(
        image,
        directions_lps=np.array([[1.0, 0, 0], [0, 0, -1.0]]),
        positions_lps_mm=np.stack([np.zeros(10), 3.0 * np.arange(10), np.zeros(10)], axis=1),
    )
    with pytest.raises(GeometryError, match="not axial"):
        project(coronal)
