"""Rows of an evaluation about sets: distances in feature spaces, statistics of images, lesions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation import inception, perceptual, texture_features
from HiResMedSynthLib.evaluation.findings import (
    BEYOND,
    DIFFERS,
    NO_DIFFERENCE,
    NO_POWER,
    TOO_FEW,
    WINDOWS_DIFFER,
    WITHIN,
    Family,
    Row,
    patients,
)
from HiResMedSynthLib.evaluation.lesion_statistics import LesionNumbers, numbers_by_name
from HiResMedSynthLib.evaluation.measure_side import SideMeasures
from HiResMedSynthLib.evaluation.resampling import ALPHA, bonferroni, difference, patient_means, share_interval
from HiResMedSynthLib.evaluation.set_distances import (
    BETTER_HIGH,
    MANY,
    NEIGHBOURS,
    Pool,
    SetDistance,
    Step,
    frechet_of_many,
    set_distances,
)

SPACE_WORDS = {
    texture_features.SPACE: f"texture, {len(texture_features.feature_names())} features without weights",
    perceptual.SPACE: "ST-LPIPS VGG, 1472 features",
    inception.SPACE: "Inception v3 of torchvision, 2048 features",
}
WORDS = {
    "frechet": ("Frechet distance", "squared SD of the real set, summed over features"),
    "kid": ("KID", "squared discrepancy of the cubic kernel"),
    "precision": (f"precision, {NEIGHBOURS} neighbours", "share of synthetic images that lie among real ones"),
    "recall": (f"recall, {NEIGHBOURS} neighbours", "share of real images that lie among synthetic ones"),
    "density": (f"density, {NEIGHBOURS} neighbours", "how many real neighbourhoods hold a synthetic image, over k"),
    "coverage": (f"coverage, {NEIGHBOURS} neighbours", "share of real neighbourhoods that hold a synthetic image"),
}


def distance_rows(
    space: str, pool: Pool, real: SideMeasures, synthetic: SideMeasures, *, seed: int, step: Step
) -> list[Row]:
    """The distances in one feature space; one row that says why where there are too few patients."""
    where = SPACE_WORDS[space]
    try:
        found = set_distances(pool, real.groups, synthetic.groups, seed=seed, step=step)
    except SettingsError as error:
        return [
            Row.missing("sets", f"Frechet distance, KID, precision, recall ({where})", f"{error.what}. {error.remedy}")
        ]
    rows = [
        Row(
            family="sets",
            name=f"{WORDS[one.name][0]} ({where})",
            n=f"{one.patients} patients a side",
            value=one.value,
            low=one.low,
            high=one.high,
            floor=one.floor,
            floor_limit=one.floor_limit,
            unit="" if one.name not in ("frechet",) else "SD²",
            verdict=_verdict(one),
            reason=WINDOWS_DIFFER if synthetic.windows_differ else "",
            note=WORDS[one.name][1] + (_ratio(one.value, one.floor) if one.name == "frechet" else ""),
        )
        for one in found
    ]
    if found[0].patients < MANY:
        return rows
    many, floor = frechet_of_many(pool, real.groups, synthetic.groups, seed=seed)
    note = "a line over 1/n through three sizes; may fall below zero"
    n = f"up to {found[0].patients} patients a side"
    name = f"Frechet distance, extrapolated to many images ({where})"
    rows.insert(1, Row(family="sets", name=name, n=n, value=many, floor=floor, unit="SD²", note=note))
    return rows


def _verdict(one: SetDistance) -> str:
    """Within the floor only where the interval leaves out what a share of 0 can't be told from at that n."""
    if not one.within_floor:
        return BEYOND
    worst = 1 - (ALPHA / 2) ** (1 / one.patients)  # upper end of the exact interval of 0 of n
    return NO_POWER if one.name in BETTER_HIGH and one.low <= worst else WITHIN


def _ratio(value: float, floor: float) -> str:
    return f"; {value / floor:.2f} times the floor" if floor > 0 else ""


