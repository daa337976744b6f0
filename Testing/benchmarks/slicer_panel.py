"""Speed of the Slicer panel in the stand-in application: module selection, drag to a visible lesion, longest slot.

.venv-slicer/bin/python -m Testing.benchmarks.slicer_panel
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from Testing.slicer import standin
from Testing.slicer.conftest import BACKEND_PYTHON, Workbench

WINDOW_SLICES = 300


def main() -> None:
    """Measures, and prints one JSON document."""
    folder = Path(tempfile.mkdtemp())
    application = standin.start(folder)
    application.userSettings().setValue("HiResMedSynth/interpreter", BACKEND_PYTHON)
    before = set(sys.modules)
    start = time.perf_counter()
    bench = Workbench(application, folder)
    application.enter(bench.widget)
    application.processEvents()
    told = {"select_module_s": round(time.perf_counter() - start, 3)}
    told["imported_by_it"] = sorted({name.partition(".")[0] for name in set(sys.modules) - before} & HEAVY)
    turns = Turns(application)
    told["film"] = film(bench, turns)
    application.leave(bench.widget)
    application.close_scene()
    application.enter(bench.widget)
    bench.settle()
    told["ct_300_slices"] = volume(bench, turns)
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    bench.widget.cleanup()
    application.close()


HEAVY = {"torch", "pydantic", "pydicom", "SimpleITK", "cv2", "scipy", "highdicom", "pandas", "matplotlib"}


class Turns:
    """How long each turn of the event loop takes: the longest is what a user feels. Rendering is not in it."""

    def __init__(self, application: object) -> None:
        self._process = application.processEvents
        self.longest = 0.0
        application.processEvents = self._timed

    def _timed(self) -> None:
        start = time.perf_counter()
        self._process()
        self.longest = max(self.longest, time.perf_counter() - start)

    def take(self) -> float:
        """The longest since the last call, in ms."""
        longest, self.longest = self.longest, 0.0
        return round(1000 * longest, 1)


def drags(bench: Workbench, view: object, key_place: object, goals: list, turns: Turns) -> dict:
    """Median and worst time from a mouse event of a drag to the recomposed lesion on the screen, ms."""
    studio, times, renders = bench.studio, [], []
    place = key_place
    for goal in goals:
        marks = []

        def moved(marks: list = marks) -> None:
            shown = studio.composition
            start = time.perf_counter()
            while studio.composition is shown:
                bench.app.processEvents()
                time.sleep(0.001)
                if time.perf_counter() - start > 5:
                    return
            painted = time.perf_counter()
            view.render()
            renders.append(time.perf_counter() - painted)
            marks.append(time.perf_counter() - start)

        view.drag(place, goal, steps=4, between=moved)
        bench.settle()
        times += marks
        place = goal
    return {
        "drag_to_visible_ms": round(1000 * statistics.median(times)),
        "worst_ms": round(1000 * max(times)),
        "of_it_rendering_ms": round(1000 * statistics.median(renders)),
        "moves": len(times),
        "longest_turn_ms": turns.take(),
    }


def film(bench: Workbench, turns: Turns) -> dict:
    """A film of 1024 x 1024."""
    start = time.perf_counter()
    view = bench.load("film")
    ready = time.perf_counter() - start
    loading = turns.take()
    image = bench.studio.image
    bench.place(view, (0, 450, 340))
    placing = turns.take()
    goals = [image.world_of((0, row, column)) for row, column in ((480, 330), (430, 360), (400, 330), (450, 340))]
    result = drags(bench, view, bench.positions()[0], goals, turns)
    return {"sample_to_overlays_s": round(ready, 1), "loading_turn_ms": loading, "placing_turn_ms": placing, **result}


def volume(bench: Workbench, turns: Turns) -> dict:
    """A CT of 300 x 512 x 512 that is in Slicer already."""
    import slicer
    from HiResMedSynthPanel import sample_data

    pixels, _matrix = sample_data.make("ct")
    rows = np.linspace(0, pixels.shape[1] - 1, 512).astype(int)
    columns = np.linspace(0, pixels.shape[2] - 1, 512).astype(int)
    slices = np.linspace(0, pixels.shape[0] - 1, WINDOW_SLICES).astype(int)
    large = pixels[slices][:, rows][:, :, columns].copy()
    node = slicer.util.addVolumeFromArray(large, np.diag([-0.71, -0.49, 0.8, 1.0]), "large")
    bench.app.processEvents()
    turns.take()
    start = time.perf_counter()
    bench.studio.parameters.background = node
    bench.until(lambda: bench.studio.parameters.prior is not None)
    bench.settle()
    ready = time.perf_counter() - start
    loading = turns.take()
    view = bench.app.layoutManager().sliceWidget("Red")
    view.fitSliceToBackground()
    image = bench.studio.image
    bench.place(view, (150, 256, 122))
    placing = turns.take()
    bench.panel.where.show_danger.setChecked(False)
    view.render()
    position = bench.positions()[0]
    goals = [image.world_of((150, row, column)) for row, column in ((262, 122), (256, 128), (250, 120))]
    result = drags(bench, view, position, goals, turns)
    return {"chosen_to_overlays_s": round(ready, 1), "loading_turn_ms": loading, "placing_turn_ms": placing, **result}


if __name__ == "__main__":
    main()
