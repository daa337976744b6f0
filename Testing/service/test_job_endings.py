"""What a job leaves behind however it ends: no memory held, no folder with pixels, no half export, a reason."""

from __future__ import annotations

import gc
import io
import os
import stat
import tempfile
import threading
import time
import weakref
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from HiResMedSynthLib.service.client import BackendClient, BackendError, SilentBackendError, unpack_folder
from HiResMedSynthLib.service.job_folder import (
    LONGEST_JOB_S,
    PREFIX,
    job_folder,
    remove_folders_in_use,
    remove_folders_left,
)
from HiResMedSynthLib.service.jobs import JobQueue, Result, Step
from HiResMedSynthLib.service.store import Store


class Pixels:
    """What a task holds on to."""


def test_a_job_that_is_cancelled_while_it_waits_lets_its_image_go() -> None:
    jobs, running, go_on = JobQueue(device="cpu", free_memory=lambda: None), threading.Event(), threading.Event()

    def busy(_step: Step) -> Result:
        running.set()
        go_on.wait(10)
        return Result(b"", "text/plain")

    def submit_another() -> tuple[str, weakref.ref[Pixels]]:
        pixels = Pixels()
        return jobs.submit("compose", lambda _step: Result(repr(pixels).encode(), "text/plain")), weakref.ref(pixels)

    jobs.submit("compose", busy)
    assert running.wait(10)
    name, held = submit_another()
    jobs.cancel(name)
    gc.collect()
    assert held() is None
    go_on.set()
    jobs.close()
    assert jobs.status(name).state == "cancelled"  # type: ignore[union-attr]


def test_a_job_tried_again_for_want_of_memory_still_finds_what_it_was_sent() -> None:
    import torch

    store = Store(1000)
    for name in ("image a", "danger a", "blob b", "ground a"):
        store.put(name, name, 10)
    tries = []

    def task(_step: Step) -> Result:
        tries.append(store.names())
        if len(tries) == 1:
            torch.empty(2**50, dtype=torch.uint8)  # a RuntimeError, if the allocator is on the CPU
        return Result(str(store.get("blob b")).encode(), "text/plain")

    jobs = JobQueue(device="cpu", free_memory=store.drop_made)
    name = jobs.submit("export", task)
    deadline = time.monotonic() + 10
    while (found := jobs.result(name)) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    jobs.close()
    assert found is not None
    assert found.body == b"blob b"
    assert tries[1] == ["image a", "blob b"]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_jobs_folder_goes_with_the_job_and_with_a_backend_that_ends_by_force(temporary: Path) -> None:
    with job_folder() as place:
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        (place / "pixels").touch()
        remove_folders_in_use()
        assert list(temporary.iterdir()) == []
    with pytest.raises(ValueError, match="it failed"), job_folder() as place:
        (place / "pixels").touch()
        raise ValueError("it failed")
    assert list(temporary.iterdir()) == []


def test_what_a_killed_backend_left_is_taken_away_by_a_later_one(temporary: Path) -> None:
    old, young, other = (temporary / name for name in (f"{PREFIX}old", f"{PREFIX}young", "other"))
    for folder in (old, young, other):
        folder.mkdir()
        (folder / "pixels").touch()
    for folder in (old, other):
        os.utime(folder, (0, time.time() - LONGEST_JOB_S - 60))
    remove_folders_left()
    assert sorted(temporary.iterdir()) == sorted([young, other])


@pytest.fixture
def cut_off() -> Iterator[BackendClient]:
    """A client of a backend that ends in the middle of its answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"PK")

        def log_message(self, *_arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield BackendClient(f"http://127.0.0.1:{server.server_port}", "x" * 32)
        server.shutdown()
        thread.join()


def test_an_export_whose_answer_breaks_off_is_told_and_leaves_nothing(cut_off: BackendClient, tmp_path: Path) -> None:
    with pytest.raises(SilentBackendError, match="doesn't answer"):
        cut_off.fetch_export("0" * 32, tmp_path / "case")
    assert list(tmp_path.iterdir()) == []


def test_an_unpacked_folder_has_the_permissions_of_any_that_the_user_makes(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("case.json", "{}")
    unpack_folder(stream, tmp_path / "case")
    (tmp_path / "own").mkdir()
    assert (tmp_path / "case").stat().st_mode == (tmp_path / "own").stat().st_mode


def test_a_disk_that_is_full_is_not_taken_for_a_silent_backend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="can't be written here") as refused:
        unpack_folder(io.BytesIO(), tmp_path / "file" / "case")
    assert not isinstance(refused.value, SilentBackendError)
