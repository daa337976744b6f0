"""The learning rate over a run: up, level, down to zero at the end of the steps or of the time."""

from __future__ import annotations

from typing import Protocol


class Schedule(Protocol):
    """What decides it, as a part of a loop's settings: see `loop.LoopSettings`."""

    @property
    def steps(self) -> int: ...  # noqa: D102
    @property
    def warm_up(self) -> int: ...  # noqa: D102
    @property
    def anneal(self) -> float: ...  # noqa: D102


def rate_share(step: int, schedule: Schedule, *, used: float = 0.0) -> float:
    """Share of the learning rate, 0..1: up over `warm_up` steps, down to zero over the last `anneal` of steps or time.

    `used`: share of the time that is gone.
    """
    left = min(1 - step / schedule.steps, 1 - used)
    fall = min(1.0, left / schedule.anneal) if schedule.anneal > 0 else 1.0
    return min(1.0, (step + 1) / max(schedule.warm_up, 1)) * max(fall, 0.0)
