"""Turns: one at a time, threads and processes; a process that is killed, and a file that it left, stop nobody."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from HiResMedSynthLib import one_at_a_time as turns
from HiResMedSynthLib.one_at_a_time import one_at_a_time

HOLDS = """
import sys, time
from pathlib import Path
from HiResMedSynthLib.one_at_a_time import one_at_a_time
with one_at_a_time(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_threads_go_one_after_the_other_and_leave_nothing(tmp_path: Path) -> None:
    within, most = 0, 0

    def work() -> None:
        nonlocal within, most
        for _ in range(5):
            with one_at_a_time(tmp_path / ".turn"):
                within += 1
                most = max(most, within)
                time.sleep(0.002)
                within -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert not list(tmp_path.iterdir())


def test_another_process_is_waited_for_and_loses_its_turn_when_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LONGEST_WAIT_S", 0.1)
    turn = tmp_path / ".turn"
    with subprocess.Popen([sys.executable, "-c", HOLDS, turn], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(TimeoutError) as late, one_at_a_time(turn):
            pass
        assert late.value.errno == errno.ETIMEDOUT
        other.kill()
        other.wait()
    with one_at_a_time(turn):
        assert turn.exists()
    assert not turn.exists()


def test_a_turn_is_over_where_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError), one_at_a_time(tmp_path / ".turn"):
        raise KeyError
    with one_at_a_time(tmp_path / ".turn"):
        pass


def test_a_folder_that_cant_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), one_at_a_time(tmp_path / "absent" / ".turn"):
        pass


def test_where_the_system_deletes_the_file_with_its_handle_the_file_alone_is_the_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "GOES_WITH_ITS_PROCESS", 0)  # as Windows, whose files go by themselves
    monkeypatch.setattr(turns, "LONGEST_WAIT_S", 0.1)
    with one_at_a_time(tmp_path / ".turn"), pytest.raises(TimeoutError), one_at_a_time(tmp_path / ".turn"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_a_disk_without_locks_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with one_at_a_time(tmp_path / ".turn"), one_at_a_time(tmp_path / ".turn"):
        pass
