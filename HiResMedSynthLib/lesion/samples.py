"""Samples of a generator by themselves, outside any image: on flat lung, with their matte and in standard form."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.lesion.bank import Bank
from HiResMedSynthLib.lesion.generators import Drawn, Generator, Wish
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE
from HiResMedSynthLib.lesion.lesion_grid import BOX_ALPHA, LUNG_HU, MARGIN, SIZE, UNIT_HU, LesionGrid
from HiResMedSynthLib.lesion.render import RenderedLesion, render

AROUND_MM = 2.0
VOXEL_MM = (0.4, 1.0)
VOXELS_ACROSS = 20  # of a lesion's diameter, within VOXEL_MM


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """A drawn lesion on flat lung of -860 HU.

    Args:
        hu: int16 `[slice, row, column]`.
        alpha: float32, same shape, 0..1.
        voxel_mm: edge of the cubic voxels.
        corner: index of the first voxel; index 0 is the lesion's centre.
        diameter_mm: of the sphere of equal volume.
        contrast_hu: mean difference to the lung where alpha is at least .5.
        grid: the same lesion in standard form, resampled from its source once.
        drawn: what it was rendered from.
    """

    hu: NDArray[np.int16]
    alpha: NDArray[np.float32]
    voxel_mm: float
    corner: tuple[int, int, int]
    diameter_mm: float
    contrast_hu: float
    grid: LesionGrid
    drawn: Drawn


def draw_sample(
    generator: Generator,
    wish: Wish,
    bank: Bank,
    rng: np.random.Generator,
    *,
    size_mm: tuple[float, float],
    contrast_hu: tuple[float, float] | None = None,
    voxel_mm: float | None = None,
) -> Sample:
    """One sample; the same stream gives the same one.

    Args:
        generator, wish, bank, rng: as `Generator.draw` takes them; the wish's diameter is drawn here.
        size_mm: (smallest, largest) diameter, drawn evenly in its logarithm.
        contrast_hu: (lowest, highest) mean difference to the lung where alpha is at least .5; None: the lesion's own.
        voxel_mm: of the volume; None: a twentieth of the diameter, within .4 to 1 mm.

    Raises:
        SettingsError: it is too thin for these voxels.
        BankError: the generator can't meet the wish.
    """
    low, high = size_mm
    diameter_mm = float(math.exp(rng.uniform(math.log(low), math.log(high))))
    share = float(rng.uniform())
    drawn = generator.draw(replace(wish, diameter_mm=diameter_mm), bank, rng)
    voxel_mm = voxel_mm or float(np.clip(diameter_mm / VOXELS_ACROSS, *VOXEL_MM))
    patch = _rendered(drawn, diameter_mm, voxel_mm)
    alpha: NDArray[np.float32] = patch.alpha.astype(np.float32) / np.float32(ALPHA_ONE)
    inside = alpha >= 0.5
    if not inside.any():
        raise SettingsError(
            f"a lesion of {diameter_mm:.1f} mm fills no voxel of {voxel_mm:g} mm by half",
            remedy="Ask for a larger one (--size-mm) or smaller voxels (--voxel-mm).",
        )
    values = patch.intensity_hu.astype(np.float64)
    contrast, shift = _contrast(values, alpha, inside), 0.0
    if contrast_hu is not None:
        wanted = contrast_hu[0] + share * (contrast_hu[1] - contrast_hu[0])
        shift = (wanted - contrast) / float(alpha[inside].mean())
        contrast = _contrast(values + shift, alpha, inside)
    around = math.ceil(AROUND_MM / voxel_mm)
    alpha = np.pad(alpha, around)
    hu = LUNG_HU + alpha * (np.pad(values, around, mode="edge") + shift - LUNG_HU)
    return Sample(
        hu=np.round(np.clip(hu, -1024, 3071)).astype(np.int16),
        alpha=alpha,
        voxel_mm=voxel_mm,
        corner=(patch.corner[0] - around, patch.corner[1] - around, patch.corner[2] - around),
        diameter_mm=diameter_mm,
        contrast_hu=contrast,
        grid=_grid(drawn, diameter_mm, patch, voxel_mm, shift),
        drawn=drawn,
    )


def _contrast(values: NDArray[np.float64], alpha: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    return float(np.mean(alpha[inside] * (values[inside] - LUNG_HU)))


def _rendered(
    drawn: Drawn, diameter_mm: float, voxel_mm: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> RenderedLesion:
    return render(drawn.lesion, drawn.deformation, diameter_mm=diameter_mm, spacing_mm=(voxel_mm,) * 3, centre=centre)


def _grid(drawn: Drawn, diameter_mm: float, patch: RenderedLesion, patch_mm: float, shift: float) -> LesionGrid:
    """The sample in standard form, rendered anew so that its source is interpolated once."""
    used = np.argwhere(patch.alpha > BOX_ALPHA * ALPHA_ONE)
    low, high = (
        (np.array(patch.corner) + used.min(axis=0)) * patch_mm,
        (np.array(patch.corner) + used.max(axis=0)) * patch_mm,
    )
    voxel_mm = float((high - low).max() + patch_mm) / (SIZE - MARGIN)
    middle = (SIZE - 1) / 2 - (low + high) / 2 / voxel_mm
    fine = _rendered(drawn, diameter_mm, voxel_mm, (float(middle[0]), float(middle[1]), float(middle[2])))
    values = np.zeros((2, SIZE, SIZE, SIZE), np.float32)
    target = tuple(slice(max(c, 0), min(c + n, SIZE)) for c, n in zip(fine.corner, fine.alpha.shape, strict=True))
    source = tuple(slice(t.start - c, t.stop - c) for t, c in zip(target, fine.corner, strict=True))
    alpha = fine.alpha[source].astype(np.float32) / ALPHA_ONE
    intensity, matte = values
    intensity[target] = alpha * (fine.intensity_hu[source] + shift - LUNG_HU) / UNIT_HU
    matte[target] = alpha
    return LesionGrid(values=values, voxel_mm=voxel_mm)
