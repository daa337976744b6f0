"""Balls and blobs as lesion grids, whose measures are known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SIZE = 16


def ball(
    radius: float = 5.0, *, size: int = SIZE, hu: float = 40.0, offset: tuple[float, float, float] = (0, 0, 0)
) -> NDArray[np.float32]:
    """A ball of even HU with an edge one voxel wide, `[2, size, size, size]`."""
    axes = [np.arange(size) - (size - 1) / 2 - shift for shift in offset]
    distance = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    alpha = np.clip(radius + 0.5 - distance, 0, 1)
    return np.stack([alpha * (hu + 860) / 1000, alpha]).astype(np.float32)


def textured(rng: np.random.Generator, *, sigma: float, sd_hu: float = 60.0) -> NDArray[np.float32]:
    """A ball of drawn size and place with texture of a given fineness."""
    grid = ball(rng.uniform(4, 6), offset=tuple(rng.uniform(-1, 1, 3)), hu=rng.uniform(-50, 80))
    noise = gaussian_filter(rng.normal(size=grid.shape[1:]), sigma)
    grid[0] += grid[1] * noise / noise.std() * sd_hu / 1000
    return grid
