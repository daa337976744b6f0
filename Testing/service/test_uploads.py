"""What is uploaded is read beside the event loop, and refused where it isn't what its name says."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading

import pytest

from HiResMedSynthLib.service import app as application
from HiResMedSynthLib.service.guards import Guards
from HiResMedSynthLib.service.protocol import ARRAYS_TYPE, BYTES_TYPE, ProtocolError

HOST, TOKEN = "127.0.0.1:1", "t" * 64
NAME = "0" * 64


@pytest.fixture
def app() -> Guards:
    return application.make_app(
        token=TOKEN, hosts=frozenset({HOST.partition(":")[0]}), origin=f"http://{HOST}", memory_bytes=2**20
    )


async def ask(app: Guards, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, dict]:
    """(status, document) of a request made without a socket."""
    headers = {"host": HOST, "authorization": f"Bearer {TOKEN}"}
    headers |= {"content-length": str(len(body)), "content-type": kind} if body else {}
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    await app(scope, receive, send)  # type: ignore[arg-type]
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


def test_others_are_answered_while_a_large_image_is_read(app: Guards, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slow(_content: bytes) -> None:
        reading.set()
        assert go_on.wait(30), "nobody else was answered meanwhile"
        raise ProtocolError("cut off")

    monkeypatch.setattr(application, "unpack_arrays", slow)

    async def both() -> tuple[tuple[int, dict], tuple[int, dict]]:
        upload = asyncio.create_task(ask(app, "PUT", f"/images/{NAME}", b"large", ARRAYS_TYPE))
        await asyncio.to_thread(reading.wait, 30)
        health = await ask(app, "GET", "/health")
        go_on.set()
        return await upload, health

    uploaded, health = asyncio.run(both())
    assert health[0] == 200
    assert uploaded == (422, {"error": {"what": "cut off", "remedy": uploaded[1]["error"]["remedy"], "where": None}})


def test_a_blob_is_held_under_its_own_name_only(app: Guards) -> None:
    content = b"lesions"
    own = hashlib.sha256(content).hexdigest()
    assert asyncio.run(ask(app, "PUT", f"/blobs/{own}", content, BYTES_TYPE)) == (201, {"held": True})
    status, told = asyncio.run(ask(app, "PUT", f"/blobs/{NAME}", content, BYTES_TYPE))
    assert status == 422
    assert "differs from its name" in told["error"]["what"]
    assert asyncio.run(ask(app, "GET", "/health"))[1]["loaded"] == ["blob"]
