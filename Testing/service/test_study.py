"""The reader study over HTTP: codes, cookies, trials and answers of the real program."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import requests

from HiResMedSynthLib.evaluation.reader_study import open_study
from Testing.evaluation.study_folders import SIDE, small_study
from Testing.service.conftest import PROGRAM, free_port
from Testing.service.study_server import StudyServer, serving

JSON = {"Content-Type": "application/json"}


def answer(session: requests.Session, server: StudyServer, trial: int, choice: str = "real") -> requests.Response:
    body = {"trial": trial, "choice": choice, "confidence": 2, "seconds": 1.25}
    return session.post(f"{server.origin}/answers", json=body, timeout=20)


def test_a_reader_signs_in_sees_two_trials_ahead_and_no_more(tmp_path: Path) -> None:
    study, _ = small_study(tmp_path)
    with serving(study.folder, 2) as server:
        first_code = server.code("Ann")
        ann = server.sign_in("Ann")
        told = ann.get(f"{server.origin}/study", timeout=20).json()
        assert (told["reader"], told["trials"], told["next"], told["choices"]) == ("Ann", 8, 1, ["real", "synthetic"])
        for number in (1, 2):
            got = ann.get(f"{server.origin}/trials/{number}/images/1", timeout=20)
            values = np.frombuffer(got.content, "<u2")
            assert values.shape == (SIDE * SIDE,) and values.max() == 4095
            token = study.trials("Ann")[number - 1][0].token
            assert values.tobytes() == gzip.decompress((study.folder / "images" / f"{token}.u16.gz").read_bytes())
        for path in (
            "/trials/3/images/1",
            "/trials/1/images/2",
            "/trials/0",
            "/trials/-1",
            "/key.json",
            "/design.json",
        ):
            assert ann.get(f"{server.origin}{path}", timeout=20).status_code in (404, 422), path
        assert answer(ann, server, 2).status_code == 409
        assert answer(ann, server, 1).json() == {"next": 2}
        assert answer(ann, server, 1).status_code == 409
        assert ann.get(f"{server.origin}/trials/1/images/1", timeout=20).status_code == 404
        assert ann.get(f"{server.origin}/trials/3/images/1", timeout=20).status_code == 200
        # the code that was spent opens nothing; a newer one ends the earlier session
        again = {"code": first_code}
        assert ann.post(f"{server.origin}/session", json=again, timeout=20).status_code == 401
        newer = server.sign_in("Ann")
        assert ann.get(f"{server.origin}/study", timeout=20).status_code == 401
        assert newer.get(f"{server.origin}/study", timeout=20).json()["next"] == 2


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(tmp_path: Path) -> None:
    study, _ = small_study(tmp_path)
    with serving(study.folder, 2) as server:
        code = server.code("Ann").lower().replace("-", " ")  # as somebody may type it
        answer = requests.post(
            f"{server.origin}/session", json={"code": code}, headers={"Origin": server.origin}, timeout=20
        )
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"hiresmedsynth-study-{server.port}=")
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Domain" not in cookie
        page = requests.get(f"{server.origin}/", timeout=20)
        assert page.headers["cache-control"] == "no-store"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert "style=" not in page.text and page.text.count("<script") == 1


def test_kill_9_after_an_answer_loses_nothing(tmp_path: Path) -> None:
    study, _ = small_study(tmp_path)
    with serving(study.folder, 2) as server:
        ann, ben = server.sign_in("Ann"), server.sign_in("Ben")
        for number in (1, 2, 3):
            assert answer(ann, server, number, "synthetic").status_code == 200
        assert answer(ben, server, 1).status_code == 200
        server.process.kill()
        server.process.wait(timeout=20)
    lines = [json.loads(line) for line in study.answers_path.read_text().splitlines()]
    assert [(one["reader"], one["trial"]) for one in lines] == [("Ann", 1), ("Ann", 2), ("Ann", 3), ("Ben", 1)]
    with serving(study.folder, 2) as server:
        told = server.sign_in("Ann").get(f"{server.origin}/study", timeout=20).json()
        assert told["next"] == 4


def test_ctrl_c_ends_it_and_says_that_answers_are_kept(tmp_path: Path) -> None:
    study, _ = small_study(tmp_path)
    port = free_port()
    line = [PROGRAM, "study", "serve", study.folder, "--port", str(port)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[1].startswith("Ann ") and "(0 of 8 answered)" in lines[2]
        origin = lines[1].split()[1].split("/#")[0]
        assert origin.endswith(f":{port}")
        assert requests.get(origin, timeout=20).status_code == 200
        process.send_signal(signal.SIGINT)
        assert "All answers are kept" in process.stdout.read()
        assert process.wait(timeout=20) == 0


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "study", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_study_from_the_command_line_and_what_serve_refuses(tmp_path: Path) -> None:
    small_study(tmp_path)
    made = run(
        "new", tmp_path / "real", tmp_path / "made", "--out", tmp_path / "cli", "--count", 6,
        "--readers", "Dr A, Dr B", "--design", "2afc", "--key", tmp_path / "key.json", "--no-ring",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "Dr A, Dr B, 6 trials each" in made.stdout and (tmp_path / "key.json").is_file()
    study = open_study(tmp_path / "cli")
    with serving(study.folder, 2) as server:
        twice = run("serve", study.folder)
        assert twice.returncode == 1 and "served already" in twice.stderr
        reader = server.sign_in("Dr A")
        assert answer(reader, server, 1, "A").json() == {"next": 2}
    assert run("score", study.folder).returncode == 1  # the key is elsewhere
    scored = run("score", study.folder, "--key", tmp_path / "key.json", "--report", tmp_path / "scores")
    assert scored.returncode == 0 and "answered                 1 of 6" in scored.stdout
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["readers"][0]["reader"] == "Dr A"
    (tmp_path / "scores" / "scores.json").write_text("of another study")
    scoring = ("score", study.folder, "--key", tmp_path / "key.json", "--report", tmp_path / "scores")
    again = run(*scoring)
    assert again.returncode == 1 and "scores are there already" in again.stderr and "--overwrite" in again.stderr
    assert (tmp_path / "scores" / "scores.json").read_text() == "of another study"
    told = []
    for choice in ((), ("--interval", "wilson", "--margin", "0.2")):
        assert run(*scoring, "--overwrite", *choice).returncode == 0
        told.append(json.loads((tmp_path / "scores" / "scores.json").read_text())["readers"][0])
    assert [one["reader"] for one in told] == ["Dr A", "Dr A"]
    assert told[0]["accuracy"] != told[1]["accuracy"]  # at n = 1 the intervals lie far apart
    assert told[0]["equivalence"] != told[1]["equivalence"]
    picture = next((study.folder / "images").iterdir())
    picture.write_bytes(b"\0" + picture.read_bytes())
    refused = run("serve", study.folder)
    assert refused.returncode == 1 and "changed since" in refused.stderr
    assert "Traceback" not in refused.stderr + twice.stderr


def test_a_picture_changed_while_serving_is_not_shown(tmp_path: Path) -> None:
    study, _ = small_study(tmp_path)
    with serving(study.folder, 2) as server:
        ann = server.sign_in("Ann")
        path = study.folder / "images" / f"{study.trials('Ann')[0][0].token}.u16.gz"
        path.write_bytes(path.read_bytes() + b"\0")
        got = ann.get(f"{server.origin}/trials/1/images/1", timeout=20)
        assert got.status_code == 409 and str(tmp_path) not in got.text


def test_an_answer_that_is_not_valid_is_not_written(tmp_path: Path) -> None:
    study, _ = small_study(tmp_path)
    valid = {"trial": 1, "choice": "real", "confidence": 2, "seconds": 1.0}
    wrong = ({"trial": "1"}, {"confidence": 2.5}, {"confidence": 0}, {"choice": 7}, {"seconds": -1}, {"reader": "Ben"})
    bodies: list[object] = [[], None, "real", {}, *({**valid, **change} for change in wrong)]
    with serving(study.folder, 2) as server:
        ann = server.sign_in("Ann")
        for body in bodies:
            got = ann.post(f"{server.origin}/answers", data=json.dumps(body), headers=JSON, timeout=20)
            assert got.status_code == 422, (body, got.text)
        assert study.answers_path.read_bytes() == b""