def statistic_rows(real: SideMeasures, synthetic: SideMeasures, *, seed: int) -> list[Row]:
    """Synthetic minus real of each statistic, p after Bonferroni's correction for all of them."""
    sides, groups = (real.statistics, synthetic.statistics), (real.groups, synthetic.groups)
    return _difference_rows("statistics", *sides, groups, seed=seed, windows_differ=synthetic.windows_differ)


def lesion_rows(real: Sequence[LesionNumbers], synthetic: Sequence[LesionNumbers], *, seed: int) -> list[Row]:
    """Synthetic lesions against real ones, and against the ranges of historical nodules."""
    if not synthetic:
        return [Row.missing("lesions", "lesions", "no synthetic image says where its lesions are")]
    made = numbers_by_name(synthetic)
    groups = [one.group for one in synthetic]
    rows = []
    for name, values in made.items():
        known = values[np.isfinite(values)]
        if len(known):
            low, middle, high = np.percentile(known, [5, 50, 95])
            note = f"median and 5 to 95 % points of the synthetic lesions ({len(known)} of {len(values)} measurable)"
            n = f"{len(known)} lesions of {patients(groups)}"
            rows.append(
                Row(family="lesions", name=name, n=n, value=float(middle), low=float(low), high=float(high), note=note)
            )
    for name in made:
        judged = [(one.historical[name], one.group) for one in synthetic if name in one.historical]
        if judged:
            hits, whose = np.array([hit for hit, _ in judged], dtype=np.float64), [group for _, group in judged]
            low, high = share_interval(hits, whose, seed=seed)
            rows.append(
                Row(
                    family="lesions",
                    name=f"{name}: share in the range of historical nodules",
                    n=f"{len(judged)} lesions of {patients(whose)}",
                    value=float(patient_means(hits, whose).mean()),
                    low=low,
                    high=high,
                    note="mean of the patients' shares; 90 % of real nodules (LIDC-IDRI) lie in it",
                )
            )
    if real:
        sides = (numbers_by_name(real), made)
        rows += _difference_rows("lesions", *sides, ([one.group for one in real], groups), seed=seed)
    else:
        rows.append(Row.missing("lesions", "difference to real lesions", "no real image says where its lesions are"))
    return rows


def _difference_rows(
    family: Family,
    real: Mapping[str, NDArray[np.float64]],
    synthetic: Mapping[str, NDArray[np.float64]],
    groups: tuple[Sequence[str], Sequence[str]],
    *,
    seed: int,
    windows_differ: bool = False,
) -> list[Row]:
    found = {name: difference(real[name], synthetic[name], groups, seed=seed) for name in synthetic if name in real}
    tests = sum(one is not None for one in found.values())
    if not tests:
        return [Row.missing(family, "differences to real images", "they need 2 patients a side")]
    rows = []
    for name, one in found.items():
        label = name if family == "statistics" else f"{name}: synthetic minus real"
        if one is None:
            rows.append(Row.missing(family, label, "it could be measured in fewer than 2 patients of a side"))
            continue
        few = _smallest_p(*one.patients) * tests >= ALPHA
        p = math.nan if few else bonferroni(one.p, tests)
        why = f"{tests} tests need {_needed(tests)} patients a side" if few else f"after correction for {tests} tests"
        why += "" if few else f" (p = {p:.2g})"
        rows.append(
            Row(
                family=family,
                name=label,
                n=f"{one.patients[0]} real, {one.patients[1]} synthetic patients",
                value=one.synthetic - one.real,
                low=one.low,
                high=one.high,
                floor_limit=one.floor,
                verdict=TOO_FEW if few else DIFFERS if p < ALPHA else NO_DIFFERENCE,
                reason=f"{why}; {WINDOWS_DIFFER}" if windows_differ else why,
                note=f"real {_number(one.real)}, synthetic {_number(one.synthetic)}",
                p=p,
            )
        )
    return rows


def _smallest_p(one: int, other: int) -> float:
    """What Mann-Whitney's test gives where all values of one side lie above all of the other."""
    return 2 / math.comb(one + other, one)


def _needed(tests: int) -> int:
    """The smallest number of patients a side at which so many corrected tests can be significant at all."""
    return next(n for n in itertools.count(2) if _smallest_p(n, n) * tests < ALPHA)


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "none"
