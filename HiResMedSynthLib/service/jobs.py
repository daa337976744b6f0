"""Jobs: one runs on the device at a time, the rest queue; progress, cancel, results, and what to do out of memory."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.free_memory import give_back_cached, is_short_of_memory
from HiResMedSynthLib.service.protocol import ErrorInfo, JobKind, JobState, JobStatus

MOST_QUEUED = 64
MOST_FINISHED = 64  # jobs remembered, the oldest goes first
MOST_RESULT_BYTES = 512 * 2**20  # of results kept: of older ones only the newest is
logger = logging.getLogger("hiresmedsynth.service")


class JobCancelledError(Exception):
    """Raised inside a job at its next step after it was cancelled."""


@dataclass(frozen=True)
class Result:
    """What a job made: bytes and their media type."""

    body: bytes
    media_type: str


@dataclass
class Step:
    """What a job may use: where to compute, how to report, whether to go on."""

    device: str  # "cpu", "cuda" or "auto"
    _job: _Job

    def progress(self, done: int, total: int, message: str) -> None:
        """Reports, and ends the job here if it was cancelled."""
        if self._job.cancel.is_set():
            raise JobCancelledError
        self._job.status = replace(self._job.status, done=done, total=total, message=message)

    def note(self, text: str) -> None:
        """Adds something that the reader of the result should know."""
        self._job.status = replace(self._job.status, notes=(*self._job.status.notes, text))


Task = Callable[[Step], Result]


def chosen_device(wanted: str) -> str:
    """The device meant by "cpu", "cuda" or "auto": a GPU where there is one that this torch can compute on."""
    if wanted != "auto":
        return wanted
    import torch

    try:
        torch.zeros(1, device="cuda").add(1)
    except (RuntimeError, AssertionError):  # no GPU, no driver, a build for the CPU, or a card that it doesn't know
        return "cpu"
    return "cuda"


@dataclass
class _Job:
    status: JobStatus
    task: Task
    cancel: threading.Event = field(default_factory=threading.Event)
    result: Result | None = None


class JobQueue:
    """Runs tasks one after the other in a thread of its own."""

    def __init__(self, *, device: str, free_memory: Callable[[], None]) -> None:
        self._device = device
        self._free_memory = free_memory
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        self._waiting: queue.Queue[_Job | None] = queue.Queue()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, kind: JobKind, task: Task) -> str:
        """Id of the queued job.

        Raises:
            HiResMedSynthError: too many jobs wait.
        """
        with self._lock:
            waiting = sum(not job.status.finished for job in self._jobs.values())
            if waiting >= MOST_QUEUED:
                raise HiResMedSynthError(f"{waiting} jobs wait already", remedy="Wait until some are done.")
            job = _Job(status=JobStatus(id=secrets.token_hex(16), kind=kind, state="queued"), task=task)
            self._jobs[job.status.id] = job
            finished = [name for name, other in self._jobs.items() if other.status.finished]
            for name in finished[: max(0, len(finished) - MOST_FINISHED)]:
                del self._jobs[name]
        self._waiting.put(job)
        return job.status.id

    def status(self, name: str) -> JobStatus | None:
        """How far a job is; None if there is none of that name."""
        job = self._jobs.get(name)
        return None if job is None else job.status

    def result(self, name: str) -> Result | None:
        """What a job made; None while it isn't done."""
        job = self._jobs.get(name)
        return None if job is None else job.result

    def cancel(self, name: str) -> bool:
        """Asks a job to stop; False if there is none of that name."""
        job = self._jobs.get(name)
        if job is None:
            return False
        job.cancel.set()
        if job.status.state == "queued":
            job.status = replace(job.status, state="cancelled")
            job.task = _done_already
        return True

    def close(self) -> None:
        """Cancels everything and ends the thread."""
        for job in list(self._jobs.values()):
            job.cancel.set()
        self._waiting.put(None)
        self._thread.join(timeout=5)

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            if job.status.finished:
                continue
            job.status = replace(job.status, state="running")
            try:
                job.result = self._run(job)
                state: JobState = "done"
                error = None
            except JobCancelledError:
                state, error = "cancelled", None
            except HiResMedSynthError as problem:
                state, error = "failed", ErrorInfo(what=problem.what, remedy=problem.remedy, where=problem.where)
            except Exception as problem:  # whatever a job meets must not end the backend
                logger.exception("job %s failed", job.status.kind)
                state, error = "failed", _told(problem)
            job.task = _done_already
            self._drop_old_results(job)
            job.status = replace(job.status, state=state, error=error)

    def _drop_old_results(self, newest: _Job) -> None:
        """Keeps the newest result, and older ones within the budget."""
        left = MOST_RESULT_BYTES
        with self._lock:
            for job in reversed(self._jobs.values()):
                if job.result is not None:
                    left -= len(job.result.body)
                    if left < 0 and job is not newest:
                        job.result = None

    def _run(self, job: _Job) -> Result:
        """The task's result; out of memory it is tried once more, on the CPU, after `free_memory`."""
        step = Step(self._device, job)
        try:
            return job.task(step)
        except Exception as problem:
            if not is_short_of_memory(problem):
                raise
        self._free_memory()
        give_back_cached()
        step.device = "cpu"
        step.note("memory ran out: models and maps were let go and the job was done again on the CPU")
        return job.task(step)


def _done_already(_step: Step) -> Result:
    """Takes the place of a task that isn't needed any more, since that holds its image."""
    raise JobCancelledError


def _told(problem: Exception) -> ErrorInfo:
    if is_short_of_memory(problem):
        return ErrorInfo(
            what="there is not enough memory for this",
            remedy="Work on one slice or a smaller part, or close something.",
        )
    return ErrorInfo(
        what=f"an unforeseen problem, a bug of HiResMedSynth ({type(problem).__name__})",
        remedy="Copy the backend's log into a report to us.",
    )
