"""LesionGrid: a lesion on a cube of fixed size, the form in which generators learn it and machine readers see it.

Channel 0 is the premultiplied intensity alpha (F + 860) / 1000, channel 1 is alpha: both fade to zero outside, so they
can be interpolated, convolved and blended without a division.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import BankError
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE, Lesion, LesionCard

LUNG_HU = -860.0  # premultiplied zero
UNIT_HU = 1000.0
SIZE = 32
MARGIN = 4  # voxels of the cube's side that the lesion's longest side leaves free
BOX_ALPHA = 0.05
SURE_ALPHA = 0.3  # above it F is alpha's quotient, below it F is spread outwards
PIECE_ALPHA = 0.2
NEAR_VOXELS = 2.0
HU_RANGE = (-1000, 3000)


@dataclass(frozen=True, kw_only=True, eq=False)
class LesionGrid:
    """A lesion in standard form.

    Args:
        values: float32 `[2, size, size, size]` (or `[2, size, size]`): alpha (F + 860) / 1000, and alpha 0..1.
        voxel_mm: edge of its cubic voxels.
    """

    values: NDArray[np.float32]
    voxel_mm: float


def to_grid(lesion: Lesion, size: int = SIZE) -> LesionGrid:
    """The lesion resampled once (cubic) onto `size`^3 voxels, centred, its longest side `size - 4` of them.

    Args:
        lesion: any.
        size: voxels a side.

    Raises:
        BankError: nothing of it has an alpha above .05.
    """
    low, high = _box(lesion.alpha / ALPHA_ONE)
    voxel_mm = float((high - low).max()) * lesion.voxel_mm / (size - MARGIN)
    values = _resampled(lesion, centre=(low + high - 1) / 2, voxel_mm=voxel_mm, shape=(size, size, size))
    return LesionGrid(values=values, voxel_mm=voxel_mm)


def crop_2d(lesion: Lesion, size: int = 64) -> NDArray[np.float32]:
    """The lesion's middle slice in the same form, float32 `[2, size, size]`; its longest side fills `size - 4`.

    Raises:
        BankError: as `to_grid`.
    """
    alpha = lesion.alpha / ALPHA_ONE
    low, high = _box(alpha)
    middle = int(low[0] + high[0]) // 2
    low_2d, high_2d = _box(alpha[middle])
    voxel_mm = float((high_2d - low_2d).max()) * lesion.voxel_mm / (size - MARGIN)
    centre = np.array([middle, *((low_2d + high_2d - 1) / 2)])
    return _resampled(lesion, centre=centre, voxel_mm=voxel_mm, shape=(1, size, size))[:, 0]


def from_grid(values: NDArray[np.floating], voxel_mm: float, card: LesionCard) -> Lesion:
    """A lesion of a grid's values: one piece, nothing on the outer shell, its own HU spread past its edge.

    Args:
        values: `[2, slice, row, column]` as in `LesionGrid`.
        voxel_mm: edge of a voxel.
        card: what it is; taken as it is.

    Raises:
        BankError: no voxel has an alpha above .2, or a value is NaN.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    if values.ndim != 4 or values.shape[0] != 2 or not np.isfinite(values).all():
        raise BankError(
            f"the grid of lesion '{card.name}' is no lesion (shape {values.shape}, or NaN)",
            remedy="Give finite values of shape [2, slice, row, column].",
        )
    alpha = one_piece(values[1])
    if not alpha.any():
        raise BankError(f"the grid of lesion '{card.name}' is empty", remedy="Draw another sample.")
    sure = alpha > min(SURE_ALPHA, 0.5 * float(alpha.max()))
    quotient = np.where(sure, values[0] / np.maximum(alpha, 0.05), 0.0)
    nearest = distance_transform_edt(~sure, return_distances=False, return_indices=True)
    spread = gaussian_filter(quotient[tuple(nearest)], 1.0)  # smooth, so that the rim shows no rays
    hu = np.where(sure, quotient, spread) * UNIT_HU + LUNG_HU
    return Lesion(
        intensity_hu=np.round(np.clip(hu, *HU_RANGE)).astype(np.int16),
        alpha=np.round(alpha * ALPHA_ONE).astype(np.uint16),
        voxel_mm=float(voxel_mm),
        card=card,
    )


def one_piece(alpha: NDArray[np.floating]) -> NDArray[np.float32]:
    """Alpha clipped to 0..1 without its outer shell and without what is far from its largest piece."""
    from scipy.ndimage import distance_transform_edt, label

    inner = np.zeros(alpha.shape, np.float32)
    core = (slice(1, -1),) * alpha.ndim
    inner[core] = np.clip(alpha[core], 0, 1)
    pieces, count = label(inner > PIECE_ALPHA, np.ones((3,) * alpha.ndim))
    if count == 0:
        return np.zeros_like(inner)
    main = pieces == int(np.bincount(pieces.ravel())[1:].argmax()) + 1
    inner[distance_transform_edt(~main) > NEAR_VOXELS] = 0.0
    return inner


def foreground_hu(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """HU of the lesion's own tissue where alpha > .3, NaN elsewhere; same shape as one channel."""
    alpha = values[1]
    hu = values[0] / np.maximum(alpha, SURE_ALPHA) * UNIT_HU + LUNG_HU
    return np.where(alpha > SURE_ALPHA, hu, np.nan).astype(np.float32)


def _box(alpha: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and one past the last index of what is seen, along each axis."""
    inside = np.argwhere(alpha > BOX_ALPHA)
    if len(inside) == 0:
        raise BankError("nothing of this lesion is opaque enough to be seen", remedy="Outline the lesion itself.")
    return inside.min(axis=0), inside.max(axis=0) + 1


def _resampled(
    lesion: Lesion, *, centre: NDArray[np.floating], voxel_mm: float, shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    from scipy.ndimage import affine_transform, gaussian_filter

    step = voxel_mm / lesion.voxel_mm
    alpha = lesion.alpha / np.float64(ALPHA_ONE)
    tissue = (lesion.intensity_hu.astype(np.float64) - LUNG_HU) / UNIT_HU
    seen = alpha > BOX_ALPHA
    lowest, highest = float(tissue[seen].min()), float(tissue[seen].max())
    sigma = 0.5 * np.sqrt(max(step**2 - 1, 0.0))  # blurs to the new voxel where the source is finer
    pad = 4 + int(np.ceil(3 * sigma))
    offset = centre + pad - step * (np.array(shape) - 1) / 2
    channels = []
    for source in (alpha * tissue, alpha):
        padded = np.pad(source, pad)
        smooth = gaussian_filter(padded, sigma) if sigma > 0 else padded
        channels.append(affine_transform(smooth, np.full(3, step), offset, shape, order=3, mode="constant"))
    matte = np.clip(channels[1], 0, 1)
    # the spline's overshoot must not make tissue that the lesion doesn't have
    premultiplied = np.clip(channels[0], matte * lowest, matte * highest)
    return np.stack([premultiplied, matte]).astype(np.float32)
