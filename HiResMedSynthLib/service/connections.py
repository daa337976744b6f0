"""Connections that only wait: one that brings no whole request in time is ended, and where many wait, one at once.
Otherwise a program that opens connections and sends nothing would keep every reader out.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0  # from the first sign of a request to the end of its headers
BODY_SECONDS = 30.0  # of silence within a body
MOST_WAITING = 32  # half of the connections that are served at a time


class BoundedWait(H11Protocol):
    """uvicorn's connection, which by itself waits for ever for a request that has begun or never comes."""

    _deadline: asyncio.TimerHandle | None = None
    _heard = 0.0
    _served = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the connection; where too many wait, ends one: first those never answered, then the quietest."""
        super().connection_made(transport)
        self._watch()
        waiting = [one for one in self.connections if isinstance(one, BoundedWait) and one._waits]
        if len(waiting) > MOST_WAITING:
            min(waiting, key=lambda one: (one._served, one._heard))._end()

    def data_received(self, data: bytes) -> None:
        """Takes bytes, and looks what is still to come."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """The next request may have begun to come meanwhile; until it does, uvicorn's own time runs."""
        self._served = True
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Lets the time go with the connection."""
        super().connection_lost(exc)
        self._stop()

    @property
    def _waits(self) -> bool:
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _watch(self) -> None:
        self._heard = self.loop.time()
        in_body = self.conn.their_state is h11.SEND_BODY
        kept_alive: Any = self.timeout_keep_alive_task  # a request that comes unsets it
        if in_body or kept_alive is not None or not self._waits:
            self._stop()
        if self._waits and kept_alive is None and self._deadline is None:
            self._deadline = self.loop.call_later(BODY_SECONDS if in_body else HEADER_SECONDS, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        if self.flow.read_paused:  # it is us who don't listen
            self._watch()
        else:
            self._end()

    def _end(self) -> None:
        self.connections.discard(self)
        self.transport.abort()

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
