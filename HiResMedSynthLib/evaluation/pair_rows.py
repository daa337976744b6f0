"""Rows of an evaluation about pairs, and about two synthetic sets on the same pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from HiResMedSynthLib.evaluation.findings import DIFFERS, NO_DIFFERENCE, TOO_FEW, Row, patients
from HiResMedSynthLib.evaluation.metrics import PAPER_BITS, PAPER_DB
from HiResMedSynthLib.evaluation.pairs import (
    LPIPS,
    MS_SSIM,
    NMSE,
    PLACES,
    PSNR,
    SMALLEST_MASK,
    SSIM,
    ST_LPIPS,
    PairNumbers,
    finite,
)
from HiResMedSynthLib.evaluation.perceptual import SIDE
from HiResMedSynthLib.evaluation.resampling import (
    ALPHA,
    bonferroni,
    mean_interval,
    paired_p,
    patient_means,
    smallest_paired_p,
)

ORDER = [(metric, place) for metric in (PSNR, NMSE, SSIM, MS_SSIM) for place in PLACES]
ORDER += [(ST_LPIPS, "whole"), (LPIPS, "whole")]
PLACE_WORDS = {"whole": "", "inside": ", inside lesions", "outside": ", outside lesions"}
NOTES = {
    PSNR: "median of the patients",
    NMSE: "mean; squared error over the squares of the real image",
    SSIM: "mean; Gaussian of 11 pixels",
    MS_SSIM: "mean; five scales, in a mask by its share of each coarser pixel",
    ST_LPIPS: f"mean; shift-tolerant LPIPS (VGG) at {SIDE} pixels, of evenly spaced pairs (--perceptual-pairs)",
    LPIPS: f"mean; AlexNet at {SIDE} pixels, of evenly spaced pairs (--perceptual-pairs)",
}


def pair_rows(
    pairs: Sequence[PairNumbers],
    missing: Mapping[str, str],
    real_to_real: Mapping[tuple[str, str], Sequence[float]],
    *,
    unit: str,
    seed: int,
) -> list[Row]:
    """Rows of the pairs.

    Args:
        pairs: from `measure_pairs`.
        missing: metrics that couldn't be measured, and why.
        real_to_real: the same metrics of pairs of different real images: what no relation at all scores.
        unit: what the range 0..1 stands for, the peak of PSNR.
        seed: of the bootstrap.
    """
    rows = []
    for metric, place in ORDER:
        name = f"{metric}{PLACE_WORDS[place]}"
        held = [(one.values[metric, place], one.group) for one in pairs if (metric, place) in one.values]
        if not held:
            if place == "whole" or any((PSNR, place) in one.values for one in pairs):
                rows.append(Row.missing("pairs", name, _why(metric, missing)))
            elif metric == PSNR:
                rows.append(
                    Row.missing("pairs", name, f"no pair says where its lesions are ({SMALLEST_MASK} px or more)")
                )
            continue
        values, groups = np.array([value for value, _ in held]), [group for _, group in held]
        equal = int(np.isinf(values).sum())
        note = NOTES[metric] + (f"; peak {unit}" if metric == PSNR else "")
        of = f" of {len(pairs)}" if metric in (ST_LPIPS, LPIPS) and len(values) < len(pairs) else ""
        n = f"{len(values)}{of} pairs of {patients(groups)}"
        if equal:
            note += f"; {equal} of {len(values)} pairs have equal pixels there (infinite)"
        middle = np.median if metric == PSNR else np.mean
        low = high = math.nan
        if equal:
            value = float(np.median(values))  # infinite where most are
        else:
            value = float(middle(patient_means(values, groups)))
            if len(set(groups)) > 1:
                low, high = mean_interval(values, groups, seed=seed, of=middle)
        floor = finite(real_to_real.get((metric, place), ()))
        rows.append(
            Row(
                family="pairs",
                name=name,
                n=n,
                value=value,
                low=low,
                high=high,
                floor=float(middle(floor)) if len(floor) else math.nan,
                unit="dB" if metric == PSNR else "",
                note=note,
            )
        )
        if (metric, place) == (PSNR, "whole"):
            rows.append(_curiosity(rows[-1]))
    return rows


def _why(metric: str, missing: Mapping[str, str]) -> str:
    if metric in missing:
        return missing[metric]
    if metric == MS_SSIM:
        return "five scales need images of 161 pixels and more"
    if metric == NMSE:
        return "the real images are black there in this window, so an error has nothing to be a share of"
    return "it was left out (--perceptual-pairs 0)" if metric in (ST_LPIPS, LPIPS) else "no pair could be measured"


def _curiosity(psnr: Row) -> Row:
    """The paper's Eq. 20 with its n = 24: the same figure plus a constant."""
    value = None if psnr.value is None else psnr.value + PAPER_DB
    note = (
        f"a curiosity: PSNR plus {PAPER_DB:.2f} dB, the paper's Eq. 20 with n = {PAPER_BITS} on differences of 8 bits. "
        "It says nothing more, can't have given the paper's Table 2, and must not be compared with it"
    )
    name = f"PSNR with a peak of {PAPER_BITS} bits"
    return Row(family="pairs", name=name, n=psnr.n, value=value, unit="dB", note=note)


def method_rows(one: Sequence[PairNumbers], other: Sequence[PairNumbers], *, names: tuple[str, str]) -> list[Row]:
    """Paired tests of two synthetic sets on the same real images, p after Bonferroni's correction.

    Args:
        one, other: pairs of the two sets; those of the same name are compared.
        names: of the two sets, for people.
    """
    by_name = {pair.name: pair for pair in other}
    both = [(pair, by_name[pair.name]) for pair in one if pair.name in by_name]
    found = {}
    for key in ORDER:
        held = [(a.values[key], b.values[key], a.group) for a, b in both if key in a.values and key in b.values]
        held = [row for row in held if math.isfinite(row[0]) and math.isfinite(row[1])]
        if len({group for *_, group in held}) >= 2:
            found[key] = held
    if not found:
        why = f"the two sets share fewer than 2 patients' pairs of the same name ({len(both)} pairs)"
        return [Row.missing("methods", "paired tests", why)]
    rows = []
    for (metric, place), held in found.items():
        first, second = (np.array([row[k] for row in held]) for k in (0, 1))
        groups = [row[2] for row in held]
        low, high = mean_interval(second - first, groups, seed=0)
        few = smallest_paired_p(len(set(groups))) * len(found) >= ALPHA
        p = math.nan if few else bonferroni(paired_p(first, second, groups), len(found))
        told = f"p {p:.2g} after correction for {len(found)} tests"
        if few:
            told = f"{len(found)} tests need {_needed(len(found))} patients"
        rows.append(
            Row(
                family="methods",
                name=f"{metric}{PLACE_WORDS[place]}",
                n=f"{len(held)} pairs of {patients(groups)}",
                value=float(patient_means(second - first, groups).mean()),
                low=low,
                high=high,
                unit="dB" if metric == PSNR else "",
                verdict=TOO_FEW if few else DIFFERS if p < ALPHA else NO_DIFFERENCE,
                note=f"{names[1]} minus {names[0]}, mean of patients; Wilcoxon signed ranks, {told}",
                p=p,
            )
        )
    return rows


def _needed(tests: int) -> int:
    """The smallest number of patients at which so many corrected tests can be significant at all."""
    return next(n for n in itertools.count(2) if smallest_paired_p(n) * tests < ALPHA)
