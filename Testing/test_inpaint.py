"""The inpainter: exact where the answer is known, and nothing touched outside the mask."""

from __future__ import annotations

import numpy as np
import pytest

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.inpaint import inpaint


def test_a_plane_is_completed_exactly_in_2d_and_3d() -> None:
    """Linear functions are harmonic, whatever the voxel size."""
    for shape, spacing in (((30, 40), (1.0, 0.5)), ((12, 20, 18), (2.5, 0.7, 0.7))):
        grid = np.indices(shape)
        plane = (sum((k + 1.5) * axis for k, axis in enumerate(grid)) - 900).astype(np.float32)
        mask = np.zeros(shape, bool)
        mask[tuple(slice(4, 9) for _ in shape)] = True
        broken = np.where(mask, np.float32(5000), plane)
        filled = inpaint(broken, mask, spacing_mm=spacing)
        assert np.abs(filled - plane)[mask].max() < 0.1
        assert np.array_equal(filled[~mask], broken[~mask])


def test_the_fill_stays_between_its_rim_values_and_keeps_the_type() -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(-950, -800, (40, 40)).astype(np.int16)
    mask = np.hypot(*np.indices((40, 40)) - 20) < 8
    filled = inpaint(pixels, mask)
    assert filled.dtype == np.int16
    assert filled[mask].min() >= -950
    assert filled[mask].max() <= -800
    assert np.array_equal(inpaint(pixels, np.zeros_like(mask)), pixels)


def test_a_mask_at_the_border_is_filled_from_what_is_left() -> None:
    pixels = np.full((10, 10), 7.0, np.float32)
    mask = np.zeros((10, 10), bool)
    mask[:4] = True
    assert np.allclose(inpaint(np.where(mask, 0, pixels).astype(np.float32), mask), 7.0, atol=1e-2)


def test_what_cannot_be_filled_is_refused() -> None:
    with pytest.raises(SettingsError):
        inpaint(np.zeros((5, 5)), np.zeros((4, 5), bool))
    with pytest.raises(SettingsError):
        inpaint(np.zeros((5, 5)), np.ones((5, 5), bool))
