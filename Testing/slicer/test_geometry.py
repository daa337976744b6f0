"""Clicks land where they should in any orientation, and an export from Slicer is the command line's."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import slicer
import vtk

from Testing.slicer.conftest import BACKEND_PYTHON, ROOT, Workbench
from Testing.slicer.standin.dicom import load_series

CT = ROOT / "Testing" / "data" / "ct_series"
FILM = ROOT / "Testing" / "data" / "cxr"
NEW_EACH_TIME = {  # UIDs and dates
    "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "MediaStorageSOPInstanceUID",
    "ReferencedSOPInstanceUID", "DimensionOrganizationUID", "TransactionUID", "IrradiationEventUID", "UID",
}  # fmt: skip


def choose(bench: Workbench, node: object) -> None:
    bench.studio.parameters.background = node
    bench.until(lambda: bench.studio.is_ready or bool(bench.studio.problem))
    bench.settle()


def test_what_makes_a_background_doubtful_is_said(bench: Workbench, tmp_path: Path) -> None:
    data = pydicom.dcmread(FILM / "nih_cxr_dx.dcm")
    data.DerivationDescription = "SYNTHETIC: 2 lesion(s) composed into an image, fusion better"
    data.ViewPosition = "LL"
    (tmp_path / "film").mkdir()
    data.save_as(tmp_path / "film" / "composed.dcm")
    studio, p = bench.studio, bench.studio.parameters
    p.assumedSpacing, p.assumedColumnSpacing = 0.342, 0.4175
    choose(bench, load_series(tmp_path / "film", "composed"))
    bench.until(lambda: p.danger is not None)
    bench.settle()
    told = bench.panel.background.about.text
    assert "holds composed lesions of an earlier case" in told
    assert "a lateral view (LL)" in told
    data.DerivationDescription, data.ViewPosition, data.SOPInstanceUID = "retouched for Mr Smith", "PA", "2.25.1"
    data.save_as(tmp_path / "film" / "composed.dcm")
    choose(bench, load_series(tmp_path / "film", "real"))
    assert "Smith" not in json.dumps(studio.image.header.tags)
    assert "lateral" not in bench.panel.background.about.text


def place(bench: Workbench, place: tuple[float, float, float]) -> None:
    bench.studio.parameters.points.AddControlPointWorld(*bench.studio.image.world_of(place))
    bench.settle()


def same(one: object, other: object, path: str = "") -> list[str]:
    """Where two data sets differ, but for UIDs, dates and times."""
    differences = []
    keys = {e.tag for e in one} | {e.tag for e in other}
    for tag in sorted(keys):
        keyword = pydicom.datadict.keyword_for_tag(tag)
        if keyword in NEW_EACH_TIME or keyword.endswith(("Date", "Time", "DateTime", "UID")):
            continue
        a, b = one.get(tag), other.get(tag)
        if a is None or b is None:
            differences.append(f"{path}{keyword} only in one")
        elif a.VR == "SQ":
            if len(a.value) != len(b.value):
                differences.append(f"{path}{keyword} has another length")
            for k, (x, y) in enumerate(zip(a.value, b.value, strict=False)):
                differences += same(x, y, f"{path}{keyword}[{k}].")
        elif a.value != b.value:
            shown = (str(a.value)[:60], str(b.value)[:60])
            differences.append(f"{path}{keyword}: {shown[0]} != {shown[1]}")
    return differences


def inverted(folder: Path) -> Path:
    """The film as MONOCHROME1."""
    data = pydicom.dcmread(FILM / "nih_cxr_dx.dcm")
    data.PixelData = (255 - slicer.util.arrayFromVolume(load_series(FILM, "dense is bright"))).tobytes()
    data["PixelData"].is_undefined_length = False
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.PhotometricInterpretation, data.SOPInstanceUID = "MONOCHROME1", "2.25.2"
    folder.mkdir()
    data.save_as(folder / "film.dcm")
    return folder


@pytest.mark.parametrize("kind", ["ct", "one slice", "film", "inverted film"])
def test_an_export_equals_the_command_lines(bench: Workbench, tmp_path: Path, kind: str) -> None:
    film = kind.endswith("film")
    folder = inverted(tmp_path / "films") if kind == "inverted film" else FILM if film else CT
    node = load_series(folder, "loaded")
    studio, p = bench.studio, bench.studio.parameters
    if kind == "one slice":
        p.oneSlice, p.slice = True, 6
    if film:
        p.assumedSpacing, p.assumedColumnSpacing = 0.342, 0.4175  # its header tells none
    choose(bench, node)
    assert studio.image is not None, studio.problem
    place(bench, (0.0, 500.0, 300.0) if film else (6.0 if kind == "ct" else 0.0, 250.0, 150.0))
    key = next(iter(studio.composition.keys), None)
    if key is None:
        studio.move_to_nearest(1)
        bench.settle()
    studio.edit(1, "size", size_mm=(18.0, 18.0) if film else (9.0, 9.0))
    bench.settle()
    if studio.refused:
        studio.move_to_nearest(1)
        bench.settle()
    assert studio.composition.keys == (1,), studio.refused
    if kind == "inverted film":  # Slicer's reader shows dense tissue bright
        change = slicer.util.arrayFromVolume(p.composed).astype(int) - slicer.util.arrayFromVolume(node)
        assert change.max() > -change.min()
    p.exportFolder, p.exportPair = str(tmp_path), True
    bench.finish(bench.panel.export.export)
    ours = tmp_path / "synthetic-0001"
    assert ours.is_dir(), bench.panel.status.text
    requests = tmp_path / "requests.json"
    requests.write_text(json.dumps([studio.settings()[0]["requests"][0]]))
    options = ["--request", requests, "--seed", str(p.caseSeed), "--pair", "--out", tmp_path / "cli"]
    source = next(folder.glob("*.dcm")) if film else CT
    options += ["--spacing-mm", "0.342,0.4175"] if film else ["--slice", "6"] if kind == "one slice" else []
    command = [BACKEND_PYTHON, "-m", "HiResMedSynthLib.cli.main", "compose", source, *options]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, cwd=ROOT)
    theirs = tmp_path / "cli"
    names = sorted(path.relative_to(ours) for path in ours.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(theirs) for path in theirs.rglob("*") if path.is_file())
    for name in names:
        if name.suffix == ".dcm":
            assert same(pydicom.dcmread(ours / name), pydicom.dcmread(theirs / name)) == [], name
        else:
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    shutil.rmtree(tmp_path)


def oblique(seed: int) -> np.ndarray:
    """IJK to RAS of a random orientation, some of them left-handed."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ np.diag([1.4, 1.4, 5.0])
    matrix[:3, 3] = rng.normal(0, 50, 3)
    return matrix


