"""Attacks on the backend: each is a request that must be refused, with no 500, no traceback, and no harm."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import socket
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from HiResMedSynthLib.service.client import BackendError, unpack_folder
from HiResMedSynthLib.service.protocol import ARRAYS_TYPE, BYTES_TYPE, JSON_TYPE, pack_arrays
from Testing.export.cases import ct_image
from Testing.service.conftest import Backend
from Testing.service.images import header_of

NAME = "a" * 64


@dataclass(frozen=True)
class Attack:
    """A request; header values of None leave the header out."""

    method: str = "GET"
    path: str = "/health"
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    without: tuple[str, ...] = ()
    kind: str = JSON_TYPE


def send(backend: Backend, attack: Attack) -> tuple[int, bytes]:
    """(status, answer) of a request written byte by byte; status 0 where the connection was simply closed."""
    headers = {
        "Host": f"127.0.0.1:{backend.port}",
        "Authorization": f"Bearer {backend.token}",
        "Connection": "close",
    }
    if attack.method not in ("GET", "DELETE") or attack.body:
        headers |= {"Content-Type": attack.kind, "Content-Length": str(len(attack.body))}
    lines = [f"{attack.method} {attack.path} HTTP/1.1"]
    given = {name.lower() for name, _ in attack.headers}
    lines += [f"{name}: {value}" for name, value in headers.items() if name.lower() not in given | set(attack.without)]
    lines += [f"{name}: {value}" for name, value in attack.headers]
    raw = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + attack.body
    return send_raw(backend, raw)


def send_raw(backend: Backend, raw: bytes, *, hang_up: bool = False) -> tuple[int, bytes]:
    with socket.create_connection(("127.0.0.1", backend.port), timeout=20) as connection:
        answer = b""
        try:
            connection.sendall(raw)
            if hang_up:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        except ConnectionError:  # refused while we were still writing
            pass
    if not answer:
        return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def header_with(**changes: Any) -> dict[str, Any]:
    from HiResMedSynthLib.service.client import plain_header

    return plain_header(header_of(ct_image())) | changes


def image_attack(arrays: dict[str, np.ndarray], header: Any) -> Attack:
    return Attack("PUT", f"/images/{NAME}", pack_arrays(arrays, header), kind=ARRAYS_TYPE)


def npz(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def pickled_npz() -> bytes:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (open, ("/dev/null",))

    stream = io.BytesIO()
    np.savez(stream, json=np.frombuffer(b"{}", np.uint8), pixels=np.array([Bomb()], dtype=object))  # type: ignore[arg-type]
    return stream.getvalue()


def bomb_npz() -> bytes:
    """A header that promises 8 TB."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    return npz(pixels=head.getvalue(), json=b"")


def zeros_npz() -> bytes:
    """4.1 GiB of zeros, packed into some megabytes; one block is packed and repeated, its checksum left wrong."""
    packer, block = zlib.compressobj(1, wbits=-15), bytes(64 * 2**20)
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("pixels.npy", 66 * packed + packer.flush())
        (entry,) = archive.filelist
        entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, 66 * len(block)
    return stream.getvalue()


def job(kind: str = "inspect", **fields: Any) -> Attack:
    return Attack("POST", "/jobs", json.dumps({"kind": kind, **fields}).encode())


