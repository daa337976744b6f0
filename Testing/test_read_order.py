"""Which DICOM files are one series and one stack, in which order, and what of them is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.read_dicom import series_of
from Testing.slices import CT, DX, MR, write_slice, write_stack

STACK = np.arange(6 * 4 * 5, dtype=np.uint16).reshape(6, 4, 5) * 10
XRAY_3D = "1.2.840.10008.5.1.4.1.1.13.1"


def odd(image: MedicalImage, word: str) -> bool:
    return any(word in oddity for oddity in image.oddities)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16])
def test_slices_of_one_series_may_be_stored_in_any_way(kind: type, tmp_path: Path) -> None:
    """Uncompressed ones are read straight into the stack, others by pydicom: all to the same values."""
    stack = np.random.default_rng(1).integers(0, 200, (6, 7, 5)).astype(kind)  # odd: a byte of padding
    signs = -1 if kind == np.int16 else 1
    write_stack(tmp_path, stack * signs, [0, 2, 4, 6, 8, 10], BitsStored=8 * stack.itemsize)
    ways = (
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        RLELossless,
    )
    for file, syntax in zip(sorted(tmp_path.iterdir()), ways, strict=False):
        data = pydicom.dcmread(file)
        if syntax == RLELossless:
            data.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)
            data.save_as(file)
        else:
            if syntax == ExplicitVRBigEndian and stack.itemsize == 2:
                data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
            data.file_meta.TransferSyntaxUID = syntax
            pydicom.dcmwrite(
                file, data, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian,
                force_encoding=True,
            )  # fmt: skip
    assert np.array_equal(read_image(tmp_path).pixels, (stack * signs).astype(np.int16) - 1024)


@pytest.mark.parametrize("signed", [0, 1])
def test_bits_above_those_stored_are_no_part_of_a_value(signed: int, tmp_path: Path) -> None:
    folder = write_stack(tmp_path, STACK, list(range(0, 12, 2)), PixelRepresentation=signed)
    clean = read_image(folder).pixels.copy()
    for number, path in enumerate(sorted(folder.iterdir())):
        header = pydicom.dcmread(path)
        header.BitsStored, header.HighBit = 12, 11
        if number % 2:  # an old overlay lies in the highest bit
            header.PixelData = (np.frombuffer(header.PixelData, np.uint16) | np.uint16(0x8000)).tobytes()
        header.save_as(path)
    assert np.array_equal(read_image(folder).pixels, clean)


def test_a_slice_of_another_depth_widens_the_stack(tmp_path: Path) -> None:
    write_stack(tmp_path, STACK, [0, 2, 4, 6, 8, 10], modality="MR", sop_class=MR)
    low = np.full(STACK.shape[1:], 7, np.uint8)
    write_slice(tmp_path / "low.dcm", low, modality="MR", sop_class=MR, ImagePositionPatient=[-5, 6, -2])
    image = read_image(tmp_path)
    assert np.array_equal(image.pixels, np.concatenate([low[np.newaxis], STACK]))


def test_films_of_one_series_are_no_stack(tmp_path: Path) -> None:
    """PA and lateral under one Series Instance UID, of one size or not, with positions or without."""
    unplaced = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    films = [np.full(shape, 100 + k, np.uint16) for k, shape in enumerate([(8, 6), (8, 6), (6, 6)])]
    for k, (stored, place) in enumerate(zip(films, [unplaced, unplaced, {}], strict=True)):
        write_slice(
            tmp_path / f"{9 - k}.dcm", stored, modality="DX", sop_class=DX, InstanceNumber=k + 1,
            ViewPosition="PA" if k == 0 else "LL", **place,
        )  # fmt: skip
    with pytest.raises(ReadError, match=r"3 radiographs, which are no stack \(0: 8 x 6, 1: 8 x 6, 2: 6 x 6\).*--slice"):
        read_image(tmp_path)
    for k, stored in enumerate(films):
        one = read_image(tmp_path, slice_index=k)
        assert np.array_equal(one.pixels[0], stored)
        assert one.facts.view_position == ("PA" if k == 0 else "LL")
    assert read_image(tmp_path / "9.dcm").slices == 1
    with pytest.raises(ReadError, match=r"slice 3 is not in 0\.\.2"):
        read_image(tmp_path, slice_index=3)


def test_tomosynthesis_is_a_stack_though_of_a_radiographs_modality(tmp_path: Path) -> None:
    write_stack(tmp_path, STACK, [0, 2, 4, 6, 8, 10], modality="MG", sop_class="1.2.840.10008.5.1.4.1.1.13.1.3")
    assert read_image(tmp_path).slices == 6


@pytest.mark.parametrize(("modality", "sop_class"), [("XA", CT), ("MG", CT), ("RF", MR), ("XA", f"{XRAY_3D}.1")])
def test_slices_are_a_stack_whatever_modality_they_claim(modality: str, sop_class: str, tmp_path: Path) -> None:
    write_stack(tmp_path, STACK, [0, 2, 4, 6, 8, 10], modality=modality, sop_class=sop_class)
    assert read_image(tmp_path).slices == 6


@pytest.mark.parametrize("sop_class", [f"{XRAY_3D}.4", f"{XRAY_3D}.5"])
def test_breast_projections_are_no_stack_though_their_class_is_among_those_of_3d(
    sop_class: str, tmp_path: Path
) -> None:
    write_stack(tmp_path, STACK, [0, 2, 4, 6, 8, 10], modality="MG", sop_class=sop_class)
    with pytest.raises(ReadError, match="6 radiographs"):
        read_image(tmp_path)


def test_uneven_gaps_are_noticed(ct_series_folder: Path, tmp_path: Path) -> None:
    for file in ct_series_folder.iterdir():
        if file.name not in ("IM0030.dcm", "IM0031.dcm"):
            shutil.copy(file, tmp_path)
    image = read_image(tmp_path)
    assert image.slices == 10
    assert image.volume_problem == "the slices are unevenly spaced (5.00 to 15.00 mm)"
    assert image.volume_problem in image.oddities


def test_unsorted_files_are_sorted_by_position_and_one_slice_counts_the_same(tmp_path: Path) -> None:
    order = [3, 0, 5, 1, 4, 2]
    write_stack(tmp_path, STACK[order], [float(2 * k) for k in order])
    whole = read_image(tmp_path)
    assert np.array_equal(whole.pixels, STACK.astype(np.int16) - 1024)
    for k in range(6):
        one, cut = read_image(tmp_path, slice_index=k), whole.single_slice(k)
        assert one.pixel_sha256 == cut.pixel_sha256
        assert np.array_equal(one.positions_lps_mm, cut.positions_lps_mm)  # type: ignore[arg-type]
        assert one.slice_thickness_mm == cut.slice_thickness_mm == 2


def test_one_slice_decodes_one_file(ct_series_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    original = pydicom.pixels.pixel_array

    def counting(source: pydicom.Dataset, **options: object) -> np.ndarray:
        decoded.append(source.InstanceNumber)
        return original(source, **options)

    monkeypatch.setattr(pydicom.pixels, "pixel_array", counting)
    assert read_image(ct_series_folder, slice_index=0).shape == (1, 512, 512)
    assert decoded == [35]


def test_two_slices_at_one_place_are_noticed(tmp_path: Path) -> None:
    image = read_image(write_stack(tmp_path, STACK, [0, 2, 2, 4, 6, 8]))
    assert image.slices == 6
    assert odd(image, "same position")


def test_without_positions_the_instance_number_sorts(tmp_path: Path) -> None:
    for k in (2, 0, 1):
        write_slice(tmp_path / f"{9 - k}.dcm", STACK[k], InstanceNumber=k, ImagePositionPatient=None)
    image = read_image(tmp_path)
    assert np.array_equal(image.pixels, STACK[:3].astype(np.int16) - 1024)
    assert odd(image, "InstanceNumber")
    assert image.slice_spacing_mm == 2


def test_slices_on_both_sides_of_a_rounding_edge_are_one_stack(tmp_path: Path) -> None:
    for k in range(6):
        cosine = 0.995 + (-1) ** k * 1e-6
        orientation = [cosine, (1 - cosine**2) ** 0.5, 0, 0, 0, -1]
        write_slice(
            tmp_path / f"{k}.dcm", STACK[k], ImageOrientationPatient=orientation, ImagePositionPatient=[0, 2 * k, 0]
        )
    assert read_image(tmp_path).slices == 6


def test_pictures_that_share_a_uid_are_no_copies_of_one_another(tmp_path: Path) -> None:
    for k in range(6):
        write_slice(tmp_path / f"{k}.dcm", STACK[k], SOPInstanceUID="1.2.3", ImagePositionPatient=[0, 0, 2 * k])
    shutil.copy(tmp_path / "0.dcm", tmp_path / "copy.dcm")
    image = read_image(tmp_path)
    assert image.slices == 6
    assert odd(image, "repeat another")


def test_a_scout_is_left_out(tmp_path: Path) -> None:
    write_stack(tmp_path, STACK, [0, 2, 4, 6, 8, 10])
    write_slice(tmp_path / "scout.dcm", np.zeros((9, 9), np.uint16), ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    image = read_image(tmp_path)
    assert image.shape == (6, 4, 5)
    assert odd(image, "1 picture(s) of another size")


def test_other_files_and_sub_folders(tmp_path: Path) -> None:
    write_stack(tmp_path / "export" / "S1", STACK, [0, 2, 4, 6, 8, 10])
    (tmp_path / "export" / "S1" / "readme.txt").write_text("hello")
    (tmp_path / "export" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "export" / ".hidden").write_text("x")
    image = read_image(tmp_path / "export")
    assert image.slices == 6
    assert odd(image, "1 other file(s)")


@pytest.mark.parametrize("choice", ["1", "uid"])
def test_a_series_is_chosen_by_number_or_uid(choice: str, tmp_path: Path) -> None:
    write_stack(tmp_path, STACK, [0, 2, 4, 6, 8, 10])
    write_slice(tmp_path / "other.dcm", STACK[0], SeriesInstanceUID="1.2.3", modality="MR", sop_class=MR)
    series = "1.2.3" if choice == "uid" else choice
    assert read_image(tmp_path, series=series).slices == (1 if choice == "uid" else 6)


def test_slices_of_two_patients_under_one_series_uid_are_no_stack(tmp_path: Path) -> None:
    for k in range(6):
        place = {"ImagePositionPatient": [0, 0, 2 * k], "PatientID": "A1" if k < 4 else "B2"}
        write_slice(tmp_path / f"{k}.dcm", STACK[k], **place)
    with pytest.raises(ReadError, match="this series holds slices of 2 patients") as refused:
        read_image(tmp_path)
    assert "A1" not in str(refused.value)
    with pytest.raises(ReadError, match="slices of 2 patients"):
        series_of(sorted(tmp_path.iterdir()), where=tmp_path)
    for k in (4, 5):  # one that names nobody may be the same patient's
        write_slice(tmp_path / f"{k}.dcm", STACK[k], ImagePositionPatient=[0, 0, 2 * k], PatientID="")
    assert read_image(tmp_path).slices == 6
