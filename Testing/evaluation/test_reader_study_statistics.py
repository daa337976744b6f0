"""Figures of a reader study against numbers worked by hand, published ones, and simulation; the paper's tables too."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from HiResMedSynthLib.evaluation.study_statistics import (
    auc,
    binomial_p,
    choice_d_prime,
    detectability,
    equivalence,
    fewest_trials,
    kappa,
    mcnemar_p,
    share,
)
from Testing.evaluation.published_readers import PAPER, mcnemar_corrected_p, recompute


def test_the_papers_tables_follow_from_their_counts_but_for_one_p_and_one_sentence() -> None:
    found = {(one.reader, one.figure): one for reader in PAPER for one in recompute(reader)}
    wrong = {name for name, one in found.items() if not one.follows}
    assert wrong == {("intermediate", "p of the accuracy"), ("intermediate", "synthetic images called real")}
    assert found["senior", "p of the accuracy"].computed == pytest.approx(2.65e-5, rel=0.01)
    p = found["intermediate", "p of the accuracy"]
    assert p.computed == pytest.approx(0.179, abs=5e-4)
    assert "McNemar with continuity correction (0.0452)" in p.said  # what the printed 0.046 comes nearest to
    assert found["senior", "kappa with the truth"].computed == pytest.approx(0.30)
    assert found["intermediate", "kappa with the truth"].computed == pytest.approx(0.10)


def test_intervals_of_a_share_are_those_of_the_textbooks() -> None:
    exact, wilson = share(8, 10), share(8, 10, "wilson")
    assert (exact.low, exact.high) == (pytest.approx(0.4439, abs=1e-4), pytest.approx(0.9748, abs=1e-4))
    assert (wilson.low, wilson.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    none = share(0, 20)
    assert none.low == 0
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 20))


def test_exact_p_values_by_counting() -> None:
    assert binomial_p(9, 10, 0.5) == pytest.approx(2 * 11 / 1024)
    assert mcnemar_p(1, 7) == pytest.approx(2 * (1 + 8) / 256)
    assert mcnemar_p(0, 0) == mcnemar_corrected_p(0, 0) == 1
    assert mcnemar_corrected_p(10, 20) == pytest.approx(math.erfc(9 / math.sqrt(30) / math.sqrt(2)))
    assert fewest_trials(0.5) == 6  # 2 / 2**6 < .05 <= 2 / 2**5
    assert fewest_trials(0.25) == 3  # 1 / 4**3 < .05 <= 1 / 4**2


def test_kappa_and_its_interval() -> None:
    # Cohen's textbook table: 20, 5, 10, 15 of 50; Fleiss, Cohen and Everitt's standard error by their formula
    found = kappa([[20, 5], [10, 15]])
    assert found is not None
    assert found.value == pytest.approx(0.4)
    rng = np.random.default_rng(1)
    drawn = rng.multinomial(50, np.array([20, 5, 10, 15]) / 50, size=4000)
    spread = np.std([one.value for row in drawn if (one := kappa(row.reshape(2, 2))) is not None])
    assert found.high is not None and found.low is not None
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(spread, rel=0.05)
    assert kappa([[7, 0], [0, 0]]) is None  # both said the same of all: not defined
    perfect = kappa([[5, 0], [0, 5]])
    assert perfect is not None and perfect.value == 1 and perfect.low is perfect.high is None


def test_detectability_is_symmetric_and_finite_at_the_ends() -> None:
    perfect = detectability(20, 20, 0, 20)
    assert 3.9 < perfect.d_prime.value < 4.1  # z(20.5/21) - z(.5/21), by the log-linear rule
    assert perfect.criterion == pytest.approx(0)
    guessing = detectability(5, 20, 5, 20)
    assert guessing.d_prime.value == pytest.approx(0)
    assert guessing.criterion > 0.5  # says "real" three times of four


@pytest.mark.parametrize(("alternatives", "d_prime"), [(2, 1.0), (4, 1.0), (4, 0.0), (2, 0.0)])
def test_forced_choice_gives_back_the_d_prime_of_a_simulated_observer(alternatives: int, d_prime: float) -> None:
    rng = np.random.default_rng(alternatives)
    seen = rng.normal(size=(40_000, alternatives))
    seen[:, 0] += d_prime
    correct = int((seen.argmax(1) == 0).sum())
    found = choice_d_prime(correct, len(seen), alternatives)
    assert found.value == pytest.approx(d_prime, abs=0.03)
    assert found.low is not None and found.high is not None
    assert found.low < d_prime < found.high
    assert choice_d_prime(10, 10, alternatives).high is None  # always right: no upper end
    assert choice_d_prime(3, 3 * alternatives, alternatives).value == pytest.approx(0, abs=1e-6)  # guessing is no skill


def test_the_area_counts_pairs_and_its_interval_has_the_spread_of_simulation() -> None:
    real, made = [1.0, 2, 2, 3], [2.0, 3, 4]
    wins = [1.0 if m > r else 0.5 if m == r else 0.0 for m, r in itertools.product(made, real)]
    assert auc(real, made).value == pytest.approx(sum(wins) / 12)
    assert auc([1, 1], [5, 5]).low is None  # separated: DeLong's variance is zero
    rng = np.random.default_rng(3)
    drawn = [auc(rng.normal(size=60), rng.normal(0.7, size=60)) for _ in range(400)]
    spread = float(np.std([one.value for one in drawn]))
    told = float(np.mean([(one.high or 0) - (one.low or 0) for one in drawn])) / 2 / 1.96
    assert told == pytest.approx(spread, rel=0.1)


def test_equivalence_needs_enough_answers() -> None:
    assert equivalence(50, 100, 0.5, 0.1).p > 0.02  # right in the middle, but 100 are few for 10 %
    assert equivalence(250, 500, 0.5, 0.1).p < 1e-4
    assert equivalence(400, 500, 0.5, 0.1).p > 0.99
    assert equivalence(130, 500, 0.25, 0.1).p < 0.001  # of four
