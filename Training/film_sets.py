"""Films or CT slices from wherever a trainer was told to take them, laid on the preset's canvas."""

from __future__ import annotations

import hashlib
from pathlib import Path

from Training.ct_data import load_slices, read_slices
from Training.film_data import FilmSet, load_films
from Training.folder_of_images import identity


def load_set(data: Path, cache: Path, *, canvas_px: int, spacing_mm: float | None = None) -> tuple[FilmSet, str]:
    """The films (or, where the preset states no spacing, the CT slices) in `data`, and a hash of what was there."""
    if data.suffix == ".npz":
        return read_slices(data), hashlib.sha256(data.read_bytes()).hexdigest()
    if spacing_mm is None:
        return load_slices([data], cache, canvas_px=canvas_px), identity(data, index=None)
    return load_films(data, cache, canvas_px=canvas_px, spacing_mm=spacing_mm), identity(data)
