"""The forms that an export may take: label maps, lossless compression, and what a reading station hangs a film by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from HiResMedSynthLib.case import LesionRequest
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.export.dicom_series import ENCODERS, Compression
from HiResMedSynthLib.export.folder import export
from HiResMedSynthLib.export.identity import OutputIdentity
from HiResMedSynthLib.export.segmentation import SegKind
from HiResMedSynthLib.export.sop_class import CR
from HiResMedSynthLib.image import HeaderFacts, MedicalImage
from HiResMedSynthLib.read import read_image
from Testing.export.cases import composition_in, ct_image, film_image, mr_image
from Testing.slices import DX, write_slice

PICTURES = {
    "CT, 12 bits": ct_image(),
    "CT, 16 bits signed": ct_image(bits_stored=16, stored_signed=True, rescale=(1.0, 0.0)),
    "MR, signed": mr_image(
        pixels=np.arange(7 * 24 * 32).reshape(7, 24, 32).astype(np.int16) - 2000, bits_stored=16, stored_signed=True
    ),
    "film, 12 bits": film_image(),
    "picture of odd size, 8 bits": film_image(
        pixels=np.arange(41 * 47).reshape(41, 47).astype(np.uint8), bits_stored=8, facts=HeaderFacts()
    ),
}


@pytest.mark.parametrize("compress", ["jpeg-ls", "rle"])
@pytest.mark.parametrize("name", PICTURES)
def test_compressed_pixels_are_the_same_and_so_are_the_uids(name: str, compress: Compression, tmp_path: Path) -> None:
    composition = composition_in(PICTURES[name])
    export(composition, tmp_path / "case", compress=compress, pair=True)
    assert np.array_equal(read_image(tmp_path / "case" / "dicom").pixels, composition.image.pixels)
    assert np.array_equal(read_image(tmp_path / "case" / "dicom_background").pixels, composition.background.pixels)
    uids = set()
    for file in (tmp_path / "case" / "dicom").iterdir():
        data = pydicom.dcmread(file)
        assert data.file_meta.TransferSyntaxUID == ENCODERS[compress][0]
        assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
        assert data.get("LossyImageCompression", "00") == "00"
        uids.add(str(data.SOPInstanceUID))
    seg = hd.seg.segread(tmp_path / "case" / "segmentation.dcm")
    assert {str(uid) for _, _, uid in seg.get_source_image_uids()} <= uids


@pytest.mark.parametrize("compress", ["jpeg-ls", "rle"])
@pytest.mark.parametrize("seg", ["binary", "labelmap"])
@pytest.mark.parametrize("image", [ct_image(), film_image()], ids=["CT", "film"])
def test_a_compressed_segmentation_holds_the_same(
    image: MedicalImage, seg: SegKind, compress: Compression, tmp_path: Path
) -> None:
    composition = composition_in(image, lesions=2 if image.slices > 1 else 1)
    identity = OutputIdentity(seed="same")
    read = {}
    for name, asked in (("plain", None), ("packed", compress)):
        export(composition, tmp_path / name, seg=seg, compress=asked, identity=identity, with_preview=False)
        read[name] = hd.seg.segread(tmp_path / name / "segmentation.dcm")
    assert np.array_equal(read["packed"].pixel_array, read["plain"].pixel_array)
    assert read["packed"].pixel_array.any()
    syntax = ENCODERS[compress][0] if seg == "labelmap" else DeflatedExplicitVRLittleEndian  # bits, no codec takes
    assert read["packed"].file_meta.TransferSyntaxUID == syntax
    assert read["packed"].SyntheticData == "YES"
    packed, plain = ((tmp_path / name / "segmentation.dcm").stat().st_size for name in ("packed", "plain"))
    assert packed < plain
    report = pydicom.dcmread(tmp_path / "packed" / "measurements.dcm")
    assert report.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


@pytest.mark.parametrize("image", [ct_image(), ct_image().single_slice(3), film_image()], ids=["CT", "slice", "film"])
def test_a_label_map_holds_each_lesion_under_its_number(image: MedicalImage, tmp_path: Path) -> None:
    composition = composition_in(image, lesions=2)
    export(composition, tmp_path / "case", seg="labelmap")
    seg = hd.seg.segread(tmp_path / "case" / "segmentation.dcm")
    assert seg.SegmentationType == "LABELMAP"
    assert seg.SyntheticData == "YES"
    assert [int(number) for number in seg.segment_numbers if number] == [1, 2]
    slices = {pydicom.dcmread(f).SOPInstanceUID: pydicom.dcmread(f) for f in (tmp_path / "case" / "dicom").iterdir()}
    frames = np.atleast_3d(seg.pixel_array) if image.slices == 1 else seg.pixel_array
    frames = frames.reshape(-1, image.rows, image.columns)
    seen = np.zeros_like(composition.instance_mask)
    for number, group in enumerate(seg.PerFrameFunctionalGroupsSequence):
        source = slices[group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        seen[int(source.InstanceNumber) - 1] = frames[number]
    assert np.array_equal(seen, composition.instance_mask)


def test_a_computed_radiograph_keeps_its_view_and_hangs_upright(tmp_path: Path) -> None:
    facts = HeaderFacts(sop_class_uid=CR, body_part_examined="CHEST", view_position="AP", image_laterality="R")
    export(composition_in(film_image(modality="CR", facts=facts)), tmp_path / "a")
    data = pydicom.dcmread(tmp_path / "a" / "dicom" / "IM0001.dcm")
    assert (data.SOPClassUID, data.Modality) == (CR, "CR")
    assert (data.BodyPartExamined, data.ViewPosition) == ("CHEST", "AP")
    assert list(data.PatientOrientation) == ["L", "F"]
    assert data.SeriesDescription == "SYNTHETIC lesions, AP"
    export(composition_in(film_image(modality="CR", facts=replace(facts, body_part_examined="LUNG"))), tmp_path / "b")
    assert pydicom.dcmread(tmp_path / "b" / "dicom" / "IM0001.dcm").Laterality == "R"


@pytest.mark.parametrize(
    ("told", "written"),
    [
        (("R", "F"), ["R", "F"]),
        (("LA", "FP"), ["LA", "FP"]),
        (("A", "F"), ["A", "F"]),
        (("RL", "F"), ["L", "F"]),
        (("HARRY", "F"), ["L", "F"]),
        (("L",), ["L", "F"]),
        (None, ["L", "F"]),
    ],
)
def test_a_film_hangs_as_its_source_says(told: tuple[str, ...] | None, written: list[str], tmp_path: Path) -> None:
    facts = replace(film_image().facts, patient_orientation=told)
    composition = composition_in(film_image(facts=facts))
    asked = replace(composition.lesions[0], request=LesionRequest(seed=1, zone="left"))
    case = replace(composition.case, lesions=(asked,), background=replace(composition.case.background, domain="cxr"))
    export(compose(composition.background, case), tmp_path / "case", with_preview=False)
    assert list(pydicom.dcmread(tmp_path / "case" / "dicom" / "IM0001.dcm").PatientOrientation) == written
    report = hd.sr.srread(tmp_path / "case" / "measurements.dcm")
    (group,) = report.content.get_planar_roi_measurement_groups()
    side = group.finding_sites[0].laterality  # zones know unmirrored films only
    assert side is None if written[0] == "R" else side.meaning == "Left"


def test_the_header_of_a_mirrored_film_is_read(tmp_path: Path) -> None:
    stored = np.zeros((8, 8), np.uint16)
    unplaced = {"ImageOrientationPatient": None, "ImagePositionPatient": None}
    image = read_image(
        write_slice(tmp_path / "a.dcm", stored, modality="DX", sop_class=DX, PatientOrientation=["R", "F"], **unplaced)
    )
    assert image.facts.patient_orientation == ("R", "F")
    assert any("mirrored" in oddity for oddity in image.oddities)


def test_slices_can_be_sorted_by_number_place_and_location_alike(tmp_path: Path) -> None:
    export(composition_in(ct_image()), tmp_path / "case")
    data = sorted(map(pydicom.dcmread, (tmp_path / "case" / "dicom").iterdir()), key=lambda one: one.InstanceNumber)
    assert [one.InstanceNumber for one in data] == list(range(1, 8))
    heights = [float(one.SliceLocation) for one in data]
    assert heights == [float(one.ImagePositionPatient[2]) for one in data] == sorted(heights)


def test_mr_keeps_the_facts_of_its_sequence(tmp_path: Path) -> None:
    export(composition_in(mr_image()), tmp_path / "case")
    again = read_image(tmp_path / "case" / "dicom")
    assert again.modality == "MR"
    assert again.facts == replace(mr_image().facts, body_part_examined="CHEST")
