"""What a machine reader found, and how it is tried: folds by patient, classes that weigh alike, wins within a fold.

Each lesion is read by a reader that never saw its patient; only lesions of the same fold are compared, since the scores
of two readers have no common scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError

FOLDS = 5
FEWEST = 10  # lesions of either class
BATCH = 16
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

    def interval(self) -> tuple[float, float]:
        """95 % interval by a bootstrap of patients (the readers' own training is not drawn anew)."""
        rng = np.random.default_rng(0)
        patients, index = np.unique(np.concatenate([self.groups_real, self.groups_fake]), return_inverse=True)
        real, fake = index[: len(self.groups_real)], index[len(self.groups_real) :]
        counts = rng.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=BOOTSTRAPS)
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


def patients_of(real: Any, fake: Any, groups_real: Any, groups_fake: Any) -> NDArray[np.str_]:
    """The patient of each lesion, real ones first.

    Raises:
        SettingsError: too few lesions or patients, or groups that don't fit.
    """
    first, second = np.asarray(groups_real).astype(str), np.asarray(groups_fake).astype(str)
    if len(first) != len(real) or len(second) != len(fake) or real.shape[1:] != fake.shape[1:]:
        raise SettingsError("lesions and their patients don't fit together", remedy="Give one patient a lesion.")
    if min(len(real), len(fake)) < FEWEST or min(len(set(first)), len(set(second))) < FOLDS:
        raise SettingsError(
            f"{len(real)} real and {len(fake)} made lesions are too few to be read",
            remedy=f"Give at least {FEWEST} of each, of {FOLDS} patients or more.",
        )
    return np.concatenate([first, second])


def labels(real: Any, fake: Any) -> NDArray[np.bool_]:
    """True = real."""
    return np.arange(len(real) + len(fake)) < len(real)


def dealt(
    groups: NDArray[np.str_], label: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The fold of each lesion: a patient lies in one, and real and made lesions are dealt out evenly."""
    fold = np.empty(len(groups), np.int64)
    with_real = np.unique(groups[label])
    for names in (with_real, np.setdiff1d(groups, with_real)):
        for place, name in enumerate(rng.permutation(names)):
            fold[groups == name] = place % count
    return fold


def class_weights(label: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each class weighs one half."""
    return np.where(label, 0.5 / max(int(label.sum()), 1), 0.5 / max(int((~label).sum()), 1))


def balanced_batches(
    train: NDArray[np.int64], label: NDArray[np.bool_], rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Half real, half made; an epoch shows each lesion of the smaller class once."""
    real, fake = rng.permutation(train[label[train]]), rng.permutation(train[~label[train]])
    half = BATCH // 2
    for start in range(0, min(len(real), len(fake)), half):
        yield np.concatenate([real[start : start + half], fake[start : start + half]])


def reading_of(
    runs: list[tuple[NDArray[np.int64], NDArray[np.float64]]], groups: NDArray[np.str_], label: NDArray[np.bool_]
) -> Reading:
    """What readers found whose (fold of each lesion, score of each lesion) these are."""
    wins, pairs = np.zeros((2, int(label.sum()), int((~label).sum())))
    for fold, scores in runs:
        same = fold[label][:, None] == fold[~label][None, :]
        difference = scores[label][:, None] - scores[~label][None, :]
        wins += same * (np.sign(difference) + 1) / 2
        pairs += same
    return Reading(wins=wins, pairs=pairs, groups_real=groups[label], groups_fake=groups[~label])
