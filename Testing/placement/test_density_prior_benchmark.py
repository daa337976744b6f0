"""The benchmark of the densities: a preference that is there scores, and nobody is learned from and tested on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from Testing.benchmarks.density_prior import Learn, Learned, as_table, film_scores, held_out_nats, score
from Training.build_location_prior import FILM_TABLES, density

PATIENTS, EACH = 90, 4
PEOPLE = [f"p{k // EACH}" for k in range(PATIENTS * EACH)]


def learn_from(shares: NDArray[np.float64]) -> tuple[list[NDArray[np.bool_]], Learn]:
    kept_by_fold = []

    def learn(kept: NDArray[np.bool_]) -> Learned:
        kept_by_fold.append(kept)
        return Learned(density=density(shares[kept], 16, 1.0).astype(np.float64), shares=shares)

    return kept_by_fold, learn


def test_a_preference_scores_and_its_absence_does_not() -> None:
    shares = np.random.default_rng(0).uniform(size=(len(PEOPLE), 2))
    _, learn = learn_from(shares)
    assert score(PEOPLE, learn)["density"][0] < 0
    _, learn = learn_from(shares * (0.5, 1))
    mean, low, _ = score(PEOPLE, learn)["density"]
    assert 0 < low < mean < np.log(2)  # half of the box holds all: that is all there is to know


def test_no_patient_is_learned_from_and_tested_on() -> None:
    homes = np.random.default_rng(1).uniform(size=(PATIENTS, 2))
    shares = np.repeat(homes, EACH, axis=0)  # what a patient's own lesions would give away
    kept_by_fold, learn = learn_from(shares)
    assert score(PEOPLE, learn)["density"][0] < 0
    names = np.array(PEOPLE)
    for kept in kept_by_fold:
        assert not set(names[kept]) & set(names[~kept])
    assert (np.sum(kept_by_fold, axis=0) == len(kept_by_fold) - 1).all()  # each is tested on once


def test_places_outside_the_support_are_left_out() -> None:
    shares = np.array([[0.2, 0.2], [0.2, 0.8], [1.2, 0.5], [0.3, 0.3]])
    support = np.zeros((4, 4), dtype=bool)
    support[:, :2] = True
    grid = np.ones((4, 4))

    nats = held_out_nats(
        np.array([0, 0, 0, -1]), lambda _: Learned(density=grid, shares=shares, support=support, lungs=grid)
    )
    assert np.isnan(nats[1:]).all()  # beside the support, outside of the box, only learned from
    assert nats[0].tolist() == pytest.approx([0, 0])


def test_the_tables_of_films_are_read_with_their_patients(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for name, key in zip(FILM_TABLES, ("image", "patient_id"), strict=True):
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow((key, "label", "cy_rel", "cx_rel"))
            for number in range(60):  # two of each, low in the right lung
                place = (0.55 + 0.05 * rng.uniform(), 0.25 + 0.1 * rng.uniform())
                writer.writerow((f"{number // 2}", "Nodule", *place))
            writer.writerow(("99", "Mass", 0.5, 0.5))
    found = film_scores(tmp_path)
    inside = found["chest film, in the lung box"]
    assert (inside["lesions"], inside["groups"]) == (120, 60)  # a film's number is no patient's
    assert inside["density"][1] > 1
    assert inside["density over blurred"][1] > 0
    other = found["the same, nih_bbox_2017.csv, learned on the other table"]
    assert (other["lesions"] + other["left out"], other["density"][1] > 0) == (60, True)
    assert as_table(found).count("\n") == 1 + len(found)
