"""Work: calls run one after the other in a thread; what they return reaches the main thread through a timer.

MRML, VTK and Qt belong to the main thread: a call gets numbers and gives numbers. Slicer's event loop may hold the
interpreter's lock, so the timer lends it out for a few milliseconds while something is under way.
"""

import logging
import queue
import threading
import time

import qt

TICK_MS = 10
LEND_S = 0.004
TURN_S = 0.02  # of showing results, before the window gets its turn


class Ticket:
    """A call under way: how far it is, and a way to stop it."""

    def __init__(self, title):
        self.title = title
        self.done, self.total, self.message, self.notes = 0, 0, "", ()
        self.cancelled, self.keeps = threading.Event(), False

    def cancel(self):
        """Asks it to stop."""
        self.cancelled.set()


class Work:
    """Runs calls in order, each `call(ticket)`; then `done(result)` or `failed(error)` on the main thread."""

    def __init__(self, on_progress):
        self._calls, self._answers = queue.Queue(), queue.Queue()
        self._on_progress = on_progress
        self._under_way = 0
        self._thread = threading.Thread(target=self._run, name="HiResMedSynth", daemon=True)
        self._thread.start()
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", self._tick)

    @property
    def busy(self):
        """Whether a call is under way."""
        return self._under_way > 0

    def start(self, ticket, call, done, failed):
        """Queues a call."""
        self._under_way += 1
        self._calls.put((ticket, call, done, failed))
        self._timer.start()

    def report(self, ticket, done, total, message):
        """Called by a call: how far it is."""
        self._answers.put((self._on_progress, (ticket, done, total, message), False))

    def close(self):
        """Ends thread and timer; results that come later are dropped."""
        self._timer.stop()
        self._calls.put(None)

    def _run(self):
        while (item := self._calls.get()) is not None:
            ticket, call, done, failed = item
            try:
                result = call(ticket)
            except Exception as error:  # whatever it is, the panel must hear of it
                self._answers.put((failed, (error,), True))
            else:
                self._answers.put((done, (result,), True))
            del item, call, done, failed  # they hold arrays

    def _tick(self):
        end = time.monotonic() + TURN_S
        while time.monotonic() < end:
            try:
                slot, arguments, last = self._answers.get(timeout=LEND_S if self._under_way else 0)
            except (queue.Empty, ValueError):
                break
            if last:
                self._under_way -= 1
            try:
                slot(*arguments)
            except Exception:
                logging.exception("HiResMedSynth: a result could not be shown")
        if self._under_way == 0:
            self._timer.stop()
