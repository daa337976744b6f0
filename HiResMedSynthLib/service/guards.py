"""Guards: what a request must show before any of our code sees it (ASGI middleware).

A web page that the user happens to have open can reach a loopback port: so every request needs the token, a Host that
is ours (DNS rebinding), no foreign Origin (CSRF), a declared and bounded body, and the content type of its route.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, ClassVar

from HiResMedSynthLib.service.protocol import ARRAYS_TYPE, BYTES_TYPE, JSON_TYPE, LARGEST_BODY

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
METHODS = {"GET", "PUT", "POST", "DELETE"}
MOST_HEADERS = 50
LARGEST_HEADERS = 16 * 1024  # bytes of all names and values
HOST = re.compile(r"(?P<name>[a-z0-9.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
LARGEST_JSON = 16 * 2**20


class RefusedRequestError(Exception):
    """A request that is answered with a status and a reason before the application sees it."""

    def __init__(self, status: int, what: str, remedy: str) -> None:
        self.status, self.what, self.remedy = status, what, remedy


class Guards:
    """Wraps an ASGI application.

    Args:
        app: what lies behind.
        token: the secret; compared in constant time.
        hosts: names that the Host header may bear, whatever the port (a tunnel has its own); None: any. On this machine
            alone they keep out pages whose name was bound to its address; beyond it TLS and the token do.
        origin: the only Origin that may be named, if any ("http://127.0.0.1:8123").
    """

    body_limits: ClassVar[dict[str, int]] = {
        JSON_TYPE: LARGEST_JSON, ARRAYS_TYPE: LARGEST_BODY, BYTES_TYPE: LARGEST_BODY
    }  # fmt: skip

    def __init__(self, app: App, *, token: str, hosts: frozenset[str] | None, origin: str) -> None:
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
        except RefusedRequestError as refused:
            await _answer(send, refused)

    def _check(self, scope: Scope) -> int:
        """The largest body allowed; raises where the request is refused."""
        size = sum(len(name) + len(value) for name, value in scope["headers"]) + len(scope.get("raw_path") or b"")
        if len(scope["headers"]) > MOST_HEADERS or size > LARGEST_HEADERS:
            raise RefusedRequestError(
                431, "there are too many headers", "Use the client that comes with HiResMedSynth."
            )
        names = [name for name, _ in scope["headers"]]
        for single in (
            b"host",
            b"authorization",
            b"cookie",
            b"origin",
            b"content-length",
            b"content-type",
            b"transfer-encoding",
        ):
            if names.count(single) > 1:
                raise RefusedRequestError(
                    400, "a header is given twice", "Use the client that comes with HiResMedSynth."
                )
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        named = HOST.fullmatch(headers.get("host", "").lower())
        if named is None or (self._hosts is not None and named["name"] not in self._hosts):
            raise RefusedRequestError(421, "the Host header names another server", "Use the address that was printed.")
        origin = headers.get("origin")
        if (origin is not None and origin != self._origin) or headers.get("sec-fetch-site", "none") not in (
            "none",
            "same-origin",
        ):
            raise RefusedRequestError(
                403, "requests from other web pages are refused", "Use Slicer, the command line, or type the address."
            )
        self._admit(scope, headers)
        if scope["method"] not in METHODS:
            raise RefusedRequestError(
                405, "this method is not offered", "Use the client that comes with HiResMedSynth."
            )
        return self._body_limit(scope["method"], headers)

    def _admit(self, scope: Scope, headers: dict[str, str]) -> None:  # noqa: ARG002 (other guards look at the scope)
        """Raises unless the request shows that it may come in."""
        given = headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, b"Bearer " + self._token):
            raise RefusedRequestError(401, "the token is missing or wrong", "Restart the backend from Slicer.")

    def _body_limit(self, method: str, headers: dict[str, str]) -> int:
        if "transfer-encoding" in headers:
            raise RefusedRequestError(411, "the length of the body must be declared", "Send Content-Length.")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 16):
            raise RefusedRequestError(400, "the declared length is no number", "Send Content-Length.")
        if method in ("GET", "DELETE"):
            if int(length) > 0:
                raise RefusedRequestError(400, "this request has no body", "Leave the body out.")
            return 0
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if kind not in self.body_limits:
            raise RefusedRequestError(
                415, "this content type is not taken", f"Send {', '.join(sorted(self.body_limits))}."
            )
        limit = self.body_limits[kind]
        if int(length) > limit:
            raise RefusedRequestError(413, "the body is too large", f"Send at most {limit / 2**20:g} MiB.")
        return int(length)


def _bounded(receive: Receive, limit: int) -> Receive:
    """`receive` that refuses more bytes than were declared."""
    seen = 0

    async def receive_bounded() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise RefusedRequestError(413, "the body is longer than declared", "Send its true length.")
        return message

    return receive_bounded


async def _answer(send: Send, refused: RefusedRequestError) -> None:
    body = json.dumps({"error": {"what": refused.what, "remedy": refused.remedy}}).encode()
    headers = [
        (b"content-type", JSON_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
