"""Ctrl-C in training: a step is never cut in two, for a run that goes on from half a step is another run."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class HeldInterrupts:
    """Within it Ctrl-C only sets `came`. A second Ctrl-C interrupts at once."""

    def __enter__(self) -> HeldInterrupts:
        self.came = False
        here = threading.current_thread() is threading.main_thread()
        self.before = signal.signal(signal.SIGINT, self._hold) if here else None
        return self

    def __exit__(self, *reason: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)

    def _hold(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (a signal handler's signature)
        if self.came:
            raise KeyboardInterrupt
        self.came = True
