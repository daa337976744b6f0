"""A piece of lung beside a chest wall, blurred and noisy to order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SPACING_MM = (2.0, 0.7, 0.7)
WIDTH_TO_SIGMA = 2.563


def lung(
    shape: tuple[int, int, int] = (6, 96, 96),
    *,
    edge_width_mm: float = 2.0,
    noise_hu: float = 0.0,
    grain_px: float = 0.0,
    wall: bool = True,
) -> NDArray[np.int16]:
    """HU: lung, and a round chest wall on one side whose edge has that 10-90 % width in plane."""
    _, row, column = np.indices(shape).astype(np.float64)
    tissue = (np.hypot(row - shape[1] / 2, column + 90) < 120) & wall
    sigma = edge_width_mm / WIDTH_TO_SIGMA / SPACING_MM[1]
    hu = gaussian_filter(np.where(tissue, 40.0, -860.0), (0, sigma, sigma))
    grain = gaussian_filter(np.random.default_rng(0).standard_normal(shape), (0, grain_px, grain_px))
    return np.round(hu + noise_hu * grain / grain.std()).astype(np.int16)


def ball(shape: tuple[int, int, int], diameter_mm: float, *, edge_width_mm: float = 0.0) -> NDArray[np.uint16]:
    """The alpha of a ball in the middle, its edge of that width in plane."""
    at = [(index - (n - 1) / 2) * step for index, n, step in zip(np.indices(shape), shape, SPACING_MM, strict=True)]
    radius = np.sqrt(sum(axis**2 for axis in at))
    sigma = edge_width_mm / WIDTH_TO_SIGMA / SPACING_MM[1]
    share = np.clip((diameter_mm / 2 - radius) / SPACING_MM[1] + 0.5, 0, 1)
    return np.round(65535 * gaussian_filter(share, (0, sigma, sigma), truncate=3.0)).astype(np.uint16)
