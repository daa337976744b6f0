"""Published reader studies, recomputed from their counts: which printed figures follow from them, and which don't."""

from __future__ import annotations

from dataclasses import dataclass

from HiResMedSynthLib.evaluation.study_scores import Confusion, yes_no_figures
from HiResMedSynthLib.evaluation.study_statistics import binomial_p, mcnemar_p


@dataclass(frozen=True, kw_only=True)
class PublishedReader:
    """Counts of a reader, and the figures printed for them.

    Args:
        reader: who.
        confusion: the four counts.
        sensitivity, specificity, accuracy, kappa: as printed.
        p: as printed for accuracy against 50 %; `p_is_bound`: printed as "below".
        fooled: share of synthetic images called real, as the text has it; None where it has none.
    """

    reader: str
    confusion: Confusion
    sensitivity: float
    specificity: float
    accuracy: float
    kappa: float
    p: float
    p_is_bound: bool = False
    fooled: float | None = None


def _counts(real_as_real: int, synthetic_as_real: int) -> Confusion:
    return Confusion(
        real_as_real=real_as_real,
        real_as_synthetic=100 - real_as_real,
        synthetic_as_real=synthetic_as_real,
        synthetic_as_synthetic=100 - synthetic_as_real,
    )


# Tang et al. 2025 (the paper), Tables 3 and 4: 100 real and 100 synthetic KUB images, two urologists
PAPER = (
    PublishedReader(
        reader="senior",
        confusion=_counts(85, 55),
        sensitivity=0.85,
        specificity=0.45,
        accuracy=0.65,
        kappa=0.3,
        p=0.001,
        p_is_bound=True,
    ),
    PublishedReader(
        reader="intermediate",
        confusion=_counts(65, 55),
        sensitivity=0.65,
        specificity=0.45,
        accuracy=0.55,
        kappa=0.1,
        p=0.046,
        fooled=0.72,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Recomputed:
    """A printed figure beside the one that follows from the counts; `said` explains where they differ."""

    reader: str
    figure: str
    printed: float
    computed: float
    follows: bool
    said: str = ""


def mcnemar_corrected_p(one_way: int, other_way: int) -> float:
    """McNemar by chi-square with continuity correction, as many programs print it."""
    from scipy.stats import chi2

    total = one_way + other_way
    return float(chi2.sf(max(abs(one_way - other_way) - 1, 0) ** 2 / total, 1)) if total else 1.0


def recompute(published: PublishedReader) -> tuple[Recomputed, ...]:
    """Every printed figure of a reader, compared at the digits that were printed; p with the exact binomial test."""
    told = yes_no_figures(published.confusion)
    (kept, missed), (fooled, caught) = published.confusion.table
    total = kept + missed + fooled + caught
    assert told.sensitivity and told.specificity and told.kappa_with_truth
    figures = [
        ("sensitivity", published.sensitivity, told.sensitivity.value),
        ("specificity", published.specificity, told.specificity.value),
        ("accuracy", published.accuracy, (kept + caught) / total),
        ("kappa with the truth", published.kappa, told.kappa_with_truth.value),
    ]
    if published.fooled is not None:
        figures.append(("synthetic images called real", published.fooled, fooled / (fooled + caught)))
    found = [
        Recomputed(reader=published.reader, figure=name, printed=printed, computed=value,
                   follows=abs(printed - value) < 0.0051)
        for name, printed, value in figures
    ]  # fmt: skip
    exact = binomial_p(kept + caught, total, 0.5)
    follows = exact < published.p if published.p_is_bound else abs(exact - published.p) < 0.00051
    others = {
        "McNemar, exact": mcnemar_p(missed, fooled),
        "McNemar with continuity correction": mcnemar_corrected_p(missed, fooled),
    }
    name, nearest = min(others.items(), key=lambda item: abs(item[1] - published.p))
    said = (
        f"{kept + caught} right of {total} gives {exact:.3f} against 50 %. Nearest is {name} ({nearest:.4f}), which "
        f"compares {missed} with {fooled} wrong answers: a preference for one answer, not whether they can tell"
    )
    found.append(
        Recomputed(reader=published.reader, figure="p of the accuracy", printed=published.p, computed=exact,
                   follows=follows, said="" if follows else said)
    )  # fmt: skip
    return tuple(found)
