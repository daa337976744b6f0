"""What the panel makes of what its backend says, or doesn't."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from HiResMedSynthLib.service.client import unpack_folder
from Testing.slicer.conftest import Workbench


class Printed:
    """A process that has printed some lines at once."""

    def __init__(self, *lines: bytes) -> None:
        self.lines = list(lines)

    def canReadLine(self) -> bool:  # noqa: N802 (Qt's name)
        return bool(self.lines)

    def readLine(self) -> Any:  # noqa: N802 (Qt's name)
        line = self.lines.pop(0)
        return SimpleNamespace(data=lambda: line)


@pytest.fixture
def backend(bench: Workbench) -> Any:
    """One that starts, for all that it knows."""
    from HiResMedSynthPanel.backend import Backend

    backend = Backend()
    backend.state = "starting"
    return backend


def test_the_port_is_found_behind_what_a_library_prints(backend: Any) -> None:
    backend._process = Printed(b"a library greets\n", b'{"port": 8123}\n')
    backend._read_port()
    assert (backend.state, backend.log) == ("ready", ["a library greets"])


def test_who_waits_for_a_backend_that_never_answers_hears_why(
    bench: Workbench, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from HiResMedSynthPanel.session import Session

    session, heard = Session(backend), list[Any]()
    monkeypatch.setattr(backend, "start", lambda _token: None)
    session.run("inspect", failed=heard.append)
    backend._give_up()
    assert "within a minute" in heard[0].what
    assert (backend.state, session.busy) == ("failed", False)
    session.close()


def test_a_full_disk_of_ones_own_is_not_the_servers_fault(bench: Workbench, backend: Any) -> None:
    from HiResMedSynthPanel.session import Session

    backend.state, backend.is_remote = "ready", True
    session, heard = Session(backend), list[Any]()
    (bench.folder / "file").touch()
    session.think(lambda: unpack_folder(None, bench.folder / "file" / "case"), failed=heard.append)
    bench.until(lambda: bool(heard))
    assert "can't be written here" in heard[0].what
    assert backend.state == "ready"
    session.close()
