"""The whole way in a real Slicer: load, overlays, place, forbidden, compose, before and after, export, save, reload.

    Slicer --testing --no-splash --additional-module-paths CHECKOUT/HiResMedSynth --python-script THIS_FILE

Untested until someone runs it: no Slicer was at hand where it was written. The Python of the backend is taken from
HIRESMEDSYNTH_PYTHON, else as the panel chooses it. Ends with exit code 0 and "in_slicer: all steps passed".
"""

import os
import tempfile
import time
import traceback
from pathlib import Path

import slicer

PICTURES = os.environ.get("HIRESMEDSYNTH_PICTURES")
STEP_S = 180
RIGHT_LUNG, MEDIASTINUM = (0, 450, 340), (0, 450, 520)


def until(condition, what):
    """Lets the event loop run until something is so."""
    end = time.monotonic() + STEP_S
    while not condition():
        slicer.app.processEvents()
        time.sleep(0.005)
        if time.monotonic() > end:
            raise RuntimeError(f"waited {STEP_S} s in vain: {what}")


def settle(studio):
    """Until nothing is under way."""
    quiet = 0
    while quiet < 5:
        until(lambda: studio.is_idle, "the panel to settle")
        slicer.app.processEvents()
        quiet = quiet + 1 if studio.is_idle else 0


def photograph(name):
    """The whole window, where a folder for pictures is named."""
    if PICTURES and slicer.util.mainWindow() is not None:
        slicer.app.processEvents()
        slicer.util.mainWindow().grab().save(str(Path(PICTURES) / f"{name}.png"))


def run(folder):
    """The steps; a failed one raises."""
    if os.environ.get("HIRESMEDSYNTH_PYTHON"):
        slicer.app.userSettings().setValue("HiResMedSynth/interpreter", os.environ["HIRESMEDSYNTH_PYTHON"])
    start = time.monotonic()
    slicer.util.selectModule("HiResMedSynth")
    print(f"in_slicer: module selected in {time.monotonic() - start:.2f} s")  # noqa: T201
    widget = slicer.modules.HiResMedSynthWidget
    studio, panel = widget.studio, widget.panel
    assert not panel.compose.apply.enabled
    panel.background.sample_film.click()
    until(lambda: studio.parameters.prior is not None, "the overlays")
    settle(studio)
    assert studio.parameters.danger.GetSegmentation().GetNumberOfSegments() == 4
    points = studio.parameters.points
    points.AddControlPointWorld(*studio.image.world_of(RIGHT_LUNG))
    settle(studio)
    assert studio.composition.keys == (1,)
    points.AddControlPointWorld(*studio.image.world_of(MEDIASTINUM))
    settle(studio)
    assert list(studio.refused) == [2]
    photograph("slicer_forbidden")
    studio.move_to_nearest(2)
    settle(studio)
    assert not studio.refused
    before = slicer.util.arrayFromVolume(studio.parameters.background)
    after = slicer.util.arrayFromVolume(studio.parameters.composed)
    assert (before != after).any()
    panel.compose.after.setChecked(False)
    panel.compose.after.setChecked(True)
    photograph("slicer_composed")
    panel.export.folder.setCurrentPath(str(folder))
    settle(studio)
    panel.export.export.click()
    until(lambda: (folder / "synthetic-0001" / "case.json").is_file(), "the export")
    settle(studio)
    kept = after.copy()
    scene = folder / "case.mrb"
    assert slicer.util.saveScene(str(scene))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(scene))
    until(lambda: studio.parameters is not None and studio.is_ready, "the scene to be taken up again")
    settle(studio)
    assert (slicer.util.arrayFromVolume(studio.parameters.composed) == kept).all()
    assert len(studio.composition.keys) == 2


def main():
    """Runs the steps and quits Slicer with the result."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder))
    except Exception:
        traceback.print_exc()
        slicer.util.exit(1)
    print("in_slicer: all steps passed")  # noqa: T201
    slicer.util.exit(0)


if __name__ == "__main__":
    main()
