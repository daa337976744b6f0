"""Small films of made-up patients, and folders of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

SIDE = 96


def film(seed: int, *, blur: float = 0.0, noise: float = 6.0) -> NDArray[np.uint8]:
    """Two dark lungs of drawn size and place on grey, with coarse structure of the patient's own, and grain."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    picture = 150 + 40 * rng.normal() * (rows - 0.5)
    for middle in (0.3, 0.7):
        centre, wide = middle + rng.normal(0, 0.03), rng.uniform(0.12, 0.17)
        inside = ((columns - centre) / wide) ** 2 + ((rows - rng.uniform(0.42, 0.52)) / rng.uniform(0.28, 0.36)) ** 2
        picture -= rng.uniform(60, 80) * np.clip(1.5 - inside, 0, 1)
    for size in (3.0, 8.0):
        structure = gaussian_filter(rng.normal(size=picture.shape), size)
        picture += 14 * structure / structure.std()
    picture += gaussian_filter(noise * rng.normal(size=picture.shape), 0.6)
    if blur:
        picture = gaussian_filter(picture, blur)
    return np.clip(picture, 0, 255).astype(np.uint8)


def put_films(folder: Path, seeds: range, *, name: str = "film{}.png", blur: float = 0.0) -> Path:
    """A folder with one PNG a patient."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        Image.fromarray(film(seed, blur=blur)).save(folder / name.format(seed))
    return folder
