"""A real backend in a process of its own, as the panel starts it."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from HiResMedSynthLib.service.client import BackendClient
from HiResMedSynthLib.service.protocol import TOKEN_VARIABLE

PROGRAM = str(Path(sys.executable).parent / "hiresmedsynth")


@dataclass(frozen=True)
class Backend:
    process: subprocess.Popen[bytes]
    port: int
    token: str

    @property
    def client(self) -> BackendClient:
        return BackendClient(f"http://127.0.0.1:{self.port}", self.token)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(*options: str) -> Backend:
    token = secrets.token_hex(32)
    process = subprocess.Popen(
        [PROGRAM, "serve", "--end-with-stdin", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, TOKEN_VARIABLE: token},
    )
    assert process.stdout is not None
    port = json.loads(process.stdout.readline())["port"]
    return Backend(process, port, token)


@pytest.fixture(scope="package")
def backend() -> Iterator[Backend]:
    running = start()
    yield running
    assert running.process.poll() is None, "the backend died during the tests"
    assert running.process.stdin is not None
    running.process.stdin.close()
    assert running.process.wait(timeout=20) == 0
