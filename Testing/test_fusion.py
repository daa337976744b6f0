"""Fusion: exact pixels against hand-worked numbers, and nothing changed where alpha is zero."""

from __future__ import annotations

import numpy as np
import pytest

from HiResMedSynthLib import fusion
from HiResMedSynthLib.fusion import Storable


def storable(dtype: str, low: float = -1024, high: float = 3071) -> Storable:
    def store(values: np.ndarray) -> np.ndarray:
        whole = values if values.dtype.kind == "i" else np.floor(values + 0.5)
        return np.clip(whole, low, high).astype(dtype)

    return store


REGION = (slice(0, 1), slice(1, 4), slice(1, 4))


def test_blend_is_exact_whole_number_arithmetic() -> None:
    pixels = np.full((1, 5, 5), -860, dtype=np.int16)
    alpha = np.zeros((1, 3, 3), dtype=np.uint16)
    alpha[0, 1] = [16384, 65535, 1]
    intensity = np.full((1, 3, 3), 40, dtype=np.int16)
    fusion.blend(pixels, REGION, intensity, alpha, storable=storable("int16"))
    # -860 + 900 * 16384 / 65535 = -634.9965...; alpha 1/65535 moves by 0.0137
    assert pixels[0, 2, 1:4].tolist() == [-635, 40, -860]
    untouched = np.ones((1, 5, 5), dtype=bool)
    untouched[0, 2, 1:4] = False
    assert (pixels[untouched] == -860).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32"])
def test_blend_keeps_type_and_clips_to_the_stored_range(dtype: str) -> None:
    pixels = np.full((1, 5, 5), 200, dtype=dtype)
    full = np.full((1, 3, 3), 65535, dtype=np.uint16)
    fusion.blend(pixels, REGION, np.full((1, 3, 3), 30000, np.int16), full, base=300, storable=storable(dtype, 0, 255))
    assert pixels.dtype == dtype
    assert (pixels[REGION] == 255).all()


def test_add_keeps_what_lies_beneath() -> None:
    rng = np.random.default_rng(3)
    before = rng.integers(50, 150, (1, 5, 5)).astype(np.uint8)
    pixels = before.copy()
    alpha = np.zeros((1, 3, 3), np.uint16)
    alpha[0, 1, 1] = 5
    fusion.add(pixels, REGION, np.full((1, 3, 3), 12, np.int16), alpha, storable=storable("uint8", 0, 255))
    assert pixels[0, 2, 2] == before[0, 2, 2] + 12
    assert (pixels != before).sum() == 1


def hand_worked_paper_fusion(plane: np.ndarray, mask: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """Eq. 17 and the edge blur, by loops over pixels."""
    fused = plane * (1.0 - mask) + lesion * mask
    g = np.exp(-(np.array([-1.0, 0.0, 1.0]) ** 2) / 2)
    kernel = np.outer(g / g.sum(), g / g.sum())
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=float)
    result = fused.copy()
    for r in range(1, plane.shape[0] - 1):
        for c in range(1, plane.shape[1] - 1):
            window = mask[r - 1 : r + 2, c - 1 : c + 2]
            if np.hypot((window * sobel).sum(), (window * sobel.T).sum()) > 0:
                result[r, c] = (fused[r - 1 : r + 2, c - 1 : c + 2] * kernel).sum()
    return np.floor(result + 0.5)


def test_paper_fusion_equals_equation_17_by_hand() -> None:
    rng = np.random.default_rng(5)
    plane = rng.integers(-900, -800, (20, 24)).astype(np.int16)
    mask = np.zeros((20, 24))
    mask[7:13, 8:15] = 1
    mask[6, 10:13] = 1
    lesion = rng.integers(0, 60, (20, 24)).astype(np.int16)
    region = (slice(0, 1), slice(4, 16), slice(5, 18))
    inside = mask[region[1:]][np.newaxis] == 1
    alpha = np.where(inside, 65535, fusion.edge_band(inside)).astype(np.uint16)
    pixels = plane[np.newaxis].copy()
    patch = lesion[region[1:]][np.newaxis].copy()
    fusion.replace_and_blur_edge(pixels, region, patch, alpha, storable=storable("int16"))
    assert (pixels[0] == hand_worked_paper_fusion(plane.astype(float), mask, lesion.astype(float))).all()
    outside = np.ones((20, 24), bool)
    outside[region[1:]] = alpha[0] == 0
    assert (pixels[0][outside] == plane[outside]).all()
    assert (pixels[0][~outside] != plane[~outside]).mean() > 0.9


def test_paper_edge_band_at_the_image_border_stays_inside() -> None:
    pixels = np.full((1, 6, 6), 100, np.uint8)
    region = (slice(0, 1), slice(0, 3), slice(0, 3))
    alpha = np.zeros((1, 3, 3), np.uint16)
    alpha[0, :2, :2] = 65535
    patch = np.full((1, 3, 3), 200, np.int16)
    fusion.replace_and_blur_edge(pixels, region, patch, alpha, storable=storable("uint8", 0, 255))
    assert pixels[0, 0, 0] == 200
    assert (pixels[0][3:] == 100).all()
    assert (pixels[0, :3, :3][alpha[0] == 0] == 100).all()
