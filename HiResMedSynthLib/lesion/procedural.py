"""Procedural lesions: stones as ellipsoids, until the bank holds real ones. Their cards say "procedural"."""

from __future__ import annotations

import numpy as np

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE, Lesion, LesionCard

STONE_AXES = (0.8, 1.0, 1.25)  # relative half axes; their product is 1, so the volume is that of the sphere
STONE_HU = 1000
SUPERSAMPLING = 4
VOXELS_ACROSS = 16


def stone(diameter_mm: float, *, hu: int = STONE_HU) -> Lesion:
    """An ellipsoid with the volume of a sphere of `diameter_mm`, uniform at `hu`, its edge one voxel soft.

    Raises:
        SettingsError: a diameter that can't be.
    """
    if not 0 < diameter_mm < 200:
        raise SettingsError(f"a stone of {diameter_mm} mm can't be", remedy="Ask for 1 to 50 mm.")
    voxel_mm = diameter_mm / VOXELS_ACROSS
    half = [0.5 * diameter_mm * axis / voxel_mm for axis in STONE_AXES]
    size = [2 * (int(np.ceil(h)) + 2) + 1 for h in half]
    fine = [(np.arange(n * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - n / 2 for n in size]
    grid = np.meshgrid(*fine, indexing="ij", sparse=True)
    inside = sum((axis / h) ** 2 for axis, h in zip(grid, half, strict=True)) <= 1.0
    blocks = np.asarray(inside).reshape(size[0], SUPERSAMPLING, size[1], SUPERSAMPLING, size[2], SUPERSAMPLING)
    alpha = np.round(blocks.mean(axis=(1, 3, 5)) * ALPHA_ONE).astype(np.uint16)
    card = LesionCard(
        name="procedural-stone",
        origin="procedural",
        type="stone",
        diameter_mm=diameter_mm,
        licence="Apache-2.0",
        attribution="HiResMedSynth developers",
    )
    return Lesion(intensity_hu=np.full(size, hu, np.int16), alpha=alpha, voxel_mm=voxel_mm, card=card)
