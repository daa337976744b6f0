"""The written series, read back: pixels, geometry, headers, marks; nothing that an allow-list doesn't hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from HiResMedSynthLib.case_file import read_case
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.export.folder import export
from HiResMedSynthLib.export.sop_class import CR, CT, DX_PRESENTATION, MR, SECONDARY_CAPTURE, object_kind
from HiResMedSynthLib.image import ORIENTATION_UNKNOWN, HeaderFacts, MedicalImage
from HiResMedSynthLib.read import read_image
from Testing.export.cases import composition_in, ct_image, film_image, mr_image


def read_series(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(file) for file in sorted(folder.glob("*.dcm"))]


def test_every_object_is_marked_and_belongs_to_one_synthetic_study(tmp_path: Path) -> None:
    out = tmp_path / "case"
    export(composition_in(ct_image(), lesions=2), out, pair=True)
    objects = [pydicom.dcmread(file) for file in sorted(out.rglob("*.dcm"))]
    assert len(objects) == 7 + 7 + 1 + 1
    for data in objects:
        assert data.SyntheticData == "YES"
        assert data.Modality in ("SEG", "SR") or data.ImageType[:2] == ["DERIVED", "SECONDARY"]
        assert data.PatientIdentityRemoved == "YES"
        assert data.DeidentificationMethod
        assert str(data.PatientID).startswith("SYN-")
        assert str(data.PatientName).startswith("SYNTHETIC")
        equipment = data.ContributingEquipmentSequence[0]
        purpose = equipment.PurposeOfReferenceCodeSequence[0]
        assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("109100", "DCM")
        assert equipment.SoftwareVersions
    for keyword in ("StudyInstanceUID", "PatientID", "StudyDescription", "StudyDate"):
        assert len({str(data[keyword].value) for data in objects}) == 1, keyword
    assert len({data.FrameOfReferenceUID for data in objects if data.Modality != "SR"}) == 1
    assert len({data.SOPInstanceUID for data in objects}) == len(objects)
    assert len({data.SeriesInstanceUID for data in objects}) == 4
    numbers = {data.SeriesInstanceUID: int(data.SeriesNumber) for data in objects}
    assert sorted(numbers.values()) == [1, 2, 100, 101]


def test_the_pair_is_the_background_and_differs_only_in_the_footprint(tmp_path: Path) -> None:
    composition = composition_in(ct_image())
    export(composition, tmp_path / "case", pair=True)
    with_lesion = read_image(tmp_path / "case" / "dicom")
    without = read_image(tmp_path / "case" / "dicom_background")
    assert np.array_equal(without.pixels, composition.background.pixels)
    assert np.array_equal(with_lesion.pixels, composition.image.pixels)
    changed = with_lesion.pixels != without.pixels
    assert changed.any()
    assert not changed[composition.alpha == 0].any()


DEPTHS = {
    "CT, 12 bits unsigned": ct_image(),
    "CT, 16 bits signed": ct_image(bits_stored=16, stored_signed=True, rescale=(1.0, 0.0)),
    "CT, half steps": ct_image(
        pixels=(np.arange(7 * 24 * 32).reshape(7, 24, 32) % 4096 * 0.5 - 1000).astype(np.float32),
        rescale=(0.5, -1000.0),
    ),
    "NRRD, HU": ct_image(facts=HeaderFacts(), bits_stored=None, rescale=(1.0, 0.0)),
    "DX, 12 bits": film_image(),
    "DX, inverted": film_image(photometric="MONOCHROME1"),
    "picture, 8 bits": film_image(
        pixels=np.arange(40 * 48).reshape(40, 48).astype(np.uint8), bits_stored=8, facts=HeaderFacts()
    ),
    "picture, 8 bits, odd size": film_image(
        pixels=np.arange(41 * 47).reshape(41, 47).astype(np.uint8), bits_stored=8, facts=HeaderFacts()
    ),
    "picture, 16 bits": film_image(bits_stored=16, facts=HeaderFacts(), modality="OT"),
    "MR": mr_image(),
    "MR, sequence unknown": film_image(modality="MR", facts=HeaderFacts(sop_class_uid=MR)),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_depth_rescale_and_photometric_survive_exactly(name: str, tmp_path: Path) -> None:
    image = DEPTHS[name]
    composition = composition_in(image)
    export(composition, tmp_path / "case")
    again = read_image(tmp_path / "case" / "dicom")
    slope, intercept = image.rescale
    data = read_series(tmp_path / "case" / "dicom")[0]
    stored = np.stack([d.pixel_array for d in read_series(tmp_path / "case" / "dicom")])
    assert np.array_equal(stored * slope + intercept, composition.image.pixels)
    assert data.PhotometricInterpretation == image.photometric
    assert data.BitsStored == (image.bits_stored or 16)
    if data.SOPClassUID == CT:
        assert np.array_equal(again.pixels, composition.image.pixels)
        assert again.window == image.window
    assert again.pixel_spacing_mm == pytest.approx(image.pixel_spacing_mm)


def test_values_that_16_bits_cannot_hold_are_rounded_and_said(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(0, 1000, (24, 32)).astype(np.float32)
    image = replace(ct_image(bits_stored=None, facts=HeaderFacts()), pixels=pixels[np.newaxis], positions_lps_mm=None)
    composition = composition_in(image)
    exported = export(composition, tmp_path / "case")
    assert any("rounded" in note for note in exported.notes)
    data = read_series(tmp_path / "case" / "dicom")[0]
    values = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
    assert np.abs(values - composition.image.pixels[0]).max() <= float(data.RescaleSlope)


@pytest.mark.parametrize(
    ("image", "uid"),
    [
        (ct_image(), CT),
        (ct_image(facts=HeaderFacts()), SECONDARY_CAPTURE),
        (film_image(), DX_PRESENTATION),
        (film_image(facts=HeaderFacts(sop_class_uid=DX_PRESENTATION)), CR),
        (film_image(facts=HeaderFacts(sop_class_uid=CR), modality="CR"), CR),
        (film_image(facts=HeaderFacts(sop_class_uid=CR), modality="CR", stored_signed=True), SECONDARY_CAPTURE),
        (film_image(facts=HeaderFacts(sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1.1")), SECONDARY_CAPTURE),
        (film_image(facts=HeaderFacts()), SECONDARY_CAPTURE),
        (mr_image(), MR),
        (mr_image(facts=HeaderFacts(sop_class_uid=MR, scanning_sequence=("GR",))), SECONDARY_CAPTURE),
    ],
)
def test_the_object_class_follows_the_source_and_the_reason_is_in_the_file(
    image: MedicalImage, uid: str, tmp_path: Path
) -> None:
    kind = object_kind(image)
    assert kind.sop_class_uid == uid
    export(composition_in(image), tmp_path / "case")
    data = read_series(tmp_path / "case" / "dicom")[0]
    assert data.SOPClassUID == uid
    assert kind.reason in data.DerivationDescription


UNDESCRIBED = ct_image(facts=HeaderFacts(), bits_stored=None, rescale=(1.0, 0.0))


@pytest.mark.parametrize(
    ("image", "uid", "why"),
    [
        (UNDESCRIBED, CT, "its user says"),
        (UNDESCRIBED.single_slice(3), CT, "its user says"),
        (replace(UNDESCRIBED, pixels=UNDESCRIBED.pixels.astype(np.float32) + np.float32(0.5)), CT, "its user says"),
        (replace(UNDESCRIBED, oddities=(ORIENTATION_UNKNOWN,)), SECONDARY_CAPTURE, "how its voxels lie"),
        (mr_image(facts=HeaderFacts()), SECONDARY_CAPTURE, "no DICOM object"),
        (film_image(), DX_PRESENTATION, "a digital radiograph"),
    ],
)
def test_a_file_that_tells_no_class_is_a_ct_on_its_users_word_alone(
    image: MedicalImage, uid: str, why: str, tmp_path: Path
) -> None:
    composition = composition_in(image)
    settings = replace(composition.case.settings, modality="CT")
    said = compose(image, replace(composition.case, settings=settings))
    exported = export(said, tmp_path / "case", with_preview=False, pair=True)
    for name in ("dicom", "dicom_background"):
        assert {data.SOPClassUID for data in read_series(tmp_path / "case" / name)} == {uid}
    assert why in read_series(tmp_path / "case" / "dicom")[0].DerivationDescription
    assert why in exported.notes[0]
    assert read_case(tmp_path / "case").settings.modality == "CT"


def test_a_dx_says_what_its_values_and_its_orientation_mean(tmp_path: Path) -> None:
    """C.8.11.3.1.2: -1 where higher values mean less X-ray intensity (bone bright), 1 where lower ones do."""
    for name, changes, sign in (("a", {}, -1), ("b", {"photometric": "MONOCHROME1"}, 1)):
        export(composition_in(film_image(**changes)), tmp_path / name)
        data = read_series(tmp_path / name / "dicom")[0]
        assert data.PixelIntensityRelationshipSign == sign
        assert list(data.PatientOrientation) == ["L", "F"]
    lateral = film_image(facts=replace(film_image().facts, view_position="LL", lossy_image_compression="DOE JANE"))
    export(composition_in(lateral), tmp_path / "c")
    data = read_series(tmp_path / "c" / "dicom")[0]
    assert not data.PatientOrientation
    assert data.LossyImageCompression == "00"
    assert "DOE" not in str(data)


def test_an_image_of_small_values_is_shown_in_its_own_range(tmp_path: Path) -> None:
    pixels = np.linspace(0, 0.002, 24 * 32, dtype=np.float32).reshape(1, 24, 32)
    image = ct_image(pixels=pixels, positions_lps_mm=None, units="stored", modality="MR", facts=HeaderFacts(),
                     bits_stored=None, rescale=(1.0, 0.0), window=None)  # fmt: skip
    export(composition_in(image), tmp_path / "case")
    data = read_series(tmp_path / "case" / "dicom")[0]
    assert 0.001 < float(data.WindowWidth) < 0.002
    assert data.VOILUTFunction == "LINEAR_EXACT"


def test_one_mr_slice_keeps_its_plane(tmp_path: Path) -> None:
    image = replace(ct_image().single_slice(2), modality="MR", units="stored", facts=HeaderFacts(), rescale=(1.0, 0.0))
    export(composition_in(image), tmp_path / "case")
    data = read_series(tmp_path / "case" / "dicom")[0]
    assert [float(v) for v in data.ImagePositionPatient] == pytest.approx([-50.0, -40.0, 15.0])


def test_nothing_of_a_header_but_the_allow_list_gets_out(tmp_path: Path) -> None:
    facts = HeaderFacts(
        sop_class_uid=CT,
        body_part_examined="CHEST",
        patient_position="HFS",
        view_position="MARKER",
        image_laterality="MARKER",
    )
    export(composition_in(ct_image(facts=facts)), tmp_path / "case")
    allowed = {
        "SpecificCharacterSet", "ImageType", "InstanceCreationDate", "InstanceCreationTime", "SOPClassUID",
        "SOPInstanceUID", "SyntheticData", "TimezoneOffsetFromUTC",
        "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "StudyTime",
        "SeriesTime", "AcquisitionTime", "ContentTime", "AccessionNumber", "Modality", "Manufacturer",
        "ReferringPhysicianName", "StudyDescription", "SeriesDescription", "ManufacturerModelName",
        "DerivationDescription", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
        "PatientIdentityRemoved", "DeidentificationMethod", "BodyPartExamined", "SliceThickness", "KVP",
        "SoftwareVersions", "PatientPosition", "ContributingEquipmentSequence", "StudyInstanceUID",
        "SeriesInstanceUID", "StudyID", "SeriesNumber", "AcquisitionNumber", "InstanceNumber",
        "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "PositionReferenceIndicator",
        "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "PixelSpacing", "BitsAllocated",
        "BitsStored", "HighBit", "PixelRepresentation", "WindowCenter", "WindowWidth", "RescaleIntercept",
        "RescaleSlope", "RescaleType", "SliceLocation", "PixelData",
    }  # fmt: skip
    for data in read_series(tmp_path / "case" / "dicom"):
        assert {element.keyword for element in data} <= allowed
        assert "MARKER" not in str(data)
