"""Sources that stretch an export: odd header values, tiny or many values, slanted planes; nothing invalid gets out."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from HiResMedSynthLib.case import BackgroundReference, Case, CaseSettings, LesionRequest
from HiResMedSynthLib.compose import Composition, compose
from HiResMedSynthLib.errors import ExportError
from HiResMedSynthLib.export.folder import check_target, export
from HiResMedSynthLib.export.sop_class import CR, CT, DX_PRESENTATION, SECONDARY_CAPTURE, object_kind
from HiResMedSynthLib.image import HeaderFacts, MedicalImage
from HiResMedSynthLib.read import read_image
from Testing.export.cases import composition_in, ct_image, film_image


def first_slice(out: Path) -> pydicom.Dataset:
    return pydicom.dcmread(out / "dicom" / "IM0001.dcm")


@pytest.mark.parametrize("largest", [1e-6, 3e-3, 1.0], ids=str)
def test_small_floating_point_values_keep_16_bits_of_precision(largest: float, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((7, 24, 32)).astype(np.float32) * np.float32(largest)
    image = ct_image(
        pixels=pixels, modality="MR", units="stored", bits_stored=None, rescale=(1.0, 0.0), facts=HeaderFacts()
    )
    case = composition_in(ct_image()).case
    export(Composition(image=image, background=image, case=case), tmp_path / "case")
    data = first_slice(tmp_path / "case")
    values = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
    assert np.abs(values - pixels[0]).max() <= 0.51 * np.ptp(pixels) / 65535


def test_more_lesions_than_a_byte_can_number_have_a_segment_each(tmp_path: Path) -> None:
    image = ct_image(pixels=np.zeros((1, 128, 128), np.int16), positions_lps_mm=np.zeros((1, 3)))
    one = composition_in(ct_image()).case.lesions[0]
    alpha = np.zeros((1, 5, 5), np.uint16)
    alpha[0, 1:4, 1:4] = 65535
    lesions = tuple(
        replace(
            one,
            number=number,
            request=LesionRequest(seed=number),
            corner=(0, number // 20 * 6, number % 20 * 6),
            alpha=alpha,
            intensity=np.full(alpha.shape, 50, np.int16),
        )
        for number in range(1, 258)
    )
    settings = CaseSettings(requests=tuple(lesion.request for lesion in lesions), domain="lung-ct")
    case = Case(background=BackgroundReference.of(image, domain="lung-ct"), settings=settings, seed=1, lesions=lesions)
    composition = compose(image, case)
    export(composition, tmp_path / "case", with_preview=False, with_report=False)
    seg = hd.seg.segread(tmp_path / "case" / "segmentation.dcm")
    assert seg.number_of_segments == 257
    last = seg.get_pixels_by_source_instance([seg.get_source_image_uids()[0][2]], segment_numbers=[257])[0, ..., 0]
    assert np.array_equal(last == 1, composition.instance_mask[0] == 257)


def test_every_frame_of_the_seg_refers_to_the_slice_it_lies_on(tmp_path: Path) -> None:
    descending = ct_image(positions_lps_mm=np.array([[1.0, 2.0, 10 - 2.5 * k] for k in range(7)]))
    composition = composition_in(descending)
    export(composition, tmp_path / "case")
    files = (tmp_path / "case" / "dicom").iterdir()
    series = {str(data.SOPInstanceUID): data for data in map(pydicom.dcmread, files)}
    seg = hd.seg.segread(tmp_path / "case" / "segmentation.dcm")
    for number, frame in enumerate(seg.PerFrameFunctionalGroupsSequence):
        source = series[frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
        assert np.array_equal(seg.pixel_array[number], composition.instance_mask[source.InstanceNumber - 1])


@pytest.mark.parametrize("sop_class", [CR, DX_PRESENTATION])
@pytest.mark.parametrize("spacing", [(float("inf"), 0.2), (0.2, float("nan")), (1e-300, 0.2), (1e300, 0.2)], ids=str)
def test_a_detector_spacing_that_cannot_be_is_left_out(
    sop_class: str, spacing: tuple[float, float], tmp_path: Path
) -> None:
    facts = replace(film_image().facts, sop_class_uid=sop_class, imager_pixel_spacing_mm=spacing)
    export(composition_in(film_image(modality="CR", facts=facts)), tmp_path / "case", with_preview=False)
    data = first_slice(tmp_path / "case")
    assert data.SOPClassUID == CR
    assert "ImagerPixelSpacing" not in data
    assert [float(value) for value in data.PixelSpacing] == [0.2, 0.3]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_numbers_that_are_none_are_left_out(value: float, tmp_path: Path) -> None:
    facts = HeaderFacts(sop_class_uid=CT, kvp=value, gantry_detector_tilt=value)
    export(composition_in(ct_image(facts=facts)), tmp_path / "case")
    assert first_slice(tmp_path / "case").KVP is None
    assert "GantryDetectorTilt" not in first_slice(tmp_path / "case")


@pytest.mark.parametrize(
    ("image", "uid"),
    [
        (film_image(facts=replace(film_image().facts, imager_pixel_spacing_mm=(0.0, 0.0))), CR),
        (film_image(pixels=np.zeros((40, 48), np.int16), stored_signed=True), SECONDARY_CAPTURE),
    ],
    ids=["no detector spacing", "signed"],
)
def test_a_film_that_no_valid_dx_can_hold_becomes_something_else(image: MedicalImage, uid: str) -> None:
    assert image.facts.sop_class_uid == DX_PRESENTATION
    assert object_kind(image).sop_class_uid == uid


@pytest.mark.parametrize("kind", ["CT", "DX", "SC"])
def test_code_strings_that_are_no_defined_terms_do_not_get_out(kind: str, tmp_path: Path) -> None:
    names: dict[str, Any] = dict.fromkeys(
        ("body_part_examined", "patient_position", "view_position", "image_laterality", "burned_in_annotation"),
        "DOE JANE",  # a valid code string (VR CS), and a name
    )
    image = ct_image(facts=HeaderFacts(sop_class_uid=CT, **names))
    if kind != "CT":
        facts = HeaderFacts(**names) if kind == "SC" else replace(film_image().facts, **names)
        image = film_image(facts=facts, modality="DOE JANE")
    export(composition_in(image), tmp_path / "case")
    for file in (tmp_path / "case").rglob("*.dcm"):
        assert b"DOE" not in file.read_bytes()
    assert first_slice(tmp_path / "case").BodyPartExamined == "CHEST"


def test_a_paired_body_part_has_its_laterality_and_others_have_none(tmp_path: Path) -> None:
    for part in ("LUNG", "CHEST"):
        facts = HeaderFacts(sop_class_uid=CT, body_part_examined=part)
        export(composition_in(ct_image(facts=facts)), tmp_path / part)
        assert first_slice(tmp_path / part).BodyPartExamined == part
        assert ("Laterality" in first_slice(tmp_path / part)) == (part == "LUNG")


@pytest.mark.parametrize("signed", [False, True])
def test_the_padding_value_is_still_known(signed: bool, tmp_path: Path) -> None:
    image = ct_image(
        padding_value=-1024.0, bits_stored=16, stored_signed=signed, rescale=(1.0, 0.0 if signed else -1024.0)
    )
    export(composition_in(image), tmp_path / "case")
    assert read_image(tmp_path / "case" / "dicom").padding_value == -1024.0


def test_directions_that_a_header_rounded_coarsely_are_written_perpendicular(tmp_path: Path) -> None:
    slant = 4e-4
    image = ct_image(directions_lps=np.array([[np.sqrt(1 - slant**2), slant, 0.0], [0.0, 1.0, 0.0]]))
    export(composition_in(image), tmp_path / "case")
    written = np.array(first_slice(tmp_path / "case").ImageOrientationPatient, float).reshape(2, 3)
    assert np.allclose(written @ written.T, np.eye(2), atol=1e-8)
    assert np.abs(written - image.directions_lps).max() <= slant


@pytest.mark.parametrize(("shift_mm", "said"), [(0.02, False), (0.8, True)])
def test_a_sheared_stack_is_said_where_it_matters(shift_mm: float, said: bool, tmp_path: Path) -> None:
    positions = np.array([[0.0, k * shift_mm, 2.5 * -k] for k in range(7)])
    composition = composition_in(ct_image(positions_lps_mm=positions))
    exported = export(composition, tmp_path / "case")
    assert any("sheared" in note for note in exported.notes) == said
    mask = sitk.ReadImage(str(tmp_path / "case" / "instance_mask.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(mask), composition.instance_mask)
    assert mask.TransformIndexToPhysicalPoint((0, 0, 6))[2] == pytest.approx(-15.0, abs=1e-3)


def test_a_case_without_lesions_is_refused(tmp_path: Path) -> None:
    composition = composition_in(ct_image())
    empty = Composition(
        image=composition.background, background=composition.background, case=replace(composition.case, lesions=())
    )
    with pytest.raises(ExportError, match="no lesion"):
        export(empty, tmp_path / "case")
    assert not any(tmp_path.iterdir())


def test_a_name_that_the_disk_refuses_is_the_users_to_change(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="shorter name"):
        check_target(tmp_path / ("x" * 300), overwrite=False)


def test_a_mask_that_the_full_disk_cut_off_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = sitk.WriteImage

    def cut_off(image: sitk.Image, name: str, **options: Any) -> None:  # as SimpleITK does on a full disk, silently
        write(image, name, **options)
        Path(name).write_bytes(Path(name).read_bytes()[:100])

    monkeypatch.setattr(sitk, "WriteImage", cut_off)
    with pytest.raises(ExportError, match="Free some space") as refused:
        export(composition_in(ct_image()), tmp_path / "case")
    assert isinstance(refused.value.__cause__, OSError)
    assert refused.value.__cause__.errno == errno.ENOSPC
    assert not any(tmp_path.iterdir())
