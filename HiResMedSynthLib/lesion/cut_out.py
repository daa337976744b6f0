"""cut_out(volume, outlines) -> Lesion: a real lesion taken from a CT, on an isotropic grid of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE, Lesion, LesionCard
from HiResMedSynthLib.lesion.matte import pull_matte

SPECK_ALPHA = 0.1
VOXEL_MM = (0.5, 1.0)


def cut_out(
    hu: NDArray[np.int16], readers: NDArray[np.uint8], *, spacing_mm: tuple[float, float, float], card: LesionCard
) -> Lesion:
    """The outlined lesion's matte, cropped to what isn't empty plus one voxel.

    Args:
        hu: `[slice, row, column]`, the lesion with some millimetres of lung around it.
        readers: same shape, how many readers' outlines hold the voxel (0 or 1 where there is one reader).
        spacing_mm: (slice, row, column).
        card: what the lesion is; its diameter decides the voxel size, its type how the matte is made.

    Raises:
        BankError: nothing is outlined.
    """
    from scipy.ndimage import distance_transform_edt, label, map_coordinates

    spacing = np.array(spacing_mm)
    matte = pull_matte(hu, readers, spacing_mm=spacing_mm, soft=card.type in ("part-solid", "ground-glass"))
    voxel_mm = round(float(np.clip(card.diameter_mm / 14, *VOXEL_MM)), 2)
    shape = [int(np.ceil((n - 1) * step / voxel_mm)) + 1 for n, step in zip(matte.alpha.shape, spacing, strict=True)]
    at = np.stack(np.meshgrid(*(np.arange(n) * voxel_mm for n in shape), indexing="ij"))
    at = at / spacing[:, None, None, None]
    alpha = np.clip(map_coordinates(matte.alpha, at, order=3, mode="nearest"), 0, 1)
    weighted = map_coordinates(matte.alpha * matte.foreground_hu, at, order=3, mode="nearest")
    spread = map_coordinates(matte.foreground_hu, at, order=1, mode="nearest")
    alpha[alpha < 2 / 255] = 0.0
    pieces, _ = label(alpha > SPECK_ALPHA, np.ones((3, 3, 3)))
    main = pieces == int(np.bincount(pieces.ravel())[1:].argmax()) + 1
    alpha[distance_transform_edt(~main) > 2] = 0.0  # specks: ends of vessels that the matte cut through
    intensity = np.where(alpha > 0.3, weighted / np.maximum(alpha, 0.3), spread)
    intensity = np.clip(intensity, matte.foreground_hu.min(), matte.foreground_hu.max())
    crop = bounding_box(alpha)
    return Lesion(
        intensity_hu=np.pad(np.round(intensity[crop]).astype(np.int16), 1, mode="edge"),
        alpha=np.pad(np.round(alpha[crop] * 255).astype(np.uint16) * np.uint16(ALPHA_ONE // 255), 1),
        voxel_mm=voxel_mm,
        card=card,
    )
