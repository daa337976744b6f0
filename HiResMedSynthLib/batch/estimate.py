"""What a data set will be before it is made: counts, bytes and time, from a few cases that are made and thrown away."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from HiResMedSynthLib.batch.making import Maker, Outcome
from HiResMedSynthLib.batch.plan import Plan
from HiResMedSynthLib.batch.run import grouped

CASES_TRIED = 6
SECONDS_TRIED = 60.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What was found.

    Args:
        tried: outcomes of the cases that were made; the first of them also loads the models.
        seconds: for the whole data set with so many workers, or None where none of the cases could be made.
        bytes: of the whole data set, or None.
    """

    tried: tuple[Outcome, ...]
    seconds: float | None
    bytes: int | None


def estimated(plan: Plan, *, workers: int) -> Estimate:
    """Makes up to six cases (a minute at most) in a temporary folder and scales what they took.

    Cases of one background share its preparation, so cases of several backgrounds are tried, and each background of
    the data set is counted once.
    """
    first_of_each = [group[0] for group in grouped(plan, range(1, min(plan.count, 2000) + 1))]
    step = max(len(first_of_each) // CASES_TRIED, 1)
    numbers = first_of_each[::step][:CASES_TRIED]
    tried: list[Outcome] = []
    prepared: list[float] = []
    again: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        maker = Maker(plan, Path(folder))
        start = time.perf_counter()
        maker.make(numbers[0])  # loads the models, which a run does once
        for number in numbers:
            maker.grounds.clear()
            maker.source = None
            outcome = maker.make(number)
            tried.append(outcome)
            if not outcome.failure:
                prepared.append(outcome.seconds)
                again.append(maker.make(number).seconds)
            if time.perf_counter() - start > SECONDS_TRIED:
                break
    made = [outcome for outcome in tried if not outcome.failure]
    if not made:
        return Estimate(tried=tuple(tried), seconds=None, bytes=None)
    each, first = sum(again) / len(again), sum(prepared) / len(prepared)
    backgrounds = min(len(plan.backgrounds), plan.count)
    seconds = (backgrounds * first + (plan.count - backgrounds) * each) / workers
    return Estimate(
        tried=tuple(tried), seconds=seconds, bytes=round(plan.count * sum(one.bytes for one in made) / len(made))
    )


def summary(plan: Plan) -> str:
    """Counts of the plan, several lines."""
    sides: Counter[str] = Counter()
    lesions: Counter[str] = Counter()
    negatives: Counter[str] = Counter()
    for number in range(1, plan.count + 1):
        case = plan.case(number)
        sides[case.side] += 1
        negatives[case.side] += case.negative
        lesions[case.side] += 0 if case.negative else len(case.requests)
    patients = Counter(plan.split.patients.values())
    donors = Counter(plan.split.donors.values())
    lines = [f"{plan.count} cases in {len(plan.backgrounds)} background(s) of {len(plan.by_patient)} patient(s)"]
    lines += [
        f"  {side:<5} {sides[side]} cases ({negatives[side]} negative), {lesions[side]} lesions, "
        f"{patients[side]} patient(s), {donors[side]} donors"
        for side in plan.split.shares
    ]
    lines.append(f"  {_written(plan)}")
    return "\n".join(lines)


def _written(plan: Plan) -> str:
    """What is written of each case, one clause."""
    output = plan.spec.output
    parts = [f"SEG {output.seg}", "SR" if output.sr else "no SR", output.compress or "uncompressed"]
    formats = [f"dicom ({', '.join(parts)})" if name == "dicom" else name for name in output.formats]
    return f"as {', '.join(formats)}" + ("; lesions marked invisibly" if plan.spec.cases.watermark else "")
