"""A machine reader: can made lesions be told from real ones? Two readers, folds by patient, AUC with its interval.

`feature_reader` is a logistic regression on shape and texture features and their products, `cnn_reader` a small 3-D
network on the grids themselves. An AUC of .5 means that it can't tell. Each lesion is read by a reader that never saw
its patient; only lesions of the same fold are compared, since the scores of two readers have no common scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation.lesion_features import feature_table

if TYPE_CHECKING:
    from torch import Tensor, nn

FOLDS = 5
FEWEST = 10  # lesions of either class
REPEATS = 3  # new folds for the feature reader; their comparisons are pooled
STRENGTHS = (0.003, 0.03, 0.3, 3.0)  # of the L2 penalty, chosen on inner folds
OUTLIER = 4.0  # standardised features are clipped here
WIDTHS = (32, 48, 64)
DETAIL_FLOOR = (0.02, 0.01)  # units of 1000 HU: fainter detail is noise
INSIDE_GAIN = 4.0  # detail fades where alpha falls below a quarter
BATCH, RATE, DECAY, DROPOUT = 16, 3e-3, 0.02, 0.3
BOOTSTRAPS = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What a reader found.

    Args:
        wins: float `[real, fake]`, how often the real lesion got the higher score (a tie counts half).
        pairs: float, same shape, how often the two were compared.
        groups_real, groups_fake: the patient of each lesion.
    """

    wins: NDArray[np.float64]
    pairs: NDArray[np.float64]
    groups_real: NDArray[Any]
    groups_fake: NDArray[Any]

    @property
    def auc(self) -> float:
        """Share of comparisons in which the real lesion looked more real; NaN if there are none."""
        count = float(self.pairs.sum())
        return float(self.wins.sum()) / count if count else float("nan")

    def interval(self, *, seed: int = 0, samples: int = BOOTSTRAPS) -> tuple[float, float]:
        """95 % interval by a bootstrap of patients (the readers' own training is not drawn anew)."""
        rng = np.random.default_rng(seed)
        patients, index = np.unique(np.concatenate([self.groups_real, self.groups_fake]), return_inverse=True)
        real, fake = index[: len(self.groups_real)], index[len(self.groups_real) :]
        counts = rng.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=samples)
        of_real, of_fake = counts[:, real].astype(np.float64), counts[:, fake].astype(np.float64)
        wins = ((of_real @ self.wins) * of_fake).sum(axis=1)
        pairs = ((of_real @ self.pairs) * of_fake).sum(axis=1)
        drawn = wins[pairs > 0] / pairs[pairs > 0]
        if not len(drawn):
            return float("nan"), float("nan")
        low, high = np.percentile(drawn, [2.5, 97.5])
        return float(low), float(high)

    def subset(self, real: NDArray[np.bool_], fake: NDArray[np.bool_]) -> Reading:
        """The same reading of some lesions only (those held out, say)."""
        return Reading(
            wins=self.wins[np.ix_(real, fake)],
            pairs=self.pairs[np.ix_(real, fake)],
            groups_real=self.groups_real[real],
            groups_fake=self.groups_fake[fake],
        )


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
    groups = _groups(real, fake, groups_real, groups_fake)
    table, label = np.concatenate([feature_table(real), feature_table(fake)]), _labels(real, fake)
    runs = []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        fold, scores = _folds(groups, label, FOLDS, rng), np.empty(len(label))
        for held in range(FOLDS):
            train = np.flatnonzero(fold != held)
            scores[fold == held] = _regression(table, label, groups, train, rng)(table[fold == held])
        runs.append((fold, scores))
    return _reading(runs, groups, label)


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

    groups = _groups(real, fake, groups_real, groups_fake)
    label = _labels(real, fake)
    rng = np.random.default_rng(seed)
    fold, scores = _folds(groups, label, FOLDS, rng), np.empty(len(label))
    grids = _with_detail(torch.from_numpy(np.concatenate([real, fake]).astype(np.float32)).to(device))
    for held in range(FOLDS):
        train = np.flatnonzero(fold != held)
        inner = _folds(groups[train], label[train], FOLDS, rng)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            network = _network().to(device)
            _teach(network, grids, label, train[inner > 0], train[inner == 0], rng, epochs=epochs, patience=patience)
        scores[fold == held] = _read(network, grids[torch.from_numpy(np.flatnonzero(fold == held)).to(device)])
    return _reading([(fold, scores)], groups, label)


def _groups(real: Any, fake: Any, groups_real: Any, groups_fake: Any) -> NDArray[np.str_]:
    first, second = np.asarray(groups_real).astype(str), np.asarray(groups_fake).astype(str)
    if len(first) != len(real) or len(second) != len(fake) or real.shape[1:] != fake.shape[1:]:
        raise SettingsError("lesions and their patients don't fit together", remedy="Give one patient a lesion.")
    if min(len(real), len(fake)) < FEWEST or min(len(set(first)), len(set(second))) < FOLDS:
        raise SettingsError(
            f"{len(real)} real and {len(fake)} made lesions are too few to be read",
            remedy=f"Give at least {FEWEST} of each, of {FOLDS} patients or more.",
        )
    return np.concatenate([first, second])


