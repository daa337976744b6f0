"""Connections that are opened and never say what they want: readers are served all the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn

from HiResMedSynthLib.service import connections
from Testing.evaluation.study_folders import small_study
from Testing.service.study_server import serving

SILENT = b""
HALF_A_HEADER = b"GET /study HTTP/1.1\r\nHost: 127.0.0.1\r\n"
HALF_A_BODY = b"POST /session HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nOrigin: http://127.0.0.1:%d\r\n" + (
    b"Content-Type: application/json\r\nContent-Length: 40\r\n\r\n{"
)


def test_a_reader_is_served_while_others_hold_connections_open(tmp_path: Path) -> None:
    study, _ = small_study(tmp_path)
    with serving(study.folder, 2) as server, contextlib.ExitStack() as held:
        reader = server.sign_in("Ann")
        for begun in (SILENT, HALF_A_HEADER, HALF_A_BODY.replace(b"%d", str(server.port).encode())):
            for _ in range(70):
                one = held.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
                one.sendall(begun)
            assert reader.get(f"{server.origin}/study", timeout=20).status_code == 200
        assert server.sign_in("Ben").get(f"{server.origin}/study", timeout=20).json()["next"] == 1


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server with short times, that answers "done" once it has the whole body."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})

    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.6)
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.6)
    config = uvicorn.Config(app, http=connections.BoundedWait, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        running = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        running.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        running.join()


def answered(connection: socket.socket) -> bool:
    """Whether the whole answer comes."""
    got = b""
    while not got.endswith(b"done") and (part := connection.recv(1000)):
        got += part
    return got.endswith(b"done")


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize("begun", [b"", b"GET / HT", HEAD[:-2], HEAD + b"ab"])
def test_what_brings_no_whole_request_in_time_is_ended(port: int, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
        slow.sendall(begun)
        before = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert slow.recv(100) == b""
        assert 0.3 < time.monotonic() - before < 5


def test_headers_that_trickle_in_gain_no_time(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
        before = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in b"GET / HTTP/1.1\r\nX: " + 40 * b"x":
                slow.sendall(bytes([byte]))
                time.sleep(0.1)
        assert time.monotonic() - before < 5


def test_a_body_that_goes_on_coming_and_a_kept_connection_have_time(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
        slow.sendall(HEAD)
        for byte in b"abcde":
            time.sleep(0.3)
            slow.sendall(bytes([byte]))
        assert answered(slow)
        time.sleep(1.0)  # kept alive: uvicorn's own time
        slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answered(slow)
    with requests.Session() as client:
        assert [client.get(f"http://127.0.0.1:{port}/", timeout=5).text for _ in range(3)] == 3 * ["done"]
