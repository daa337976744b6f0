"""Progress with the time left: one line on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time

import click

EVERY_S = 15.0  # between lines of progress where the output is no terminal


class Clock:
    """Shows how far a work of several stages is."""

    def __init__(self) -> None:
        self._stage, self._started, self._said = "", time.monotonic(), time.monotonic()

    def show(self, done: int, total: int, what: str) -> None:
        """Tells that `done` of `total` are done; `what` begins with the stage and a colon."""
        now = time.monotonic()
        stage = what.split(":")[0]
        if stage != self._stage:
            self._stage, self._started = stage, now
        left = (now - self._started) / done * (total - done) if done else 0.0
        line = f"[{done}/{total}] {what}" + (f", {_time(left)} left" if done and left >= 1 else "")
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{line}" + ("\n" if done >= total else ""), nl=False, err=True)
        elif now - self._said >= EVERY_S:
            click.echo(line, err=True)
            self._said = now


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
