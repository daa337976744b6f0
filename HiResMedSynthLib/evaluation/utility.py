"""Is made data of use? Detectors trained on real data, on made data and on both, compared on the same real patients.

A run is one detector's scores of the test windows. An arm at a share of the real training data has several runs, one a
seed; its figures are means over them. Intervals come from a bootstrap of patients and of seeds: runs of one seed stay
together (they had the same patients to learn from), and a ratio's two sides see the same draw.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import ReadError, SettingsError

SAMPLES, AT_ONCE = 2000, 250
FALSE_ALARMS = 0.05  # one in twenty windows without a lesion
AS_GOOD = 0.95  # of the reference's figure
FEWEST_PATIENTS, FEWEST_SEEDS = 10, 3  # fewer seeds: chance of training isn't in the interval
REFERENCE = "real"


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """What every detector was tested on.

    Args:
        patients: of each window.
        kinds: "lesion" where it shows one, another word where it doesn't.
    """

    patients: NDArray[np.str_]
    kinds: NDArray[np.str_]

    def __post_init__(self) -> None:
        count = len(set(self.patients[self.lesion].tolist()))
        if count < FEWEST_PATIENTS or self.lesion.all():
            raise SettingsError(
                f"{count} patients with a lesion and {int((~self.lesion).sum())} windows without one are too few to "
                "compare detectors on",
                remedy=f"Test on {FEWEST_PATIENTS} patients or more.",
            )

    @cached_property
    def lesion(self) -> NDArray[np.bool_]:
        """Which windows show a lesion."""
        return np.asarray(self.kinds == "lesion")


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One trained detector.

    Args:
        arm: what it learned from: "real", "synthetic" ...
        share: of the real training data, 0..1.
        seed: of its training; the same seed of two arms means the same real patients.
        scores: of each window, higher = more likely a lesion.
    """

    arm: str
    share: float
    seed: int
    scores: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if not math.isfinite(self.value):
            return "-"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """An arm at a share of the real data.

    Args:
        arm, share: which.
        seeds, patients: how many.
        pairs: seeds that the reference has too, over which ratios are taken.
        auc: chance that a window with a lesion scores higher than one without.
        sensitivity: share of windows with a lesion above the threshold that `FALSE_ALARMS` of the others pass.
        auc_ratio, sensitivity_ratio: to the arm "real" at the same share; None where that wasn't run.
    """

    arm: str
    share: float
    seeds: int
    patients: int
    pairs: int
    auc: Figure
    sensitivity: Figure
    auc_ratio: Figure | None
    sensitivity_ratio: Figure | None

    @property
    def verdict(self) -> str:
        """What the ratio of AUCs allows to say, such as "better", "worse", "as good (within 5%)" or "can't be told"."""
        if self.auc_ratio is None:
            return "nothing to compare with"
        if self.arm == REFERENCE:
            return "reference"
        if self.pairs < FEWEST_SEEDS:
            return f"fewer than {FEWEST_SEEDS} seeds"
        if self.auc_ratio.low > 1:
            return "better"
        if self.auc_ratio.high < 1:
            return "worse"
        return f"as good (within {1 - AS_GOOD:.0%})" if self.auc_ratio.low > AS_GOOD else "can't be told"


def compare(
    windows: Windows,
    runs: Sequence[Run],
    *,
    false_alarms: float = FALSE_ALARMS,
    seed: int = 0,
    samples: int = SAMPLES,
) -> tuple[ArmResult, ...]:
    """Every arm at every share, in the order in which they come.

    Args:
        windows: the test.
        runs: all detectors.
        false_alarms: share of windows without a lesion that may pass the threshold of `sensitivity`.
        seed, samples: of the bootstrap.

    Raises:
        SettingsError: a run's scores don't fit the windows or aren't finite, or an arm has two runs of one seed.
    """
    table: dict[tuple[str, float], dict[int, Run]] = {}
    for run in runs:
        if run.scores.shape != windows.lesion.shape or not np.isfinite(run.scores).all():
            raise SettingsError(
                f"the scores of '{run.arm}' (seed {run.seed}) don't fit the {len(windows.lesion)} windows",
                remedy="Test all detectors on the same patients.",
            )
        if run.seed in table.setdefault((run.arm, run.share), {}):
            raise SettingsError(
                f"'{run.arm}' at {run.share:.0%} has two runs of seed {run.seed}",
                remedy="Train each with another seed.",
            )
        table[run.arm, run.share][run.seed] = run
    counts = _patient_draws(windows, samples, seed)
    drawn = {
        key: {number: _figures(windows, run.scores, counts, false_alarms) for number, run in of_seeds.items()}
        for key, of_seeds in table.items()
    }
    patients = len(set(windows.patients.tolist()))
    results = []
    for (arm, share), own in drawn.items():
        other = drawn.get((REFERENCE, share))
        ratios = None if other is None else _ratio(own, other, seed)
        auc, sensitivity = _mean(own, seed)
        results.append(
            ArmResult(
                arm=arm, share=share, seeds=len(own), patients=patients,
                pairs=0 if other is None else len(own.keys() & other.keys()), auc=auc, sensitivity=sensitivity,
                auc_ratio=None if ratios is None else ratios[0],
                sensitivity_ratio=None if ratios is None else ratios[1],
            )
        )  # fmt: skip
    return tuple(results)