PIXELS = {"pixels": ct_image().pixels}
IMAGE = pack_arrays(PIXELS, header_with())
ATTACKS: dict[str, Callable[[], Attack]] = {
    # who may talk to it
    "no token": lambda: Attack(without=("authorization",)),
    "wrong token": lambda: Attack(headers=(("Authorization", "Bearer " + "0" * 64),)),
    "empty token": lambda: Attack(headers=(("Authorization", "Bearer "),)),
    "token without scheme": lambda: Attack(headers=(("Authorization", "0" * 64),)),
    "token in the address": lambda: Attack(path="/health?token=" + "0" * 64, without=("authorization",)),
    "token as cookie": lambda: Attack(headers=(("Cookie", "token=" + "0" * 64),), without=("authorization",)),
    "token in latin-1": lambda: Attack(headers=(("Authorization", "Bearer \xe9\xff"),)),
    "two tokens": lambda: Attack(headers=(("Authorization", "Bearer x"), ("Authorization", "Bearer y"))),
    "DNS rebinding": lambda: Attack(headers=(("Host", "attacker.example"),)),
    "DNS rebinding, our port": lambda: Attack(headers=(("Host", "attacker.example:8123"),)),
    "no host": lambda: Attack(without=("host",)),
    "host with a user": lambda: Attack(headers=(("Host", "127.0.0.1@attacker.example"),)),
    "host 0.0.0.0": lambda: Attack(headers=(("Host", "0.0.0.0:80"),)),
    "two hosts": lambda: Attack(headers=(("Host", "127.0.0.1"), ("Host", "attacker.example"))),
    "foreign origin": lambda: Attack(headers=(("Origin", "https://attacker.example"),)),
    "null origin": lambda: Attack(headers=(("Origin", "null"),)),
    "origin of a file": lambda: Attack(headers=(("Origin", "file://"),)),
    "cross-site fetch": lambda: Attack(headers=(("Sec-Fetch-Site", "cross-site"),)),
    "CSRF form": lambda: Attack("POST", "/jobs", b"kind=inspect", kind="application/x-www-form-urlencoded"),
    "CSRF text form": lambda: Attack("POST", "/jobs", b'{"kind": "inspect"}', kind="text/plain"),
    "CSRF multipart": lambda: Attack("POST", "/jobs", b"--x--", kind="multipart/form-data; boundary=x"),
    "preflight": lambda: Attack("OPTIONS", "/jobs", headers=(("Origin", "https://attacker.example"),)),
    "TRACE": lambda: Attack("TRACE", "/health"),
    "CONNECT": lambda: Attack("CONNECT", "attacker.example:443"),
    "PATCH": lambda: Attack("PATCH", "/jobs", b"{}"),
    "web socket": lambda: Attack(
        headers=(("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x"), ("Origin", "http://x"))
    ),
    # how much
    "giant header": lambda: Attack(headers=(("X-Big", "x" * 100_000),)),
    "thousand headers": lambda: Attack(headers=tuple((f"X-{k}", "1") for k in range(1000))),
    "long address": lambda: Attack(path="/" + "a" * 50_000),
    "body of 8 TB declared": lambda: Attack(
        "PUT", f"/images/{NAME}", b"x", (("Content-Length", "8796093022208"),), kind=ARRAYS_TYPE
    ),
    "negative length": lambda: Attack("POST", "/jobs", b"{}", (("Content-Length", "-1"),)),
    "length is text": lambda: Attack("POST", "/jobs", b"{}", (("Content-Length", "many"),)),
    "two lengths": lambda: Attack("POST", "/jobs", b"{}", (("Content-Length", "2"), ("Content-Length", "7"))),
    "chunked without length": lambda: Attack(
        "POST", "/jobs", b"0\r\n\r\n", (("Transfer-Encoding", "chunked"),), without=("content-length",)
    ),
    "smuggled request": lambda: Attack(
        "POST",
        "/jobs",
        b"0\r\n\r\nGET /health HTTP/1.1\r\n\r\n",
        (("Transfer-Encoding", "chunked"), ("Content-Length", "5")),
    ),
    "body with GET": lambda: Attack("GET", "/health", b"x" * 10),
    "zip bomb": lambda: Attack("PUT", f"/images/{NAME}", zeros_npz(), kind=ARRAYS_TYPE),
    "array that promises 8 TB": lambda: Attack("PUT", f"/images/{NAME}", bomb_npz(), kind=ARRAYS_TYPE),
    "deep JSON": lambda: Attack("POST", "/jobs", b'{"parameters":' + b"[" * 100_000),
    # which files
    "path traversal in an image": lambda: Attack(path="/images/../../etc/passwd"),
    "encoded traversal": lambda: Attack(path="/images/%2e%2e%2f%2e%2e%2fetc%2fpasswd"),
    "traversal in a job": lambda: Attack(path="/jobs/..%2f..%2fetc%2fpasswd/result"),
    "null byte": lambda: Attack(path="/images/" + "a" * 60 + "%00.py"),
    "absolute address": lambda: Attack(path="http://attacker.example/health", headers=(("Host", "attacker.example"),)),
    "path as image": lambda: job(image="/etc/passwd"),
    "file address as image": lambda: job(image="file:///etc/passwd"),
    "path as lesions": lambda: job(
        "export", image=None, parameters={"case": {}, "lesions": "/etc/passwd"}, path="/etc/passwd"
    ),
    "docs page": lambda: Attack(path="/docs"),
    "static file": lambda: Attack(path="/static/../app.py"),
    # what is inside
    "pickle as image": lambda: Attack("PUT", f"/images/{NAME}", pickle.dumps({"a": 1}), kind=ARRAYS_TYPE),
    "pickle in an npz": lambda: Attack("PUT", f"/images/{NAME}", pickled_npz(), kind=ARRAYS_TYPE),
    "no npz": lambda: Attack("PUT", f"/images/{NAME}", b"hello", kind=ARRAYS_TYPE),
    "truncated npz": lambda: Attack("PUT", f"/images/{NAME}", IMAGE[: len(IMAGE) // 2], kind=ARRAYS_TYPE),
    "npz as JSON": lambda: Attack("POST", "/jobs", IMAGE, kind=JSON_TYPE),
    "truncated DICOM as image": lambda: Attack(
        "PUT", f"/images/{NAME}", b"\0" * 128 + b"DICM" + b"\2\0" * 40, kind=ARRAYS_TYPE
    ),
    "text as pixels": lambda: image_attack({"pixels": np.array(["a", "b"])}, header_with()),
    "image under another's name": lambda: image_attack(PIXELS, header_with()),
    "no pixels": lambda: image_attack({}, header_with()),
    "two arrays": lambda: image_attack({**PIXELS, "more": np.zeros(3)}, header_with()),
    "NaN pixels": lambda: image_attack({"pixels": np.full((4, 4), np.nan, np.float32)}, header_with()),
    "NaN spacing": lambda: image_attack(PIXELS, header_with(pixel_spacing_mm=[float("nan"), 1.0])),
    "zero spacing": lambda: image_attack(PIXELS, header_with(pixel_spacing_mm=[0.0, 1.0])),
    "infinite position": lambda: image_attack(PIXELS, header_with(positions_lps_mm=[[float("inf"), 0, 0]] * 7)),
    "ragged positions": lambda: image_attack(PIXELS, header_with(positions_lps_mm=[[1, 2, 3], [1]])),
    "unknown header field": lambda: image_attack(PIXELS, header_with(patient_name="DOE^JANE")),
    "unknown fact": lambda: image_attack(PIXELS, header_with(facts={"patient_name": "DOE^JANE"})),
    "header is a list": lambda: image_attack(PIXELS, [1, 2]),
    "header is a number": lambda: image_attack(PIXELS, 7),
    "complex pixels": lambda: image_attack({"pixels": np.ones((3, 3), complex)}, header_with()),
    "empty pixels": lambda: image_attack({"pixels": np.zeros((0, 3, 3), np.int16)}, header_with()),
    "blob of another name": lambda: Attack("PUT", f"/blobs/{NAME}", b"hello", kind=BYTES_TYPE),
    "unknown kind of job": lambda: job("shell"),
    "dunder as kind": lambda: job("__class__"),
    "extra field in a job": lambda: job(command="rm -rf /"),
    "job is a list": lambda: Attack("POST", "/jobs", b"[]"),
    "job is NaN": lambda: Attack("POST", "/jobs", b"NaN"),
    "job with a bad byte": lambda: Attack("POST", "/jobs", b'{"kind": "\xff\xfe"}'),
    "result of nothing": lambda: Attack(path="/jobs/" + "0" * 32 + "/result"),
    "cancel of nothing": lambda: Attack("DELETE", "/jobs/" + "0" * 32),
    "image that isn't there": lambda: job(image="b" * 64),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused(backend: Backend, name: str) -> None:
    status, answer = send(backend, ATTACKS[name]())
    assert status == 0 or 400 <= status < 500, (status, answer[:300])
    for secret in (b"Traceback", b'File "', b".py", backend.token.encode(), b"/home", b"site-packages"):
        assert secret not in answer
    assert backend.process.poll() is None
    assert backend.client.health()["protocol"] == 1


RAW = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS hello": bytes.fromhex("1603010200010001fc0303") + bytes(64),
    "HTTP/0.9": b"GET /health\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "header without colon": b"GET /health HTTP/1.1\r\nHost 127.0.0.1\r\n\r\n",
    "folded header": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n x\r\n\r\n",
    "bare line feeds": b"GET /health HTTP/1.1\nHost: attacker\n\n",
    "null bytes": bytes(1000),
}


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_are_no_request_are_refused(backend: Backend, name: str) -> None:
    status, answer = send_raw(backend, RAW[name], hang_up=True)
    assert status == 0 or 400 <= status < 500, (status, answer[:300])
    assert backend.client.health()["protocol"] == 1


def test_a_slow_client_does_not_stop_the_others(backend: Backend) -> None:
    with socket.create_connection(("127.0.0.1", backend.port)) as slow:
        slow.sendall(b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        before = time.monotonic()
        assert backend.client.health()["protocol"] == 1
        assert time.monotonic() - before < 5


def test_the_token_is_nowhere_to_be_read(backend: Backend) -> None:
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc")
    command = Path(f"/proc/{backend.process.pid}/cmdline").read_bytes()
    assert backend.token.encode() not in command


UNSAFE_ZIPS = {
    "climbs out": "../evil.txt",
    "climbs out below": "a/../../evil.txt",
    "absolute": "/tmp/evil.txt",
    "Windows drive": "C:/evil.txt",
    "backslashes": "..\\evil.txt",
}


@pytest.mark.parametrize("name", UNSAFE_ZIPS)
def test_the_client_refuses_an_unsafe_export(name: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("dicom/IM0001.dcm", b"fine")
        archive.writestr(UNSAFE_ZIPS[name], b"evil")
    stream.seek(0)
    with pytest.raises(BackendError, match="refused"):
        unpack_folder(stream, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path / "deep" / "out").exists()


def test_the_client_refuses_links_and_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    stream.seek(0)
    with pytest.raises(BackendError, match="refused"):
        unpack_folder(stream, tmp_path / "out")
    monkeypatch.setattr("HiResMedSynthLib.service.client.LARGEST_EXPORT", 1000)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big", bytes(5000))
    stream.seek(0)
    with pytest.raises(BackendError, match="too large"):
        unpack_folder(stream, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_mutated_images_never_hurt(backend: Backend) -> None:
    """A seeded mutation fuzz of what an image upload holds: no 500, no crash."""
    rng = np.random.default_rng(20261125)
    small = pack_arrays({"pixels": ct_image().pixels[:, :8, :8].copy()}, header_with())
    for _ in range(150):
        data = bytearray(small)
        for place in rng.integers(0, len(data), size=int(rng.integers(1, 12))):
            data[place] = int(rng.integers(0, 256))
        cut = data if rng.random() < 0.7 else data[: int(rng.integers(1, len(data)))]
        name = hashlib.sha256(bytes(cut)).hexdigest()  # never its own: even an undamaged one is refused in the end
        status, answer = send(backend, Attack("PUT", f"/images/{name}", bytes(cut), kind=ARRAYS_TYPE))
        assert status == 422, (status, answer[:200])
    assert backend.client.health()["protocol"] == 1
