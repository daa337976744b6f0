"""Store: images, prepared grounds and blobs, held by the hash of their content; the least recently used goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from HiResMedSynthLib.errors import SettingsError

SENT = ("image ", "blob ")  # so begin the names of what a client has sent


@dataclass
class _Held:
    value: Any
    bytes: int


class Store:
    """Holds values up to a budget of bytes; safe to use from several threads."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._lock = threading.RLock()

    def put(self, name: str, value: Any, size: int) -> None:
        """Holds a value, letting the least recently used ones go.

        Raises:
            SettingsError: it alone is larger than the budget.
        """
        if size > self._budget:
            raise SettingsError(
                f"{size / 2**20:.0f} MiB are more than the backend may hold ({self._budget / 2**20:.0f} MiB)",
                remedy="Start it with a larger --memory-mib, or work on a part of the image.",
            )
        with self._lock:
            self._held.pop(name, None)
            self._held[name] = _Held(value, size)
            while self.used_bytes > self._budget:
                self._held.popitem(last=False)

    def get(self, name: str) -> Any | None:
        """The value, now the most recently used one; None if it isn't held."""
        with self._lock:
            held = self._held.get(name)
            if held is None:
                return None
            self._held.move_to_end(name)
            return held.value

    def get_or_make(self, name: str, make: Callable[[], tuple[Any, int]]) -> Any:
        """The value, made (with its size) if it isn't held."""
        value = self.get(name)
        if value is None:
            value, size = make()
            if size <= self._budget:  # else it serves this once
                self.put(name, value, size)
        return value

    def names(self) -> list[str]:
        """What is held, least recently used first."""
        with self._lock:
            return list(self._held)

    @property
    def used_bytes(self) -> int:
        """Bytes held."""
        with self._lock:
            return sum(held.bytes for held in self._held.values())

    def drop_made(self) -> None:
        """Lets go of all that can be made again (memory is short); a job under way still needs what it was sent."""
        with self._lock:
            for name in [name for name in self._held if not name.startswith(SENT)]:
                del self._held[name]
