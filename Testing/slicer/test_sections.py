"""Bank, annotate, cases and variants."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import slicer
import vtk

from Testing.slicer.conftest import BACKEND_PYTHON, ROOT, Workbench

RIGHT_LUNG, LEFT_LUNG = (0, 450, 340), (0, 360, 720)


def with_nodule(bench: Workbench) -> object:
    """A sample CT with a ball of 10 mm in it."""
    from HiResMedSynthPanel import sample_data

    pixels, matrix = sample_data.make("ct")
    k, j, i = np.mgrid[: pixels.shape[0], : pixels.shape[1], : pixels.shape[2]]
    away = np.sqrt(((k - 24) * 5.0) ** 2 + ((j - 95) * 1.4) ** 2 + ((i - 62) * 1.4) ** 2)
    share = np.clip(8.0 - away, 0, 1)
    node = slicer.util.addVolumeFromArray((pixels + share * (40 - pixels)).astype(np.int16), matrix, "with a nodule")
    bench.studio.parameters.background = node
    bench.until(lambda: bench.studio.is_ready)
    bench.settle()
    return node


def test_a_lesion_is_cut_out_and_placed_elsewhere(bench: Workbench) -> None:
    with_nodule(bench)
    studio, bank = bench.studio, bench.panel.bank
    assert "a name" in bank.make.toolTip
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "around")
    roi.SetCenter(vtk.vtkVector3d(*studio.image.world_of((24, 95, 62))))
    roi.SetSize(26, 26, 26)
    bank.source.setCurrentNode(roi)
    bank.name.setText("mein Rundherd")
    bench.click(bank.make)
    bench.settle()
    assert "mein Rundherd" in studio.cards, bench.said
    assert studio.cards["mein Rundherd"]["diameter_mm"] == pytest.approx(15, abs=2)
    assert "mein Rundherd" in bank.list.item(0).text()
    studio.parameters.points.AddControlPointWorld(*studio.image.world_of((30, 95, 190)))
    bench.settle()
    editor = bench.panel.lesions.editor
    editor.kind.setCurrentIndex(editor.kind.findData("mein Rundherd"))
    bench.settle()
    drawn = studio.composition.drawn(1)
    assert drawn is not None, (studio.refused, bench.said)
    assert drawn["bank_entry"] == "mein Rundherd"
    assert "LIDC" not in json.dumps(drawn)


def test_a_film_gives_no_lesion_in_three_dimensions(bench: Workbench) -> None:
    bench.load("film")
    assert "a CT volume" in bench.panel.bank.make.toolTip


def test_a_case_made_elsewhere_is_opened_edited_and_exported(bench: Workbench, tmp_path: Path) -> None:
    view = bench.load("film")
    studio, panel = bench.studio, bench.panel
    bench.place(view, RIGHT_LUNG, LEFT_LUNG)
    pixels = slicer.util.arrayFromVolume(studio.parameters.composed).copy()
    panel.export.folder.setCurrentPath(str(tmp_path))
    bench.finish(panel.export.export)
    for key in (1, 2):
        studio.delete(key)
        bench.settle()
    studio.parameters.caseSeed = 99
    panel.cases.file.setCurrentPath(str(tmp_path / "synthetic-0001" / "boxes_coco.json"))
    bench.click(panel.cases.open)
    assert "can't be read as a case" in panel.status.text
    panel.cases.file.setCurrentPath(str(tmp_path / "synthetic-0001" / "case.json"))
    bench.click(panel.cases.open)
    bench.settle()
    assert any("this is the image that it was made from" in text for text, _problem in bench.said)
    assert (slicer.util.arrayFromVolume(studio.parameters.composed) == pixels).all(), "bit for bit"
    studio.edit(2, "size", size_mm=(14.0, 14.0))
    bench.settle()
    bench.finish(panel.export.export)
    case = json.loads((tmp_path / "synthetic-0002" / "case.json").read_text(encoding="utf-8"))
    assert [lesion["diameter_mm"] for lesion in case["lesions"]] == pytest.approx([20, 14])


def test_a_case_of_a_data_set_keeps_its_seed_and_its_mark(bench: Workbench, tmp_path: Path) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    studio, panel = bench.studio, bench.panel
    panel.export.folder.setCurrentPath(str(tmp_path))
    bench.finish(panel.export.export)
    file = tmp_path / "synthetic-0001" / "case.json"
    case = json.loads(file.read_text(encoding="utf-8"))
    case["seed"], case["settings"]["watermark"] = 1556217077140673647, 2.5
    file.write_text(json.dumps(case), encoding="utf-8")
    panel.cases.file.setCurrentPath(str(file))
    bench.click(panel.cases.open)
    bench.settle()
    opened = studio.composition.case
    assert (opened["seed"], opened["settings"]["watermark"]) == (1556217077140673647, 2.5)
    studio.parameters.caseSeed = 5
    bench.settle()
    assert studio.composition.case["seed"] == 5
    bench.panel.background.sample_ct.click()
    bench.settle()
    assert studio.parameters.openedWatermark == 0
    case["background"]["blanked"] = [[0, 0, 9, 9]]
    file.write_text(json.dumps(case), encoding="utf-8")
    bench.click(panel.cases.open)
    assert "text blanked out" in panel.status.text


def test_variants_differ_but_for_locked_lesions(bench: Workbench, tmp_path: Path) -> None:
    view = bench.load("film")
    studio, panel = bench.studio, bench.panel
    bench.place(view, RIGHT_LUNG, LEFT_LUNG)
    panel.lesions.select(1)
    panel.lesions.editor.lock.setChecked(True)
    bench.settle()
    panel.export.folder.setCurrentPath(str(tmp_path))
    panel.compose.count.setValue(2)
    bench.click(panel.compose.make)
    bench.until(lambda: not panel.compose.variants.is_running and not studio.session.busy)
    assert "2 of 2 variants" in panel.status.text, panel.status.text
    cases = [json.loads((tmp_path / f"variant-000{k}" / "case.json").read_text(encoding="utf-8")) for k in (1, 2)]
    first, second = ([lesion["request"]["seed"] for lesion in case["lesions"]] for case in cases)
    assert first[0] == second[0] == 0
    assert first[1] != second[1]
    films = [pydicom.dcmread(next((tmp_path / f"variant-000{k}" / "dicom").glob("*.dcm"))) for k in (1, 2)]
    assert (films[0].pixel_array != films[1].pixel_array).any()


def test_annotations_are_saved_and_loaded(bench: Workbench, tmp_path: Path) -> None:
    node = with_nodule(bench)
    pixels = slicer.util.arrayFromVolume(node).copy()
    section = bench.panel.annotate
    section.widget.collapsed = False
    section.image.setCurrentNode(node)
    section.name.setText("nodule")
    section.size.setValue(15)
    section.comment.setText("gut zu sehen")
    section._image_chosen(None)
    points = section.annotations.points_of(node)
    points.AddControlPointWorld(*bench.studio.image.world_of((24, 95, 62)))
    section.size.setValue(20)
    section.name.setText("cyst")
    section.annotations.add_box(node, bench.studio.image.world_of((30, 90, 190)), section._defaults())
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(node)
    drawn = np.zeros(slicer.util.arrayFromVolume(node).shape, np.uint8)
    drawn[22:25, 60:66, 180:188] = 1
    segment = segmentation.GetSegmentation().AddEmptySegment("", "scar")
    slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, segmentation, segment, node)
    section.segments.setCurrentNode(segmentation)
    bench.click(section.take)
    texts = [section.list.item(k).text() for k in range(section.list.count)]
    assert texts == ["nodule: point, 15 mm (gut zu sehen)", "cyst: box, 20 mm (gut zu sehen)", "scar: segment"]
    section.folder.setCurrentPath(str(tmp_path))
    bench.finish(section.save)
    saved = tmp_path / "annotations-0001"
    assert saved.is_dir(), bench.panel.status.text
    coco = json.loads((saved / "annotations_coco.json").read_text(encoding="utf-8"))
    assert sorted(one["name"] for one in coco["categories"]) == ["cyst", "nodule", "scar"]
    assert list(saved.rglob("*.dcm"))

    bench.app.leave(bench.widget)
    bench.app.close_scene()
    bench.app.enter(bench.widget)
    section.folder.setCurrentPath(str(saved))
    bench.finish(section.load)
    bench.settle()
    loaded = section.image.currentNode()
    assert loaded is not None, bench.said
    assert (slicer.util.arrayFromVolume(loaded) == pixels).all()
    marks = section.annotations.marks_of(loaded)
    assert sorted((mark.kind, mark.facts["class"]) for mark in marks) == [
        ("box", "cyst"), ("point", "nodule"), ("segment", "scar")
    ]  # fmt: skip
    again = next(mark for mark in marks if mark.kind == "segment")
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(again.node, again.part, loaded)
    assert (mask == drawn).all()
    section.widget.collapsed = True


def folder_of(how: str, folder: Path) -> list[dict[str, Any]]:
    """What the library says of a folder of annotations, written first or there."""
    line = [BACKEND_PYTHON, "-m", "Testing.slicer.annotated_folders", how, str(folder)]
    told: list[dict[str, Any]] = json.loads(subprocess.run(line, cwd=ROOT, capture_output=True, check=True).stdout)
    return told


def test_what_a_folder_tells_of_its_images_outlives_correcting_them(bench: Workbench, tmp_path: Path) -> None:
    before = folder_of("write", tmp_path / "a")
    section = bench.panel.annotate
    section.widget.collapsed = False
    section.folder.setCurrentPath(str(tmp_path / "a"))
    bench.finish(section.load)
    bench.settle()
    tables = [volume.GetDisplayNode().GetColorNodeID() for volume in section.annotations.images()]
    assert [table.endswith("InvertedGrey") for table in tables] == [
        told["photometric"] == "MONOCHROME1" for told in before
    ], "dense tissue is bright"
    loaded = section.annotations.images()[2]
    marks = section.annotations.marks_of(loaded)
    names = [mark.facts["class"] for mark in marks]
    section.annotations.delete(loaded, names.index("nodule"))
    assert [mark.facts["class"] for mark in section.annotations.marks_of(loaded)] == ["cyst", "scar"]
    (tmp_path / "out").mkdir()
    section.folder.setCurrentPath(str(tmp_path / "out"))
    bench.finish(section.save)
    after = folder_of("tell", tmp_path / "out" / "annotations-0001")
    assert after[:2] == before[:2], "a film stays inverted, an image without a mark stays, a box lies along its image"
    assert [mark[0] for mark in after[2]["marks"]] == ["cyst", "scar"], "one segment is no mark any more"
    section.annotations.take_segments(loaded, marks[0].node)
    assert len(section.annotations.marks_of(loaded)) == 3
    section.widget.collapsed = True


def test_a_size_in_mm_is_refused_where_the_spacing_is_a_guess(bench: Workbench, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 999, (1, 200, 180)).astype(np.int16)
    node = slicer.util.addVolumeFromArray(pixels, np.diag([-1.0, -1.0, 1.0, 1.0]), "picture.png")
    bench.studio.parameters.background = node
    bench.settle()
    section = bench.panel.annotate
    section.widget.collapsed = False
    section.image.setCurrentNode(node)
    section.size.setValue(15)
    section._image_chosen(None)
    section.annotations.points_of(node).AddControlPointWorld(*bench.studio.image.world_of((0, 60, 60)))
    section.folder.setCurrentPath(str(tmp_path))
    bench.finish(section.save)
    assert "spacing of its image is unknown" in bench.panel.status.text
    bench.studio.parameters.assumedSpacing = 0.15
    bench.settle()
    bench.finish(section.save)
    assert "Written" in bench.panel.status.text
    (one,) = folder_of("tell", tmp_path / "annotations-0001")
    assert one["pixel_spacing_mm"] == [0.15, 0.15]
    section.widget.collapsed = True


def test_samples_are_registered(bench: Workbench) -> None:
    import HiResMedSynth
    from Testing.slicer.standin import sample_data

    bench.app._signals.startupCompleted.emit()
    assert {"Made-up chest CT", "Made-up chest film"} <= set(sample_data.sources)
    node = sample_data.sources["Made-up chest CT"]["load"](None)
    assert slicer.util.arrayFromVolume(node).min() < -900
    test = HiResMedSynth.HiResMedSynthTest("runTest")
    test.test_parameters_survive()
    test.test_sample_becomes_an_image()
    assert (ROOT / "HiResMedSynth" / "HiResMedSynth.py").is_file()


def test_what_is_composed_lies_in_a_synthetic_study(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(bench.studio.parameters.composed)
    study = hierarchy.GetItemParent(item)
    assert hierarchy.GetItemName(study) == "SYNTHETIC, research only"
    assert hierarchy.GetItemName(hierarchy.GetItemParent(study)) == "SYNTHETIC"
    assert hierarchy.GetItemLevel(study) == "Study"


def test_the_backend_section_tells_what_a_python_has(bench: Workbench, tmp_path: Path) -> None:
    backend = bench.panel.backend
    backend.check.click()
    bench.until(lambda: backend._ticket is None)
    assert "with torch" in backend.told.text, backend.told.text
    wheels = tmp_path / "Räder"
    wheels.mkdir()
    backend.folder.setCurrentPath(str(wheels))
    bench.settle()
    bench.click(backend.look)
    bench.until(lambda: backend._ticket is None)
    assert "SHA256SUMS" in backend.told.text, backend.told.text
    assert not backend.install.enabled
    assert "press Check folder" in backend.install.toolTip
    backend.copy.click()
    import qt

    report = qt.QApplication.clipboard().text()
    assert "protocol" in report
    assert str(Path.home()) not in report
    backend.folder.setCurrentPath("")


def test_the_backend_is_installed_replaced_and_removed(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder of tiny wheels, by a plain Python whose folder is named, all by clicks."""
    from HiResMedSynthPanel.backend import chosen_interpreter
    from HiResMedSynthPanel.wheel_folder import read_requirements
    from packaging.requirements import Requirement

    from Testing.extension.wheels import FAKE_TORCH, build_wheel, write_sums

    wheels, plain = tmp_path / "Räder 画像", tmp_path / "plain python"
    wheels.mkdir()
    for line in read_requirements():
        wanted = Requirement(line)
        version = str(next(iter(wanted.specifier)).version)
        build_wheel(wheels, wanted.name, version, body=FAKE_TORCH if wanted.name == "torch" else "")
    write_sums(wheels)
    subprocess.run([sys.executable, "-m", "venv", str(plain)], check=True)
    backend = bench.panel.backend
    try:
        for _time in ("installed", "replaced"):
            backend.interpreter.setCurrentPath(str(plain))
            backend.folder.setCurrentPath("")
            backend.folder.setCurrentPath(str(wheels))
            bench.click(backend.look)
            bench.until(lambda: backend._ticket is None)
            assert "Press Install" in backend.told.text, backend.told.text
            bench.click(backend.install)
            bench.until(lambda: backend._ticket is None)
            assert "Installed." in backend.told.text, backend.told.text
            assert backend.interpreter.currentPath == ""
            assert backend.environment in chosen_interpreter().parents
        monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda _text: True)
        bench.click(backend.remove)
        bench.until(lambda: backend._ticket is None)
        assert not backend.environment.exists()
    finally:
        backend.folder.setCurrentPath("")
        backend.interpreter.setCurrentPath(BACKEND_PYTHON)


