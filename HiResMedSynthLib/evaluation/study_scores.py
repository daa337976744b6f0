"""score_study: what the answers say, each figure with its n and interval, by reader and between readers, by name."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from HiResMedSynthLib.evaluation.reader_study import LETTERS, Key, Study, StudyError, Task, read_key
from HiResMedSynthLib.evaluation.study_answers import MOST_CONFIDENT, Answer, read_answers
from HiResMedSynthLib.evaluation.study_statistics import (
    Detectability,
    Equivalence,
    Estimate,
    Interval,
    auc,
    binomial_p,
    choice_d_prime,
    detectability,
    equivalence,
    kappa,
    mcnemar_p,
    share,
)

SIZE_BINS_MM = ((0.0, 6.0), (6.0, 10.0), (10.0, 20.0), (20.0, float("inf")))
MARGIN = 0.1  # of accuracy around chance that counts as "can't tell"


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts of a yes/no reader."""

    real_as_real: int
    real_as_synthetic: int
    synthetic_as_real: int
    synthetic_as_synthetic: int

    @property
    def table(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows: real, synthetic; columns: called real, called synthetic."""
        return (
            (self.real_as_real, self.real_as_synthetic),
            (self.synthetic_as_real, self.synthetic_as_synthetic),
        )


@dataclass(frozen=True, kw_only=True)
class YesNoFigures:
    """Figures of a confusion matrix; sensitivity is of real images, specificity of synthetic ones, as the paper has it.

    `bias_p`: McNemar's exact p that real images called synthetic and synthetic ones called real differ in number: the
    reader prefers one answer; it doesn't say whether they can tell. None where a side has no answer yet.
    """

    confusion: Confusion
    sensitivity: Estimate | None
    specificity: Estimate | None
    kappa_with_truth: Estimate | None
    bias_p: float
    detectability: Detectability | None


@dataclass(frozen=True, kw_only=True)
class BySize:
    """Accuracy on images whose lesion (of a choice: the synthetic one) has a size from `low_mm` to below `high_mm`."""

    low_mm: float
    high_mm: float | None
    accuracy: Estimate


@dataclass(frozen=True, kw_only=True)
class ReaderScore:
    """All figures of a reader.

    Args:
        reader: name.
        answered, trials: how far they came.
        accuracy: share of right answers; `p` its exact two-sided p against guessing.
        equivalence: whether it is shown to be as good as guessing.
        yes_no: of a yes/no study.
        area: under the ROC curve of answer and confidence together; yes/no only.
        roc: its points (false alarms, hits), synthetic being the signal.
        choice_d_prime: d' of a forced choice.
        positions: how often each letter was chosen.
        by_size: accuracy by size of the lesion.
        by_confidence: accuracy by confidence, 1 to 5; None where it wasn't used.
        median_seconds: time of an answer.
    """

    reader: str
    answered: int
    trials: int
    accuracy: Estimate
    p: float
    equivalence: Equivalence
    yes_no: YesNoFigures | None
    area: Estimate | None
    roc: tuple[tuple[float, float], ...]
    choice_d_prime: Estimate | None
    positions: dict[str, int]
    by_size: tuple[BySize, ...]
    by_confidence: tuple[Estimate | None, ...]
    median_seconds: float


@dataclass(frozen=True, kw_only=True)
class PairScore:
    """Two readers on the trials that both answered.

    `kappa` is of what they called an image (yes/no), or of right and wrong (choice); `mcnemar_p` says whether one of
    them is right more often.
    """

    readers: tuple[str, str]
    trials: int
    kappa: Estimate | None
    only_first_right: int
    only_second_right: int
    mcnemar_p: float


@dataclass(frozen=True, kw_only=True)
class StudyScores:
    """All scores of a study; `notes` say what weakens them."""

    task: Task
    chance: float
    study_sha256: str
    readers: tuple[ReaderScore, ...]
    pairs: tuple[PairScore, ...]
    notes: tuple[str, ...]


def score_study(
    study: Study, *, key: Path | None = None, margin: float = MARGIN, interval: Interval = "exact"
) -> StudyScores:
    """The scores of all readers who answered anything.

    Args:
        study: opened; its pictures are checked by their hashes.
        key: where the key is kept, if not in the study.
        margin: of accuracy around chance within which a reader counts as guessing.
        interval: of shares.

    Raises:
        StudyError: nobody answered, a picture was changed, or answers or key don't belong to the study.
    """
    chance = 1 / max(2, study.alternatives)
    if not 0 < margin < chance:
        raise StudyError(f"a margin of {margin:g} can't be", remedy=f"Take --margin between 0 and {chance:g}.")
    study.check_pictures()
    truth, answers = read_key(study, key), read_answers(study)
    asked = {reader: _judged(study, truth, given) for reader, given in answers.by_reader.items() if given}
    if not asked:
        raise StudyError("nobody has answered yet", where=study.folder, remedy="Run 'hiresmedsynth study serve' first.")
    notes = [*truth.notes]
    notes += [
        f"line {number} of the answers was cut off; its trial counts as not answered" for number in answers.cut_off
    ]
    notes += [
        f"reader {reader} answered {len(given)} of {len(study.trials(reader))} trials"
        for reader, given in answers.by_reader.items()
        if len(given) < len(study.trials(reader))
    ]
    return StudyScores(
        task=study.design.task,
        chance=chance,
        study_sha256=study.sha256,
        readers=tuple(_reader(reader, study, given, chance, margin, interval) for reader, given in asked.items()),
        pairs=tuple(_pair(one, other, asked) for one, other in itertools.combinations(asked, 2)),
        notes=tuple(notes),
    )


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """An answer with what is true: of yes/no whether the image is synthetic; `called` what is compared with others."""

    answer: Answer
    name: str
    is_synthetic: bool
    right: bool
    called: bool
    size_mm: float | None


def _judged(study: Study, key: Key, answers: Sequence[Answer]) -> list[_Judged]:
    found = []
    for answer in answers:
        shown = [one.token for one in study.trials(answer.reader)[answer.trial - 1]]
        made = [token for token in shown if key.images[token].synthetic]
        if study.alternatives == 1:
            called = answer.choice == "synthetic"
            right, target = called == bool(made), shown[0]
        else:
            target = made[0]
            called = right = shown[LETTERS.index(answer.choice)] == target
        found.append(
            _Judged(
                answer=answer,
                name=" ".join(sorted(shown)),
                is_synthetic=bool(made),
                right=right,
                called=called,
                size_mm=key.images[target].size_mm,
            )
        )
    return found


def _reader(
    reader: str, study: Study, given: Sequence[_Judged], chance: float, margin: float, interval: Interval
) -> ReaderScore:
    right, n = sum(one.right for one in given), len(given)
    is_yes_no = study.alternatives == 1
    ratings = [[_rating(one) for one in given if one.is_synthetic is kind] for kind in (False, True)]
    rated = is_yes_no and all(ratings)
    levels = [[one for one in given if one.answer.confidence == k + 1] for k in range(MOST_CONFIDENT)]
    return ReaderScore(
        reader=reader,
        answered=n,
        trials=len(study.trials(reader)),
        accuracy=share(right, n, interval),
        p=binomial_p(right, n, chance),
        equivalence=equivalence(right, n, chance, margin),
        yes_no=yes_no_figures(_confusion(given), interval) if is_yes_no else None,
        area=auc(*ratings) if rated else None,
        roc=_roc(*ratings) if rated else (),
        choice_d_prime=None if is_yes_no else choice_d_prime(right, n, study.alternatives),
        positions={} if is_yes_no else {c: sum(one.answer.choice == c for one in given) for c in study.choices()},
        by_size=_by_size(given, interval),
        by_confidence=tuple(share(sum(j.right for j in one), len(one), interval) if one else None for one in levels),
        median_seconds=float(np.median([one.answer.seconds for one in given])),
    )


def yes_no_figures(confusion: Confusion, interval: Interval = "exact") -> YesNoFigures:
    """The figures that follow from four counts."""
    (kept, missed), (fooled, caught) = confusion.table
    real, made = kept + missed, fooled + caught
    return YesNoFigures(
        confusion=confusion,
        sensitivity=share(kept, real, interval) if real else None,
        specificity=share(caught, made, interval) if made else None,
        kappa_with_truth=kappa(confusion.table),
        bias_p=mcnemar_p(missed, fooled),
        detectability=detectability(caught, made, missed, real) if real and made else None,
    )


def _confusion(given: Sequence[_Judged]) -> Confusion:
    counts = {(a, b): sum(one.is_synthetic is a and one.called is b for one in given)
              for a in (False, True) for b in (False, True)}  # fmt: skip
    return Confusion(
        real_as_real=counts[False, False],
        real_as_synthetic=counts[False, True],
        synthetic_as_real=counts[True, False],
        synthetic_as_synthetic=counts[True, True],
    )


def _rating(one: _Judged) -> float:
    """-5 (surely real) to 5 (surely synthetic)."""
    return one.answer.confidence if one.called else -one.answer.confidence


def _roc(real: Sequence[float], made: Sequence[float]) -> tuple[tuple[float, float], ...]:
    cuts = sorted({*real, *made}, reverse=True)
    points = [(float(np.mean(np.array(real) >= cut)), float(np.mean(np.array(made) >= cut))) for cut in cuts]
    return ((0.0, 0.0), *points)


def _by_size(given: Sequence[_Judged], interval: Interval) -> tuple[BySize, ...]:
    found = []
    for low, high in SIZE_BINS_MM:
        held = [one.right for one in given if one.size_mm is not None and low <= one.size_mm < high]
        if held:
            end = None if high == float("inf") else high
            found.append(BySize(low_mm=low, high_mm=end, accuracy=share(sum(held), len(held), interval)))
    return tuple(found)


def _pair(one: str, other: str, asked: dict[str, list[_Judged]]) -> PairScore:
    first, second = ({judged.name: judged for judged in asked[reader]} for reader in (one, other))
    both = [(first[name], second[name]) for name in first if name in second]
    table = [[sum((a.called, b.called) == (p, q) for a, b in both) for q in (False, True)] for p in (False, True)]
    only_first = sum(a.right and not b.right for a, b in both)
    only_second = sum(b.right and not a.right for a, b in both)
    return PairScore(
        readers=(one, other),
        trials=len(both),
        kappa=kappa(table) if both else None,
        only_first_right=only_first,
        only_second_right=only_second,
        mcnemar_p=mcnemar_p(only_first, only_second),
    )
