"""What goes wrong leaves a working panel: a killed backend, a closed scene, reload, deleted nodes, odd images."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
import slicer

from Testing.slicer.conftest import Workbench

RIGHT_LUNG = (0, 450, 340)


def test_a_killed_backend_is_told_within_two_seconds_and_starts_again(bench: Workbench) -> None:
    view = bench.load("film")
    studio = bench.studio
    session = studio.session
    bench.place(view, RIGHT_LUNG)
    lesion = studio.composition.drawn(1)
    session.run("danger", title="a long job", image=studio.image, parameters=studio.where(), failed=studio.failed)
    os.kill(session.backend.process_id, signal.SIGKILL)
    killed = time.monotonic()
    bench.until(lambda: "stopped" in bench.panel.status.text or "answer" in bench.panel.status.text)
    assert time.monotonic() - killed < 2.0, bench.panel.status.text
    assert studio.composition.drawn(1) == lesion, "the scene is as it was"
    bench.settle()
    studio.edit(1, "size", size_mm=(24.0, 24.0))
    bench.settle()
    assert studio.composition.drawn(1)["diameter_mm"] == pytest.approx(24)


def test_cancel_ends_a_job_and_says_so(bench: Workbench) -> None:
    view = bench.load("film")
    bench.place(view, RIGHT_LUNG)
    studio = bench.studio
    bench.panel.compose.apply.click()
    bench.app.processEvents()
    assert bench.panel.compose.apply.text == "Cancel"
    bench.panel.compose.apply.click()
    bench.settle()
    assert not studio.session.busy
    assert bench.panel.compose.apply.text == "Apply"


def test_two_backgrounds_in_a_row(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    studio = bench.studio
    film = studio.parameters.background
    studio.parameters.domain = ""
    bench.panel.background.sample_ct.click()
    bench.until(lambda: studio.parameters.background is not film)
    bench.settle()
    assert studio.domain == "lung-ct"
    composed = studio.parameters.composed
    assert composed is None or slicer.util.arrayFromVolume(composed).shape == studio.image.shape
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1


def test_a_closed_scene_and_a_reload_leave_a_working_panel(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    bench.app.close_scene()
    bench.settle()
    assert bench.studio.parameters is not None
    assert not bench.studio.is_ready
    assert not bench.positions() if bench.studio.parameters.points else True
    bench.place(bench.load("film"), RIGHT_LUNG)
    process = bench.studio.session.backend.process_id
    entered = bench.widget
    bench.app.leave(entered)
    entered.onReload()
    bench.widget = slicer.modules.HiResMedSynthWidget
    bench.listen()
    assert bench.widget is not entered
    assert not _alive(process), "the old backend is gone"
    assert bench.widget.parent is entered.parent
    bench.app.enter(bench.widget)
    bench.settle()
    assert bench.studio.composition.drawn(1)["diameter_mm"] == pytest.approx(20)
    bench.widget.parent.resize(400, 900)
    bench.widget.parent.show()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def test_deleted_nodes_are_made_again(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    p = bench.studio.parameters
    for name in ("composed", "danger", "prior"):
        slicer.mrmlScene.RemoveNode(getattr(p, name))
        bench.settle()
    bench.studio.compose()
    bench.settle()
    assert (slicer.util.arrayFromVolume(p.composed) != slicer.util.arrayFromVolume(p.background)).any()
    slicer.mrmlScene.RemoveNode(p.points)
    bench.settle()
    assert p.points is not None
    assert not bench.positions()
    slicer.mrmlScene.RemoveNode(p.background)
    bench.settle()
    assert not bench.studio.is_ready
    assert "Choose a background" in bench.panel.background.about.text


def test_odd_images_are_refused_with_the_reason(bench: Workbench) -> None:
    cases = {
        "no image": slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"),
        "NaN": slicer.util.addVolumeFromArray(np.full((1, 32, 32), np.nan, np.float32), None, "nan"),
    }
    for words, node in cases.items():
        bench.studio.parameters.background = node
        bench.settle()
        assert words in bench.panel.background.about.text
    noise = np.random.default_rng(0).integers(0, 900, (1, 64, 64)).astype(np.int16)
    bench.studio.parameters.background = slicer.util.addVolumeFromArray(noise, None, "noise")
    bench.settle()
    assert any("doesn't tell what it shows" in text for text, problem in bench.said if problem)
    bench.studio.parameters.domain = "cxr"
    bench.settle()
    assert any("chest" in text.lower() or "lung" in text.lower() for text, problem in bench.said if problem)


def test_a_python_without_the_packages_is_told(bench: Workbench) -> None:
    settings, backend = bench.app.userSettings(), bench.studio.session.backend
    kept = settings.value("HiResMedSynth/interpreter")
    backend.stop()
    try:
        for interpreter, words in (("/nowhere/python", "can't be started"), ("/bin/false", "ended while it started")):
            settings.setValue("HiResMedSynth/interpreter", interpreter)
            backend.start()
            bench.until(lambda: backend.state == "failed")
            assert words in backend.problem
    finally:
        settings.setValue("HiResMedSynth/interpreter", kept)
    backend.start()
    bench.until(lambda: backend.state == "ready")


def test_leaving_the_module_takes_the_heatmap_away(bench: Workbench) -> None:
    bench.load("film")
    bench.panel.where.show_prior.setChecked(True)
    composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    assert composite.GetForegroundVolumeID() == bench.studio.parameters.prior.GetID()
    bench.app.leave(bench.widget)
    assert composite.GetForegroundVolumeID() is None
    bench.app.enter(bench.widget)
    assert composite.GetForegroundVolumeID() == bench.studio.parameters.prior.GetID()


def test_a_reload_in_the_open_module_needs_no_entering(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    bench.widget.onReload()
    bench.widget = slicer.modules.HiResMedSynthWidget
    bench.listen()
    bench.settle()
    assert bench.studio.composition.keys == (1,)
    bench.place(bench.view("Green"), (0, 360, 720))
    assert bench.studio.composition.keys == (1, 2)


def test_an_emptied_path_counts_as_empty(bench: Workbench, tmp_path) -> None:
    bench.panel.export.folder.setCurrentPath(str(tmp_path))
    assert bench.studio.parameters.exportFolder == str(tmp_path)
    bench.panel.export.folder.setCurrentPath("")
    assert bench.studio.parameters.exportFolder == ""
    bench.settle()
    assert "a folder to write into" in bench.panel.export.export.toolTip


def test_place_mode_ends_with_the_module(bench: Workbench) -> None:
    view = bench.load("film")
    bench.panel.lesions.place.setPlaceModeEnabled(True)
    world = bench.studio.image.world_of(RIGHT_LUNG)
    bench.app.leave(bench.widget)
    view.click(world)
    bench.app.enter(bench.widget)
    bench.settle()
    assert not bench.positions()


def test_a_label_map_is_no_background(bench: Workbench) -> None:
    label = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    slicer.util.updateVolumeFromArray(label, np.zeros((1, 8, 8), np.uint8))
    assert bench.panel.background.selector.nodeCount() == 0
    bench.studio.parameters.background = label
    bench.settle()
    assert "label map" in bench.panel.background.about.text
