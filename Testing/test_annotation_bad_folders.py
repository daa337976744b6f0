"""Labelled folders that are damaged, contradict themselves or reach out of the folder: refused, in words."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from HiResMedSynthLib.annotations import read_annotations
from HiResMedSynthLib.errors import ReadError

# -- folders as other tools write them ---------------------------------------------------------------------------------
from Testing.labelled_folders import (
    SIZE,
    ct_volume,
    dicom,
    dicom_seg,
    dicom_series,
    film,
    masks,
    nnunet,
    put,
    put_text,
    put_volume,
    seg_mask,
    write,
    yolo,
)


def secret(folder: Path) -> Path:
    file = folder.parent / "secret.png"
    put(file, film(99))
    return file


def linked_image(folder: Path) -> None:
    (folder / "images" / "f0.png").unlink()
    (folder / "images" / "f0.png").symlink_to(secret(folder))


def linked_folder(folder: Path) -> None:
    (folder / "labels").rename(folder.parent / "outside")
    (folder / "labels").symlink_to(folder.parent / "outside")


def linked_label(folder: Path) -> None:
    (folder / "labels" / "f0.txt").rename(folder.parent / "outside.txt")
    (folder / "labels" / "f0.txt").symlink_to(folder.parent / "outside.txt")


def linked_list(folder: Path) -> None:
    (folder / "classes.txt").unlink()
    (folder / "classes.txt").symlink_to("/etc/hostname")


YOLO_BAD: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "a path as label": (put_text("labels/f0.txt", "/etc/passwd"), "not 5", "labels/f0.txt, line 1"),
    "a path as class": (put_text("labels/f0.txt", "../x 0.5 0.5 0.1 0.1"), "no box", "labels/f0.txt, line 1"),
    "an image that is a link": (linked_image, "link that leads out", "images/f0.png"),
    "labels that are a link": (linked_label, "link that leads out", "labels/f0.txt"),
    "a folder that is a link": (linked_folder, "folder is a link", "labels"),
    "a list that is a link": (linked_list, "link that leads out", "classes.txt"),
    "a patients.csv that is a link": (
        lambda folder: ((folder / "patients.csv").unlink(), (folder / "patients.csv").symlink_to("/etc/passwd")),
        "link that leads out", "patients.csv"),
    "class out of range": (put_text("labels/f0.txt", "0 .5 .5 .1 .1\n2 .5 .5 .1 .1"), "class 2 is not", "line 2"),
    "class below zero": (put_text("labels/f0.txt", "-1 .5 .5 .1 .1"), "class -1 is not", "line 1"),
    "pixels, not parts": (put_text("labels/f0.txt", "0 30 20 5 5"), "not parts", "line 1"),
    "box outside": (put_text("labels/f0.txt", "0 .95 .5 .3 .1"), "reaches out", "line 1"),
    "empty box": (put_text("labels/f0.txt", "0 .5 .5 0 .1"), "empty", "line 1"),
    "NaN": (put_text("labels/f0.txt", "0 nan .5 .1 .1"), "no number", "line 1"),
    "an outline": (put_text("labels/f0.txt", "0 .1 .1 .2 .1 .2 .2 .1 .2"), "outline", "line 1"),
    "a confidence": (put_text("labels/f0.txt", "0 .5 .5 .1 .1 .9"), "6 values", "line 1"),
    "half a line": (put_text("labels/f0.txt", "0 .5 .5"), "3 values", "line 1"),
    "two bad lines": (put_text("labels/f0.txt", "0 .5\n7 .5 .5 .1 .1"), "and 1 more line", "line 1"),
    "labels in binary": (lambda folder: (folder / "labels" / "f0.txt").write_bytes(b"\xff\xfe\x00\x01"),
                         "as text", "labels/f0.txt"),
    "labels too large": (lambda folder: os.truncate(folder / "labels" / "f0.txt", 2**25), "too large", "labels/f0.txt"),
    "no classes": (lambda folder: (folder / "classes.txt").unlink(), "no file names the classes", "classes.txt"),
    "no class in the list": (put_text("classes.txt", "\n\n"), "no class", "classes.txt"),
    "long class": (put_text("classes.txt", "x" * 90), "needs a name", "classes.txt"),
    "yaml without names": (put_text("data.yaml", "path: /etc\n"), "no names", "data.yaml"),
    "yaml of other classes": (put_text("data.yaml", "names: [a, b]"), "other classes", "data.yaml"),
    "labels without an image": (lambda folder: (folder / "images" / "f0.png").unlink(), "not here", "labels/f0.txt"),
    "half an image": (lambda folder: os.truncate(folder / "images" / "f0.png", 300), "damaged", "images/f0.png"),
    "text as image": (put_text("images/f0.png", "hello"), "no PNG", "images/f0.png"),
    "two images, one label": (lambda folder: put(folder / "images" / "f0.jpg", film(3)), "share one label", "f0"),
    "two labels, one image": (put_text("images/f0.txt", "0 .5 .5 .1 .1"), "two label files", "images/f0.png"),
    "masks as well": (lambda folder: put(folder / "masks" / "f0.png", film(1)), "two kinds", ""),
    "a volume": (lambda folder: put_volume(folder / "images" / "v.nrrd", ct_volume(1)), "several slices", "v.nrrd"),
    "patients of other columns": (put_text("patients.csv", "name;id\na;b"), "its columns are", "patients.csv"),
    "patients without an image": (put_text("patients.csv", "file,patient\nf0.png,a\n"), "leaves this image out",
                                  "images/f1.png"),
    "patients twice": (put_text("patients.csv", "file,patient\nf0.png,a\nf0.png,b\n"), "differently", "line 3"),
    "patient empty": (put_text("patients.csv", "file,patient\nf0.png,\n"), "no patient", "line 2"),
    "spacing of zero": (put_text("patients.csv", "file,patient,spacing_mm\nf0.png,a,0\n"), "can't be", "line 2"),
    "spacing with a comma": (put_text("patients.csv", 'file,patient,spacing_mm\nf0.png,a,"0,5"\n'), "can't be",
                             "line 2"),
    "modality unknown": (put_text("patients.csv", "file,patient,modality\nf0.png,a,X-ray\n"), "no modality", "line 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", YOLO_BAD)
def test_a_bad_yolo_folder_is_refused(name: str, tmp_path: Path) -> None:
    refuse(YOLO_BAD[name], yolo(tmp_path / "in"))


def refuse(case: tuple[Callable[[Path], Any], str, str], folder: Path) -> None:
    """The folder, spoilt, is refused in these words, and no path of the machine is told."""
    spoil, words, where = case
    spoil(folder)
    with pytest.raises(ReadError, match=words) as refused:
        read_annotations(folder)
    assert refused.value.remedy
    assert where in (refused.value.where or "")
    assert str(folder.parent) not in str(refused.value)
    assert "root:" not in str(refused.value)


def test_a_table_may_name_files_elsewhere_but_they_are_never_opened(tmp_path: Path) -> None:
    folder = yolo(tmp_path / "in")
    with (folder / "patients.csv").open("a") as table:
        table.write("../secret.png,p9,1,CT\n/etc/passwd,p9,1,CT\n")
    assert len(read_annotations(folder)) == 4


def detached(folder: Path) -> None:
    (folder / "images" / "f0.png").unlink()
    secret(folder)
    head = "NRRD0004\ntype: uchar\ndimension: 2\nsizes: 60 40\nencoding: raw\ndata file: ../../secret.png\n\n"
    (folder / "images" / "f0.nrrd").write_text(head)


def two_file_nifti(folder: Path) -> None:
    (folder / "images" / "f0.png").unlink()
    put_volume(folder / "images" / "f0.nii", film(0)[np.newaxis])
    data = bytearray((folder / "images" / "f0.nii").read_bytes())
    data[344:348] = b"ni1\0"
    (folder / "images" / "f0.nii").write_bytes(bytes(data))


def meta_image(folder: Path) -> None:
    """A header of another format, which may name any file, under the suffix of NRRD."""
    (folder / "images" / "f0.png").unlink()
    head = "ObjectType = Image\nNDims = 2\nDimSize = 60 40\nElementType = MET_UCHAR\nElementDataFile = /etc/passwd\n"
    (folder / "images" / "f0.nrrd").write_text(head)


def mask_of(array: np.ndarray, name: str = "f0.png") -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for old in (folder / "masks").glob("f0.*"):
            old.unlink()
        (put_volume if name.endswith((".nrrd", ".gz")) else put)(folder / "masks" / name, array)

    return apply


def jpeg_mask(folder: Path) -> None:
    (folder / "masks" / "f0.png").unlink()
    put(folder / "masks" / "f0.jpg", np.zeros(SIZE, np.uint8))


MASKS_BAD: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "another size": (mask_of(np.zeros((20, 30), np.uint8)), r"size \(1, 20, 30\), its image \(1, 40, 60\)",
                     "masks/f0.png"),
    "turned": (mask_of(np.zeros((60, 40), np.uint8)), "size", "masks/f0.png"),
    "class out of range": (mask_of(np.full(SIZE, 3, np.uint8)), "class 3 has no name", "masks/f0.png"),
    "black and white": (mask_of(np.where(film(1) > 99, 255, 0).astype(np.uint8)), "black and white", "masks/f0.png"),
    "in colour": (mask_of(np.stack([film(1), film(2), film(3)], axis=-1)), "colour", "masks/f0.png"),
    "JPEG": (jpeg_mask, "JPEG changes", "masks/f0.jpg"),
    "interpolated": (mask_of(np.full((1, *SIZE), 0.5, np.float32), "f0.nrrd"), "interpolated", "masks/f0.nrrd"),
    "negative": (mask_of(np.full((1, *SIZE), -1, np.int16), "f0.nii.gz"), "class numbers go from -1",
                 "masks/f0.nii.gz"),
    "no mask": (lambda folder: (folder / "masks" / "f0.png").unlink(), "has no mask", "images/f0.png"),
    "no image": (lambda folder: (folder / "images" / "f0.png").unlink(), "not here", ""),
    "two masks": (lambda folder: put(folder / "masks" / "f0.tif", film(1)), "same name", "masks/"),
    "masks twice": (lambda folder: put(folder / "labels" / "f0.png", film(1)), "masks/ and in labels/", ""),
    "half a mask": (lambda folder: os.truncate(folder / "masks" / "f0.png", 60), "damaged", "masks/f0.png"),
    "no list": (lambda folder: (folder / "classes.json").unlink(), "no file names the classes", "classes.json"),
    "list of nothing": (put_text("classes.json", "{}"), "no class", "classes.json"),
    "list that is no JSON": (put_text("classes.json", "{1: lungs}"), "no JSON", "classes.json"),
    "deep list": (put_text("classes.json", "[" * 100_000), "no JSON", "classes.json"),
    "class 300": (put_text("classes.json", '{"300": "lungs"}'), "above 255", "classes.json"),
    "class twice": (put_text("classes.json", '{"lungs": 1, "heart": 1}'), "stands twice", "classes.json"),
    "class of two parts": (put_text("classes.json", '{"lungs": [1, 2]}'), "no single number", "classes.json"),
    "voxels elsewhere": (detached, "voxels inside", "images/f0.nrrd"),
    "voxels in a second file": (two_file_nifti, "voxels inside", "images/f0.nii"),
    "another format's header": (meta_image, "voxels inside", "images/f0.nrrd"),
    "image of 20 TB": (lambda folder: ((folder / "images" / "f0.png").unlink(), write(
        folder / "images" / "f0.nrrd", "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 99999 99999 999\nencoding: gzip\n\n"
    )), "too many voxels", "images/f0.nrrd"),
    "no gzip": (lambda folder: ((folder / "images" / "f0.png").unlink(), write(folder / "images" / "f0.nii.gz", "x")),
                "no NIfTI", "images/f0.nii.gz"),
    "climbing link": (lambda folder: ((folder / "masks" / "f0.png").unlink(),
                                      (folder / "masks" / "f0.png").symlink_to("../../secret.png"), secret(folder)),
                      "link that leads out", "masks/f0.png"),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS_BAD)
def test_a_bad_folder_of_masks_is_refused(name: str, tmp_path: Path) -> None:
    refuse(MASKS_BAD[name], masks(tmp_path / "in"))


def test_a_mask_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    nnunet(tmp_path / "in")
    volume = sitk.ReadImage(str(tmp_path / "in" / "labelsTr" / "case_000.nii.gz"))
    volume.SetOrigin((30.0, 0.0, 0.0))
    sitk.WriteImage(volume, str(tmp_path / "in" / "labelsTr" / "case_000.nii.gz"))
    with pytest.raises(ReadError, match=r"30\.0 mm from its image"):
        read_annotations(tmp_path / "in")


NNUNET_BAD: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no dataset.json": (lambda folder: (folder / "dataset.json").unlink(), "missing", "dataset.json"),
    "no labels told": (put_text("dataset.json", '{"channel_names": {"0": "CT"}}'), "no labels", "dataset.json"),
    "regions": (put_text("dataset.json", '{"labels": {"background": 0, "whole": [1, 2]}}'), "single", "dataset.json"),
    "channels": (put_text("dataset.json", '{"channel_names": {"0": "T1", "1": "T2"}, "labels": {"a": 1}}'),
                 "several channels", "dataset.json"),
    "a damaged stream": (lambda folder: (folder / "imagesTr" / "case_001_0000.nii.gz").write_bytes(
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + b"\xff" * 90), "NIfTI", "case_001"),
    "a label missing": (lambda folder: (folder / "labelsTr" / "case_001.nii.gz").unlink(), "no mask", "case_001"),
}  # fmt: skip


@pytest.mark.parametrize("name", NNUNET_BAD)
def test_a_bad_nnunet_folder_is_refused(name: str, tmp_path: Path) -> None:
    refuse(NNUNET_BAD[name], nnunet(tmp_path / "in"))


def reseg(change: Callable[[Any], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = pydicom.dcmread(folder / "segs" / "0.dcm")
        change(data)
        data.save_as(folder / "segs" / "0.dcm")

    return apply


def move(data: Any) -> None:
    for group in data.PerFrameFunctionalGroupsSequence:
        group.PlanePositionSequence[0].ImagePositionPatient[0] = 5.0


def turn(data: Any) -> None:
    data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def overlap(folder: Path) -> None:
    from pydicom.sr.codedict import codes

    def change(data: Any) -> None:
        segment = data.SegmentSequence[1]
        segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue = "123037004"
        segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning = str(codes.SCT.Heart.meaning)

    headers = [pydicom.dcmread(path) for path in sorted((folder / "s0").iterdir())]
    headers.sort(key=lambda data: data.InstanceNumber)
    dicom_seg(headers, folder / "segs" / "0.dcm", seg_mask())
    reseg(change)(folder)
    extra = dicom_seg(headers, folder / "segs" / "extra.dcm", np.roll(seg_mask(), (15, 22), (1, 2)))
    assert extra is not None


DICOM_BAD: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "series missing": (lambda folder: [path.unlink() for path in (folder / "s0").iterdir()], "not here", "segs/0.dcm"),
    "moved": (reseg(move), "mm from the nearest slice", "segs/0.dcm"),
    "turned": (reseg(turn), "turned or mirrored", "segs/0.dcm"),
    "another size": (reseg(lambda data: setattr(data, "Columns", 50)), "its series 40 x 60", "segs/0.dcm"),
    "frames without description": (reseg(lambda data: data.PerFrameFunctionalGroupsSequence.pop()), "differ in number",
                                   "segs/0.dcm"),
    "unknown segment": (reseg(lambda data: data.SegmentSequence.pop()), "segment 2 is not described", "segs/0.dcm"),
    "a segment without number": (reseg(lambda data: delattr(data.SegmentSequence[0], "SegmentNumber")), "damaged",
                                 "segs/0.dcm"),
    "cut off": (lambda folder: os.truncate(folder / "segs" / "0.dcm", (folder / "segs" / "0.dcm").stat().st_size - 400),
                "cut off", "segs/0.dcm"),
    "classes overlap": (overlap, "claim the same voxels", "segs/"),
    "half a series file": (lambda folder: os.truncate(folder / "s0" / "0-1.dcm", 1500), "cut|damaged|pixel",
                           "s0/"),
}  # fmt: skip


@pytest.mark.parametrize("name", DICOM_BAD)
def test_a_bad_dicom_folder_is_refused(name: str, tmp_path: Path) -> None:
    refuse(DICOM_BAD[name], dicom(tmp_path / "in"))


def test_the_dicom_header_and_the_table_must_agree(tmp_path: Path) -> None:
    folder = dicom(tmp_path / "in")
    write(folder / "patients.csv", "file,patient\ns0/0-1.dcm,ID-0\ns1/1-1.dcm,ID-7\n")
    with pytest.raises(ReadError, match="name different patients"):
        read_annotations(folder)


UNKNOWN = {
    "nothing": lambda folder: folder.mkdir(),
    "images only": lambda folder: put(folder / "images" / "a.png", film(1)),
    "dicom without seg": lambda folder: dicom_series(folder, 1),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_folder_without_labels_is_refused(name: str, tmp_path: Path) -> None:
    UNKNOWN[name](tmp_path / "in")
    with pytest.raises(ReadError, match="no other labels that are known"):
        read_annotations(tmp_path / "in")
    with pytest.raises(ReadError, match="no such folder"):
        read_annotations(tmp_path / "elsewhere")
