"""Figures of a reader study from counts and ratings: shares, agreement, detectability, equivalence to guessing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
Interval = Literal["exact", "wilson"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval; `low` and `high` are None where the method gives none.

    `method` names the interval; `n` is how many answers the figure rests on.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    method: str


@dataclass(frozen=True, kw_only=True)
class Detectability:
    """d' with its interval, and the criterion c: above zero the reader rather says "real"."""

    d_prime: Estimate
    criterion: float


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """Two one-sided exact tests: p below .05 shows that the share lies within `margin` of chance (TOST)."""

    chance: float
    margin: float
    p: float


def share(hits: int, n: int, interval: Interval = "exact") -> Estimate:
    """hits / n with its exact (Clopper-Pearson) or Wilson interval."""
    from scipy.stats import binomtest

    found = binomtest(hits, n).proportion_ci(LEVEL, method=interval)
    name = "Clopper-Pearson" if interval == "exact" else "Wilson"
    return Estimate(value=hits / n, low=float(found.low), high=float(found.high), n=n, method=name)


def binomial_p(hits: int, n: int, chance: float) -> float:
    """Exact two-sided p of `hits` in n answers where guessing gives `chance`."""
    from scipy.stats import binomtest

    return float(binomtest(hits, n, chance).pvalue)


def mcnemar_p(one_way: int, other_way: int) -> float:
    """Exact two-sided p that two discordant counts differ (McNemar); 1 where there are none."""
    return binomial_p(one_way, one_way + other_way, 0.5) if one_way + other_way else 1.0


def kappa(table: Sequence[Sequence[int]]) -> Estimate | None:
    """Cohen's kappa of a square table of counts; None where both raters used one and the same class only.

    The interval is the large-sample one of Fleiss, Cohen and Everitt (1969), cut at -1 and 1; it gives none
    where all agree.
    """
    counts = np.asarray(table, dtype=np.float64)
    n = float(counts.sum())
    p = counts / n
    row, column = p.sum(1), p.sum(0)
    observed, expected = float(np.trace(p)), float(row @ column)
    if math.isclose(expected, 1.0):
        return None
    value = (observed - expected) / (1 - expected)
    agree = float((np.diag(p) * ((1 - expected) - (row + column) * (1 - observed)) ** 2).sum())
    crossed = (column[:, None] + row[None, :]) ** 2 * p
    differ = (1 - observed) ** 2 * float(crossed.sum() - np.trace(crossed))
    variance = agree + differ - (observed * expected - 2 * expected + observed) ** 2
    half = _normal_quantile() * math.sqrt(max(variance, 0.0) / n) / (1 - expected) ** 2
    ends = (None, None) if half < 1e-9 else (max(value - half, -1.0), min(value + half, 1.0))
    return Estimate(value=value, low=ends[0], high=ends[1], n=int(n), method="Fleiss-Cohen-Everitt")


def detectability(hits: int, signals: int, false_alarms: int, noises: int) -> Detectability:
    """d' and criterion of a yes/no task, by the log-linear rule of Hautus (1995): .5 and 1 are added to the counts.

    The interval is that of Gourevitch and Galanter (1967). A hit is a synthetic image called synthetic.
    """
    from scipy.stats import norm

    hit, alarm = (hits + 0.5) / (signals + 1), (false_alarms + 0.5) / (noises + 1)
    z_hit, z_alarm = float(norm.ppf(hit)), float(norm.ppf(alarm))
    variance = hit * (1 - hit) / (signals * norm.pdf(z_hit) ** 2)
    variance += alarm * (1 - alarm) / (noises * norm.pdf(z_alarm) ** 2)
    half, value = _normal_quantile() * math.sqrt(variance), z_hit - z_alarm
    d_prime = Estimate(
        value=value, low=value - half, high=value + half, n=signals + noises, method="Gourevitch-Galanter"
    )
    return Detectability(d_prime=d_prime, criterion=-(z_hit + z_alarm) / 2)


def choice_d_prime(correct: int, n: int, alternatives: int) -> Estimate:
    """d' of a forced choice among `alternatives`, of an observer who takes the one that looks most synthetic.

    The share correct is (correct + 1 / alternatives) / (n + 1), which leaves chance at d' = 0; the interval is that of
    the exact share, carried over to d'.
    """
    rates = share(correct, n)
    assert rates.low is not None and rates.high is not None
    value = _d_prime_of((correct + 1 / alternatives) / (n + 1), alternatives)
    low = -math.inf if rates.low <= 0 else _d_prime_of(rates.low, alternatives)
    high = math.inf if rates.high >= 1 else _d_prime_of(rates.high, alternatives)
    return Estimate(
        value=value,
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        n=n,
        method="from the exact share",
    )


def _d_prime_of(rate: float, alternatives: int) -> float:
    """The d' at which the largest of `alternatives` normal deviates is the shifted one with probability `rate`."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    x = np.linspace(-9.0, 9.0, 2001)
    weight = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * (x[1] - x[0])

    def above(d_prime: float) -> float:
        return float(weight @ ndtr(x + d_prime) ** (alternatives - 1)) - rate

    return float(brentq(above, -8.0, 8.0)) if above(-8.0) < 0 < above(8.0) else math.copysign(math.inf, rate - 0.5)


def auc(noise: Sequence[float], signal: Sequence[float]) -> Estimate:
    """Area under the ROC curve of ratings (higher = more synthetic), with the interval of DeLong et al. (1988).

    Where the ratings separate both kinds fully the variance is zero, and there is no interval.
    """
    wins = _wins(np.asarray(signal, dtype=np.float64), np.asarray(noise, dtype=np.float64))
    value, n = float(wins.mean()), len(signal) + len(noise)
    if min(wins.shape) < 2:
        return Estimate(value=value, low=None, high=None, n=n, method="DeLong")
    variance = wins.mean(1).var(ddof=1) / len(signal) + wins.mean(0).var(ddof=1) / len(noise)
    if variance == 0:
        return Estimate(value=value, low=None, high=None, n=n, method="DeLong")
    half = _normal_quantile() * math.sqrt(float(variance))
    return Estimate(value=value, low=max(value - half, 0.0), high=min(value + half, 1.0), n=n, method="DeLong")


def _wins(signal: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[signal, noise]` 1 where the signal is rated higher, .5 where equal, else 0."""
    return np.asarray((signal[:, None] > noise) + 0.5 * (signal[:, None] == noise))


def equivalence(hits: int, n: int, chance: float, margin: float) -> Equivalence:
    """Whether a share is shown to lie within `margin` of chance."""
    from scipy.stats import binomtest

    above = binomtest(hits, n, max(chance - margin, 0.0), alternative="greater").pvalue
    below = binomtest(hits, n, min(chance + margin, 1.0), alternative="less").pvalue
    return Equivalence(chance=chance, margin=margin, p=float(max(above, below)))


def fewest_trials(chance: float) -> int:
    """From how many trials on a reader who is always right differs from a guessing one (exact, two-sided)."""
    return next(n for n in range(1, 1000) if binomial_p(n, n, chance) < 1 - LEVEL)


def _normal_quantile() -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + LEVEL) / 2))
