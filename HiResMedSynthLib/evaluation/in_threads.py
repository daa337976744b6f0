"""Work on many items at once: numpy, OpenCV and torch leave the interpreter free while they compute."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yields what `work` makes of each item, in their order, one thread a CPU; after an error nothing new is begun."""
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        tasks = [pool.submit(work, item) for item in items]
        try:
            for task in tasks:
                yield task.result()
        finally:
            for task in tasks:
                task.cancel()
