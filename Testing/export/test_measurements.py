"""measurements.dcm: the report read back by highdicom says what the pixels say, of the segments that were written."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest

from HiResMedSynthLib.case import LesionRequest
from HiResMedSynthLib.compose import Composition, compose
from HiResMedSynthLib.export.folder import export
from HiResMedSynthLib.export.measurements import measured
from Testing.export.cases import SIZE, composition_in, ct_image, film_image, mr_image

VOXEL_MM3 = 2.5 * 0.7 * 0.7


def groups_in(report: Any) -> list[Any]:
    content = report.content
    return [*content.get_volumetric_roi_measurement_groups(), *content.get_planar_roi_measurement_groups()]


def methods_of(group: Any) -> dict[str, str]:
    """How each of its measurements that says so was made."""
    return {m.name.meaning: m.method.meaning for m in group.get_measurements() if m.method is not None}


def values_of(group: Any) -> dict[str, tuple[float, str]]:
    return {m.name.meaning: (float(m.value), m.unit.value) for m in group.get_measurements()}


def referenced(group: Any) -> pydicom.Dataset:
    """What the group's reference to the segmentation names."""
    for item in group[0].ContentSequence:
        if item.ValueType == "IMAGE" and "Referenced Segment" in item.ConceptNameCodeSequence[0].CodeMeaning:
            found: pydicom.Dataset = item.ReferencedSOPSequence[0]
            return found
    raise AssertionError("no reference to a segment")


@pytest.mark.parametrize("lesions", [1, 2])  # a SEG of one segment keeps its segment number elsewhere
def test_a_report_on_a_ct_measures_volume_diameter_and_mean_of_each_segment(lesions: int, tmp_path: Path) -> None:
    composition = composition_in(ct_image(), lesions=lesions)
    export(composition, tmp_path / "case", pair=True)
    report = hd.sr.srread(tmp_path / "case" / "measurements.dcm")
    seg = hd.seg.segread(tmp_path / "case" / "segmentation.dcm")
    assert isinstance(report, hd.sr.Comprehensive3DSR)
    assert report.SyntheticData == "YES"
    assert report.SeriesDescription.startswith("SYNTHETIC")
    found = groups_in(report)
    assert len(found) == lesions
    for number, group in enumerate(found, start=1):
        inside = composition.instance_mask == number
        values = values_of(group)
        volume = float(np.prod(SIZE)) * VOXEL_MM3
        assert values["Volume"] == (pytest.approx(volume), "mm3")
        assert values["Diameter"] == (pytest.approx((6 * volume / math.pi) ** (1 / 3), rel=1e-5), "mm")
        assert methods_of(group) == {"Diameter": "Sphere of the volume of the mask"}
        assert values["Attenuation Coefficient"] == (pytest.approx(composition.image.pixels[inside].mean()), "[hnsf'U]")
        reference = referenced(group)
        assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert reference.ReferencedSegmentNumber == number
        description = seg.get_segment_description(number)
        assert (group.tracking_uid, group.tracking_identifier) == (description.tracking_uid, description.tracking_id)
        assert group.finding_sites[0].value.meaning == "Lung"
    series = pydicom.dcmread(next((tmp_path / "case" / "dicom").iterdir())).SeriesInstanceUID
    evidence = {
        item.SeriesInstanceUID for item in report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    }
    assert evidence == {series, seg.SeriesInstanceUID}


@pytest.mark.parametrize("kind", ["film", "CT slice"])
def test_a_single_picture_has_an_area_and_names_the_frame_that_shows_it(kind: str, tmp_path: Path) -> None:
    image = film_image() if kind == "film" else ct_image().single_slice(3)
    composition = composition_in(image, lesions=2)
    export(composition, tmp_path / "case")
    report = hd.sr.srread(tmp_path / "case" / "measurements.dcm")
    assert isinstance(report, hd.sr.ComprehensiveSR if kind == "film" else hd.sr.Comprehensive3DSR)
    seg = pydicom.dcmread(tmp_path / "case" / "segmentation.dcm")
    row_mm, column_mm = image.pixel_spacing_mm or (0.0, 0.0)
    found = groups_in(report)
    assert len(found) == 2
    for number, group in enumerate(found, start=1):
        inside = composition.instance_mask[0] == number
        frame = seg.pixel_array[int(referenced(group).ReferencedFrameNumber) - 1]
        assert np.array_equal(frame == 1, inside)
        values = values_of(group)
        area = inside.sum() * row_mm * column_mm
        assert values["Area"] == (pytest.approx(area, rel=1e-5), "mm2")
        assert values["Diameter"] == (pytest.approx(math.sqrt(4 * area / math.pi), rel=1e-5), "mm")
        assert methods_of(group) == {"Diameter": "Circle of the area of the mask"}
        assert "Volume" not in values
        mean = "Stored value" if kind == "film" else "Attenuation Coefficient"
        assert values[mean][0] == pytest.approx(composition.image.pixels[0][inside].mean(), rel=1e-5)


def test_a_label_map_is_referred_to_by_segment(tmp_path: Path) -> None:
    export(composition_in(film_image(), lesions=2), tmp_path / "case", seg="labelmap")
    found = groups_in(hd.sr.srread(tmp_path / "case" / "measurements.dcm"))
    assert [referenced(group).ReferencedSegmentNumber for group in found] == [1, 2]
    assert all("ReferencedFrameNumber" not in referenced(group) for group in found)


def test_mr_is_measured_in_signal_intensity_and_a_side_that_was_asked_for_is_said(tmp_path: Path) -> None:
    composition = composition_in(mr_image())
    lesion = composition.lesions[0]
    asked = replace(lesion, request=LesionRequest(seed=1, zone="left-upper"))
    sided = replace(composition.case, lesions=(asked,))
    export(compose(composition.background, sided), tmp_path / "case")
    group = groups_in(hd.sr.srread(tmp_path / "case" / "measurements.dcm"))[0]
    assert "MR signal intensity" in values_of(group)
    assert group.finding_sites[0].laterality.meaning == "Left"


def test_a_lesion_that_another_covers_wholly_is_left_out() -> None:
    composition = composition_in(ct_image(), lesions=2)
    first, second = composition.lesions
    covered = replace(composition.case, lesions=(first, replace(second, corner=first.corner)))
    measures = measured(Composition(image=composition.image, background=composition.background, case=covered))
    assert [one.number for one in measures] == [2]
