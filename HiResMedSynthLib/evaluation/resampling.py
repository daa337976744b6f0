"""Intervals, floors and tests: everything is drawn by patient, for images of one patient are not independent.

The floor of a distance is what two disjoint halves of the real set are apart, at the same number of patients: below it
nothing can be told (models.md 4.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLES = 1000  # bootstrap draws of a mean
DRAWS = 200  # splits and bootstraps of a distance between sets
INTERVAL = (2.5, 97.5)  # percentiles
ALPHA = 0.05
GRAIN = 1e-4  # of the largest value: smaller differences are of arithmetic (noise of 8-bit films has few values)
FEWEST_GROUPS = 8  # patients of a set that is compared with another one; a floor needs twice as many real ones

Index = NDArray[np.int64]
Distance = Callable[[Index, Index], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Trio:
    """One draw: a part of the real set, another one that shares no patient with it, a part of the synthetic set."""

    real: Index
    other_real: Index
    synthetic: Index


def members(groups: Sequence[str]) -> list[Index]:
    """The images of each patient, patients in the order of their names."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    return [np.flatnonzero(index == k) for k in range(len(names))]


def comparable_groups(real: Sequence[str], synthetic: Sequence[str]) -> int:
    """How many patients a side a distance and its floor can be measured at: all synthetic, at most half the real."""
    return min(len(set(real)) // 2, len(set(synthetic)))


def splits(
    real: Sequence[str], synthetic: Sequence[str], *, count: int, draws: int, rng: np.random.Generator
) -> Iterator[Trio]:
    """Draws without repetition of `count` patients each; indices of the synthetic set count from 0."""
    of_real, of_synthetic = members(real), members(synthetic)
    for _ in range(draws):
        order, other = rng.permutation(len(of_real)), rng.permutation(len(of_synthetic))
        yield Trio(
            real=np.concatenate([of_real[k] for k in order[:count]]),
            other_real=np.concatenate([of_real[k] for k in order[count : 2 * count]]),
            synthetic=np.concatenate([of_synthetic[k] for k in other[:count]]),
        )


def resamples(
    real: Sequence[str], synthetic: Sequence[str], *, count: int, draws: int, rng: np.random.Generator
) -> Iterator[tuple[Index, Index]]:
    """Bootstrap draws (with repetition) of `count` patients of each set."""
    of_real, of_synthetic = members(real), members(synthetic)
    for _ in range(draws):
        yield (
            np.concatenate([of_real[k] for k in rng.integers(len(of_real), size=count)]),
            np.concatenate([of_synthetic[k] for k in rng.integers(len(of_synthetic), size=count)]),
        )


def shifted_interval(value: float, drawn: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of a biased measure: the spread of its bootstrap around their mean, laid around the value.

    Repeated images make sets look less diverse than they are, so the draws lie beside the value, all by about as much.
    """
    low, high = np.percentile(drawn, INTERVAL) - drawn.mean()
    return value + float(low), value + float(high)


def mean_interval(
    values: NDArray[np.float64], groups: Sequence[str], *, seed: int, of: Callable[..., NDArray[np.float64]] = np.mean
) -> tuple[float, float]:
    """95 % bootstrap interval by patient of the mean (or median) of the patients' own means."""
    drawn = patient_means(values, groups)
    chosen = np.random.default_rng(seed).integers(len(drawn), size=(SAMPLES, len(drawn)))
    low, high = np.percentile(of(drawn[chosen], axis=1), INTERVAL)
    return float(low), float(high)


def exact_interval(share: float, n: int) -> tuple[float, float]:
    """95 % interval (Clopper-Pearson) of a share 0..1 of n, rounded to a whole number of them."""
    from scipy.stats import binomtest

    found = binomtest(round(min(share, 1.0) * n), n).proportion_ci(method="exact")
    return float(found.low), float(found.high)


def share_interval(hits: NDArray[np.float64], groups: Sequence[str], *, seed: int) -> tuple[float, float]:
    """95 % interval by patient of the mean of the patients' own shares of `hits` (0 or 1).

    By bootstrap, no narrower than the exact one of so many patients: a share of 0 or 1 has no spread in a bootstrap.
    """
    shares = patient_means(hits, groups)
    ends = mean_interval(hits, groups, seed=seed), exact_interval(float(shares.mean()), len(shares))
    return min(low for low, _ in ends), max(high for _, high in ends)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of a number between two sets.

    Args:
        patients: (real, synthetic) in which it could be measured.
        real, synthetic: means over patients.
        low, high: 95 % bootstrap interval of synthetic minus real.
        floor: 95 % of splits of the real set are less apart, at the same number; NaN where there are too few.
        p: two-sided, Mann-Whitney on the patients' means.
    """

    patients: tuple[int, int]
    real: float
    synthetic: float
    low: float
    high: float
    floor: float
    p: float


def difference(
    real: NDArray[np.float64],
    synthetic: NDArray[np.float64],
    groups: tuple[Sequence[str], Sequence[str]],
    *,
    seed: int,
) -> Difference | None:
    """Synthetic minus real of a number, patients' means; None where fewer than 2 patients a side have it."""
    from scipy.stats import mannwhitneyu

    one, other = patient_means(real, groups[0]), patient_means(synthetic, groups[1])
    if min(len(one), len(other)) < 2:
        return None
    grain = GRAIN * max(np.abs(one).max(), np.abs(other).max()) or 1.0
    one, other = (np.round(part / grain) * grain for part in (one, other))
    rng = np.random.default_rng(seed)
    drawn = [part[rng.integers(len(part), size=(SAMPLES, len(part)))].mean(axis=1) for part in (one, other)]
    low, high = np.percentile(drawn[1] - drawn[0], INTERVAL)
    count, floor = min(len(one) // 2, len(other)), np.nan
    if count >= 2:
        mixed = rng.permuted(np.tile(one, (SAMPLES, 1)), axis=1)
        apart = mixed[:, :count].mean(axis=1) - mixed[:, count : 2 * count].mean(axis=1)
        floor = float(np.percentile(np.abs(apart), 100 * (1 - ALPHA)))
    return Difference(
        patients=(len(one), len(other)),
        real=float(one.mean()),
        synthetic=float(other.mean()),
        low=float(low),
        high=float(high),
        floor=floor,
        p=float(mannwhitneyu(one, other).pvalue),
    )


def smallest_paired_p(patients: int) -> float:
    """What `paired_p` gives where all patients differ in the same direction."""
    return 2.0 ** (1 - patients)


def bonferroni(p: float, tests: int) -> float:
    """The p value after Bonferroni's correction for that many tests."""
    return min(1.0, p * tests)


def paired_p(one: NDArray[np.float64], other: NDArray[np.float64], groups: Sequence[str]) -> float:
    """Two-sided p that paired values of two methods differ: Wilcoxon's signed ranks of the patients' mean differences.

    1 where all differences are 0.
    """
    from scipy.stats import wilcoxon

    apart = patient_means(other - one, groups)
    return 1.0 if not np.any(apart) else float(wilcoxon(apart).pvalue)


def patient_means(values: NDArray[np.float64], groups: Sequence[str]) -> NDArray[np.float64]:
    """[patient] mean of each patient's images, those without a finite value left out."""
    known = np.isfinite(values)
    names = np.asarray(groups)[known]
    return np.array([values[known][index].mean() for index in members(names.tolist())]) if known.any() else np.empty(0)
