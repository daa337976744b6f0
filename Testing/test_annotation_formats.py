"""Labelled folders of other tools: read, with their classes, patients and places."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from HiResMedSynthLib.annotations import AnnotatedImage, Mark, open_annotations, read_annotations, write_annotations
from HiResMedSynthLib.annotations_patients import Told, read_patients
from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.image import MedicalImage

# -- folders as other tools write them ---------------------------------------------------------------------------------
from Testing.labelled_folders import (
    SIZE,
    ct_volume,
    dicom_seg,
    dicom_series,
    film,
    masks,
    nnunet,
    put,
    put_volume,
    seg_mask,
    write,
    yolo,
)
from Testing.slices import write_slice
from Testing.test_annotations import foreign


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


def test_films_of_one_series_each_have_their_segmentation(tmp_path: Path) -> None:
    for number, data in enumerate(dicom_series(tmp_path / "s", 0, slices=2)):
        dicom_seg([data], tmp_path / f"{number}.dcm", seg_mask()[2:3])
        data.Modality = "DX"
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
        data.save_as(tmp_path / "s" / f"0-{2 - number}.dcm")
    images = read_annotations(tmp_path)
    assert [one.image.slices for one in images] == [1, 1]
    assert all(one.marks for one in images)


def test_a_list_of_label_studio_beside_boxes_is_no_coco(tmp_path: Path) -> None:
    write(yolo(tmp_path) / "notes.json", '{"categories": [], "info": {}}')
    assert open_annotations(tmp_path).format == "yolo"


def test_two_images_of_one_name_are_refused_beside_masks(tmp_path: Path) -> None:
    put(masks(tmp_path) / "images" / "f1.tif", film(1))
    with pytest.raises(ReadError, match="two images have the same name"):
        open_annotations(tmp_path)


def test_lines_about_files_elsewhere_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "patients.csv", "file,patient\nscans/p1/film.png,A\nscans/p2/film.png,B\n")
    assert read_patients(tmp_path, ["scans/p1/film.png"]) == {"scans/p1/film.png": Told(patient="A")}
    write(tmp_path / "patients.csv", "file,patient\nscans/p2/film.png,B\n")
    assert read_patients(tmp_path, ["scans/p1/film.png"]) == {}


def test_a_spacing_may_differ_between_rows_and_columns(tmp_path: Path) -> None:
    write(tmp_path / "patients.csv", 'file,patient,spacing_mm\na.png,A,"0.342, 0.4175"\nb.png,B,0.143\n')
    told = read_patients(tmp_path, ["a.png", "b.png"])
    assert told is not None and [line.spacing_mm for line in told.values()] == [(0.342, 0.4175), (0.143, 0.143)]
    for wrong in ("0.3 0.4", '"1,2,3"', '"0.3,"', "-1"):
        write(tmp_path / "patients.csv", f"file,patient,spacing_mm\na.png,A,{wrong}\n")
        with pytest.raises(ReadError, match="mm can't be"):
            read_patients(tmp_path, ["a.png"])


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


def test_coco_knows_the_patient_of_a_dicom_picture(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "cvat")
    document = json.loads((folder / "instances.json").read_text())
    for number, picture in enumerate(document["images"]):
        name = f"{number}.dcm"
        grey = np.arange(picture["height"] * picture["width"], dtype=np.uint16)
        write_slice(folder / "images" / name, grey.reshape(picture["height"], picture["width"]), PatientID="P1")
        picture["file_name"] = name
    (folder / "instances.json").write_text(json.dumps(document))
    assert [one.patient for one in read_annotations(folder)] == ["P1", "P1"]
