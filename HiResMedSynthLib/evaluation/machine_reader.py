"""A machine reader: can made lesions be told from real ones? Two readers, folds by patient, AUC with its interval.

`feature_reader` is a logistic regression on shape and texture features and their products, `cnn_reader` a small 3-D
network on the grids themselves; `picture_reader.py` has one for pictures. An AUC of .5 means that it can't tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.evaluation.lesion_features import feature_table
from HiResMedSynthLib.evaluation.reader_training import read, taught_in_folds
from HiResMedSynthLib.evaluation.reading import (
    FOLDS,
    Reading,
    class_weights,
    dealt,
    labels,
    patients_of,
    reading_of,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

REPEATS = 3  # new folds for the feature reader; their comparisons are pooled
STRENGTHS = (0.003, 0.03, 0.3, 3.0)  # of the L2 penalty, chosen on inner folds
OUTLIER = 4.0  # standardised features are clipped here
WIDTHS = (32, 48, 64)
DETAIL_FLOOR = (0.02, 0.01)  # units of 1000 HU: fainter detail is noise
INSIDE_GAIN = 4.0  # detail fades where alpha falls below a quarter
DROPOUT = 0.3


def feature_reader(
    real: NDArray[np.floating],
    fake: NDArray[np.floating],
    groups_real: Sequence[Any] | NDArray[Any],
    groups_fake: Sequence[Any] | NDArray[Any],
    seed: int,
    *,
    repeats: int = REPEATS,
) -> Reading:
    """Reads grids by their features.

    Args:
        real, fake: `[n, 2, m, m, m]` (see `lesion_features`), both resampled in the same way.
        groups_real, groups_fake: patient of each; a made lesion's is that of its source, or a name of its own.
        seed: of the folds.
        repeats: how many times with other folds.

    Raises:
        SettingsError: too few lesions or patients, or groups that don't fit.
    """
    groups = patients_of(real, fake, groups_real, groups_fake)
    table, label = np.concatenate([feature_table(real), feature_table(fake)]), labels(real, fake)
    runs = []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        fold, scores = dealt(groups, label, FOLDS, rng), np.empty(len(label))
        for held in range(FOLDS):
            train = np.flatnonzero(fold != held)
            scores[fold == held] = _regression(table, label, groups, train, rng)(table[fold == held])
        runs.append((fold, scores))
    return reading_of(runs, groups, label)


def cnn_reader(
    real: NDArray[np.floating],
    fake: NDArray[np.floating],
    groups_real: Sequence[Any] | NDArray[Any],
    groups_fake: Sequence[Any] | NDArray[Any],
    seed: int,
    *,
    epochs: int = 42,
    patience: int = 20,
    device: str = "cpu",
) -> Reading:
    """Reads grids by a small 3-D network trained in each fold; it stops early on an inner split by patient.

    Args:
        real, fake, groups_real, groups_fake: as in `feature_reader`.
        seed: of folds, weights and order.
        epochs: at most.
        patience: epochs without a better inner loss before it stops.
        device: where torch computes.

    Raises:
        SettingsError: as in `feature_reader`.
    """
    import torch

    groups = patients_of(real, fake, groups_real, groups_fake)
    label = labels(real, fake)
    rng = np.random.default_rng(seed)
    fold, scores = dealt(groups, label, FOLDS, rng), np.empty(len(label))
    grids = _with_detail(torch.from_numpy(np.concatenate([real, fake]).astype(np.float32)).to(device))
    networks = taught_in_folds(
        _network, grids, groups, label, fold, rng, epochs=epochs, patience=patience, turned=_turned
    )
    for held, network in networks:
        scores[held] = read(network, grids[torch.from_numpy(held).to(device)])
    return reading_of([(fold, scores)], groups, label)


class _Regression:
    """L2-regularised logistic regression on standardised features, of degree 1 or 2."""

    def __init__(self, table: NDArray[np.float64], label: NDArray[np.bool_], degree: int, strength: float) -> None:
        from scipy.optimize import minimize

        self._degree = degree
        self._centre, self._scale = np.median(table, axis=0), table.std(axis=0) + 1e-9
        features = self._expanded(table)
        self._mean, self._sd = features.mean(axis=0), features.std(axis=0) + 1e-9
        design = np.column_stack([(features - self._mean) / self._sd, np.ones(len(table))])
        sign, weight = np.where(label, 1.0, -1.0), class_weights(label)

        def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            margin = sign * (design @ w)
            slope = -weight * sign * np.exp(-np.logaddexp(0.0, margin))
            penalised = np.append(w[:-1], 0.0)
            value = weight @ np.logaddexp(0.0, -margin) + 0.5 * strength * penalised @ penalised
            return float(value), np.asarray(design.T @ slope + strength * penalised)

        self._w = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x

    def _expanded(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        z = np.clip((table - self._centre) / self._scale, -OUTLIER, OUTLIER)
        if self._degree == 1:
            return np.asarray(z)
        first, second = np.triu_indices(z.shape[1])
        return np.column_stack([z, z[:, first] * z[:, second]])

    def __call__(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        features = (self._expanded(table) - self._mean) / self._sd
        return np.asarray(features @ self._w[:-1] + self._w[-1], dtype=np.float64)


def _regression(
    table: NDArray[np.float64],
    label: NDArray[np.bool_],
    groups: NDArray[np.str_],
    train: NDArray[np.int64],
    rng: np.random.Generator,
) -> _Regression:
    """The regression whose degree and penalty did best on inner folds of the training lesions."""
    inner = dealt(groups[train], label[train], 3, rng)
    losses = {}
    for degree in (1, 2):
        for strength in STRENGTHS:
            total = 0.0
            for held in range(3):
                out, kept = train[inner == held], train[inner != held]
                score = _Regression(table[kept], label[kept], degree, strength)(table[out])
                total += float(class_weights(label[out]) @ np.logaddexp(0.0, np.where(label[out], -score, score)))
            losses[degree, strength] = total
    return _Regression(table[train], label[train], *min(losses, key=losses.__getitem__))


def _network() -> nn.Module:
    """Grids `[n, 4, m, m, m]` to one score each."""
    from torch import nn

    class Packed(nn.Module):
        def forward(self, grids: Tensor) -> Tensor:
            return _packed(grids)

    layers: list[nn.Module] = [Packed()]
    before = 4 * 8
    for depth, width in enumerate(WIDTHS):
        layers += [nn.Conv3d(before, width, 3, stride=1 if depth == 0 else 2, padding=1, bias=False)]
        layers += [nn.BatchNorm3d(width), nn.ReLU(inplace=True)]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(before, 1))


def _with_detail(grids: Tensor) -> Tensor:
    """Intensity, alpha, and the intensity's deviation from its local mean over its local SD, twice, inside the lesion.

    Texture is seen whatever its contrast: without these channels the network missed a blur of half a voxel.
    """
    import torch
    from torch.nn.functional import avg_pool3d

    def mean(values: Tensor, size: int) -> Tensor:
        return avg_pool3d(values, size, stride=1, padding=size // 2)

    intensity, inside = grids[:, :1], (INSIDE_GAIN * grids[:, 1:]).clamp(0, 1)
    local = intensity - mean(intensity, 5)
    spread = (mean(intensity**2, 5) - mean(intensity, 5) ** 2).clamp(min=0).sqrt()
    fine = intensity - mean(intensity, 3)
    coarse_detail = inside * local / (spread + DETAIL_FLOOR[0])
    return torch.cat([grids, coarse_detail, inside * fine / (mean(fine**2, 5).sqrt() + DETAIL_FLOOR[1])], dim=1)


def _packed(grids: Tensor) -> Tensor:
    """2^3 voxels to channels, `[n, 4, m, m, m]` to `[n, 32, m/2, ...]`: nothing lost, and 3 times as fast on a CPU."""
    import torch
    from torch.nn.functional import pad

    whole = pad(grids, [odd for size in reversed(grids.shape[2:]) for odd in (0, size % 2)])
    n, channels, a, b, c = whole.shape
    blocks = whole.reshape(n, channels, a // 2, 2, b // 2, 2, c // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    packed = blocks.reshape(n, 8 * channels, a // 2, b // 2, c // 2)
    return packed.contiguous(memory_format=torch.channels_last_3d)


def _turned(grids: Tensor, rng: np.random.Generator) -> Tensor:
    """The batch under one flip and quarter turn."""
    import torch

    axes = [axis for axis in (2, 3, 4) if rng.integers(2)]
    return torch.rot90(grids.flip(axes), int(rng.integers(4)), (3, 4))
