"""The time of a training run: what this call has used of it, how long a step takes, how much is left."""

from __future__ import annotations

import time

from HiResMedSynthLib.errors import SettingsError


def now_s(counted: str) -> float:
    """Seconds from any moment on: of the clock ("wall"), or of this process's work ("cpu", where cores are shared).

    Raises:
        SettingsError: seconds of another name.
    """
    if counted not in ("wall", "cpu"):
        raise SettingsError(f"There are no {counted} seconds", remedy='Set counted = "wall" or "cpu".')
    return time.process_time() if counted == "cpu" else time.monotonic()


class Clock:
    """Begins when it is made.

    Args:
        limit_s: of this call; infinite where there is none.
        before_s: of the run's earlier calls.
        first_step: where this call begins.
        counted: which seconds; see `now_s`.
    """

    def __init__(self, *, limit_s: float, before_s: float, first_step: int, counted: str = "wall") -> None:
        self._limit, self._before, self._first, self._counted = limit_s, before_s, first_step, counted
        self._began = now_s(counted)

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self._before + self._passed

    @property
    def used(self) -> float:
        """Share of this call's time that is gone; 1 and more: it is over."""
        return self._passed / self._limit if self._limit > 0 else 1.0

    def told(self, step: int, steps: int) -> dict[str, float]:
        """Seconds a step, of the run, and left until `steps` or the limit, after at least one step: for the log."""
        pace = self._passed / (step - self._first)
        return {
            "seconds_per_step": round(pace, 4),
            "seconds": round(self.seconds, 1),
            "left_s": round(min((steps - step) * pace, self._limit - self._passed)),
        }

    @property
    def _passed(self) -> float:
        return now_s(self._counted) - self._began
