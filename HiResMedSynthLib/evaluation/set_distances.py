"""How far two sets of feature vectors are apart: Frechet distance, KID, precision, recall, density and coverage.

Each has a bootstrap interval and the floor of real against real at the same number of patients, from the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation.resampling import (
    ALPHA,
    DRAWS,
    FEWEST_GROUPS,
    Index,
    comparable_groups,
    exact_interval,
    resamples,
    shifted_interval,
    splits,
)
from HiResMedSynthLib.evaluation.texture_distance import frechet

NEIGHBOURS = 5
EVEN = 1e-6  # of its mean (or 1): a feature of less spread is even but for arithmetic
FAR = 5.0  # standard deviations at which a feature is clipped: one broken image must not be the whole distance
MANY = 100  # patients a side, from which half the draws do
SIZES = (0.5, 0.7, 1.0)  # shares of the patients, for the value at infinitely many
NAMES = ("frechet", "kid", "precision", "recall", "density", "coverage")
SHARES = frozenset({"precision", "recall", "coverage"})
BETTER_HIGH = SHARES | {"density"}
Step = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class SetDistance:
    """One distance between the sets.

    Args:
        name: one of `NAMES`.
        patients: drawn of each side.
        value: mean over the draws.
        low, high: 95 % interval.
        floor: mean of real against real; `floor_limit` the point that 95 % of its draws keep to (the 5 % point where
            high is good).
        within_floor: whether the middle draw is no farther from real than that point.
    """

    name: str
    patients: int
    value: float
    low: float
    high: float
    floor: float
    floor_limit: float
    within_floor: bool


def standardised(
    real: NDArray[np.floating], synthetic: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both sets in standard deviations of the first; features that are even in it are left out, the absurd are cut."""
    centre, spread = real.mean(axis=0, dtype=np.float64), real.std(axis=0, dtype=np.float64)
    used = spread > EVEN * np.maximum(np.abs(centre), 1.0)
    first, second = ((side[:, used] - centre[used]) / spread[used] for side in (real, synthetic))
    return np.clip(first, -FAR, FAR), np.clip(second, -FAR, FAR)


