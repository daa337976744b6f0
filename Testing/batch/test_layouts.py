"""What trainers read: pictures, boxes, masks and lists say the same as the DICOM cases, at the source's depth."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from HiResMedSynthLib.annotations import read_annotations
from HiResMedSynthLib.batch.layout import LabelledImage, MadeCase
from HiResMedSynthLib.batch.layout_dicom import DicomFolders
from HiResMedSynthLib.batch.layout_pictures import Yolo, write_picture
from HiResMedSynthLib.batch.layout_volumes import NnUnet
from HiResMedSynthLib.batch.picture_form import left_justified, picture_form
from HiResMedSynthLib.batch.spec import Output
from HiResMedSynthLib.batch.thumbs import OUTLINE, SIDE, thumb
from HiResMedSynthLib.choices import Domain
from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.export.boxes import CLASSES
from HiResMedSynthLib.export.identity import OutputIdentity
from HiResMedSynthLib.image import HeaderFacts, MedicalImage
from HiResMedSynthLib.read import read_image
from Testing.batch.small_scans import PATIENTS
from Testing.export.cases import composition_in, ct_image, film_image, mr_image

NNUNET = "nnunet/Dataset001_Synthetic"


def rows(dataset: Path) -> list[dict[str, str]]:
    with (dataset / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def array_of(path: Path) -> NDArray[Any]:
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def test_each_layout_holds_the_pixels_of_the_dicom_case(dataset: Path) -> None:
    for row in rows(dataset):
        series = dataset / row["dicom"] / ("dicom_background" if row["kind"] == "without" else "dicom")
        hu = read_image(series).pixels
        for form in ("nnunet", "monai"):
            np.testing.assert_array_equal(array_of(dataset / row[form]), hu)
        for form in ("coco", "yolo"):
            picture = np.asarray(Image.open(dataset / row[form]))
            assert picture.dtype == np.uint16
            np.testing.assert_array_equal(picture.astype(np.int32) // 16 - 1024, np.maximum(hu[0], -1024))
            assert not (picture % 16).any()


def test_masks_and_boxes_say_the_same_in_each_layout(dataset: Path) -> None:
    lesions = 0
    for side in ("train", "val", "test"):
        coco = json.loads((dataset / "coco" / side / "annotations.json").read_text())
        names = {image["id"]: image["file_name"] for image in coco["images"]}
        for row in (row for row in rows(dataset) if row["side"] == side):
            part = "Ts" if side == "test" else "Tr"
            mask = array_of(dataset / NNUNET / f"labels{part}" / f"{row['image']}.nii.gz")[0]
            np.testing.assert_array_equal(mask, array_of(dataset / row["monai"].replace(".nii", "_label.nii"))[0])
            ours = [a for a in coco["annotations"] if names[a["image_id"]] == f"images/{row['image']}.png"]
            lines = (dataset / row["yolo"].replace("/images/", "/labels/")).with_suffix(".txt").read_text().splitlines()
            assert len(ours) == len(lines) == int(row["lesions"])
            whole = np.zeros_like(mask)
            for annotation, line in zip(ours, lines, strict=True):
                whole |= decoded(annotation["segmentation"])
                number, *box = line.split()
                assert CLASSES[int(number)] == CLASSES[annotation["category_id"] - 1]
                x, y, width, height = (float(value) * 128 for value in box)
                assert np.allclose(annotation["bbox"], [x - width / 2, y - height / 2, width, height], atol=1e-3)
            np.testing.assert_array_equal(whole, mask)
            if row["kind"] == "lesions":
                instances = array_of(dataset / row["dicom"] / "instance_mask.nii.gz")[0]
                np.testing.assert_array_equal(instances > 0, mask > 0)
                lesions += len(ours)
    assert lesions >= 8


def decoded(segmentation: dict[str, list[int]]) -> NDArray[np.uint8]:
    counts = segmentation["counts"]
    flat = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8)
    height, width = segmentation["size"]
    return flat.reshape(width, height).T


def test_a_pair_differs_inside_the_lesions_alone_and_a_negative_nowhere(dataset: Path) -> None:
    by_case: dict[str, dict[str, str]] = {}
    for row in rows(dataset):
        by_case.setdefault(row["case"], {})[row["kind"]] = row["monai"]
    assert {tuple(sorted(kinds)) for kinds in by_case.values()} == {("lesions", "without"), ("negative",)}
    for kinds in by_case.values():
        if "lesions" in kinds:
            changed = array_of(dataset / kinds["lesions"]) != array_of(dataset / kinds["without"])
            mask = array_of(dataset / kinds["lesions"].replace(".nii", "_label.nii")) > 0
            assert changed.any()
            assert changed.sum() < 12 * mask.sum() + 100
        else:
            assert not array_of(dataset / kinds["negative"].replace(".nii", "_label.nii")).any()


@pytest.mark.parametrize("place", ["coco/train", "yolo", NNUNET])
def test_our_own_readers_take_the_folders(dataset: Path, place: str) -> None:
    found = read_annotations(dataset / place)
    wanted = [row for row in rows(dataset) if place == "yolo" or row["side"] in ("train", "val")[: 1 + ("nn" in place)]]
    assert len(found) == len(wanted)
    groups = {row["patient_group"] for row in wanted}
    assert {one.patient for one in found} == groups
    assert {one.image.modality for one in found} == {"CT"}
    assert place != "yolo" or len(groups) == len(PATIENTS)


def test_the_data_set_itself_is_refused_by_the_names_of_its_folders(dataset: Path) -> None:
    with pytest.raises(ReadError, match=f"Name one of them: coco/test, coco/train, coco/val, {NNUNET}, yolo"):
        read_annotations(dataset)  # its card.json is no COCO file


def test_a_small_lesion_is_shown_from_near_beside_its_picture() -> None:
    made = MadeCase(
        number=1, name="case_0000001", side="train", negative=False, paired=False, identity=OutputIdentity(seed="1"),
        composition=composition_in(film_image(pixel_spacing_mm=(5.0, 5.0))),
    )  # fmt: skip
    picture = np.asarray(thumb(made))
    assert picture.shape == (SIDE, 2 * SIDE, 3)
    lines = (picture == OUTLINE).all(axis=2)
    whole, near = (np.ptp(np.flatnonzero(half.any(axis=0))) for half in (lines[:, :SIDE], lines[:, SIDE:]))
    assert near > 2 * whole > 0  # 60 mm fill what 240 mm filled


def test_lists_of_nnunet_and_monai_name_what_is_there(dataset: Path) -> None:
    told = json.loads((dataset / NNUNET / "dataset.json").read_text())
    assert told["channel_names"] == {"0": "CT"}
    images = {path.name for path in (dataset / NNUNET / "imagesTr").iterdir()}
    assert told["numTraining"] == len(images)
    splits = json.loads((dataset / NNUNET / "splits_final.json").read_text())
    assert {f"{name}_0000.nii.gz" for part in splits[0].values() for name in part} == images
    listed = json.loads((dataset / "monai" / "datalist.json").read_text())
    entries = [entry for key in ("training", "validation", "testing") for entry in listed[key]]
    assert len(entries) == len(rows(dataset))
    assert all((dataset / "monai" / path).is_file() for entry in entries for path in entry.values())


@pytest.mark.parametrize(
    ("shown", "channel"),
    [(("lung-ct",), "CT"), (("mr",), "MR"), (("mr", "lung-ct"), "CT and MR"), (("cxr", "kub"), "radiograph")],
)
def test_nnunet_s_channel_is_what_the_cases_show_whatever_their_files_tell(
    shown: Sequence[Domain], channel: str, tmp_path: Path
) -> None:
    """A volume of NIfTI or NRRD is of modality OT; nnU-Net normalises "CT" its own way, any other name alike."""
    images = {"lung-ct": ct_image(), "mr": mr_image(modality="OT", facts=HeaderFacts())}
    layout, entries = NnUnet(Output()), []
    for number, domain in enumerate(shown, start=1):
        whole = composition_in(images.get(domain) or film_image())
        case = replace(whole.case, background=replace(whole.case.background, domain=domain))
        made = MadeCase(
            number=number, name=f"case_{number:07d}", side="train", composition=replace(whole, case=case),
            negative=False, paired=False, identity=OutputIdentity(seed="1"),
        )  # fmt: skip
        entries += [{**entry, "patient": number} for entry in layout.write(made, tmp_path)]
    layout.finish(lambda: (("train", entry) for entry in entries), tmp_path, Output())
    told = json.loads((tmp_path / layout.folder / "dataset.json").read_text())
    assert told["channel_names"] == {"0": channel}


@pytest.mark.parametrize(
    ("stored", "bits", "photometric", "expected"),
    [
        (np.array([[0, 4095]], np.uint16), 12, "MONOCHROME2", [[0, 4095 << 4]]),
        (np.array([[0, 4095]], np.uint16), 12, "MONOCHROME1", [[4095 << 4, 0]]),
        (np.array([[3, 255]], np.uint8), 8, "MONOCHROME2", [[3, 255]]),
        (np.array([[0, 65535]], np.uint16), None, "MONOCHROME2", [[0, 65535]]),
        (np.array([[0, 4032]], np.uint16), None, "MONOCHROME2", [[0, 4032 << 4]]),  # 12 bits in a PNG of 16
        (np.array([[0, 4032]], np.uint16), None, "MONOCHROME1", [[4095 << 4, 63 << 4]]),
        (np.array([[3, 1600]], np.int16), 16, "MONOCHROME2", [[3 << 5, 1600 << 5]]),  # a magnitude, stored signed
        (np.array([[-100, 900]], np.int16), None, "MONOCHROME2", [[0, 1000 << 6]]),
        (np.array([[0, 20]], np.uint16), 16, "MONOCHROME2", [[0, 20 << 8]]),
    ],
)
def test_pictures_fill_the_upper_bits_and_dense_is_bright(
    stored: NDArray[Any], bits: int | None, photometric: Any, expected: list[list[int]], tmp_path: Path
) -> None:
    image = MedicalImage(pixels=stored, modality="DX", bits_stored=bits, photometric=photometric)
    one = LabelledImage(
        name="x", kind="negative", image=image, mask=np.zeros((1, 1, 2), np.uint16), boxes=(), slices=(0,),
        form=picture_form(image),
    )  # fmt: skip
    write_picture(one, 0, tmp_path / "x.png")
    read = np.asarray(Image.open(tmp_path / "x.png"))
    np.testing.assert_array_equal(read, expected)
    assert read.dtype == left_justified(image, one.form, 0).dtype


def test_a_pair_of_a_film_in_fractions_is_equal_outside_its_lesion(tmp_path: Path) -> None:
    """The lesion is brighter than all else: scaled by itself, each picture of the pair would have other greys."""
    pixels = np.random.default_rng(1).random((40, 48)).astype(np.float32)
    film = film_image(pixels=pixels, modality="OT", bits_stored=None, facts=HeaderFacts())
    composition = composition_in(film)
    made = MadeCase(
        number=1, name="case_0000001", side="train", composition=composition, negative=False, paired=True,
        identity=OutputIdentity(seed="1"),
    )  # fmt: skip
    Yolo().write(made, tmp_path)
    DicomFolders(Output()).write(made, tmp_path)
    folder = tmp_path / "cases" / "000" / made.name
    outside = composition.alpha[0] == 0
    pairs = [
        [np.asarray(Image.open(tmp_path / f"yolo/images/train/{made.name}{end}.png")) for end in ("", "_without")],
        [pydicom.dcmread(folder / name / "IM0001.dcm").pixel_array for name in ("dicom", "dicom_background")],
    ]
    for with_lesion, without in pairs:
        np.testing.assert_array_equal(with_lesion[outside], without[outside])
        assert (with_lesion != without).any()