def read_predictions(files: Sequence[Path]) -> tuple[Windows, list[NDArray[np.float64]]]:
    """The windows of CSV files of a detector's scores (Training/train_detector.py), and the scores of each file.

    Raises:
        ReadError: one is missing, damaged, or tells of other windows than the first.
        SettingsError: too few patients.
    """
    windows, scores, first = None, [], None
    for file in files:
        try:
            with file.open(newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream, strict=True))
            told = [(row["patient"], row["window"], row["kind"]) for row in rows]
            scores.append(np.array([float(row["score"]) for row in rows]))
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as problem:
            raise ReadError(
                f"there are no scores here ({type(problem).__name__})", where=file,
                remedy="Give the folder of a finished run of Training.train_detector.",
            ) from None  # fmt: skip
        if windows is None:
            first = told
            windows = Windows(
                patients=np.array([patient for patient, _, _ in told]), kinds=np.array([kind for _, _, kind in told])
            )
        elif told != first:
            raise ReadError(
                "this detector was tested on other windows than the first", where=file,
                remedy="Train all of them with the same --data.",
            )  # fmt: skip
    if windows is None:
        raise ReadError("there is nothing to compare", remedy="Give the folders of two runs or more.")
    return windows, scores


def auc_of(lesion: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Chance that a window with a lesion scores higher than one without; a tie counts half."""
    ones = np.ones((1, len(scores)))
    return float(_curves(lesion, scores, ones, FALSE_ALARMS)[0][0])


def sensitivity_of(lesion: NDArray[np.bool_], scores: NDArray[np.float64], false_alarms: float) -> float:
    """Share of windows with a lesion above the lowest threshold that at most `false_alarms` of the others pass."""
    return float(_curves(lesion, scores, np.ones((1, len(scores))), false_alarms)[1][0])


def _patient_draws(windows: Windows, samples: int, seed: int) -> NDArray[np.float64]:
    """`[1 + samples, windows]`: how often each window counts; the first row is the test as it is."""
    names, index = np.unique(windows.patients, return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)
    return np.concatenate([np.ones((1, len(index))), drawn[:, index].astype(np.float64)])


def _figures(
    windows: Windows, scores: NDArray[np.float64], counts: NDArray[np.float64], false_alarms: float
) -> NDArray[np.float64]:
    """`[2, 1 + samples]`: AUC and sensitivity of a run in each draw."""
    parts = [
        _curves(windows.lesion, scores, counts[k : k + AT_ONCE], false_alarms) for k in range(0, len(counts), AT_ONCE)
    ]
    return np.concatenate(parts, axis=1)


def _curves(
    lesion: NDArray[np.bool_], scores: NDArray[np.float64], counts: NDArray[np.float64], false_alarms: float
) -> NDArray[np.float64]:
    """`[2, draws]`: AUC and sensitivity, windows weighted by `counts` `[draws, windows]`."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))  # equal scores pass a threshold together
    hits = np.add.reduceat(counts[:, order] * lesion[order], starts, axis=1)
    alarms = np.add.reduceat(counts[:, order] * ~lesion[order], starts, axis=1)
    passed = alarms.cumsum(axis=1)
    of_hits, of_alarms = hits.sum(axis=1), passed[:, -1]
    with np.errstate(invalid="ignore"):
        auc = (hits * (of_alarms[:, np.newaxis] - passed + alarms / 2)).sum(axis=1) / (of_hits * of_alarms)
        below = passed <= false_alarms * of_alarms[:, np.newaxis] + 1e-9
        sensitivity = (hits * below).sum(axis=1) / of_hits
    return np.stack([auc, sensitivity])


def _seed_draws(count: int, samples: int, seed: int) -> NDArray[np.float64]:
    """`[count, 1 + samples]` weights of the seeds; the first column is all of them alike."""
    rng = np.random.default_rng((seed, 1))
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=samples).T / count
    return np.concatenate([np.full((count, 1), 1 / count), drawn], axis=1)


def _mean(runs: dict[int, NDArray[np.float64]], seed: int) -> tuple[Figure, Figure]:
    values = _over_seeds(runs, sorted(runs), seed)
    return _figure(values[0]), _figure(values[1])


def _ratio(
    own: dict[int, NDArray[np.float64]], other: dict[int, NDArray[np.float64]], seed: int
) -> tuple[Figure, Figure] | None:
    """Over the seeds that both have; None where they share none."""
    both = sorted(own.keys() & other.keys())
    if not both:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = _over_seeds(own, both, seed) / _over_seeds(other, both, seed)
    return _figure(ratio[0]), _figure(ratio[1])


def _over_seeds(runs: dict[int, NDArray[np.float64]], seeds: Sequence[int], seed: int) -> NDArray[np.float64]:
    """`[2, 1 + samples]`: means over drawn seeds."""
    stacked = np.stack([runs[number] for number in seeds])
    weights = _seed_draws(len(seeds), stacked.shape[2] - 1, seed)
    return np.asarray(np.einsum("sfk,sk->fk", stacked, weights))


def _figure(values: NDArray[np.float64]) -> Figure:
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (math.nan, math.nan)
    return Figure(value=float(values[0]), low=float(low), high=float(high))


def markdown(results: Sequence[ArmResult], *, false_alarms: float = FALSE_ALARMS) -> str:
    """The results as a table."""
    lines = [
        f"| trained on | real data | AUC (95 %) | sensitivity at {false_alarms:.0%} false alarms | AUC over real's "
        "| sensitivity over real's | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in results:
        ratios = ("1", "1") if one.arm == REFERENCE else (one.auc_ratio or "-", one.sensitivity_ratio or "-")
        lines.append(
            f"| {one.arm} | {one.share:.0%} | {one.auc} | {one.sensitivity} | {ratios[0]} | {ratios[1]} "
            f"| {one.verdict} |"
        )
    return "\n".join(lines)
