"""A lesion made to fit: never sharper than its scan, vessels kept, noise even across the rim."""

from __future__ import annotations

import numpy as np
import pytest

from HiResMedSynthLib import measure
from HiResMedSynthLib.joining.fit import at_resolution, matte_width_mm, with_noise, with_vessels
from HiResMedSynthLib.joining.noise_texture import noise_texture
from HiResMedSynthLib.joining.scan_resolution import ScanResolution
from Testing.joining.phantom import SPACING_MM, ball, lung

SHAPE = (9, 31, 31)


def fitted(alpha: np.ndarray, width_mm: float, thickness_mm: float | None = None) -> tuple:
    density = np.full(alpha.shape, 40.0, np.float32)
    return at_resolution(
        (3, 5, 7), alpha, density, spacing_mm=SPACING_MM, slice_thickness_mm=thickness_mm,
        resolution=ScanResolution(edge_width_mm=width_mm, usual_width_mm=1.15 * width_mm, count=1),
    )  # fmt: skip


@pytest.mark.parametrize("width_mm", [2.0, 3.0])
def test_a_sharp_lesion_gets_the_edges_of_the_scan_and_keeps_its_mass(width_mm: float) -> None:
    alpha = ball(SHAPE, 12.0, edge_width_mm=1.0)
    corner, blurred, density, sigma_mm = fitted(alpha, width_mm)
    assert matte_width_mm(blurred, spacing_mm=SPACING_MM) == pytest.approx(width_mm, rel=0.1)
    assert blurred.sum(dtype=float) == pytest.approx(alpha.sum(dtype=float), rel=0.02)
    assert sigma_mm > 0.3
    room = (blurred.shape[1] - alpha.shape[1]) // 2
    assert corner == (3, 5 - room, 7 - room)
    assert np.allclose(density[blurred > 0], 40, atol=0.5)


def test_a_much_blunter_lesion_is_sharpened() -> None:
    alpha = ball(SHAPE, 12.0, edge_width_mm=3.6)
    corner, sharper, _, sigma_mm = fitted(alpha, 2.0)
    assert corner == (3, 5, 7)
    assert sigma_mm < 0
    assert matte_width_mm(sharper, spacing_mm=SPACING_MM) < 0.9 * matte_width_mm(alpha, spacing_mm=SPACING_MM)
    assert sharper.sum(dtype=float) == pytest.approx(alpha.sum(dtype=float), rel=0.05)
    assert not sharper[alpha == 0].any()


def test_a_lesion_between_sharp_and_blunt_stays_as_it_is() -> None:
    alpha = ball(SHAPE, 12.0, edge_width_mm=2.1)
    corner, blurred, _, sigma_mm = fitted(alpha, 2.0)
    assert corner == (3, 5, 7)
    assert np.array_equal(blurred, alpha)
    assert sigma_mm == 0


def test_thick_slices_that_overlap_blur_along_the_slices_too() -> None:
    alpha = ball(SHAPE, 8.0, edge_width_mm=1.2)
    _, thin, _, _ = fitted(alpha, 1.0, SPACING_MM[0])
    corner, thick, _, _ = fitted(alpha, 1.0, 5.0)
    assert corner[0] < 3
    at = np.indices(thick.shape)[0] - (thick.shape[0] - 1) / 2
    spread = [float((weights * z**2).sum() / weights.sum()) for weights, z in (
        (thin.astype(float), np.indices(thin.shape)[0] - (thin.shape[0] - 1) / 2), (thick.astype(float), at),
    )]  # fmt: skip
    assert (spread[1] - spread[0]) * SPACING_MM[0] ** 2 == pytest.approx((5.0**2 - 2.0**2) / 12, rel=0.1)


def test_a_vessel_ends_at_the_rim_of_a_solid_lesion_gently_and_shows_through_glass() -> None:
    alpha = np.array([[[13107, 65535, 65535, 13107]]], np.uint16)
    background = np.array([[[100.0, 100.0, 100.0, -860.0]]])
    solid = with_vessels(np.full(alpha.shape, 30.0), alpha, background)
    assert solid.tolist() == [[[pytest.approx(30 + 0.8 * 70), 30, 30, 30]]]
    ramp = np.round(np.linspace(0, 65535, 40)).astype(np.uint16)[np.newaxis, np.newaxis]
    crossing = with_vessels(np.full(ramp.shape, 30.0), ramp, np.full(ramp.shape, 250.0))
    joined = 250 + ramp / 65535 * (crossing - 250)
    assert np.abs(np.diff(joined)).max() < 0.06 * 220
    glass = with_vessels(np.full(alpha.shape, -600.0), alpha, background)
    assert glass.tolist() == [[[100, 100, 100, -600]]]


@pytest.mark.parametrize("own", [0.0, 8.0])
def test_noise_is_even_from_the_lung_through_the_rim_into_the_lesion(own: float) -> None:
    shape = (40, 41, 41)
    scan = lung((40, 128, 128), noise_hu=20, grain_px=0.6, wall=False)
    texture, strength = noise_texture(scan), measure.noise(scan)
    rng = np.random.default_rng(1)
    share = np.broadcast_to(np.linspace(0, 1, 41), shape)
    alpha = np.round(65535 * share).astype(np.uint16)
    values = 40 + own * texture.field(shape, rng)
    noisy, told = with_noise(
        values, alpha, ring_noise=strength, source_noise=None if own else 0.0, texture=texture, rng=rng
    )
    assert told["around"] == strength
    joined = share * noisy + (1 - share) * scan[:, :41, :41]
    ramp = joined - np.linspace(-860, 40, 41)
    for part in (ramp[:, :, 4:14], ramp[:, :, 14:27], ramp[:, :, 30:]):
        assert measure.noise(part) == pytest.approx(strength, rel=0.15)


def test_a_noisier_source_is_calmed_but_texture_of_the_lesion_stays() -> None:
    rng = np.random.default_rng(2)
    shape = (8, 40, 40)
    texture = noise_texture(lung((6, 96, 96), noise_hu=10, wall=False))
    alpha = np.full(shape, 65535, np.uint16)
    rough = 40 + 30 * texture.field(shape, rng)
    calm, _ = with_noise(rough, alpha, ring_noise=10.0, source_noise=30.0, texture=texture, rng=rng)
    assert measure.noise(calm) == pytest.approx(10, rel=0.25)
    kept, _ = with_noise(rough, alpha, ring_noise=10.0, source_noise=5.0, texture=texture, rng=rng)
    assert measure.noise(kept) > 29


def test_an_enlarged_lesion_gets_back_the_rim_that_it_had() -> None:
    alpha = ball(SHAPE, 12.0, edge_width_mm=2.4)
    resolution = ScanResolution(edge_width_mm=1.9, usual_width_mm=2.6, count=100)
    density = np.full(SHAPE, 40, np.float32)
    same = {"spacing_mm": SPACING_MM, "resolution": resolution, "slice_thickness_mm": None}
    _, plain, _, none = at_resolution((0, 0, 0), alpha, density, **same)  # type: ignore[arg-type]
    _, steeper, _, sigma_mm = at_resolution((0, 0, 0), alpha, density, enlarged=1.2, **same)  # type: ignore[arg-type]
    assert np.array_equal(plain, alpha)
    assert none == 0
    widths = [matte_width_mm(matte, spacing_mm=SPACING_MM) for matte in (alpha, steeper)]
    assert widths[1] == pytest.approx(widths[0] / 1.2, abs=0.25)
    assert sigma_mm < 0
    assert steeper.sum(dtype=float) == pytest.approx(alpha.sum(dtype=float), rel=0.02)
