"""The tags of a volume: as many as the library reads, and kept in a saved scene."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pydicom
import pytest
import slicer

from HiResMedSynthLib.read_header import KEYWORDS
from HiResMedSynthLib.service.dicom_tags import SEQUENCES
from Testing.slicer.conftest import Workbench
from Testing.slicer.standin.dicom import load_series
from Testing.slicer.test_geometry import CT, choose, place

UIDS = {"SOPInstanceUID", "SeriesInstanceUID"}


@pytest.mark.usefixtures("bench")  # the application finds the panel's modules
def test_all_tags_that_the_library_reads_are_sent() -> None:
    from HiResMedSynthPanel.dicom_tags import TAGS

    assert set(TAGS) == set(KEYWORDS) - set(SEQUENCES) - UIDS
    for keyword, tag in TAGS.items():
        assert pydicom.datadict.tag_for_keyword(keyword) == int(tag.replace(",", ""), 16), keyword


def test_a_scene_opened_where_its_files_are_not_is_exported_all_the_same(bench: Workbench, tmp_path: Path) -> None:
    studio, files = bench.studio, tmp_path / "ct"
    files.mkdir()
    for number, file in enumerate(sorted(CT.glob("*.dcm"))):
        data = pydicom.dcmread(file)
        data.PatientName, data.PatientID, data.SOPInstanceUID = "Secret^Person", "secret-7", f"2.25.90{number:02d}"
        data.save_as(files / file.name)
    choose(bench, load_series(files, "ct"))
    tags = studio.image.header.tags
    place(bench, (6.0, 250.0, 150.0))
    studio.edit(1, "size", size_mm=(6.0, 6.0))
    bench.settle()
    if studio.refused:
        studio.move_to_nearest(1)
        bench.settle()
    assert studio.composition.keys == (1,), studio.refused
    bench.app.save_scene(tmp_path / "scene.mrb")
    bench.app.leave(bench.widget)
    bench.app.close_scene()
    shutil.rmtree(files)
    for known in (slicer.dicomDatabase._files, slicer.dicomDatabase._headers):
        for name in [name for name in known if "2.25.90" in name or str(files) in name]:
            del known[name]
    bench.app.load_scene(tmp_path / "scene.mrb")
    bench.app.enter(bench.widget)
    bench.until(lambda: studio.is_ready)
    bench.settle()
    assert studio.image.header.tags == tags
    assert "secret" not in json.dumps(tags).lower()
    studio.parameters.exportFolder = str(tmp_path)
    bench.finish(bench.panel.export.export)
    written = sorted((tmp_path / "synthetic-0001" / "dicom").glob("*.dcm"))
    assert len(written) == len(tags), bench.panel.status.text
    assert pydicom.dcmread(written[0]).SOPClassUID.name == "CT Image Storage"