def test_a_server_that_is_not_there_is_told(bench: Workbench) -> None:
    settings, backend = bench.app.userSettings(), bench.studio.session.backend
    backend.stop()
    try:
        settings.setValue("HiResMedSynth/url", "http://127.0.0.1:9")
        backend.start("secret")
        assert backend.state == "starting", "not ready before it has answered"
        bench.until(lambda: backend.state == "failed")
        assert "server in the settings can't be used" in backend.problem
        bench.panel.backend.check.click()
        bench.until(lambda: bench.panel.backend._ticket is None)
        assert "doesn't answer" in bench.panel.backend.told.text
        settings.setValue("HiResMedSynth/certificate", "/nowhere.pem")
        backend.start("secret")
        assert "no certificate" in backend.problem
    finally:
        settings.setValue("HiResMedSynth/url", "")
        settings.setValue("HiResMedSynth/certificate", "")
        backend.stop()


def test_a_server_of_ones_own_computes_with_tls_and_its_certificate(bench: Workbench, tmp_path: Path) -> None:
    import os
    import secrets

    settings, backend, session = bench.app.userSettings(), bench.studio.session.backend, bench.studio.session
    key, certificate = tmp_path / "key.pem", tmp_path / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = subprocess.run([*command, *names, "-keyout", key, "-out", certificate], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("openssl is not here")
    token = secrets.token_hex(32)
    server = subprocess.Popen(
        [BACKEND_PYTHON, "-m", "HiResMedSynthLib.cli.main", "serve", "--end-with-stdin", "--tls-certificate",
         str(certificate), "--tls-key", str(key)],
        cwd=ROOT, env={**os.environ, "HIRESMEDSYNTH_TOKEN": token}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    backend.stop()
    try:
        port = json.loads(server.stdout.readline())["port"]
        settings.setValue("HiResMedSynth/url", f"https://127.0.0.1:{port}")
        settings.setValue("HiResMedSynth/certificate", str(certificate))
        session.token = token
        bench.place(bench.load("film"), RIGHT_LUNG)
        assert backend.is_remote
        assert backend.process_id == 0
        assert bench.studio.composition.keys == (1,)
    finally:
        settings.setValue("HiResMedSynth/url", "")
        settings.setValue("HiResMedSynth/certificate", "")
        session.token = ""
        backend.stop()
        server.stdin.close()
        server.wait(timeout=20)
