"""Matte: which share of each voxel is lesion, and which HU the lesion's own tissue has (I = a F + (1 - a) B).

B is the smoothly completed parenchyma. Solid and calcified nodules: alpha from the voxel's own HU between B and the
core's F, inside a gate around the readers' union. Part-solid and ground glass: the readers' agreement, smoothed
(a threshold in HU makes holes in them).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import BankError
from HiResMedSynthLib.inpaint import inpaint
from HiResMedSynthLib.lesion.closed_form import closed_form_alpha

GATE_MM = (0.3, 2.0)  # outside the readers' union the gate falls from 1 to 0 over this distance
CORE_MM = 1.0  # deeper than this inside the union, alpha is 1
FILL_MM = 2.0  # B is completed this far outside the union
FLAT_HU = 120.0  # where F and B differ less (pleura, vessel) HU can't part them: the distance ramp does


@dataclass(frozen=True, kw_only=True, eq=False)
class Matte:
    """A nodule taken apart, on the grid of its source volume with `padding` more slices at each end.

    Args:
        padding: slices added at both ends, into which a nodule fades where its source box ends.
        alpha: float32 `[slice, row, column]`, 0..1.
        foreground_hu: float32, HU of the lesion's own tissue, defined everywhere (extended outwards).
        background_hu: float32, the volume without the lesion.
    """

    padding: int
    alpha: NDArray[np.float32]
    foreground_hu: NDArray[np.float32]
    background_hu: NDArray[np.float32]

    def recomposed(self) -> NDArray[np.float32]:
        """The source volume put together again, HU."""
        whole = self.alpha * self.foreground_hu + (1 - self.alpha) * self.background_hu
        return whole[self.padding : -self.padding]


def pull_matte(
    hu: NDArray[np.int16], readers: NDArray[np.uint8], *, spacing_mm: tuple[float, float, float], soft: bool
) -> Matte:
    """The matte of the nodule that readers outlined.

    Args:
        hu: `[slice, row, column]`.
        readers: same shape, how many readers' outlines hold the voxel.
        spacing_mm: (slice, row, column).
        soft: True for part-solid and ground glass nodules.

    Raises:
        BankError: no reader outlined anything.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    if not readers.any():
        raise BankError("no reader outlined a nodule here", remedy="Give a mask that meets the image.")
    # the end slices again, not outlined: where the source box ends in z, the gate fades the lesion into them
    padding = math.ceil(FILL_MM / spacing_mm[0]) + 1
    ends = ((padding, padding), (0, 0), (0, 0))
    hu_padded, readers_padded = np.pad(hu, ends, mode="edge"), np.pad(readers, ends)
    union = readers_padded > 0
    # the surface runs half a voxel before the first voxel centre on its other side
    half_voxel = 0.5 * min(spacing_mm)
    outside = np.maximum(distance_transform_edt(~union, sampling=spacing_mm) - half_voxel, 0.0)
    depth = np.maximum(distance_transform_edt(union, sampling=spacing_mm) - half_voxel, 0.0)
    intensity = hu_padded.astype(np.float32)
    background = inpaint(intensity, outside <= FILL_MM, spacing_mm=spacing_mm)
    majority = readers_padded >= max(1.0, readers_padded.max() / 2)
    agreement = np.clip(readers_padded / readers_padded.max(), 0, 1).astype(np.float32)
    sigma = [0.6 / step for step in spacing_mm]
    ramp = gaussian_filter(agreement, sigma)
    foreground = _foreground(intensity, majority, depth, spacing_mm)
    gate = np.clip((GATE_MM[1] - outside) / (GATE_MM[1] - GATE_MM[0]), 0, 1)
    if soft:
        sure = (readers_padded == readers_padded.max()) & (depth >= min(CORE_MM, 0.5 * float(depth.max())))
        alpha = closed_form_alpha(intensity, sure, outside >= GATE_MM[1], ramp) * gate
    else:
        span = foreground - background
        share = np.clip((intensity - background) / np.where(np.abs(span) < FLAT_HU, FLAT_HU, span), 0, 1)
        certain = np.clip((np.abs(span) - FLAT_HU) / FLAT_HU, 0, 1)
        alpha = (certain * share + (1 - certain) * ramp) * gate
        alpha = np.where(depth >= CORE_MM, np.maximum(alpha, certain), alpha)
    alpha = _one_piece(alpha, majority)
    own = _own_tissue(intensity, background, foreground, alpha)
    return Matte(
        padding=padding,
        alpha=alpha.astype(np.float32),
        foreground_hu=own,
        background_hu=background.astype(np.float32),
    )


def _foreground(
    intensity: NDArray[np.float32],
    majority: NDArray[np.bool_],
    depth: NDArray[np.float64],
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.float32]:
    """HU of the lesion's core, smoothed and extended outwards from its inner voxels."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    deepest = float(depth[majority].max())
    core = majority & (depth >= min(CORE_MM, 0.6 * deepest))
    nearest = distance_transform_edt(~core, sampling=spacing_mm, return_distances=False, return_indices=True)
    low, high = np.percentile(intensity[core], [5, 95])
    extended = np.clip(intensity, low, high)[tuple(nearest)]
    return np.asarray(gaussian_filter(extended, [1.0 / step for step in spacing_mm]), dtype=np.float32)


def _one_piece(alpha: NDArray[np.floating], majority: NDArray[np.bool_]) -> NDArray[np.floating]:
    """The matte without islands that don't hang together with the nodule."""
    from scipy.ndimage import label

    pieces, _ = label(alpha > 0.08, structure=np.ones((3, 3, 3)))
    counts = np.bincount(pieces[majority & (pieces > 0)], minlength=2)
    counts[0] = 0
    return np.where(pieces == int(counts.argmax()), alpha, 0.0)


def _own_tissue(
    intensity: NDArray[np.float32],
    background: NDArray[np.float32],
    foreground: NDArray[np.float32],
    alpha: NDArray[np.floating],
) -> NDArray[np.float32]:
    """F solved from I where alpha is large (keeps the lesion's texture), the smooth core value elsewhere."""
    solved = (intensity - (1 - alpha) * background) / np.maximum(alpha, 0.05)
    trust = np.clip((alpha - 0.05) / 0.1, 0, 1)
    low, high = foreground.min() - 400, foreground.max() + 400
    return np.asarray(np.clip(trust * solved + (1 - trust) * foreground, low, high), dtype=np.float32)