def _labels(real: Any, fake: Any) -> NDArray[np.bool_]:
    """True = real."""
    return np.arange(len(real) + len(fake)) < len(real)


def _folds(
    groups: NDArray[np.str_], label: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The fold of each lesion: a patient lies in one, and real and made lesions are dealt out evenly."""
    fold = np.empty(len(groups), np.int64)
    with_real = np.unique(groups[label])
    for names in (with_real, np.setdiff1d(groups, with_real)):
        for place, name in enumerate(rng.permutation(names)):
            fold[groups == name] = place % count
    return fold


def _weights(label: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each class weighs one half."""
    return np.where(label, 0.5 / max(int(label.sum()), 1), 0.5 / max(int((~label).sum()), 1))


class _Regression:
    """L2-regularised logistic regression on standardised features, of degree 1 or 2."""

    def __init__(self, table: NDArray[np.float64], label: NDArray[np.bool_], degree: int, strength: float) -> None:
        from scipy.optimize import minimize

        self._degree = degree
        self._centre, self._scale = np.median(table, axis=0), table.std(axis=0) + 1e-9
        features = self._expanded(table)
        self._mean, self._sd = features.mean(axis=0), features.std(axis=0) + 1e-9
        design = np.column_stack([(features - self._mean) / self._sd, np.ones(len(table))])
        sign, weight = np.where(label, 1.0, -1.0), _weights(label)

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
    inner = _folds(groups[train], label[train], 3, rng)
    losses = {}
    for degree in (1, 2):
        for strength in STRENGTHS:
            total = 0.0
            for held in range(3):
                out, kept = train[inner == held], train[inner != held]
                score = _Regression(table[kept], label[kept], degree, strength)(table[out])
                total += float(_weights(label[out]) @ np.logaddexp(0.0, np.where(label[out], -score, score)))
            losses[degree, strength] = total
    return _Regression(table[train], label[train], *min(losses, key=losses.__getitem__))


def _network() -> nn.Module:
    """`_packed` grids to one score each."""
    from torch import nn

    layers: list[nn.Module] = []
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


def _teach(
    network: nn.Module,
    grids: Tensor,
    label: NDArray[np.bool_],
    train: NDArray[np.int64],
    check: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    epochs: int,
    patience: int,
) -> None:
    """Trains; the weights of the lowest loss on `check` stay."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    target = torch.from_numpy(label.astype(np.float32)).to(grids.device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    best, waited, kept = np.inf, 0, {name: value.clone() for name, value in network.state_dict().items()}
    weight = _weights(label[check])
    for epoch in range(epochs):
        for group in optimiser.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        network.train()
        for batch in _balanced_batches(train, label, rng):
            at = torch.from_numpy(batch).to(grids.device)
            scores = network(_packed(_turned(grids[at], rng)))[:, 0]
            optimiser.zero_grad()
            binary_cross_entropy_with_logits(scores, target[at]).backward()
            optimiser.step()
        score = _read(network, grids[torch.from_numpy(check).to(grids.device)])
        loss = float(weight @ np.logaddexp(0.0, np.where(label[check], -score, score)))
        waited += 1
        if loss < best:
            best, waited, kept = loss, 0, {name: value.clone() for name, value in network.state_dict().items()}
        if waited >= patience:
            break
    network.load_state_dict(kept)


def _balanced_batches(
    train: NDArray[np.int64], label: NDArray[np.bool_], rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Half real, half made; an epoch shows each lesion of the smaller class once."""
    real, fake = rng.permutation(train[label[train]]), rng.permutation(train[~label[train]])
    half = BATCH // 2
    for start in range(0, min(len(real), len(fake)), half):
        yield np.concatenate([real[start : start + half], fake[start : start + half]])


def _turned(grids: Tensor, rng: np.random.Generator) -> Tensor:
    """The batch under one flip and quarter turn."""
    import torch

    axes = [axis for axis in (2, 3, 4) if rng.integers(2)]
    return torch.rot90(grids.flip(axes), int(rng.integers(4)), (3, 4))


def _read(network: nn.Module, grids: Tensor) -> NDArray[np.float64]:
    """The mean score over the two mirror images in a row."""
    import torch

    network.eval()
    with torch.no_grad():
        scores = [network(_packed(part)) + network(_packed(part.flip(4))) for part in grids.split(BATCH)]
    return np.asarray(torch.cat(scores)[:, 0].double().cpu().numpy() / 2)


def _reading(
    runs: list[tuple[NDArray[np.int64], NDArray[np.float64]]], groups: NDArray[np.str_], label: NDArray[np.bool_]
) -> Reading:
    wins, pairs = np.zeros((2, int(label.sum()), int((~label).sum())))
    for fold, scores in runs:
        same = fold[label][:, None] == fold[~label][None, :]
        difference = scores[label][:, None] - scores[~label][None, :]
        wins += same * (np.sign(difference) + 1) / 2
        pairs += same
    return Reading(wins=wins, pairs=pairs, groups_real=groups[label], groups_fake=groups[~label])