def kernel(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """KID's cubic kernel of all pairs of feature vectors (Binkowski et al., 2018)."""
    return np.asarray((one @ other.T / one.shape[1] + 1.0) ** 3)


def kid(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Unbiased squared maximum mean discrepancy of two sets of independent feature vectors; may be below zero.

    Raises:
        SettingsError: fewer than two vectors a side.
    """
    tables = kernel(one, one), kernel(other, other), kernel(one, other)
    return _unbiased(*tables, np.arange(len(one)), np.arange(len(other)))


def _unbiased(
    xx: NDArray[np.float64], yy: NDArray[np.float64], xy: NDArray[np.float64], x_patients: Index, y_patients: Index
) -> float:
    """From the kernel of all pairs; within a set pairs of one patient are left out, as an image and itself are."""
    within = 0.0
    for table, patients in ((xx, x_patients), (yy, y_patients)):
        apart = patients[:, None] != patients[None, :]
        if not apart.any():
            raise SettingsError("KID needs images of two patients a side", remedy="Give more images.")
        within += float(table[apart].mean())
    return float(within - 2 * xy.mean())


def manifold(
    real_real: NDArray[np.float64],
    fake_fake: NDArray[np.float64],
    real_fake: NDArray[np.float64],
    neighbours: int,
    *,
    patients: tuple[Index, Index] | None = None,
) -> tuple[float, float, float, float]:
    """(precision, recall, density, coverage) from distances of all pairs, or their squares.

    Precision and recall by balls up to the k-th neighbour (Kynkaanniemi et al., 2019), density and coverage by those of
    the real set (Naeem et al., 2020). Within a set only images of other patients are neighbours, as across the sets:
    slices of one patient would make the balls small.

    Args:
        real_real, fake_fake, real_fake: the distances.
        neighbours: k.
        patients: number of the patient of each real and of each synthetic image; None: each has its own.

    Raises:
        SettingsError: a side has no more images than neighbours.
    """
    if min(real_fake.shape) <= neighbours:
        raise SettingsError(
            f"{min(real_fake.shape)} images are too few for {neighbours} neighbours",
            remedy=f"Give at least {neighbours + 1} a side.",
        )
    of_real, of_fake = patients or (np.arange(len(real_real)), np.arange(len(fake_fake)))
    radius_real, radius_fake = _radii(real_real, of_real, neighbours), _radii(fake_fake, of_fake, neighbours)
    in_real = real_fake <= radius_real[:, None]
    return (
        float(in_real.any(axis=0).mean()),
        float((real_fake <= radius_fake[None, :]).any(axis=1).mean()),
        float(in_real.sum(axis=0).mean()) / neighbours,
        float((real_fake.min(axis=1) <= radius_real).mean()),
    )


def _radii(distances: NDArray[np.float64], patients: Index, neighbours: int) -> NDArray[np.float64]:
    """`[image]` how far the k-th image of another patient is; the farthest where a bootstrap has drawn fewer."""
    strangers = np.where(patients[:, None] != patients[None, :], distances, np.inf)
    nearest = np.partition(strangers, neighbours - 1, axis=1)[:, :neighbours]
    return np.asarray(np.where(np.isfinite(nearest), nearest, -np.inf).max(axis=1))


class Pool:
    """The feature vectors of all images, real ones first; a draw picks from them.

    Each draw is measured in standard deviations of its own first part. So the other real half and the synthetic part
    are both strangers to the scale, and the floor is fair (measured: docs/evaluation.md).
    """

    def __init__(
        self,
        real: NDArray[np.floating],
        synthetic: NDArray[np.floating],
        groups: tuple[Sequence[str], Sequence[str]] | None = None,
    ) -> None:
        """`groups`: the patient of each real and of each synthetic image; None: each has its own."""
        self.first = len(real)
        self._features = np.concatenate([real, synthetic]).astype(np.float64)
        names = np.arange(len(self._features)) if groups is None else [*groups[0], *groups[1]]
        self._patients = np.unique(np.asarray(names), return_inverse=True)[1]

    def measures(self, one: Index, other: Index) -> NDArray[np.float64]:
        """[6] the distances of two draws, in the order of `NAMES`."""
        x, y = standardised(self._features[one], self._features[other])
        products = x @ x.T, y @ y.T, x @ y.T
        cubes = [(table / x.shape[1] + 1.0) ** 3 for table in products]
        lengths = [np.diag(table) for table in products[:2]]
        pairs = ((lengths[0], lengths[0]), (lengths[1], lengths[1]), lengths)
        squares = [a[:, None] + b[None, :] - 2 * table for (a, b), table in zip(pairs, products, strict=True)]
        patients = self._patients[one], self._patients[other]
        near = manifold(squares[0], squares[1], squares[2], NEIGHBOURS, patients=patients)
        kid = _unbiased(cubes[0], cubes[1], cubes[2], *patients)
        return np.array([frechet(x, y), kid, *near])

    def frechet(self, one: Index, other: Index) -> float:
        """The Frechet distance of two draws."""
        return frechet(*standardised(self._features[one], self._features[other]))

    def nearest_real(self) -> Index:
        """`[synthetic]` the real image nearest to each synthetic one."""
        from scipy.spatial.distance import cdist

        real, synthetic = standardised(self._features[: self.first], self._features[self.first :])
        return np.asarray(cdist(synthetic, real).argmin(axis=1))


def set_distances(
    pool: Pool,
    real_groups: Sequence[str],
    synthetic_groups: Sequence[str],
    *,
    seed: int,
    draws: int | None = None,
    step: Step = lambda _done, _total: None,
) -> list[SetDistance]:
    """All distances, each with interval and floor.

    Raises:
        SettingsError: too few patients; says how many are needed.
    """
    count = comparable_groups(real_groups, synthetic_groups)
    if count < FEWEST_GROUPS:
        counts = f"{len(set(real_groups))} real and {len(set(synthetic_groups))} synthetic patients"
        raise SettingsError(
            f"{counts} are too few for distances between sets",
            remedy=f"Give {2 * FEWEST_GROUPS} real (two halves make the floor) and {FEWEST_GROUPS} synthetic ones.",
        )
    draws = draws or (DRAWS if count <= MANY else DRAWS // 2)
    rng = np.random.default_rng(seed)
    values, floors, drawn = [], [], []
    for done, trio in enumerate(splits(real_groups, synthetic_groups, count=count, draws=draws, rng=rng)):
        step(done, 2 * draws)
        values.append(pool.measures(trio.real, trio.synthetic + pool.first))
        floors.append(pool.measures(trio.real, trio.other_real))
    for done, (one, other) in enumerate(resamples(real_groups, synthetic_groups, count=count, draws=draws, rng=rng)):
        step(draws + done, 2 * draws)
        drawn.append(pool.measures(one, other + pool.first))
    found = []
    for name, value, floor, boot in zip(NAMES, *(np.array(part).T for part in (values, floors, drawn)), strict=True):
        low, high = shifted_interval(float(value.mean()), boot)
        if name in SHARES:  # a share of 0 or 1 has no spread in a bootstrap, but is not known that well
            exact = exact_interval(float(value.mean()), count)
            low, high = min(low, exact[0]), max(high, exact[1])
        elif low == high:
            low = high = np.nan  # draws without any spread say nothing of it
        middle = np.median(value)  # not the mean: shares of few images are coarse, and often all 1
        limit = np.percentile(floor, 100 * (ALPHA if name in BETTER_HIGH else 1 - ALPHA))
        bottom, top = (-np.inf if name == "kid" else 0.0), (1.0 if name in SHARES else np.inf)
        found.append(
            SetDistance(
                name=name,
                patients=count,
                value=float(value.mean()),
                low=float(np.maximum(low, bottom)),
                high=float(np.minimum(high, top)),
                floor=float(floor.mean()),
                floor_limit=float(limit),
                within_floor=bool(middle >= limit if name in BETTER_HIGH else middle <= limit),
            )
        )
    return found


def frechet_of_many(
    pool: Pool, real_groups: Sequence[str], synthetic_groups: Sequence[str], *, seed: int, draws: int = 30
) -> tuple[float, float]:
    """(real against synthetic, real against real) Frechet distance extrapolated to infinitely many patients.

    A line over 1/n through the means at a half, 0.7 and all of the patients (Chong & Forsyth, 2020). Crude at small n.
    """
    rng = np.random.default_rng(seed)
    most = comparable_groups(real_groups, synthetic_groups)
    sizes = sorted({max(2, round(share * most)) for share in SIZES})
    found = []
    for size in sizes:
        trios = splits(real_groups, synthetic_groups, count=size, draws=draws, rng=rng)
        pairs = [(t.real, t.synthetic + pool.first, t.other_real) for t in trios]
        found.append(np.mean([[pool.frechet(a, b), pool.frechet(a, c)] for a, b, c in pairs], axis=0))
    line = np.polynomial.polynomial.polyfit(1 / np.array(sizes, dtype=np.float64), np.array(found), 1)
    return float(line[0, 0]), float(line[0, 1])
