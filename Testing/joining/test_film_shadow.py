"""A shadow's measures and its blur, on balls of known size."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from HiResMedSynthLib.joining.film_shadow import blurred, contrast_of, shadow_measures, without_noise

ROUND = (0.3, 0.5)  # pixels that are not square


def ball(diameter_mm: float, spacing_mm: tuple[float, float] = ROUND) -> NDArray[np.float32]:
    """Thickness of a ball along the rays, 4 mm of room around it."""
    half = [round((diameter_mm / 2 + 4) / step) for step in spacing_mm]
    rows, columns = (np.arange(-n, n + 1) * step for n, step in zip(half, spacing_mm, strict=True))
    away = np.hypot(rows[:, None], columns[None])
    return np.asarray(2 * np.sqrt(np.maximum((diameter_mm / 2) ** 2 - away**2, 0)), dtype=np.float32)


def matte(shadow: NDArray[np.float32]) -> NDArray[np.uint16]:
    return np.round(65535 * (shadow > 0)).astype(np.uint16)


@pytest.mark.parametrize("diameter", [6.0, 15.0])
def test_the_contrast_of_a_ball_is_that_of_geometry(diameter: float) -> None:
    assert contrast_of(ball(diameter)) == pytest.approx(0.778 * diameter, rel=0.03)


def test_measures_of_nothing_and_of_a_speck() -> None:
    nothing = shadow_measures(np.zeros((9, 9)), spacing_mm=ROUND, around=1.0)
    assert (nothing.contrast, nothing.anatomic_cnr) == (0.0, 0.0)
    assert np.isnan(nothing.edge_width_mm)
    assert np.isnan(shadow_measures(ball(6.0), spacing_mm=ROUND, around=0.0).anatomic_cnr)
    assert shadow_measures(ball(6.0), spacing_mm=ROUND, around=2.0).anatomic_cnr == pytest.approx(2.33, rel=0.03)


def test_only_the_blur_that_is_missing_is_added() -> None:
    shadow = ball(8.0)
    same = blurred((5, 6), matte(shadow), shadow, spacing_mm=ROUND, film_width_mm=1.1, own_width_mm=1.9)
    assert same[0] == (5, 6)
    assert same[2] is shadow
    assert same[3] == 0.0
    *_, sigma = blurred((5, 6), matte(shadow), shadow, spacing_mm=ROUND, film_width_mm=5.0, own_width_mm=3.0)
    assert sigma == pytest.approx(4.0 / 2.563, rel=0.01)
    *_, unknown = blurred((5, 6), matte(shadow), shadow, spacing_mm=ROUND, film_width_mm=5.0, own_width_mm=float("nan"))
    assert unknown == pytest.approx(5.0 / 2.563, rel=0.01)


def test_blur_is_round_in_millimetres_and_keeps_the_mass() -> None:
    shadow = ball(8.0)
    corner, alpha, soft, sigma = blurred(
        (0, 0), matte(shadow), shadow, spacing_mm=ROUND, film_width_mm=4.0, own_width_mm=0.0
    )
    assert soft.sum() == pytest.approx(shadow.sum(), rel=0.01)
    at = np.argwhere(soft > 0) * np.asarray(ROUND)
    rows, columns = np.diag(np.cov(at.T, aweights=soft[soft > 0]))
    assert rows == pytest.approx(columns, rel=0.02)
    assert rows == pytest.approx(8.0**2 / 20 + sigma**2, rel=0.04)  # a ball's mass has variance r^2 / 5
    assert np.array_equal(alpha > 0, (alpha > 0) | (soft > 0))
    assert corner == (-(soft.shape[0] - shadow.shape[0]) // 2, -(soft.shape[1] - shadow.shape[1]) // 2)


def test_a_blurred_shadow_takes_no_room_where_it_cannot_be_seen() -> None:
    """Else a lesion on a soft film is refused beside the heart for pixels that it doesn't change."""
    shadow = ball(20.0)
    outline = matte(shadow)
    outline[0, :] = 2000  # a matte that reaches farther than its matter
    _, alpha, soft, sigma = blurred((0, 0), outline, shadow, spacing_mm=ROUND, film_width_mm=5.6, own_width_mm=2.0)
    assert soft[alpha > 0].min() >= soft.max() / 64
    reach = (np.argwhere(alpha > 0)[:, 1].max() - np.argwhere(alpha > 0)[:, 1].min()) * ROUND[1] / 2
    assert 10.0 < reach < 10.0 + 2 * sigma


def test_a_faint_hole_stays_in_the_mask_of_a_blurred_shadow() -> None:
    shadow = ball(20.0)
    outline = matte(shadow)
    middle = tuple(n // 2 for n in shadow.shape)
    shadow[middle[0] - 20 : middle[0] + 21, middle[1] - 12 : middle[1] + 13] = 0.0
    _, alpha, soft, _ = blurred((0, 0), outline, shadow, spacing_mm=ROUND, film_width_mm=4.0, own_width_mm=2.0)
    middle = tuple(n // 2 for n in alpha.shape)
    assert soft[middle] < soft.max() / 64
    assert alpha[middle] > 60000


def test_a_small_lesion_keeps_its_outline_on_a_very_soft_film() -> None:
    shadow = ball(3.0)
    _, alpha, soft, _ = blurred((0, 0), matte(shadow), shadow, spacing_mm=ROUND, film_width_mm=8.0, own_width_mm=0.0)
    assert alpha.max() == 65535
    assert soft.max() < 0.5 * shadow.max()


def test_noise_is_taken_out_of_a_lesion_and_its_density_stays() -> None:
    grid = np.indices((24, 24, 24)) - 11.5
    inside = (grid**2).sum(axis=0) < 64
    noisy = np.where(inside, 40.0, -860.0) + np.random.default_rng(0).normal(0, 30, inside.shape)
    quiet = without_noise(noisy.astype(np.int16), (65535 * inside).astype(np.uint16))
    assert quiet[inside].std() < 8
    assert quiet[inside].mean() == pytest.approx(noisy[inside].mean(), abs=1)
