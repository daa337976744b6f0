"""Labelled folders of other tools: what is read of them, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

from HiResMedSynthLib.annotations import AnnotatedImage, Mark, open_annotations, read_annotations, write_annotations
from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.image import MedicalImage

SIZE = (40, 60)


# -- folders as other tools write them ---------------------------------------------------------------------------------
def film(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)


def put(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def put_volume(path: Path, array: np.ndarray, spacing: tuple[float, float, float] = (0.7, 0.7, 2.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing(spacing)
    sitk.WriteImage(volume, str(path), useCompression=True)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def yolo(folder: Path, count: int = 4) -> Path:
    """Films with boxes, every second one without; patients told."""
    for number in range(count):
        put(folder / "images" / f"f{number}.png", film(number))
        if number % 2 == 0:
            write(folder / "labels" / f"f{number}.txt", f"{number % 4 // 2} 0.5 0.5 0.2 0.25\n")
    write(folder / "classes.txt", "nodule\nmass\n")
    lines = "".join(f"f{number}.png,p{number},0.5,DX\n" for number in range(count))
    write(folder / "patients.csv", f"file,patient,spacing_mm,modality\n{lines}")
    return folder


def masks(folder: Path, count: int = 4) -> Path:
    """Films with masks of lungs and heart; patients told."""
    for number in range(count):
        mask = np.zeros(SIZE, np.uint8)
        mask[10:30, 5:20], mask[12:30, 25:35] = 1, 2
        put(folder / "images" / f"f{number}.png", film(number))
        put(folder / "masks" / f"f{number}.png", mask)
    write(folder / "classes.json", '{"1": "lungs", "2": "heart"}')
    lines = "".join(f"images/f{number}.png,p{number},DX\n" for number in range(count))
    write(folder / "patients.csv", f"file,patient,modality\n{lines}")
    return folder


def ct_volume(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 200, (6, *SIZE)).astype(np.int16)


def nnunet(folder: Path, count: int = 3) -> Path:
    """CT volumes with bone in two slices."""
    for number in range(count):
        mask = np.zeros((6, *SIZE), np.uint8)
        mask[2:4, 10:20, 10:20] = 1
        put_volume(folder / "imagesTr" / f"case_{number:03d}_0000.nii.gz", ct_volume(number))
        put_volume(folder / "labelsTr" / f"case_{number:03d}.nii.gz", mask)
    document = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "bone": 1}, "file_ending": ".nii.gz"}
    write(folder / "dataset.json", json.dumps(document))
    return folder


def dicom_series(folder: Path, number: int, slices: int = 4) -> list[pydicom.Dataset]:
    """A CT series of a patient, written to the folder; its headers."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    found = []
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(slices):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = f"ID-{number}", "DOE^JANE", "", "F"
        data.StudyDate = data.StudyTime = data.StudyID = data.AccessionNumber = data.ReferringPhysicianName = ""
        data.PositionReferenceIndicator = ""
        data.Modality, data.InstanceNumber, data.SeriesNumber = "CT", index + 1, 1
        data.ImagePositionPatient, data.ImageOrientationPatient = [-10.0, -20.0, 2.5 * index], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [0.7, 0.7], 2.5
        data.Rows, data.Columns = SIZE
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelData = np.random.default_rng([number, index]).integers(-1000, 200, SIZE).astype("<i2").tobytes()
        data.save_as(folder / f"{number}-{slices - index}.dcm", enforce_file_format=True)
        found.append(data)
    return found


