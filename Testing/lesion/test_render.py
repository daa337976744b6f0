"""Rendering: sizes in millimetres, places, partial volume, projection; and the matte of a made-up nodule."""

from __future__ import annotations

import numpy as np
import pytest

from HiResMedSynthLib.lesion.bank import load_bank
from HiResMedSynthLib.lesion.deform import Deformation, draw_deformation
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE
from HiResMedSynthLib.lesion.matte import pull_matte
from HiResMedSynthLib.lesion.procedural import stone
from HiResMedSynthLib.lesion.render import RenderedLesion, render, render_projection

NONE = Deformation.none()


def volume_mm3(patch: RenderedLesion, spacing: tuple[float, float, float]) -> float:
    return float(patch.alpha.sum(dtype=np.float64)) / ALPHA_ONE * float(np.prod(spacing))


def centroid(patch: RenderedLesion) -> np.ndarray:
    weights = patch.alpha.astype(np.float64)
    return np.array([(g * weights).sum() for g in np.indices(weights.shape)]) / weights.sum() + patch.corner


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 0.7), (5.0, 0.84, 0.84), (0.2, 0.5, 0.9)])
@pytest.mark.parametrize("name", ["solid-10mm-a", "part-solid-14mm-a"])
def test_size_and_place_are_met_on_any_grid(name: str, spacing: tuple[float, float, float]) -> None:
    lesion = load_bank().lesion(name)
    for seed in range(3):
        deformation = draw_deformation(np.random.default_rng(seed))
        patch = render(lesion, deformation, diameter_mm=12.0, spacing_mm=spacing, centre=(3.25, 40.5, -7.75))
        assert (6 * volume_mm3(patch, spacing) / np.pi) ** (1 / 3) == pytest.approx(12.0, rel=0.05)
        off_mm = (centroid(patch) - (3.25, 40.5, -7.75)) * spacing
        assert np.abs(off_mm).max() < 1.5  # bending moves the centre of mass a little
        shell = patch.alpha.copy()
        shell[1:-1, 1:-1, 1:-1] = 0
        assert not shell.any()


def test_a_shifted_centre_shifts_the_patch_by_whole_voxels_only() -> None:
    lesion, spacing = load_bank().lesion("solid-08mm-a"), (1.0, 0.7, 0.7)
    one = render(lesion, NONE, diameter_mm=8.0, spacing_mm=spacing, centre=(0.25, 0.5, 0.0))
    other = render(lesion, NONE, diameter_mm=8.0, spacing_mm=spacing, centre=(4.25, -2.5, 9.0))
    assert np.subtract(other.corner, one.corner).tolist() == [4, -3, 9]
    assert np.array_equal(one.alpha, other.alpha)


def test_a_thick_slice_holds_the_mean_of_the_thin_ones() -> None:
    lesion = load_bank().lesion("solid-11mm-a")
    thin = render(lesion, NONE, diameter_mm=11.0, spacing_mm=(0.5, 0.7, 0.7), centre=(4.5, 0.0, 0.0))
    thick = render(lesion, NONE, diameter_mm=11.0, spacing_mm=(5.0, 0.7, 0.7), centre=(0.0, 0.0, 0.0))
    k = -thick.corner[0]
    rows = slice(thick.corner[1] - thin.corner[1], None)
    first = 0 - thin.corner[0]
    mean = thin.alpha[first : first + 10].mean(axis=0) / ALPHA_ONE
    a = thick.alpha[k] / ALPHA_ONE
    assert rows.start is not None
    assert a.sum() == pytest.approx(mean.sum(), rel=0.03)


def test_a_rendered_lesion_has_no_hu_that_its_source_lacks() -> None:
    lesion = load_bank().lesion("calcified-09mm-a")
    patch = render(
        lesion, draw_deformation(np.random.default_rng(5)), diameter_mm=9, spacing_mm=(1, 0.7, 0.7), centre=(0, 0, 0)
    )
    inside = lesion.intensity_hu[lesion.alpha > 0]
    seen = patch.intensity_hu[patch.alpha > ALPHA_ONE // 50]
    assert inside.min() - 1 <= seen.min()
    assert seen.max() <= inside.max() + 1


def test_a_projected_sphere_is_round_in_millimetres_and_as_dense_as_its_path() -> None:
    ball = stone(10.0, hu=1000)
    film = render_projection(
        ball, NONE, diameter_mm=10.0, pixel_spacing_mm=(0.3, 0.45), centre=(0.0, 0.0), background_hu=0.0
    )
    rows, columns = np.nonzero(film.alpha >= ALPHA_ONE // 2)
    assert np.ptp(rows) * 0.3 == pytest.approx(10.0, abs=0.7)  # axes .8, 1, 1.25 along slice, row, column
    assert np.ptp(columns) * 0.45 == pytest.approx(12.5, abs=0.9)
    assert film.water_mm.max() == pytest.approx(8.0, abs=0.4)  # 8 mm of 1,000 HU over water
    volume = film.water_mm.sum(dtype=np.float64) * 0.3 * 0.45
    assert volume == pytest.approx(np.pi / 6 * 10**3, rel=0.03)


def test_drawing_is_deterministic_and_rotation_can_be_set() -> None:
    one, other = (draw_deformation(np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one.bend, other.bend)
    assert one.record() == other.record()
    turned = draw_deformation(np.random.default_rng(3), rotation_degrees=30.0)
    assert turned.rotation_degrees == 30.0
    assert np.array_equal(turned.bend, one.bend)  # nothing else changes
    assert np.prod(one.stretch) == pytest.approx(1.0)


def test_the_matte_of_a_made_up_nodule_takes_it_apart() -> None:
    """A soft ball of 40 HU in parenchyma of -860: alpha, foreground and background are known."""
    grid = np.indices((24, 40, 40)) - np.array([12, 20, 20])[:, None, None, None]
    radius = np.sqrt((grid**2).sum(axis=0))
    truth = np.clip((6.5 - radius) / 1.5, 0, 1)
    hu = np.round(truth * 40 + (1 - truth) * -860).astype(np.int16)
    readers = (4 * (radius < 6)).astype(np.uint8)
    matte = pull_matte(hu, readers, spacing_mm=(1.0, 1.0, 1.0), soft=False)
    inner = slice(matte.padding, -matte.padding)
    assert np.abs(matte.alpha[inner] - truth).max() < 0.15
    assert matte.foreground_hu[inner][truth > 0.9].mean() == pytest.approx(40, abs=5)
    assert np.abs(matte.background_hu + 860).max() < 5
    error = (matte.recomposed() - hu)[radius < 8]
    assert np.sqrt(np.mean(error**2)) < 16  # HU; the gate takes a little of an edge that reaches past the outline


def test_a_nodule_at_the_end_of_its_box_fades_into_the_padding() -> None:
    grid = np.indices((6, 40, 40)) - np.array([5, 20, 20])[:, None, None, None]
    inside = np.sqrt((grid**2).sum(axis=0)) < 6
    matte = pull_matte(
        np.where(inside, 40, -860).astype(np.int16),
        (3 * inside).astype(np.uint8),
        spacing_mm=(1.0, 1.0, 1.0),
        soft=False,
    )
    areas = matte.alpha.sum(axis=(1, 2))
    assert areas[-1] == 0
    assert (np.diff(areas[matte.padding + 5 :]) <= 0).all()
