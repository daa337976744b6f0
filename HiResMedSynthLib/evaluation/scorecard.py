"""The seven criteria of the FDA's scorecard of synthetic medical data, filled in from what was measured and no more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.annotation_sets import NEAR_COPY
from HiResMedSynthLib.evaluation.comparable import PictureFacts, Shared, alike
from HiResMedSynthLib.evaluation.findings import DIFFERS, NO_DIFFERENCE, TOO_FEW, WINDOWS_DIFFER, Criterion, Row, shown
from HiResMedSynthLib.evaluation.measure_side import SideMeasures

ASKS = {
    "congruence": "Do synthetic images follow the distribution of real ones?",
    "coverage": "Do they span the variety of real ones?",
    "constraint": "Do they keep to what anatomy and physics allow?",
    "completeness": "Is everything there that a user needs: geometry, modality, labels?",
    "compliance": "Are they marked as synthetic, and no copies of patients?",
    "comprehension": "Is it told how each was made?",
    "consistency": "Is the set alike throughout?",
}
USUAL = (0.5, 99.5)  # percentiles of the real images


def scorecard(
    rows: Sequence[Row],
    real: SideMeasures,
    synthetic: SideMeasures,
    *,
    shared: Sequence[Shared],
    likeness: NDArray[np.float64],
    halves: tuple[float, float] | None,
) -> tuple[Criterion, ...]:
    """The seven criteria.

    Args:
        rows: of the evaluation.
        real, synthetic: what was measured.
        shared: patients on both sides.
        likeness: `[synthetic]` to the nearest real picture.
        halves: Frechet distance between halves of the synthetic set, and between halves of the real one at the same n;
            None where there are too few.
    """
    made = synthetic.facts
    measured = {
        "congruence": _figures(rows, ("Frechet distance (", "KID (", "precision")) + _tested(rows),
        "coverage": [*_figures(rows, ("recall", "coverage")), *_variety(made)],
        "constraint": [
            "Anatomy: not measured.",
            *_usual(real, synthetic),
            *_figures(rows, ("diameter, mm: share", "contrast, HU: share")),
        ],
        "completeness": _complete(made),
        "compliance": [*_marked(made), _copies(shared, likeness)],
        "comprehension": _described(made),
        "consistency": _halves(halves),
    }
    return tuple(
        Criterion(name=name, asks=ASKS[name], measured=tuple(sentences)) for name, sentences in measured.items()
    )


def _figures(rows: Sequence[Row], starts: tuple[str, ...]) -> list[str]:
    found = []
    for row in rows:
        if row.name.startswith(starts) and row.value is not None and row.family in ("sets", "lesions"):
            floor = "" if np.isnan(row.floor) else f", real against real {shown(row.floor)}"
            interval = "" if np.isnan(row.low) else f" ({shown(row.low)} to {shown(row.high)})"
            verdict = f": {row.verdict}" + (f" ({row.reason})" if row.reason else "") if row.verdict else ""
            found.append(f"{row.name}: {shown(row.value)}{interval}{floor}, {row.n}{verdict}.")
    return found


def _tested(rows: Sequence[Row]) -> list[str]:
    tested = [row for row in rows if row.family == "statistics" and row.verdict in (DIFFERS, NO_DIFFERENCE)]
    differ = [row.name for row in tested if row.verdict == DIFFERS]
    if not tested:
        few = [row.reason for row in rows if row.family == "statistics" and row.verdict == TOO_FEW]
        return [f"Statistics against real ones: {TOO_FEW} ({few[0]})."] if few else []
    names = f" ({'; '.join(differ[:4])}{'; ...' if len(differ) > 4 else ''})" if differ else ""
    windows = f"; {WINDOWS_DIFFER}" if any(WINDOWS_DIFFER in row.reason for row in tested) else ""
    return [
        f"{len(differ)} of {len(tested)} statistics differ from real ones after Bonferroni's correction{names}"
        f"{windows}."
    ]


def _variety(made: Sequence[PictureFacts]) -> list[str]:
    return [f"{alike(made)} of {len(made)} synthetic images are copies or near copies of another synthetic patient's."]


def _usual(real: SideMeasures, synthetic: SideMeasures) -> list[str]:
    inside: list[bool] = []
    for name, values in synthetic.statistics.items():
        known, made = (side[np.isfinite(side)] for side in (real.statistics[name], values))
        if len(known):
            low, high = np.percentile(known, USUAL)
            inside += ((made >= low) & (made <= high)).tolist()
    if not inside:
        return []
    return [
        f"Grey values and noise: {np.mean(inside):.0%} of the statistics of synthetic images lie within the range of "
        "the real images' own."
    ]


def _complete(made: Sequence[PictureFacts]) -> list[str]:
    parts = {
        "pixel spacing": sum(one.spacing_mm is not None for one in made),
        "modality": sum(bool(one.kind) for one in made),
        "a display window": sum(one.window is not None for one in made),
        "lesion labels": sum(one.lesions for one in made),
    }
    told = ", ".join(f"{name} {count}" for name, count in parts.items())
    return [f"Of {len(made)} synthetic images so many tell: {told}."]


def _marked(made: Sequence[PictureFacts]) -> list[str]:
    count = sum(one.synthetic for one in made)
    return [f"{count} of {len(made)} synthetic images are marked as such in their header (0008,001C)."]


def _copies(shared: Sequence[Shared], likeness: NDArray[np.float64]) -> str:
    return (
        f"{len(shared)} synthetic images are of a patient of the real side (identity, equal pixels or near copy); the "
        f"largest likeness to a real image is {likeness.max():.3f}, near copies lie above {NEAR_COPY:g}. Only the real "
        "images given here were looked at: give the training images to learn whether they were memorised."
    )


def _described(made: Sequence[PictureFacts]) -> list[str]:
    count = sum(one.described for one in made)
    return [f"Beside {count} of {len(made)} synthetic images a file tells how they were made."] if count else []


def _halves(halves: tuple[float, float] | None) -> list[str]:
    if halves is None:
        return []
    return [
        f"Halves of the synthetic set are {shown(halves[0])} SD² apart (Frechet distance), halves of the real set at "
        f"the same number {shown(halves[1])}: a smaller figure means less variety, a larger one a set of unlike parts."
    ]
