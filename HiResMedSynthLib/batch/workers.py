"""Worker processes that make cases: each is given the next case of the background that it has just prepared.

A worker that dies is replaced; the case that it was at is tried once more, then told as failed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from HiResMedSynthLib.batch.making import Maker, Outcome, WritingError
from HiResMedSynthLib.batch.plan import Plan

DEATHS = 2  # of workers at one case, before it counts as failed
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
DIED = "the process that made it was killed each time: too little memory? Use fewer workers"


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    group: deque[int] = field(default_factory=deque)
    at: int | None = None


def make_cases(plan: Plan, out: Path, groups: Sequence[Sequence[int]], *, workers: int) -> Iterator[Outcome]:
    """Outcomes of all cases as they come, made by so many processes.

    Args:
        plan, out: what, and where.
        groups: numbers of the cases that share a background, which one worker takes in turn.
        workers: how many processes.

    Raises:
        WritingError: the folder can't be written.
    """
    waiting = deque(deque(group) for group in groups if group)
    workers = min(workers, sum(map(len, waiting)))
    deaths: Counter[int] = Counter()
    staff: list[_Worker] = []
    context = multiprocessing.get_context("spawn")
    try:
        while waiting or any(worker.at is not None or worker.group for worker in staff):
            while len(staff) < workers and (waiting or _to_share(staff)):
                staff.append(_hired(context, plan, out))
            for worker in staff:
                if worker.at is None:
                    _give_next(worker, waiting, staff)
            busy = [worker for worker in staff if worker.at is not None]
            ready = wait([worker.pipe for worker in busy])
            for worker in busy:
                if worker.pipe not in ready:
                    continue
                try:
                    answer = worker.pipe.recv()
                except (EOFError, OSError):
                    staff.remove(worker)
                    _dismiss(worker)
                    number = worker.at
                    assert number is not None
                    deaths[number] += 1
                    if deaths[number] < DEATHS:
                        worker.group.appendleft(number)
                    else:
                        yield Outcome(number=number, failure=DIED)
                    if worker.group:
                        waiting.appendleft(worker.group)
                    continue
                worker.at = None
                if isinstance(answer, Exception):
                    raise answer
                yield answer
    finally:
        for worker in staff:
            _dismiss(worker)


def _give_next(worker: _Worker, waiting: deque[deque[int]], staff: list[_Worker]) -> None:
    """The next case of its own group, else of a new one, else of half of what another has before it."""
    if not worker.group:
        if waiting:
            worker.group = waiting.popleft()
        else:
            richest = max(staff, key=lambda one: len(one.group))
            worker.group = deque(richest.group.pop() for _ in range((len(richest.group) + 1) // 2))
            worker.group.reverse()
    if worker.group:
        number = worker.group.popleft()
        worker.at = number
        with suppress(OSError):  # it has died: its pipe says so when it is read
            worker.pipe.send(number)


def _to_share(staff: list[_Worker]) -> bool:
    return any(worker.group for worker in staff)


def _hired(context: Any, plan: Plan, out: Path) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, plan, out), daemon=True)
    with _one_thread(), _no_main_module(), _deaf_to_ctrl_c():
        process.start()
    theirs.close()  # so that its death is seen at ours
    return _Worker(process=process, pipe=ours)


def _dismiss(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.terminate()
    worker.process.join(10)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Children see variables that keep numeric libraries to one thread: as fast together, and the same everywhere."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Children don't import the program that was started: they need nothing of it."""
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    try:
        main.__file__, main.__spec__ = None, None
        yield
    finally:
        main.__file__, main.__spec__ = file, spec


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Children begin deaf to Ctrl-C, which a terminal sends to the whole group: the parent decides."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(pipe: Connection, plan: Plan, out: Path) -> None:
    """A worker's life: case numbers come in, outcomes go out, until the other end closes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    one_thread_from_now()
    maker = Maker(plan, out)
    with suppress(EOFError, OSError):
        while True:
            number = pipe.recv()
            try:
                answer: Outcome | WritingError = maker.make(number)
            except WritingError as error:
                answer = error
            pipe.send(answer)


def _end_with_parent() -> None:
    """An orphan must not write beside the run that is started in its place."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def one_thread_from_now() -> None:
    """Keeps this process to one thread: libraries that heed the environment when loaded, and two that don't."""
    import cv2
    import SimpleITK as sitk

    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    cv2.setNumThreads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