def middle_of_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Index of the middle of what changed much: the lesion without the strands that lead to it."""
    change = np.abs(after.astype(float) - before)
    return np.argwhere(change > change.max() / 2).mean(axis=0)


@pytest.mark.parametrize("seed", range(4))
def test_a_lesion_lands_at_its_point_in_any_orientation(bench: Workbench, seed: int) -> None:
    from HiResMedSynthPanel import sample_data

    pixels, _matrix = sample_data.make("ct")
    node = slicer.util.addVolumeFromArray(pixels, oblique(seed), "oblique")
    choose(bench, node)
    place(bench, (24, 90, 60))
    studio = bench.studio
    assert studio.composition.keys == (1,), (studio.problem, studio.refused, bench.said)
    before = slicer.util.arrayFromVolume(node)
    after = slicer.util.arrayFromVolume(studio.parameters.composed)
    assert np.abs(middle_of_change(before, after) - (24, 90, 60)).max() < 2
    lps = np.array(studio.composition.drawn(1)["center_lps_mm"]) * (-1, -1, 1)
    assert np.linalg.norm(lps - bench.positions()[0]) < 0.1


def test_a_linear_transform_is_followed_and_a_bent_one_refused(bench: Workbench) -> None:
    from HiResMedSynthPanel import sample_data

    node = sample_data.load("ct")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    matrix = vtk.vtkMatrix4x4()
    for row, values in enumerate(((0, -1, 0, 30), (1, 0, 0, -12), (0, 0, 1, 5))):
        for column, value in enumerate(values):
            matrix.SetElement(row, column, value)
    transform.SetMatrixTransformToParent(matrix)
    node.SetAndObserveTransformNodeID(transform.GetID())
    choose(bench, node)
    place(bench, (24, 90, 60))
    p = bench.studio.parameters
    middle = middle_of_change(slicer.util.arrayFromVolume(node), slicer.util.arrayFromVolume(p.composed))
    assert np.abs(middle - (24, 90, 60)).max() < 2
    assert p.composed.GetTransformNodeID() == transform.GetID()
    assert p.danger.GetTransformNodeID() == transform.GetID()
    bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "bent")
    other = sample_data.load("ct")
    other.SetAndObserveTransformNodeID(bent.GetID())
    choose(bench, other)
    assert "non-linear" in bench.panel.background.about.text


def test_the_danger_mask_lies_on_the_image(bench: Workbench) -> None:
    bench.load("ct")
    p = bench.studio.parameters
    lung = p.danger.GetSegmentation()
    chest = next(
        lung.GetNthSegmentID(k)
        for k in range(lung.GetNumberOfSegments())
        if lung.GetNthSegment(k).GetName().startswith("chest wall")
    )
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(p.danger, chest, p.background)
    values = slicer.util.arrayFromVolume(p.background)
    assert mask.shape == values.shape
    assert np.median(values[mask > 0]) > -200
    assert slicer.util.arrayFromVolume(p.prior).max() == 100
    assert (slicer.util.arrayFromVolume(p.prior)[mask > 0] == 0).all()
