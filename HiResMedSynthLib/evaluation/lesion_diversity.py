"""Are made lesions new, unlike each other, whole, and of the wanted size? Overlaps, a nearest-copy check, volumes.

Grids are `[2, n, n, n]` (slice, row, column): alpha * (F + 860) / 1000 and alpha. Masks are alpha > .5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation.metrics import dice

MASK_ALPHA = 0.5
PIECE_ALPHA = 0.2  # a second piece denser than this is seen
HU_PER_UNIT = 1000.0
PERCENTILES = (5, 50, 95)


@dataclass(frozen=True, kw_only=True, eq=False)
class NearestReal:
    """For every sample the real lesion that overlaps it best, and the one whose values it repeats best.

    Args:
        dice_index, dice: `[n]`, the real lesion of largest Dice and that Dice.
        correlation_index, correlation: `[n]`, likewise by the normalised correlation of channel 0.
    """

    dice_index: NDArray[np.int64]
    dice: NDArray[np.float64]
    correlation_index: NDArray[np.int64]
    correlation: NDArray[np.float64]


def symmetries(values: NDArray[np.floating]) -> Iterator[NDArray[np.floating]]:
    """The grid under the 8 flips and 4 in-plane quarter turns: 16 different ones, the untouched grid first."""
    for flip_slice, flip_row, turns in product((False, True), (False, True), range(4)):
        turned = np.rot90(values, turns, axes=(-2, -1))
        turned = turned[..., ::-1, :] if flip_row else turned
        yield turned[..., ::-1, :, :] if flip_slice else turned


def dice_of(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Dice of the masks of two grids as they stand."""
    return dice(one[1] > MASK_ALPHA, other[1] > MASK_ALPHA)


def best_dice_of(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """The largest Dice over the symmetries: how alike the shapes are, however they lie."""
    return max(dice_of(one, turned) for turned in symmetries(other))


def nearest_real(
    samples: NDArray[np.floating], reals: NDArray[np.floating], *, exclude: NDArray[np.bool_] | None = None
) -> NearestReal:
    """The nearest-copy check: each sample against all real lesions, over the 16 symmetries.

    Args:
        samples: `[n, 2, m, m, m]`.
        reals: `[r, 2, m, m, m]`.
        exclude: `[n, r]`, True where a pair doesn't count (a real lesion and itself).

    Raises:
        SettingsError: the grids differ in size, or a sample has nothing to be compared with.
    """
    if samples.shape[1:] != reals.shape[1:] or len(reals) == 0:
        raise SettingsError(
            f"grids of shapes {samples.shape[1:]} and {reals.shape[1:]} can't be compared", remedy="Use one grid size."
        )
    skip = np.zeros((len(samples), len(reals)), bool) if exclude is None else exclude
    if skip.all(axis=1).any():
        raise SettingsError("a sample has no real lesion to be compared with", remedy="Exclude fewer pairs.")
    real_masks = (reals[:, 1] > MASK_ALPHA).reshape(len(reals), -1).astype(np.float32)
    real_units = _unit(reals[:, 0].reshape(len(reals), -1))
    sizes = real_masks.sum(axis=1)
    overlaps, alike = np.empty(skip.shape), np.empty(skip.shape)
    for row, sample in enumerate(samples):
        turned = np.stack(list(symmetries(sample)))
        masks = (turned[:, 1] > MASK_ALPHA).reshape(len(turned), -1).astype(np.float32)
        both = (masks @ real_masks.T).max(axis=0)
        overlaps[row] = 2.0 * both / np.maximum(masks[0].sum() + sizes, 1.0)
        alike[row] = (_unit(turned[:, 0].reshape(len(turned), -1)) @ real_units.T).max(axis=0)
    overlaps[skip] = alike[skip] = -np.inf
    first, second = overlaps.argmax(axis=1), alike.argmax(axis=1)
    rows = np.arange(len(samples))
    return NearestReal(
        dice_index=first, dice=overlaps[rows, first], correlation_index=second, correlation=alike[rows, second]
    )


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows minus their mean, of length 1."""
    centred = rows.astype(np.float32) - rows.astype(np.float32).mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def pairwise_dice(grids: NDArray[np.floating]) -> float:
    """Mean Dice over all pairs of `[n, 2, m, m, m]` as they stand; 1 for copies.

    Raises:
        SettingsError: fewer than two grids.
    """
    if len(grids) < 2:
        raise SettingsError("pairs need two samples or more", remedy="Draw more samples.")
    masks = (grids[:, 1] > MASK_ALPHA).reshape(len(grids), -1).astype(np.float32)
    sizes = masks.sum(axis=1)
    table = 2.0 * (masks @ masks.T) / np.maximum(sizes[:, None] + sizes[None, :], 1.0)
    return float(table[np.triu_indices(len(grids), 1)].mean())


def volumes_mm3(grids: NDArray[np.floating], voxel_mm: NDArray[np.floating]) -> NDArray[np.float64]:
    """Volume of each lesion `[n]`, the sum of alpha."""
    shares = np.clip(grids[:, 1].astype(np.float64), 0.0, 1.0).sum(axis=(1, 2, 3))
    return np.asarray(shares * voxel_mm.astype(np.float64) ** 3)


def volume_percentiles(made_mm3: NDArray[np.floating], wanted_mm3: NDArray[np.floating]) -> tuple[float, float, float]:
    """The 5, 50 and 95 % points of made over wanted volume."""
    low, middle, high = np.percentile(made_mm3 / wanted_mm3, PERCENTILES)
    return float(low), float(middle), float(high)


def is_one_piece(values: NDArray[np.floating]) -> bool:
    """Whether all that is denser than alpha .2 hangs together (26 neighbours); an empty grid doesn't."""
    from scipy.ndimage import label

    return bool(label(values[1] > PIECE_ALPHA, np.ones((3, 3, 3)))[1] == 1)


def reconstruction_rmse_hu(made: NDArray[np.floating], real: NDArray[np.floating]) -> float:
    """RMSE in HU of the composed intensity (on parenchyma) inside the real lesion's mask.

    Raises:
        SettingsError: the shapes differ, or the real lesion's mask is empty.
    """
    inside = real[1] > MASK_ALPHA
    if made.shape != real.shape or not inside.any():
        raise SettingsError("these two grids can't be compared", remedy="Give a sample and the lesion it rebuilds.")
    error = made[0][inside].astype(np.float64) - real[0][inside].astype(np.float64)
    return float(HU_PER_UNIT * np.sqrt(np.mean(error**2)))
