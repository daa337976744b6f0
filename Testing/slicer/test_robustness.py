"""What goes wrong leaves a working panel: a killed backend, a closed scene, reload, deleted nodes, odd images."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

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
    studio.edit(1, "size", size_mm=(18.0, 18.0))
    bench.settle()
    assert studio.composition.drawn(1)["diameter_mm"] == pytest.approx(18)


def test_cancel_ends_what_is_under_way_and_the_preview_goes_on(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    studio, apply = bench.studio, bench.panel.compose.apply
    studio.update_where()
    studio.edit(1, "size", size_mm=(16.0, 16.0))
    bench.until(lambda: apply.text == "Cancel")
    apply.click()
    bench.settle()
    assert apply.text == "Apply"
    assert any("cancelled" in text for text, _problem in bench.said)
    studio.edit(1, "size", size_mm=(18.0, 18.0))
    bench.settle()
    assert studio.composition.drawn(1)["diameter_mm"] == pytest.approx(18)
    assert not studio.stale


def test_two_backgrounds_in_a_row(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    studio = bench.studio
    film = studio.parameters.background
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
    assert bench.studio.parameters.points is None
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
        told = bench.panel.background.about.text + "".join(text for text, _problem in bench.said)
        assert words in told
    noise = np.random.default_rng(0).integers(0, 900, (1, 64, 64)).astype(np.int16)
    bench.studio.parameters.background = slicer.util.addVolumeFromArray(noise, None, "noise")
    bench.settle()
    assert any("doesn't tell what it shows" in text for text, problem in bench.said if problem)
    bench.studio.parameters.domain = "cxr"
    bench.settle()
    assert any("chest" in text.lower() or "lung" in text.lower() for text, problem in bench.said if problem)


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


def test_what_is_changed_while_a_composition_is_under_way_wins(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG, (0, 360, 720))
    studio = bench.studio
    studio.edit(2, "size", size_mm=(16.0, 16.0))
    studio.undo()
    bench.settle()
    assert studio.composition.drawn(2)["diameter_mm"] == pytest.approx(20)
    studio.redo()
    bench.settle()
    assert studio.composition.drawn(2)["diameter_mm"] == pytest.approx(16)
    studio.edit(1, "size", size_mm=(15.0, 15.0))
    studio.delete(1)
    studio.delete(2)
    bench.settle()
    assert studio.composition.keys == ()
    background = slicer.util.arrayFromVolume(studio.parameters.background)
    assert (slicer.util.arrayFromVolume(studio.parameters.composed) == background).all()


def test_a_deleted_lesion_stays_deleted_in_a_saved_scene(bench: Workbench, tmp_path) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    bench.studio.delete(1)
    bench.settle()
    bench.app.save_scene(tmp_path / "leer.mrb")
    bench.app.leave(bench.widget)
    bench.app.close_scene()
    bench.app.load_scene(tmp_path / "leer.mrb")
    bench.app.enter(bench.widget)
    bench.settle()
    assert not bench.positions()
    assert bench.studio.parameters.caseText is None
    assert not bench.panel.export.export.enabled


def test_a_scene_saved_out_of_date_is_so_when_it_is_opened(bench: Workbench, tmp_path) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    studio = bench.studio
    for changed in (False, True):
        if changed:
            studio.parameters.livePreview = False
            studio.edit(1, "size", size_mm=(11.0, 11.0))
            bench.settle()
        bench.app.save_scene(tmp_path / f"scene{changed}.mrb")
        bench.app.leave(bench.widget)
        bench.app.close_scene()
        bench.app.load_scene(tmp_path / f"scene{changed}.mrb")
        bench.app.enter(bench.widget)
        bench.until(lambda: studio.is_ready)
        bench.settle()
        assert studio.stale is changed
        assert bench.panel.export.export.enabled is False or not changed


def test_every_setting_of_the_case_is_in_the_preview(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    studio, p = bench.studio, bench.studio.parameters
    p.caseSeed, p.fusion, p.minDistance, p.pleuraMargin = 77, "paper", 33.0, 1.5
    assert studio.stale
    bench.settle()
    assert not studio.stale
    case = studio.composition.case
    assert (case["seed"], case["settings"]["fusion"], case["settings"]["min_distance_mm"]) == (77, "paper", 33.0)
    assert case["settings"]["margins"]["pleura_mm"] == 1.5


def test_a_point_moved_by_other_means_is_followed(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    studio = bench.studio
    studio.parameters.points.SetNthControlPointPositionWorld(0, *studio.image.world_of((0, 440, 330)))
    bench.settle()
    assert studio.composition.drawn(1)["center"][1:] == pytest.approx([440, 330])


def test_an_image_that_changes_is_taken_anew(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    studio, node = bench.studio, bench.studio.parameters.background
    slicer.util.arrayFromVolume(node)[0, :100, :100] = 500
    slicer.util.arrayFromVolumeModified(node)
    bench.settle()
    assert (slicer.util.arrayFromVolume(studio.parameters.composed)[0, :100, :100] == 500).all()
    assert studio.composition.keys == (1,)
    node.SetOrigin(node.GetOrigin()[0] - 21.0, node.GetOrigin()[1], node.GetOrigin()[2])
    bench.settle()
    where = studio.image.place_of(bench.positions()[0])
    refused = studio.refused.get(1)
    assert refused or studio.composition.drawn(1)["center"] == pytest.approx(where, abs=0.02)


def test_the_next_image_starts_without_the_last_ones_overlays_and_spacing(bench: Workbench) -> None:
    bench.load("film")
    p = bench.studio.parameters
    p.assumedSpacing = 0.4
    bench.settle()
    noise = np.random.default_rng(0).integers(0, 900, (1, 64, 64)).astype(np.int16)
    p.background = slicer.util.addVolumeFromArray(noise, np.diag([-0.2, -0.2, 1.0, 1.0]), "noise")
    assert p.danger is None
    bench.settle()
    assert p.assumedSpacing == 0.0
    assert bench.studio.image.header.pixel_spacing_mm == pytest.approx((0.2, 0.2))
    assert p.danger is None, "no lung is found in it"


def test_one_impossible_lesion_leaves_the_others(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG, (0, 360, 720))
    bench.studio.edit(2, "size", size_mm=(150.0, 150.0))
    bench.settle()
    assert bench.studio.composition.keys == (1,)
    assert list(bench.studio.refused) == [2]


def test_a_pasted_point_becomes_a_lesion_of_its_own(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    node = bench.studio.parameters.points
    description = node.GetNthControlPointDescription(0)
    index = node.AddControlPointWorld(*bench.studio.image.world_of((0, 360, 720)))
    node.SetNthControlPointDescription(index, description)
    node.SetNthControlPointDescription(node.AddControlPointWorld(*bench.studio.image.world_of((0, 300, 700))), "12")
    bench.settle()
    seeds = [request["seed"] for request in bench.studio.settings()[0]["requests"]]
    assert len(set(seeds)) == 3


def test_results_do_not_reach_another_module(bench: Workbench) -> None:
    bench.load("film")
    bench.panel.where.show_prior.setChecked(True)
    bench.studio.update_where()
    bench.app.leave(bench.widget)
    bench.settle()
    composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    assert composite.GetForegroundVolumeID() is None
    bench.app.enter(bench.widget)


def test_a_foreign_server_gets_neither_image_nor_command(bench: Workbench) -> None:
    import http.server
    import threading

    seen = []

    class Foreign(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(("GET", self.path))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def do_PUT(self) -> None:
            seen.append(("PUT", self.path))
            self.send_response(200)
            self.end_headers()

        do_POST = do_PUT  # noqa: N815

        def log_message(self, *_arguments: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Foreign)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings, backend = bench.app.userSettings(), bench.studio.session.backend
    backend.stop()
    try:
        settings.setValue("HiResMedSynth/url", f"http://127.0.0.1:{server.server_port}")
        bench.panel.background.sample_film.click()
        bench.settle()
        assert any("no backend of this version" in text for text, _problem in bench.said)
        assert set(seen) == {("GET", "/health")}
        backend.stop()
        settings.setValue("HiResMedSynth/url", "http://example.org")
        backend.start("secret")
        assert "https" in backend.problem
    finally:
        settings.setValue("HiResMedSynth/url", "")
        backend.stop()
        server.shutdown()


def test_a_backend_that_tells_no_doubts_will_do(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older ones don't."""
    run = bench.studio.session.run

    def older(kind: str, *, done: Callable[[Any], None], **more: Any) -> Any:
        def without(result: Any) -> None:
            if kind == "danger":
                del result[1]["warnings"]
            done(result)

        return run(kind, done=without, **more)

    monkeypatch.setattr(bench.studio.session, "run", older)
    bench.load("film")
    assert bench.studio.domain == "cxr"
    assert not any(problem for _text, problem in bench.said)


def test_typed_numbers_are_taken_whole(bench: Workbench) -> None:
    import qt

    bench.place(bench.load("film"), RIGHT_LUNG)
    for box in bench.panel.widget.findChildren(qt.QAbstractSpinBox):
        assert not box.keyboardTracking or not box.enabled, box.toolTip
