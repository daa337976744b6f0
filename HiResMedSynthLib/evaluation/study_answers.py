"""answers.jsonl: every answer is one line, written and synced before the next image is shown; lines are only added.

A process killed in the middle of a line leaves it cut off: it is reported, and its trial is asked again.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from HiResMedSynthLib.evaluation.reader_study import STRICT, Study, StudyError

MOST_CONFIDENT = 5
LARGEST_FILE = 256 * 2**20


class Answer(BaseModel):
    """One line.

    Args:
        study: hash of design.json, first 16 digits.
        trial: number in the reader's own order, from 1.
        choice: "real" or "synthetic", or the letter of the picture taken for synthetic.
        confidence: 1 (guessed) to 5 (certain).
        seconds: that the trial was in sight, pauses left out, as the page measured them.
        time: when it was written, UTC.
    """

    model_config = STRICT

    study: str
    reader: str
    trial: int = Field(ge=1)
    choice: str
    confidence: int = Field(ge=1, le=MOST_CONFIDENT)
    seconds: float = Field(ge=0, le=1e7, allow_inf_nan=False)
    time: str


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the file holds: answers by reader, in the order of their trials, and the numbers of lines cut off."""

    by_reader: dict[str, tuple[Answer, ...]]
    cut_off: tuple[int, ...]


def read_answers(study: Study) -> Answers:
    """The answers given so far.

    Raises:
        StudyError: an answer is of another study, of nobody's trial, or given twice.
    """
    try:
        if study.answers_path.stat().st_size > LARGEST_FILE:
            raise StudyError(
                "this is too large to be a file of answers",
                where=study.answers_path,
                remedy="Check that it is the right file.",
            )
        lines = study.answers_path.read_bytes().split(b"\n")
    except FileNotFoundError:
        lines = []
    except OSError as error:
        raise StudyError(
            f"the answers can't be read ({error.strerror})",
            where=study.answers_path,
            remedy="Check that you may read the file.",
        ) from error
    found: dict[str, dict[int, Answer]] = {reader: {} for reader in study.design.readers}
    cut_off = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            cut_off.append(number)
            continue
        answer = _checked(document, study, number)
        if answer.trial in found[answer.reader]:
            raise _odd(study, number, f"reader {answer.reader} answers trial {answer.trial} a second time")
        found[answer.reader][answer.trial] = answer
    ordered = {reader: tuple(given[k] for k in sorted(given)) for reader, given in found.items()}
    return Answers(by_reader=ordered, cut_off=tuple(cut_off))


def _checked(document: Any, study: Study, number: int) -> Answer:
    try:
        answer = Answer.model_validate(document)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or "the whole line"
        raise _odd(study, number, f"an answer is not valid at: {place}") from error
    if answer.study != study.sha256[:16]:
        raise _odd(study, number, "an answer is of another study, or the design was changed since")
    if answer.reader not in study.design.readers or answer.trial > len(study.trials(answer.reader)):
        raise _odd(study, number, "an answer is of a reader or trial that this study hasn't")
    if answer.choice not in study.choices():
        raise _odd(study, number, "an answer chooses what wasn't offered")
    return answer


def _odd(study: Study, number: int, what: str) -> StudyError:
    return StudyError(
        what, where=f"{study.answers_path}, line {number}", remedy="Restore the file as the study wrote it."
    )


class AnswersFile:
    """The file, open for adding; one process at a time. Use it as a context.

    Raises:
        StudyError: another process has it open, or it can't be written.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._lock, self._failed = threading.Lock(), False
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._file = os.open(study.answers_path, flags, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            _take(self._file, study.answers_path)
            given = read_answers(study).by_reader
            self._answered = {reader: {answer.trial for answer in answers} for reader, answers in given.items()}
            if not _ends_with_line(self._file):
                _write_all(self._file, b"\n")  # what was cut off shall not swallow the next answer
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> AnswersFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def count(self, reader: str) -> int:
        """How many trials the reader has answered."""
        return len(self._answered[reader])

    def next_trial(self, reader: str) -> int | None:
        """The first trial that the reader hasn't answered; None where all are."""
        answered = self._answered[reader]
        return next((k for k in range(1, len(self._study.trials(reader)) + 1) if k not in answered), None)

    def add(self, *, reader: str, trial: int, choice: str, confidence: int, seconds: float) -> int | None:
        """Writes an answer to the reader's next trial, to the disk; gives the trial after it.

        Raises:
            StudyError: it is not the next one, or the choice isn't offered; or it can't be written, and isn't counted.
        """
        with self._lock:
            if self._failed:  # what reached the disk is not known: a second line for the trial would spoil the file
                raise StudyError("an answer couldn't be written", remedy="Make room on the disk, then serve again.")
            if trial != self.next_trial(reader):
                raise StudyError("this trial is answered or not yet asked", remedy="Reload the page.")
            if choice not in self._study.choices():
                raise StudyError("this choice isn't offered", remedy="Reload the page.")
            answer = Answer(
                study=self._study.sha256[:16],
                reader=reader,
                trial=trial,
                choice=choice,
                confidence=confidence,
                seconds=round(seconds, 2),
                time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            )
            if not self._is_in_place():
                raise StudyError("the file of answers was moved or replaced", remedy="Put it back, then go on.")
            try:
                _write_all(self._file, answer.model_dump_json().encode() + b"\n")
                os.fsync(self._file)
            except OSError as error:
                self._failed = True
                raise self._unwritable(error) from error
            self._answered[reader].add(trial)
            return self.next_trial(reader)

    def _is_in_place(self) -> bool:
        """Whether the file still has its name: what is written to a deleted one is lost."""
        try:
            return os.path.samestat(os.fstat(self._file), self._study.answers_path.stat())
        except OSError:
            return False

    def _unwritable(self, error: OSError) -> StudyError:
        return StudyError(
            f"answers can't be written ({error.strerror})",
            where=self._study.answers_path,
            remedy="Make room on the disk, or check that the folder is writable; then serve again.",
        )


def _write_all(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def _ends_with_line(file: int) -> bool:
    size = os.lseek(file, 0, os.SEEK_END)
    if size == 0:
        return True
    os.lseek(file, size - 1, os.SEEK_SET)
    return os.read(file, 1) == b"\n"


def _take(file: int, path: Path) -> None:
    """Locks the file for this process, where the system can (Windows can't: nothing is lost, trials may be doubled)."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StudyError("this study is being served already", where=path, remedy="End the other one first.") from error
