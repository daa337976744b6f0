"""The attacks on the backend, on the reader study's page too; and those that a page with a cookie invites."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from HiResMedSynthLib.service.protocol import JSON_TYPE
from Testing.evaluation.study_folders import small_study
from Testing.service.attacks.test_attacks import ATTACKS, NAME, RAW, Attack, send_raw
from Testing.service.study_server import StudyServer, serving

ELSEWHERE = {name for name in ATTACKS if "token" in name}  # the study has a cookie in its place
ELSEWHERE |= {"zip bomb"}  # takes long to build, and this page takes 4 KiB at most
PATHS = {"/health": "/study", "/jobs": "/answers", f"/images/{NAME}": "/trials/1/images/1"}


@dataclass
class Target:
    """A served study with a reader signed in."""

    server: StudyServer
    cookie: str
    answers: Path

    @property
    def port(self) -> int:
        return self.server.port


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    study, _ = small_study(tmp_path_factory.mktemp("study"))
    with serving(study.folder, 2) as server:
        session = server.sign_in("Ann")
        (cookie,) = session.cookies
        yield Target(server, f"{cookie.name}={cookie.value}", study.answers_path)
        assert server.process.poll() is None, "the study died during the attacks"
        assert study.answers_path.read_bytes() == b"", "an attack has answered"
        assert session.get(f"{server.origin}/study", timeout=20).json()["next"] == 1


def send(target: Target, attack: Attack) -> tuple[int, bytes]:
    """As the page would, but for what the attack changes."""
    headers = {"Host": f"127.0.0.1:{target.port}", "Cookie": target.cookie, "Connection": "close"}
    if attack.method not in ("GET", "DELETE") or attack.body:
        headers |= {"Content-Type": attack.kind, "Content-Length": str(len(attack.body))}
    if attack.method == "POST":
        headers["Origin"] = target.server.origin
    given = {name.lower() for name, _ in attack.headers}
    lines = [f"{attack.method} {attack.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name.lower() not in given | set(attack.without)]
    lines += [f"{name}: {value}" for name, value in attack.headers]
    return send_raw(target, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + attack.body)  # type: ignore[arg-type]


def refused(target: Target, attack: Attack) -> None:
    status, answer = send(target, attack)
    assert status == 0 or 400 <= status < 500, (status, answer[:300])
    for secret in (b"Traceback", b'File "', b".py", b"/home", b"site-packages", b"/tmp", target.cookie.encode()):
        assert secret not in answer


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ELSEWHERE])
def test_an_attack_on_the_backend_is_refused_here_too(target: Target, name: str) -> None:
    attack = ATTACKS[name]()
    refused(target, replace(attack, path=PATHS.get(attack.path, attack.path)))


ANSWER = json.dumps({"trial": 1, "choice": "real", "confidence": 3, "seconds": 1.0}).encode()


def answer(*headers: tuple[str, str], without: tuple[str, ...] = (), kind: str = JSON_TYPE) -> Attack:
    return Attack("POST", "/answers", ANSWER, headers=headers, without=without, kind=kind)


def code(text: object) -> Attack:
    return Attack("POST", "/session", json.dumps({"code": text}).encode())


OWN: dict[str, Attack | Callable[[Target], Attack]] = {
    "no cookie": Attack(path="/study", without=("cookie",)),
    "image without cookie": Attack(path="/trials/1/images/1", without=("cookie",)),
    "answer without cookie": answer(without=("cookie",)),
    "wrong cookie": lambda t: Attack(path="/study", headers=(("Cookie", t.cookie[:-64] + "0" * 64),)),
    "empty cookie": lambda t: Attack(path="/study", headers=(("Cookie", t.cookie[:-64]),)),
    "cookie in latin-1": lambda t: Attack(path="/study", headers=(("Cookie", t.cookie[:-64] + "\xe9"),)),
    "cookie of another port": lambda t: Attack(
        path="/study", headers=(("Cookie", t.cookie.replace("-study-", "-x-")),)
    ),
    "cookie planted beside": lambda t: Attack(path="/study", headers=(("Cookie", f"{t.cookie[:-64]}x; {t.cookie}"),)),
    "two cookie headers": lambda t: Attack(path="/study", headers=(("Cookie", t.cookie), ("Cookie", "a=b"))),
    "cookie as token": lambda t: Attack(
        path="/study", headers=(("Authorization", "Bearer " + t.cookie[-64:]),), without=("cookie",)
    ),
    "cookie in the address": lambda t: Attack(path=f"/study?{t.cookie}", without=("cookie",)),
    "answer without origin": answer(without=("origin",)),
    "answer from nowhere": answer(("Origin", "null")),
    "answer from localhost": lambda t: answer(("Origin", f"http://localhost:{t.port}")),
    "answer from another port": answer(("Origin", "http://127.0.0.1:1")),
    "answer from https": lambda t: answer(("Origin", f"https://127.0.0.1:{t.port}")),
    "answer from another site": answer(("Sec-Fetch-Site", "cross-site")),
    "answer from a page on another port": answer(("Sec-Fetch-Site", "same-site")),
    "answer as a form": answer(kind="text/plain"),
    "image for another page": Attack(
        path="/trials/1/images/1", headers=(("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "no-cors"))
    ),
    "by the name localhost": lambda t: Attack(path="/study", headers=(("Host", f"localhost:{t.port}"),)),
    "rebinding to the page": lambda t: Attack(path="/", headers=(("Host", f"attacker.example:{t.port}"),)),
    "code of a stranger": code("AAAA-BBBB-CCCC-DDDD"),
    "no code": code(""),
    "code is a list": code(["A"]),
    "endless code": code("A" * 3000),
    "code beyond ASCII": code("\u0410" * 16),
    "code without origin": Attack("POST", "/session", b'{"code": "A"}', without=("origin",)),
    "code in the address": Attack(path="/session?code=AAAABBBBCCCCDDDD"),
    "body of 5 kB": Attack("POST", "/answers", b'{"choice": "' + b"x" * 5000 + b'"}'),
    "HEAD": Attack("HEAD", "/"),
    "delete of answers": Attack("DELETE", "/answers"),
    "the key": Attack(path="/key.json"),
    "the key by climbing": Attack(path="/trials/1/images/..%2f..%2f..%2fkey.json"),
    "the design": Attack(path="/../design.json"),
    "the answers": Attack(path="/answers.jsonl"),
    "our own files": Attack(path="/page/../study.py"),
    "an address list": Attack(path="/openapi.json"),
    "image of a later trial": Attack(path="/trials/3/images/1"),
    "image by a huge number": Attack(path="/trials/1/images/" + "9" * 5000),
    "answer in another's name": Attack(
        "POST", "/answers", json.dumps({**json.loads(ANSWER), "reader": "Ben"}).encode()
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_an_attack_on_the_page_is_refused(target: Target, name: str) -> None:
    attack = OWN[name]
    refused(target, attack if isinstance(attack, Attack) else attack(target))


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_are_no_request_are_refused(target: Target, name: str) -> None:
    status, answer = send_raw(target, RAW[name], hang_up=True)  # type: ignore[arg-type]
    assert status == 0 or 400 <= status < 500, (status, answer[:300])


def test_what_the_page_itself_sends_is_taken(target: Target) -> None:
    """So that the refusals above are of what was changed, not of everything."""
    for path in ("/", "/study.js", "/study", "/trials/2", "/trials/1/images/1"):
        assert send(target, Attack(path=path, headers=(("Sec-Fetch-Site", "same-origin"),)))[0] == 200, path


def test_codes_are_nowhere_to_be_read(target: Target) -> None:
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc")
    for name in ("cmdline", "environ"):
        held = Path(f"/proc/{target.server.process.pid}/{name}").read_bytes()
        assert target.server.code("Ben").encode() not in held
