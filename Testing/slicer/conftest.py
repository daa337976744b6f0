"""The stand-in application with the real module in it and a real backend; needs slicer-core (its own environment)."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HAS_SLICER = importlib.util.find_spec("slicer_core") is not None
collect_ignore_glob = [] if HAS_SLICER else ["*"]
BACKEND_PYTHON = os.environ.get("HIRESMEDSYNTH_PYTHON", str(ROOT / ".venv" / "bin" / "python"))
LONGEST_S = 120.0  # of one step, on a busy machine


class Workbench:
    """The application, the module's widget, and hands to use them."""

    def __init__(self, application: Any, folder: Path) -> None:
        self.app = application
        self.folder = folder
        self.widget = application.load(ROOT / "HiResMedSynth" / "HiResMedSynth.py")
        self.said: list[tuple[str, bool]] = []
        self.listen()
        self.widget.parent.resize(400, 900)
        self.widget.parent.show()

    def listen(self) -> None:
        self.widget.studio.said.connect(lambda text, problem: self.said.append((text, problem)))

    @property
    def studio(self) -> Any:
        return self.widget.studio

    @property
    def panel(self) -> Any:
        return self.widget.panel

    def view(self, name: str) -> Any:
        view = self.app.layoutManager().sliceWidget(name)
        view.render()
        return view

    def until(self, condition: Callable[[], bool], what: str = "") -> None:
        """Lets the event loop run until something is so."""
        end = time.monotonic() + LONGEST_S
        while not condition():
            self.app.processEvents()
            time.sleep(0.002)
            if time.monotonic() > end:
                backend = self.studio.session.backend
                raise AssertionError(f"waited in vain {what}: {self.panel.status.text!r}, {backend.log[-5:]}")

    def settle(self) -> None:
        """Until nothing is under way."""
        quiet = 0

        def idle() -> bool:
            nonlocal quiet
            busy = not self.studio.is_idle
            quiet = 0 if busy else quiet + 1
            return quiet > 5

        self.until(idle, "for the panel to settle")

    def load(self, kind: str) -> Any:
        """Loads a sample by its button."""
        {"ct": self.panel.background.sample_ct, "film": self.panel.background.sample_film}[kind].click()
        self.until(lambda: self.studio.parameters.prior is not None and self.studio.parameters.danger is not None)
        self.settle()
        name = "Red" if kind == "ct" else "Green"
        view = self.app.layoutManager().sliceWidget(name)
        view.fitSliceToBackground()
        view.render()
        return view

    def place(self, view: Any, *places: tuple[float, float, float]) -> None:
        """Places lesions by clicks in a view, at (slice, row, column) of the image."""
        widget = self.panel.lesions.place
        widget.setPlaceModeEnabled(True)
        for place in places:
            view.mrmlSliceNode().JumpSlice(*self.studio.image.world_of(place))
            view.render()
            view.click(self.studio.image.world_of(place))
            self.settle()
        widget.setPlaceModeEnabled(False)
        self.settle()

    def click(self, button: Any) -> None:
        """A click on an enabled button."""
        self.settle()
        assert button.enabled, button.toolTip
        button.click()

    def finish(self, button: Any) -> None:
        """A click, and what it starts done."""
        self.click(button)
        self.until(lambda: self.studio.is_idle)

    def positions(self) -> list[tuple[float, ...]]:
        node = self.studio.parameters.points
        return [tuple(node.GetNthControlPointPositionWorld(k)) for k in range(node.GetNumberOfControlPoints())]


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from Testing.slicer import standin

    folder = tmp_path_factory.mktemp("Slicer Einstellungen für Ärzte")
    os.environ["HIRESMEDSYNTH_MODELS"] = str(folder / "models")  # not those of whoever runs the tests
    application = standin.start(folder)
    application.userSettings().setValue("HiResMedSynth/interpreter", BACKEND_PYTHON)
    yield application
    application.close()


@pytest.fixture(scope="session")
def one_bench(application: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    bench = Workbench(application, tmp_path_factory.mktemp("work"))
    yield bench
    bench.widget.cleanup()


@pytest.fixture
def bench(one_bench: Workbench, application: Any) -> Iterator[Workbench]:
    """The module in an empty scene; the backend stays as it is from test to test."""
    if one_bench.widget.parent.isEntered:
        application.leave(one_bench.widget)
    application.close_scene()
    application.enter(one_bench.widget)
    one_bench.settle()
    one_bench.said.clear()
    yield one_bench


if HAS_SLICER and str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
