"""Simple bodies with known anatomy."""

from __future__ import annotations

import numpy as np

from HiResMedSynthLib.image import MedicalImage


def chest_ct(slices: int = 10, size: int = 128, *, slice_mm: float = 5.0, noise_hu: float = 0.0) -> MedicalImage:
    """An elliptic body with two lungs, a vessel of 6 mm in each, and a trachea between them; 2.5 mm pixels."""
    row, column = np.mgrid[:size, :size].astype(np.float32) * (320.0 / size) - 160.0
    picture = np.full((size, size), -1000.0, dtype=np.float32)
    picture[(column / 140) ** 2 + (row / 100) ** 2 < 1] = 40
    for side in (-1, 1):
        picture[((column - side * 70) / 45) ** 2 + (row / 70) ** 2 < 1] = -850
        picture[(column - side * 70) ** 2 + row**2 < 3.0**2] = 60
    picture[column**2 + (row + 20) ** 2 < 9.0**2] = -1000
    volume = np.repeat(picture[np.newaxis], slices, axis=0)
    volume = volume + np.random.default_rng(0).normal(0, noise_hu, volume.shape)
    return MedicalImage(
        pixels=np.rint(volume).astype(np.int16),
        modality="CT",
        units="HU",
        pixel_spacing_mm=(320.0 / size, 320.0 / size),
        spacing_source="header",
        slice_thickness_mm=slice_mm,
    )
