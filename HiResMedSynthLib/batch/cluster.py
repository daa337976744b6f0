"""The same run over dask.distributed: a task is a few cases of one background, and writes into the shared folder.

Backgrounds and output lie on storage that all workers see under the same path. A task that is lost with its worker is
given to another by the scheduler; its cases that are whole already are left as they are.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from HiResMedSynthLib.batch.making import Maker, Outcome, WritingError, is_done
from HiResMedSynthLib.batch.plan import Plan
from HiResMedSynthLib.batch.workers import one_thread_from_now
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.versions import installed_versions

if TYPE_CHECKING:
    from dask.distributed import Client

TASKS_A_WORKER = 8  # so that none waits long for the slowest
MOST_IN_A_TASK = 25  # cases: few enough to be lost with a worker, enough to make a background's preparation worth it
WAITING_S = 30
_one_at_a_time = threading.Lock()  # where a worker has several threads


def cluster_engine(plan: Plan, out: Path, scheduler: str) -> Any:
    """What makes groups of cases on the cluster; for `run(engine=...)`.

    Args:
        plan, out: what, and where on the shared storage.
        scheduler: its address, tcp://HOST:8786.

    Raises:
        SettingsError: no dask here, no scheduler or workers there, other versions or another view of the files there.
    """
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise SettingsError(
            "dask.distributed isn't installed here",
            remedy="Install the extra '.[dask]' from the project's folder, here and on the workers.",
        ) from error
    try:
        client = Client(scheduler, timeout=WAITING_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"there is no dask scheduler at {scheduler}", remedy="Start one, or correct its address."
        ) from error
    try:
        client.wait_for_workers(1, timeout=WAITING_S)
    except TimeoutError as error:
        client.close()
        raise SettingsError(f"the scheduler at {scheduler} has no workers", remedy="Start some.") from error

    def engine(groups: Sequence[Sequence[int]]) -> Iterator[Outcome]:
        try:
            _refuse_others(client, plan, out.absolute())
            yield from _outcomes(client, plan, out.absolute(), groups)
        finally:
            client.close()

    return engine


def _outcomes(client: Client, plan: Plan, out: Path, groups: Sequence[Sequence[int]]) -> Iterator[Outcome]:
    from dask.distributed import KilledWorker, as_completed

    packed = client.submit(_same, pickle.dumps(plan), pure=False)  # unlike scattered data made again where it is lost
    ordered = [number for group in groups for number in group]
    size = min(max(len(ordered) // (TASKS_A_WORKER * len(client.ncores())), 1), MOST_IN_A_TASK)
    tasks = [tuple(ordered[k : k + size]) for k in range(0, len(ordered), size)]
    futures = {client.submit(_task, packed, str(out), task, pure=False): task for task in tasks}
    try:
        for future in as_completed(list(futures), loop=client.loop):
            task = futures.pop(future)
            try:
                answer = future.result()
            except KilledWorker:
                answer = [
                    Outcome(
                        number=n, failure="" if is_done(plan, out, n) else "its workers were killed: out of memory?"
                    )
                    for n in task
                ]
            if isinstance(answer, Exception):
                raise answer
            yield from answer
    finally:
        for future in futures:
            future.cancel()


def _same(packed: bytes) -> bytes:
    return packed


def _task(packed: bytes, out: str, numbers: tuple[int, ...]) -> list[Outcome] | WritingError:
    """Runs on a worker, one task at a time: cases that an earlier, lost try has finished are not made again."""
    with _one_at_a_time:
        maker = _maker(packed, out)
        try:
            return [Outcome(number=n) if is_done(maker.plan, maker.out, n) else maker.make(n) for n in numbers]
        except WritingError as error:
            return error


@lru_cache(maxsize=1)
def _maker(packed: bytes, out: str) -> Maker:
    """Kept from task to task with the background that it has prepared."""
    one_thread_from_now()
    return Maker(pickle.loads(packed), Path(out))  # sent by this program through dask, which pickles anyway


def _sees(out: str, sources: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Runs on a worker: its versions, and the paths that it doesn't see."""
    return installed_versions(), [path for path in (out, *sources) if not Path(path).exists()]


def _refuse_others(client: Client, plan: Plan, out: Path) -> None:
    """Refuses workers of other versions, or that don't see the files."""
    sources = sorted({str(one.path) for one in plan.backgrounds if one.path is not None})
    ours = installed_versions()
    for address, (theirs, unseen) in client.run(_sees, str(out), sources).items():
        differ = sorted(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
        if differ:
            raise SettingsError(
                f"the worker {address} has another version of {', '.join(differ)}",
                remedy="Install the same versions on all workers: cases would differ.",
            )
        if unseen:
            raise SettingsError(
                f"the worker {address} doesn't see {len(unseen)} of the files and folders, {unseen[0]} among them",
                remedy="Put backgrounds and --out on storage that all workers mount under the same path.",
            )
