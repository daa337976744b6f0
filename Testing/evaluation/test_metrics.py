"""Metrics against hand-worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation.metrics import dice, psnr


def test_dice_by_hand() -> None:
    a, b = np.array([[1, 1, 0], [0, 1, 0]]), np.array([[1, 0, 0], [0, 1, 1]])
    assert dice(a, b) == pytest.approx(2 * 2 / (3 + 3))
    assert dice(a, np.zeros_like(a)) == 0
    assert dice(np.zeros(3), np.zeros(3)) == 1


def test_psnr_by_hand() -> None:
    a, b = np.array([0, 100, 200], np.uint8), np.array([0, 110, 200], np.uint8)
    assert psnr(a, b, data_range=255) == pytest.approx(10 * math.log10(255**2 / (100 / 3)))
    assert psnr(a, a, data_range=255) == math.inf


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(SettingsError):
        dice(np.zeros(3), np.zeros(4))
    with pytest.raises(SettingsError):
        psnr(np.zeros(3), np.zeros(3), data_range=0)
