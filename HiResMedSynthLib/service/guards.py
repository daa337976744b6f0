"""Guards: what a request must show before any of our code sees it (ASGI middleware).

A web page that the user happens to have open can reach a loopback port: so every request needs the token, a Host that
is ours (DNS rebinding), no foreign Origin (CSRF), a declared and bounded body, and the content type of its route.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from HiResMedSynthLib.service.protocol import ARRAYS_TYPE, BYTES_TYPE, JSON_TYPE, LARGEST_BODY

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
BODY_TYPES = {JSON_TYPE, ARRAYS_TYPE, BYTES_TYPE}
METHODS = {"GET", "PUT", "POST", "DELETE"}
MOST_HEADERS = 50
LARGEST_HEADERS = 16 * 1024  # bytes of all names and values
LARGEST_JSON = 16 * 2**20


class _RefusedError(Exception):
    def __init__(self, status: int, what: str, remedy: str) -> None:
        self.status, self.what, self.remedy = status, what, remedy


class Guards:
    """Wraps an ASGI application.

    Args:
        app: what lies behind.
        token: the secret; compared in constant time.
        hosts: values that the Host header may have ("127.0.0.1:8123").
        origin: the only Origin that may be named, if any ("http://127.0.0.1:8123").
    """

    def __init__(self, app: App, *, token: str, hosts: frozenset[str], origin: str) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = hosts
        self._origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it with the reason."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket: none is offered
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            limit = self._check(scope)
            await self._app(scope, _bounded(receive, limit), send)
        except _RefusedError as refused:
            await _answer(send, refused)

    def _check(self, scope: Scope) -> int:
        """The largest body allowed; raises where the request is refused."""
        size = sum(len(name) + len(value) for name, value in scope["headers"]) + len(scope.get("raw_path") or b"")
        if len(scope["headers"]) > MOST_HEADERS or size > LARGEST_HEADERS:
            raise _RefusedError(431, "there are too many headers", "Use the client that comes with HiResMedSynth.")
        names = [name for name, _ in scope["headers"]]
        for single in (b"host", b"authorization", b"origin", b"content-length", b"content-type", b"transfer-encoding"):
            if names.count(single) > 1:
                raise _RefusedError(400, "a header is given twice", "Use the client that comes with HiResMedSynth.")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get("host", "").lower() not in self._hosts:
            raise _RefusedError(421, "the Host header names another server", "Use the address that was printed.")
        origin = headers.get("origin")
        if (origin is not None and origin != self._origin) or headers.get("sec-fetch-site", "none") not in (
            "none",
            "same-origin",
        ):
            raise _RefusedError(403, "requests from web pages are refused", "Use Slicer or the command line.")
        given = headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, b"Bearer " + self._token):
            raise _RefusedError(401, "the token is missing or wrong", "Restart the backend from Slicer.")
        if scope["method"] not in METHODS:
            raise _RefusedError(405, "this method is not offered", "Use the client that comes with HiResMedSynth.")
        return self._body_limit(scope["method"], headers)

    @staticmethod
    def _body_limit(method: str, headers: dict[str, str]) -> int:
        if "transfer-encoding" in headers:
            raise _RefusedError(411, "the length of the body must be declared", "Send Content-Length.")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 16):
            raise _RefusedError(400, "the declared length is no number", "Send Content-Length.")
        if method in ("GET", "DELETE"):
            if int(length) > 0:
                raise _RefusedError(400, "this request has no body", "Leave the body out.")
            return 0
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if kind not in BODY_TYPES:
            raise _RefusedError(415, "this content type is not taken", f"Send {', '.join(sorted(BODY_TYPES))}.")
        limit = LARGEST_JSON if kind == JSON_TYPE else LARGEST_BODY
        if int(length) > limit:
            raise _RefusedError(413, "the body is too large", f"Send at most {limit // 2**20} MiB.")
        return int(length)


def _bounded(receive: Receive, limit: int) -> Receive:
    """`receive` that refuses more bytes than were declared."""
    seen = 0

    async def receive_bounded() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _RefusedError(413, "the body is longer than declared", "Send its true length.")
        return message

    return receive_bounded


async def _answer(send: Send, refused: _RefusedError) -> None:
    body = json.dumps({"error": {"what": refused.what, "remedy": refused.remedy}}).encode()
    headers = [
        (b"content-type", JSON_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