def dicom_seg(headers: list[pydicom.Dataset], path: Path, mask: np.ndarray, *, kind: str = "BINARY") -> Any:
    """A SEG of lung (segment 1) and nodule (segment 2), as highdicom writes it."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code
    from pydicom.uid import generate_uid

    algorithm = AlgorithmIdentificationSequence(name="t", version="1", family=codes.cid7162.ArtificialIntelligence)
    kinds = [
        ("lung", Code("123037004", "SCT", "Anatomical Structure"), Code("39607008", "SCT", "Lung")),
        ("finding 1", Code("49755003", "SCT", "Morphologically Abnormal Structure"), Code("27925004", "SCT", "Nodule")),
    ]
    described = [
        SegmentDescription(segment_number=number, segment_label=label, segmented_property_category=category,
                           segmented_property_type=kind, algorithm_type="AUTOMATIC", algorithm_identification=algorithm)
        for number, (label, category, kind) in enumerate(kinds, start=1)
    ]  # fmt: skip
    planes: np.ndarray = np.stack([mask == 1, mask == 2], axis=-1)
    planes = (
        mask if kind == "LABELMAP" else planes * np.float32(0.9) if kind == "FRACTIONAL" else planes.astype(np.uint8)
    )
    result = Segmentation(
        source_images=headers, pixel_array=planes, segmentation_type=kind, segment_descriptions=described,
        series_instance_uid=generate_uid(), series_number=9, sop_instance_uid=generate_uid(), instance_number=1,
        manufacturer="t", manufacturer_model_name="t", software_versions="1", device_serial_number="1",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    result.save_as(path)
    return result


def seg_mask(slices: int = 4) -> np.ndarray:
    mask = np.zeros((slices, *SIZE), np.uint8)
    mask[0:3, 5:20, 5:20] = 1
    mask[2, 22:27, 30:36] = 2
    return mask


def dicom(folder: Path, count: int = 2) -> Path:
    """Series of patients, each with a SEG."""
    for number in range(count):
        dicom_seg(dicom_series(folder / f"s{number}", number), folder / "segs" / f"{number}.dcm", seg_mask())
    return folder


# -- what is read ------------------------------------------------------------------------------------------------------
def test_yolo_boxes_are_read(tmp_path: Path) -> None:
    images = read_annotations(yolo(tmp_path / "in"))
    assert images.format == "yolo"
    assert images.classes == {0: "nodule", 1: "mass"}
    assert [len(one.marks) for one in images] == [1, 0, 1, 0]
    (mark,) = images[0].marks
    assert (mark.class_name, mark.shape, mark.corner) == ("nodule", "box", (0, 15, 24))
    assert mark.mask is not None
    assert mark.mask.shape == (1, 10, 12)
    assert images[2].marks[0].class_name == "mass"
    assert [one.patient for one in images] == ["p0", "p1", "p2", "p3"]
    assert images[0].image.pixel_spacing_mm == (0.5, 0.5)
    assert images[0].image.spacing_source == "assumed"
    assert images[0].image.modality == "DX"


LAYOUTS = {
    "train below": ("images/train/a.png", "labels/train/a.txt"),
    "train above": ("train/images/a.png", "train/labels/a.txt"),
    "beside": ("a.png", "a.txt"),
    "beside in images": ("images/a.png", "images/a.txt"),
    "jpeg": ("images/a.JPG", "labels/a.txt"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_yolo_layouts(layout: str, tmp_path: Path) -> None:
    image, label = LAYOUTS[layout]
    put(tmp_path / image, film(1))
    write(tmp_path / label, "0 0.5 0.5 0.1 0.1\n\n")
    write(tmp_path / "classes.txt", "nodule\r\n")
    (one,) = read_annotations(tmp_path)
    assert len(one.marks) == 1
    assert one.name == image
    assert one.patient == ""


YAML = {
    "flow": "nc: 2\nnames: ['nodule', \"large mass\"]\npath: /etc\ntrain: ../../secret\n",
    "flow lines": "names: [\n  nodule,\n  large mass ]\n",
    "block": "names:\n  0: nodule\n  1: 'large mass'  # both\nnc: 2\n",
    "dashes": "names:\n- nodule\n- large mass\nval: x\n",
    "braces": "names: {0: nodule, 1: large mass}\n",
}


@pytest.mark.parametrize("form", YAML)
def test_classes_of_data_yaml(form: str, tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.png", film(1))
    write(tmp_path / "labels" / "a.txt", "1 0.5 0.5 0.1 0.1")
    write(tmp_path / "data.yaml", YAML[form])
    assert read_annotations(tmp_path).classes == {0: "nodule", 1: "large mass"}


def test_boxes_at_the_border_are_cut_by_rounding_only(tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.png", film(1))
    write(tmp_path / "classes.txt", "nodule")
    write(tmp_path / "labels" / "a.txt", "0 0.5 0.5 1.0 1.0\n0 0.0500 0.0500 0.1001 0.1001\n0 1.0 1.0 0.0001 0.0001\n")
    (one,) = read_annotations(tmp_path)
    whole, corner, last = one.marks
    assert whole.mask is not None
    assert whole.mask.shape == (1, *SIZE)
    assert corner.corner == (0, 0, 0)
    assert last.corner == (0, 39, 59)


def test_masks_are_read(tmp_path: Path) -> None:
    images = read_annotations(masks(tmp_path / "in"))
    assert images.format == "masks"
    assert images.classes == {1: "lungs", 2: "heart"}
    class_map = images[1].class_map
    assert class_map is not None
    assert class_map.labels.shape == (1, *SIZE)
    assert int((class_map.labels == 2).sum()) == 180
    assert not class_map.labels.flags.writeable
    assert images[1].marks == ()


LISTS = {
    "classes.txt": "lungs\nheart\n",
    "classes.txt with background": "background\nlungs\nheart\n",
    "classes.json": '["lungs", "heart"]',
    "classes.json by name": '{"background": 0, "lungs": 1, "heart": 2}',
}


@pytest.mark.parametrize("form", LISTS)
def test_lists_of_mask_classes(form: str, tmp_path: Path) -> None:
    masks(tmp_path)
    (tmp_path / "classes.json").unlink()
    write(tmp_path / form.split(" ", maxsplit=1)[0], LISTS[form])
    assert read_annotations(tmp_path).classes == {1: "lungs", 2: "heart"}


def test_mask_volumes_palettes_and_sub_folders(tmp_path: Path) -> None:
    mask = np.zeros((6, *SIZE), np.float32)
    mask[2] = 1
    put_volume(tmp_path / "images" / "train" / "v.nrrd", ct_volume(1))
    put_volume(tmp_path / "labels" / "train" / "v.nii.gz", mask)  # whole numbers as floats
    put(tmp_path / "images" / "p.png", film(2))
    picture = Image.fromarray(np.eye(*SIZE, dtype=np.uint8)).convert("P")
    (tmp_path / "labels").mkdir(exist_ok=True)
    picture.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
    indexed = Image.fromarray(np.eye(*SIZE, dtype=np.uint8))
    indexed = indexed.convert("L")
    indexed.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
    indexed.save(tmp_path / "labels" / "p.png")
    write(tmp_path / "classes.txt", "lungs")
    by_name = {one.name: one for one in read_annotations(tmp_path)}
    volume, flat = by_name["images/train/v.nrrd"], by_name["images/p.png"]
    assert volume.class_map is not None
    assert volume.class_map.labels.any(axis=(1, 2)).tolist() == [False, False, True, False, False, False]
    assert volume.image.units == "HU"
    assert flat.class_map is not None
    assert int(flat.class_map.labels.sum()) == 40


def test_nnunet_is_read_as_ct(tmp_path: Path) -> None:
    images = read_annotations(nnunet(tmp_path / "in"))
    assert (images.format, images.classes) == ("nnunet", {1: "bone"})
    assert {one.image.modality for one in images} == {"CT"}
    assert images[0].name == "imagesTr/case_000_0000.nii.gz"
    assert images[0].class_map is not None
    assert int(images[0].class_map.labels.sum()) == 200


def test_first_version_of_nnunet(tmp_path: Path) -> None:
    nnunet(tmp_path)
    write(tmp_path / "dataset.json", '{"modality": {"0": "CT"}, "labels": {"0": "background", "1": "bone"}}')
    assert read_annotations(tmp_path).classes == {1: "bone"}


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_dicom_segmentations_are_read(kind: str, tmp_path: Path) -> None:
    mask = seg_mask()
    for number in range(2):
        headers = dicom_series(tmp_path / f"s{number}", number)
        dicom_seg(headers, tmp_path / "segs" / f"{number}.dcm", mask, kind=kind)
    dicom_series(tmp_path / "plain", 7)
    opened = open_annotations(tmp_path)
    assert opened.format == "dicom-seg"
    assert opened.notes == ("1 series have no segmentation and were left out",)
    images = read_annotations(tmp_path)
    assert sorted(one.patient for one in images) == ["ID-0", "ID-1"]
    for one in images:
        assert one.class_map is not None
        assert one.class_map.names == {1: "lung"}
        assert np.array_equal(one.class_map.labels, (mask == 1).astype(np.uint8))
        (mark,) = one.marks
        assert (mark.class_name, mark.shape, mark.corner) == ("nodule", "segment", (2, 22, 30))
        assert mark.mask is not None
        assert mark.mask.shape == (1, 5, 6)


def test_a_seg_is_matched_by_frame_of_reference_where_its_pictures_were_renamed(tmp_path: Path) -> None:
    headers = dicom_series(tmp_path / "s", 0)
    dicom_seg(headers, tmp_path / "seg.dcm", seg_mask())
    from pydicom.uid import generate_uid

    for path in (tmp_path / "s").iterdir():  # an anonymiser gave new ids to the pictures
        data = pydicom.dcmread(path)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.save_as(path)
    (one,) = read_annotations(tmp_path)
    assert one.class_map is not None
    assert np.array_equal(one.class_map.labels, (seg_mask() == 1).astype(np.uint8))


def test_our_own_and_coco_folders_say_what_they_are(tmp_path: Path) -> None:
    image = MedicalImage(pixels=film(1), modality="DX")
    mark = Mark(class_name="nodule", shape="box", place=(0, 2, 2), corner=(0, 1, 1), mask=np.ones((1, 3, 3), bool))
    write_annotations([AnnotatedImage(image=image, marks=(mark,))], tmp_path / "own")
    write(tmp_path / "own" / "patients.csv", "file,patient\nimages/IM0001.nrrd,p1\n")
    own = read_annotations(tmp_path / "own")
    assert (own.format, own.classes) == ("annotate", {1: "nodule"})
    assert own[0].patient == "p1"


def test_images_are_read_one_by_one(tmp_path: Path) -> None:
    yolo(tmp_path)
    write(tmp_path / "labels" / "f2.txt", "0 nonsense")
    opened = open_annotations(tmp_path)
    assert opened.readers[0]().marks
    with pytest.raises(ReadError, match="5"):
        opened.readers[2]()


# -- attacks -----------------------------------------------------------------------------------------------------------
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


def put_text(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: write(folder / name, text)


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
