"""Answers are lines that survive; scores come from the answers and the key, and odd files are refused or reported."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from HiResMedSynthLib.evaluation.reader_study import LETTERS, Key, Study, StudyError
from HiResMedSynthLib.evaluation.study_answers import AnswersFile, read_answers
from HiResMedSynthLib.evaluation.study_report import as_html, as_json, as_text
from HiResMedSynthLib.evaluation.study_scores import score_study
from Testing.evaluation.study_folders import labelled_folder, small_study


def answer_all(study: Study, key: Key, reader: str, wrong: set[int], *, confidence: Any = lambda _right: 3) -> None:
    """Answers every trial rightly but for those numbers."""
    with AnswersFile(study) as answers:
        for number, trial in enumerate(study.trials(reader), start=1):
            made = [key.images[one.token].synthetic for one in trial]
            if len(trial) == 1:
                choice = "synthetic" if made[0] is (number not in wrong) else "real"
            else:
                choice = LETTERS[(made.index(True) + (number in wrong)) % len(trial)]
            answers.add(
                reader=reader, trial=number, choice=choice, confidence=confidence(number not in wrong), seconds=1.5
            )


def test_scores_of_two_readers_by_name(tmp_path: Path) -> None:
    study, key = small_study(tmp_path)
    made = [key.images[trial[0].token].synthetic for trial in study.trials("Ann")]
    wrong = {1 + made.index(True), 1 + made.index(False)}
    answer_all(study, key, "Ann", wrong, confidence=lambda right: 5 if right else 1)
    answer_all(study, key, "Ben", set())
    scores = score_study(study)
    ann, ben = scores.readers
    assert (ann.reader, ann.accuracy.value, ann.accuracy.n) == ("Ann", 0.75, 8)
    assert ben.p == pytest.approx(2 / 256)
    assert ben.yes_no is not None and ben.yes_no.confusion.table == ((4, 0), (0, 4))
    assert ben.yes_no.kappa_with_truth is not None and ben.yes_no.kappa_with_truth.value == 1
    assert ann.area is not None and ben.area is not None
    assert ben.area.value == 1
    assert ann.area.value == 15 / 16  # her wrong answers were guesses: only those two are in the wrong order
    assert [one and one.n for one in ann.by_confidence] == [2, None, None, None, 6]
    (pair,) = scores.pairs
    assert (pair.readers, pair.trials, pair.only_first_right, pair.only_second_right) == (("Ann", "Ben"), 8, 0, 2)
    assert pair.kappa is not None and pair.kappa.value == ann.yes_no.kappa_with_truth.value  # type: ignore[union-attr]
    text, page = as_text(scores), as_html(scores)
    assert "readers     Ann and Ben" in text and "75.0% (34.9% to 96.8%, Clopper-Pearson; n = 8)" in text
    assert "http" not in page.replace("<html", "") and "<script" not in page and "75.0% (34.9% to 96.8%" in page
    document = json.loads(as_json(scores))
    assert document["readers"][1]["area"] == {"value": 1.0, "low": None, "high": None, "n": 8, "method": "DeLong"}


def test_forced_choice_and_sizes(tmp_path: Path) -> None:
    labelled_folder(tmp_path / "real", 24)
    labelled_folder(tmp_path / "made", 8, first=50, radius=5)
    study, key = small_study(tmp_path, task="4afc")
    answer_all(study, key, "Ben", {1})
    (ben,) = score_study(study, interval="wilson").readers
    assert (ben.accuracy.value, ben.accuracy.method, ben.yes_no, ben.area) == (7 / 8, "Wilson", None, None)
    assert ben.choice_d_prime is not None and ben.choice_d_prime.value > 1.5
    assert ben.p < 0.001  # against 25 %
    assert sum(ben.positions.values()) == 8
    # balls of 5 voxels of .7 mm: a diameter of 7 mm of the synthetic ones, by which a choice is binned
    assert [(one.low_mm, one.high_mm, one.accuracy.n) for one in ben.by_size] == [(6, 10, 8)]


def test_a_line_cut_off_anywhere_costs_one_answer_and_is_said(tmp_path: Path) -> None:
    study, key = small_study(tmp_path)
    answer_all(study, key, "Ann", set())
    whole = study.answers_path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(last + 1, len(whole) - 1, 17):
        study.answers_path.write_bytes(whole[:end])
        with AnswersFile(study) as answers:
            assert answers.next_trial("Ann") == 8
            assert answers.add(reader="Ann", trial=8, choice="real", confidence=1, seconds=2) is None
        found = read_answers(study)
        assert len(found.by_reader["Ann"]) == 8 and found.cut_off == (8,)
        assert "line 8 of the answers was cut off" in as_text(score_study(study))
    study.answers_path.write_bytes(whole[:-1])  # only the line's end is missing: the answer itself is whole
    assert read_answers(study).cut_off == () and len(read_answers(study).by_reader["Ann"]) == 8


ODD = {
    "twice": (lambda line: line, "a second time"),
    "another study": (lambda line: {**line, "study": "0" * 16}, "another study"),
    "nobody": (lambda line: {**line, "reader": "Eve"}, "hasn't"),
    "trial 99": (lambda line: {**line, "trial": 99}, "hasn't"),
    "another choice": (lambda line: {**line, "trial": 2, "choice": "A"}, "wasn't offered"),
    "confidence 9": (lambda line: {**line, "confidence": 9}, "not valid at: confidence"),
    "a field too many": (lambda line: {**line, "x": 1}, "not valid at: x"),
    "a list": (lambda _line: [1], "not valid at: the whole line"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_file_that_the_study_did_not_write_is_refused(tmp_path: Path, name: str) -> None:
    study, _ = small_study(tmp_path)
    with AnswersFile(study) as answers:
        answers.add(reader="Ann", trial=1, choice="real", confidence=2, seconds=3.25)
    line = json.loads(study.answers_path.read_text())
    change, match = ODD[name]
    with study.answers_path.open("a") as stream:
        stream.write(json.dumps(change(line)) + "\n")
    for use in (read_answers, score_study, AnswersFile):
        with pytest.raises(StudyError, match=match):
            use(study)  # type: ignore[operator]


def test_bytes_by_chance_are_reported_or_refused_never_a_crash(tmp_path: Path) -> None:
    study, key = small_study(tmp_path)
    answer_all(study, key, "Ann", set())
    whole, rng = study.answers_path.read_bytes(), np.random.default_rng(11)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(damaged), int(rng.integers(1, 6))):
            damaged[place] = int(rng.integers(0, 256))
        study.answers_path.write_bytes(damaged)
        try:
            found = read_answers(study)
        except StudyError as error:
            assert "line" in str(error.where)
        else:
            assert len(found.by_reader["Ann"]) + len(found.cut_off) >= 7


def test_only_the_next_trial_can_be_answered_and_only_once(tmp_path: Path) -> None:
    study, _ = small_study(tmp_path)
    with AnswersFile(study) as answers:
        with pytest.raises(StudyError, match="served already"):
            AnswersFile(study)
        for trial in (0, 2, 9):
            with pytest.raises(StudyError, match="answered or not yet asked"):
                answers.add(reader="Ann", trial=trial, choice="real", confidence=1, seconds=1)
        with pytest.raises(StudyError, match="isn't offered"):
            answers.add(reader="Ann", trial=1, choice="B", confidence=1, seconds=1)
        assert answers.add(reader="Ann", trial=1, choice="real", confidence=1, seconds=1) == 2
        with pytest.raises(StudyError, match="answered or not yet asked"):
            answers.add(reader="Ann", trial=1, choice="synthetic", confidence=1, seconds=1)
        assert answers.next_trial("Ben") == 1
    assert len(study.answers_path.read_text().splitlines()) == 1
    with AnswersFile(study):  # the lock went with its owner
        pass


def test_a_full_disk_counts_nothing_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, _ = small_study(tmp_path)
    with AnswersFile(study) as answers:

        def full(_file: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        for match in ("No space left", "couldn't be written"):
            with pytest.raises(StudyError, match=match):
                answers.add(reader="Ann", trial=1, choice="real", confidence=1, seconds=1)
        assert answers.count("Ann") == 0
    monkeypatch.undo()
    with AnswersFile(study) as answers:  # the line had reached the file, whole: it counts, and isn't asked again
        assert answers.next_trial("Ann") == 2


@pytest.mark.skipif(os.name != "posix", reason="an open file can't be moved on Windows")
def test_answers_to_a_file_that_was_moved_are_refused_until_it_is_back(tmp_path: Path) -> None:
    study, _ = small_study(tmp_path)
    given = {"reader": "Ann", "choice": "real", "confidence": 3, "seconds": 1.0}
    with AnswersFile(study) as answers:
        answers.add(trial=1, **given)
        aside = study.answers_path.rename(tmp_path / "aside.jsonl")
        for stand_in in (False, True):  # gone, or another file in its place, as programs that synchronise do
            if stand_in:
                study.answers_path.write_bytes(aside.read_bytes())
            with pytest.raises(StudyError, match="moved or replaced"):
                answers.add(trial=2, **given)
        aside.rename(study.answers_path)
        assert answers.add(trial=2, **given) == 3
    assert [one.trial for one in read_answers(study).by_reader["Ann"]] == [1, 2]


def test_nothing_to_score_a_margin_that_cannot_be_and_a_changed_picture(tmp_path: Path) -> None:
    study, key = small_study(tmp_path)
    with pytest.raises(StudyError, match="nobody has answered"):
        score_study(study)
    answer_all(study, key, "Ann", set())
    with pytest.raises(StudyError, match="margin"):
        score_study(study, margin=0.5)
    path = study.folder / "images" / f"{next(iter(key.images))}.u16.gz"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StudyError, match="changed since"):
        score_study(study)
