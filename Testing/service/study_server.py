"""A reader study served by the real program, and a reader who talks to it as the page does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from Testing.service.conftest import PROGRAM


@dataclass
class StudyServer:
    process: subprocess.Popen[bytes]
    urls: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return next(iter(self.urls.values())).split("/#")[0]

    @property
    def port(self) -> int:
        return int(self.origin.rpartition(":")[2])

    def read_codes(self, count: int) -> None:
        """Takes the next lines that the program prints."""
        assert self.process.stdout is not None
        for _ in range(count):
            told = json.loads(self.process.stdout.readline())
            self.urls[told["reader"]] = told["url"]

    def code(self, reader: str) -> str:
        return self.urls[reader].partition("#")[2]

    def sign_in(self, reader: str) -> requests.Session:
        session = requests.Session()
        session.headers["Origin"] = self.origin
        answer = session.post(f"{self.origin}/session", json={"code": self.code(reader)}, timeout=20)
        assert answer.status_code == 200, answer.text
        self.read_codes(1)  # a new one takes the place of the one that was spent
        return session


@contextmanager
def serving(folder: Path, readers: int) -> Iterator[StudyServer]:
    process = subprocess.Popen(
        [PROGRAM, "study", "serve", str(folder), "--json", "--end-with-stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    server = StudyServer(process)
    assert process.stdin is not None
    try:
        server.read_codes(readers)
        yield server
    finally:
        process.stdin.close()
        process.wait(timeout=20)
