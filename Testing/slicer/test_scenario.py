"""The whole way, by clicks: load, overlays, place, forbidden, drag, compose, before and after, export, save, reload."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import slicer

from Testing.slicer.conftest import ROOT, Workbench

PICTURES = os.environ.get("HIRESMEDSYNTH_PICTURES")  # a folder to keep the screenshots in
RIGHT_LUNG, LEFT_LUNG, MEDIASTINUM = (0, 450, 340), (0, 360, 720), (0, 450, 520)


def photograph(bench: Workbench, view: Any, name: str, folder: Path) -> Path:
    """Panel and slice view side by side, as one picture."""
    from PIL import Image

    bench.panel.widget.adjustSize()
    bench.app.processEvents()
    file = folder / f"{name}.png"
    bench.widget.parent.grab().save(str(file))
    panel, shown = Image.open(file).convert("RGB"), Image.fromarray(view.picture())
    shown = shown.resize((900, 900), Image.LANCZOS)
    both = Image.new("RGB", (panel.width + shown.width + 10, max(panel.height, shown.height)), "white")
    both.paste(panel, (0, 0))
    both.paste(shown, (panel.width + 10, 0))
    both.save(file)
    if PICTURES:
        shutil.copy(file, Path(PICTURES) / file.name)
    return file


def test_from_an_empty_scene_to_an_export_and_back(bench: Workbench, tmp_path: Path) -> None:
    studio, panel = bench.studio, bench.panel
    assert not panel.compose.apply.enabled
    assert "an image" in panel.compose.apply.toolTip
    photograph(bench, bench.view("Green"), "panel_empty", tmp_path)

    view = bench.load("film")
    names = [s.GetName() for s in map(studio.parameters.danger.GetSegmentation().GetNthSegment, range(4))]
    assert names == ["outside the lungs", "mediastinum, heart or spine", "pleura margin", "beside heart or mediastinum"]
    without = view.picture()
    panel.where.show_prior.setChecked(True)
    with_prior = view.picture()
    lung = view.pixel_of(studio.image.world_of(RIGHT_LUNG))
    around = (slice(490 - lung[1], 510 - lung[1]), slice(lung[0] - 10, lung[0] + 10))
    assert np.abs(with_prior[around].astype(int) - without[around]).max() > 20, "the heatmap is not seen"
    panel.where.show_prior.setChecked(False)

    bench.place(view, RIGHT_LUNG)
    assert studio.composition.drawn(1)["diameter_mm"] == pytest.approx(20)
    assert "20.0 mm" in panel.lesions.table.item(0, 3).text()
    before = slicer.util.arrayFromVolume(studio.parameters.background)
    after = slicer.util.arrayFromVolume(studio.parameters.composed)
    assert (before != after).any()

    bench.place(view, MEDIASTINUM)
    assert list(studio.refused) == [2]
    assert "not allowed: mediastinum" in panel.lesions.table.item(1, 3).text()
    node = studio.parameters.points
    assert [bool(node.GetNthControlPointSelected(k)) for k in (0, 1)] == [True, False], "the forbidden one is red"
    photograph(bench, view, "panel_forbidden", tmp_path)
    assert panel.lesions.editor.nearest.enabled
    bench.click(panel.lesions.editor.nearest)
    bench.settle()
    assert not studio.refused
    assert len(studio.composition.keys) == 2

    start = bench.positions()[0]
    seen = []
    goal = np.array(studio.image.world_of((0, 500, 345)))  # clear of the heart: on this soft film a lesion is wide
    view.drag(start, goal, between=lambda: (bench.settle(), seen.append(studio.composition.drawn(1)["center"])))
    bench.settle()
    assert len({tuple(place) for place in seen}) >= 3, "the lesion follows the mouse"
    assert np.linalg.norm(np.array(bench.positions()[0]) - goal) < 2.0
    assert studio.composition.drawn(1)["center"][1] == pytest.approx(500, abs=3)
    drawn = [studio.composition.drawn(1), studio.composition.drawn(2)]
    outside = np.ones(before.shape, dtype=bool)
    for corner, pixels in studio.composition.patches:
        outside[studio.image.region_of(corner, pixels.shape)] = False
    assert (before[outside] == after[outside]).all(), "the old place of a dragged lesion is as it was"

    shown = view.picture()
    panel.compose.after.setChecked(False)
    hidden = view.picture()
    assert np.abs(hidden.astype(int) - shown).max() > 15, "the sample's lesions are seen at once"
    panel.compose.after.setChecked(True)
    assert (view.picture() == shown).all()
    photograph(bench, view, "panel_film", tmp_path)

    panel.export.folder.setCurrentPath(str(tmp_path / "nicht da"))
    bench.click(panel.export.export)
    assert "no folder" in panel.status.text
    folder = tmp_path / "Ausgabe für Ärzte"
    folder.mkdir()
    panel.export.folder.setCurrentPath(str(folder))
    studio.parameters.patientName = "Übung"
    panel.export.database.setChecked(True)
    bench.finish(panel.export.export)
    assert "imported into the DICOM database" in panel.status.text, panel.status.text
    check_export(folder / "synthetic-0001")
    assert slicer.dicomDatabase.fileForInstance(read(folder / "synthetic-0001").SOPInstanceUID)

    bench.app.save_scene(tmp_path / "Fall ä.mrb")
    kept, points = after.copy(), bench.positions()
    bench.app.leave(bench.widget)
    bench.app.close_scene()
    assert studio.parameters is None
    bench.app.load_scene(tmp_path / "Fall ä.mrb")
    bench.app.enter(bench.widget)
    bench.settle()
    assert bench.positions() == points
    assert [studio.composition.drawn(1), studio.composition.drawn(2)] == drawn
    assert (slicer.util.arrayFromVolume(studio.parameters.composed) == kept).all()
    assert studio.parameters.danger.GetSegmentation().GetNumberOfSegments() == 4
    assert studio.parameters.patientName == "Übung"
    bench.finish(panel.export.export)
    first, second = (read(folder / f"synthetic-000{k}") for k in (1, 2))
    assert (first.pixel_array == second.pixel_array).all()
    assert first.PatientID == second.PatientID


def read(folder: Path) -> pydicom.Dataset:
    return pydicom.dcmread(next((folder / "dicom").glob("*.dcm")))


def check_export(folder: Path) -> None:
    data = read(folder)
    assert data[0x0008, 0x001C].value == "YES"
    assert data.PatientName == "SYNTHETIC^Übung"
    assert json.loads((folder / "boxes_coco.json").read_text(encoding="utf-8"))["annotations"]
    segments = pydicom.dcmread(folder / "segmentation.dcm").SegmentSequence
    assert len(segments) == 2
    if shutil.which("dciodvfy"):
        told = subprocess.run(
            ["dciodvfy", str(next((folder / "dicom").glob("*.dcm")))], capture_output=True, text=True, check=False
        ).stderr
        errors = [line for line in told.splitlines() if line.startswith("Error")]
        assert all("even group number" in line or "(0x0008,0x001c)" in line.lower() for line in errors), errors


def test_a_volume_is_worked_on_slice_by_slice_or_whole(bench: Workbench, tmp_path: Path) -> None:
    view = bench.load("ct")
    studio, panel = bench.studio, bench.panel
    assert panel.where.legend.text.count("vessels") == 1
    bench.place(view, (24, 90, 60))
    assert not studio.refused
    assert studio.composition.drawn(1)["type"] in ("solid", "part-solid", "ground-glass", "calcified")
    _corner, pixels = studio.composition.patches[0]
    assert pixels.shape[0] >= 2, "a lesion of 8 mm is seen in several slices of 5 mm"
    photograph(bench, view, "panel_ct", tmp_path)
    panel.background.one_slice.setChecked(True)
    panel.background.slice.setValue(24)
    bench.settle()
    assert studio.image.pixels.shape[0] == 1
    assert studio.composition.patches[0][1].shape[0] == 1
    assert studio.composition.case["background"]["source_slice"] == 24


def test_the_module_file_is_the_one_that_ships() -> None:
    import HiResMedSynth

    assert Path(HiResMedSynth.__file__) == ROOT / "HiResMedSynth" / "HiResMedSynth.py"


def test_the_steps_for_a_real_slicer_pass_here_too(bench: Workbench, tmp_path: Path, monkeypatch: Any) -> None:
    """in_slicer.py, with what only a real application has replaced: selecting modules, saving and loading scenes."""
    from Testing.slicer import in_slicer

    monkeypatch.delenv("HIRESMEDSYNTH_PYTHON", raising=False)
    monkeypatch.setattr(slicer.util, "selectModule", lambda _name: bench.app.enter(bench.widget))
    monkeypatch.setattr(slicer.util, "saveScene", lambda path: bench.app.save_scene(Path(path)) is None)
    monkeypatch.setattr(slicer.util, "loadScene", lambda path: bench.app.load_scene(Path(path)))
    in_slicer.run(tmp_path)
