"""Guards of the reader study's page: exactly its own origin, a cookie got for a one-time code, headers that forbid all
that the page doesn't need.

Unlike the backend of the panel, this is made for a browser: the page itself may be fetched by anyone on this machine,
but nothing of a study without the cookie, and nothing is written unless the browser says that our own page asks.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, ClassVar

from HiResMedSynthLib.service.guards import App, Guards, Receive, RefusedRequestError, Scope, Send
from HiResMedSynthLib.service.protocol import JSON_TYPE

CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # none that look alike; 32 of them, 5 bits each
CODE_LENGTH = 16
SESSION_PATH = "/session"
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


class Sessions:
    """Who is known: each reader has one code that works once, and at most one session.

    Args:
        readers: their names.
        tell: called with (reader, code) for each new code.
    """

    def __init__(self, readers: Iterable[str], tell: Callable[[str, str], None]) -> None:
        self._tell, self._lock = tell, threading.Lock()
        self._codes: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        for reader in readers:
            self._new_code(reader)

    def exchange(self, code: str) -> tuple[str, str] | None:
        """(reader, token of a new session) for a code, which is then spent; None where it is no valid one.

        An earlier session of the reader ends: nobody answers twice at the same time.
        """
        given = "".join(c for c in code.upper() if c not in "- ").encode()
        with self._lock:
            found = [name for name, known in self._codes.items() if hmac.compare_digest(known.encode(), given)]
            if not found:
                return None
            reader, token = found[0], secrets.token_hex(32)
            self._tokens[reader] = token
            self._new_code(reader)
        return reader, token

    def reader_of(self, token: str) -> str | None:
        """The reader whose session it is; compared in constant time."""
        found = None
        for reader, known in list(self._tokens.items()):
            if hmac.compare_digest(known.encode(), token.encode()):
                found = reader
        return found

    def _new_code(self, reader: str) -> None:
        self._codes[reader] = "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH))
        self._tell(reader, self._codes[reader])


class StudyGuards(Guards):
    """Wraps the study's application; the reader is put into `scope["reader"]`.

    Args:
        app: what lies behind.
        sessions: who is known.
        host: the only Host that is answered ("127.0.0.1:8123").
        open_paths: paths of the page itself.
    """

    body_limits: ClassVar[dict[str, int]] = {JSON_TYPE: 4096}

    def __init__(self, app: App, *, sessions: Sessions, host: str, open_paths: frozenset[str]) -> None:
        super().__init__(
            app, token=secrets.token_hex(32), hosts=frozenset({host.rpartition(":")[0]}), origin=f"http://{host}"
        )
        self._sessions, self._open = sessions, open_paths
        self.cookie = f"hiresmedsynth-study-{host.rpartition(':')[2]}"  # cookies are shared by the ports of a host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through or refuses it; every answer forbids what the page doesn't need."""

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        await super().__call__(scope, receive, send_guarded)

    def _admit(self, scope: Scope, headers: dict[str, str]) -> None:
        method, path = scope["method"], scope["path"]
        if method not in ("GET", "POST"):
            raise RefusedRequestError(405, "this method is not offered", "Use the page of the study.")
        if method == "POST" and headers.get("origin") != self._origin:
            raise RefusedRequestError(403, "this doesn't come from the page of the study", "Use the page of the study.")
        if (method == "GET" and path in self._open) or (method == "POST" and path == SESSION_PATH):
            return
        reader = self._sessions.reader_of(_cookie(headers.get("cookie", ""), self.cookie))
        if reader is None:
            raise RefusedRequestError(401, "this browser isn't known", "Enter the code that was printed for you.")
        scope["reader"] = reader


def _cookie(header: str, name: str) -> str:
    """The value of a cookie; "" where it isn't there exactly once, or isn't ASCII."""
    pairs = [part.strip().partition("=") for part in header.split(";")]
    values = [value for found, _, value in pairs if found == name]
    return values[0] if len(values) == 1 and values[0].isascii() else ""
