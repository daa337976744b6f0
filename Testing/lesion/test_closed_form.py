"""Closed-form matting finds a soft alpha that a threshold can't."""

from __future__ import annotations

import numpy as np

from HiResMedSynthLib.lesion.closed_form import closed_form_alpha
from HiResMedSynthLib.lesion.matte import pull_matte


def soft_ball() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(true alpha, HU, distance from the centre) of a ground-glass ball whose share falls off slowly."""
    k, j, i = np.mgrid[:24, :24, :24] - 11.5
    away = np.sqrt(k**2 + j**2 + i**2)
    alpha = np.clip((9 - away) / 6, 0, 1)
    noise = np.random.default_rng(0).normal(0, 8, alpha.shape)
    return alpha, -860 + alpha * 400 + noise, away


def test_alpha_is_found_from_what_is_known_at_core_and_rim() -> None:
    alpha, hu, away = soft_ball()
    found = closed_form_alpha(hu, away < 3, away > 9.5, np.full(alpha.shape, 0.5))
    between = (away >= 3) & (away <= 9)
    assert np.abs(found - alpha)[between].mean() < 0.05
    assert (found[away < 3] > 0.97).all()
    assert (found[away > 10] < 0.03).all()


def test_a_ground_glass_nodule_is_recomposed_in_its_place() -> None:
    alpha, hu, _away = soft_ball()
    readers = sum((alpha > share).astype(np.uint8) for share in (0.2, 0.35, 0.5, 0.65))
    matte = pull_matte(hu.astype(np.int16), readers, spacing_mm=(1.0, 1.0, 1.0), soft=True)
    inside = readers >= 2
    error = matte.recomposed() - hu
    assert np.sqrt((error[inside] ** 2).mean()) < 5
    assert np.sqrt((error[(readers > 0) & ~inside] ** 2).mean()) < 35
