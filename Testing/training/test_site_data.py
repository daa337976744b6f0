"""A site's own folder as the trainers of placement read it, and what is refused before they start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from HiResMedSynthLib.annotation_classes import CT_CLASSES, FILM_CLASSES, IGNORE, class_table
from HiResMedSynthLib.annotations import AnnotatedImage, Mark, write_annotations
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError, SettingsError
from HiResMedSynthLib.image import MedicalImage
from Testing.labelled_folders import SIZE, dicom, film, masks, nnunet, put, put_text, put_volume, write, yolo
from Testing.test_annotation_check import no_labels, one_patient, sed
from Training.site_data import chosen_slices, read_site, site_pictures


def test_boxes_become_sites(tmp_path: Path) -> None:
    pictures = read_site(yolo(tmp_path / "in"), needs="sites", kind="film")
    assert [len(one.sites) for one in pictures] == [1, 0, 1, 0]
    ((row, column, diameter),) = pictures[0].sites
    assert (row, column) == (19.5, 29.5)
    assert diameter == pytest.approx(0.5 * np.sqrt(10 * 12))  # the ellipse in a box of 10 x 12 pixels of 0.5 mm
    assert pictures[0].pixels.dtype == np.float32
    assert np.array_equal(pictures[0].pixels, film(0))
    assert pictures[0].labels is None
    assert pictures[0].spacing_mm == (0.5, 0.5)
    assert {one.patient: one.held_out for one in pictures}.keys() == {"p0", "p1", "p2", "p3"}
    assert {one.held_out for one in pictures} == {True, False}


def test_masks_become_labels_of_the_network(tmp_path: Path) -> None:
    pictures = read_site(masks(tmp_path / "in"), needs="labels")
    labels = pictures[0].labels
    assert labels is not None
    assert labels.dtype == np.uint8
    assert sorted(np.unique(labels).tolist()) == [0, 1, 2]
    assert pictures[0].classes == FILM_CLASSES
    assert pictures[0].labelled == ("lungs", "mediastinum and heart")
    assert pictures[0].modality == "DX"


def test_volumes_give_slices_with_labels_and_as_many_without(tmp_path: Path) -> None:
    pictures = read_site(nnunet(tmp_path / "in"), needs="labels", kind="CT")
    first = [one for one in pictures if one.name.startswith("imagesTr/case_000")]
    assert len(first) == 4
    held = [one.labels is not None and bool(one.labels.any()) for one in first]
    assert sum(held) == 2
    assert first[1].labels is not None
    assert set(np.unique(first[1].labels)) == {0, 1 + CT_CLASSES.index("bone and spine")}
    assert first[0].spacing_mm == pytest.approx((0.7, 0.7))
    assert first[0].pixels.min() < -900


def test_ct_lies_face_up_however_it_is_stored(tmp_path: Path) -> None:
    """NIfTI files often run to the front and to the right: pictures, labels and sites are turned alike."""
    mask = np.zeros((3, *SIZE), np.uint8)
    mask[1, 4:9, 6:11] = 1
    for number, flip in enumerate((False, True, False, True)):
        pixels = np.random.default_rng(0).integers(-900, 100, (3, *SIZE)).astype(np.int16)
        pixels[0, 0, 0] = number
        for name, array in (("images", pixels), ("masks", mask)):
            volume = sitk.GetImageFromArray(array[:, ::-1, ::-1] if flip else array)
            volume.SetSpacing((1.0, 1.0, 2.0))
            if flip:
                volume.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
            (tmp_path / name).mkdir(exist_ok=True)
            sitk.WriteImage(volume, str(tmp_path / name / f"v{number}.nii.gz"))
    write(tmp_path / "classes.txt", "nodule")
    write(tmp_path / "patients.csv", "file,patient\n" + "".join(f"v{k}.nii.gz,p{k}\n" for k in range(4)))
    found = [one for one in read_site(tmp_path, needs="sites") if one.sites]
    assert len(found) == 4
    for one in found:
        assert one.sites == found[0].sites
        assert one.sites[0][:2] == (6.0, 8.0)
        assert np.array_equal(one.pixels, found[0].pixels)


def sagittal(folder: Path) -> None:
    for path in [*(folder / "imagesTr").iterdir(), *(folder / "labelsTr").iterdir()]:
        volume = sitk.ReadImage(str(path))
        volume.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
        sitk.WriteImage(volume, str(path))


def test_chosen_slices() -> None:
    assert chosen_slices(np.array([False])) == [0]
    assert chosen_slices(np.array([0, 0, 1, 1, 0, 0, 0], bool)) == [0, 2, 3, 6]
    assert chosen_slices(np.array([1, 1, 1], bool)) == [0, 1, 2]
    assert chosen_slices(np.zeros(9, bool)) == [0]


def test_a_dicom_folder_serves_both_trainers(tmp_path: Path) -> None:
    folder = dicom(tmp_path / "in")
    with_labels = read_site(folder, needs="labels")
    assert {one.patient for one in with_labels} == {"ID-0", "ID-1"}
    assert with_labels[0].labelled == (CT_CLASSES[-1],)
    with_sites = [one for one in read_site(folder, needs="sites", kind="CT") if one.sites]
    assert len(with_sites) == 2
    ((row, column, diameter),) = with_sites[0].sites
    assert (row, column) == (24.0, 32.5)
    assert diameter == pytest.approx(2 * np.sqrt(30 * 0.49 / np.pi))


def test_lesions_of_a_label_map_become_sites_and_teach_no_anatomy(tmp_path: Path) -> None:
    for number in range(3):
        mask = np.zeros((5, *SIZE), np.uint8)
        mask[1:4, 5:30, 5:30] = 1
        mask[2, 10:14, 10:14] = mask[1:3, 20:25, 20:25] = 2
        put_volume(tmp_path / "images" / f"v{number}.nii.gz", np.full((5, *SIZE), -900 + number, np.int16))
        put_volume(tmp_path / "masks" / f"v{number}.nii.gz", mask)
    write(tmp_path / "classes.json", '{"1": "Lung_Left", "2": "Nodule"}')
    write(tmp_path / "patients.csv", "file,patient\n" + "".join(f"v{k}.nii.gz,p{k}\n" for k in range(3)))
    sites = read_site(tmp_path, needs="sites")
    first = {one.name: one.sites for one in sites if one.name.startswith("images/v0")}
    assert [len(first.get(f"images/v0.nii.gz, slice {index}", ())) for index in range(5)] == [0, 1, 2, 0, 0]
    labels = read_site(tmp_path, needs="labels")[1].labels
    assert labels is not None
    assert set(np.unique(labels).tolist()) == {0, len(CT_CLASSES), IGNORE}


def annotated(
    folder: Path, *, segment: str = "", second: str = "", diameter: float | None = 6.0, count: int = 3
) -> Path:
    """A folder of the panel: a point in each CT, and a segment where one is named."""
    images = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(-900, 100, (5, *SIZE)).astype(np.int16)
        image = MedicalImage(pixels=pixels, modality="CT", units="HU", pixel_spacing_mm=(1.0, 1.0),
                             spacing_source="header", slice_thickness_mm=2.0)  # fmt: skip
        marks = [Mark(class_name="nodule", shape="point", place=(2, 20, 30), diameter_mm=diameter)]
        if segment:
            marks.append(Mark(class_name=segment, shape="segment", place=(1, 5, 5), corner=(1, 5, 5),
                              mask=np.ones((1, 9, 9), bool)))  # fmt: skip
        if second:
            marks.append(Mark(class_name=second, shape="segment", place=(1, 9, 9), corner=(1, 9, 9),
                              mask=np.ones((1, 9, 9), bool)))  # fmt: skip
        images.append(AnnotatedImage(image=image, marks=tuple(marks)))
    write_annotations(images, folder)
    write(folder / "patients.csv", "file,patient\n" + "".join(f"IM{k + 1:04d}.nrrd,p{k}\n" for k in range(count)))
    return folder


def test_points_of_the_panel_become_spheres_cut_by_slices(tmp_path: Path) -> None:
    pictures = read_site(annotated(tmp_path / "in"), needs="sites")
    cut = [one.sites[0] for one in pictures if one.sites and one.patient == "p0"]
    assert len(cut) == 3
    assert {(row, column) for row, column, _ in cut} == {(20.0, 30.0)}
    diameters = [diameter for *_, diameter in cut]
    assert max(diameters) == pytest.approx(6.0, abs=0.5)
    assert diameters[0] < diameters[1] > diameters[2]


def test_segments_of_the_panel_are_labels(tmp_path: Path) -> None:
    pictures = read_site(annotated(tmp_path / "in", segment="Heart"), needs="labels")
    labels = next(one.labels for one in pictures if one.labels is not None and one.labels.any())
    assert labels[5:14, 5:14].tolist() == np.full((9, 9), 4).tolist()


def test_monochrome1_is_turned_round(tmp_path: Path) -> None:
    images = []
    for number in range(2):
        image = MedicalImage(pixels=film(number), modality="DX", photometric="MONOCHROME1", pixel_spacing_mm=(1.0, 1.0),
                             spacing_source="header")  # fmt: skip
        images.append(AnnotatedImage(image=image, marks=(
            Mark(class_name="nodule", shape="point", place=(0, 9, 9), diameter_mm=4.0),)))  # fmt: skip
    write_annotations(images, tmp_path / "in")
    write(tmp_path / "in" / "patients.csv", "file,patient\nIM0001.nrrd,a\nIM0002.nrrd,b\n")
    pictures = read_site(tmp_path / "in", needs="sites")
    assert np.array_equal(pictures[0].pixels, film(0).max() + film(0).min() - film(0).astype(np.float32))


# -- names of classes --------------------------------------------------------------------------------------------------
def test_names_of_sites_find_their_class() -> None:
    found = [
        "rib_left_5",
        "Vertebrae T12",
        "lung_upper_lobe_right",
        "Heart",
        "trachea",
        "nodule",
        "ignore",
        "kidney_left",
    ]
    assert class_table(found, CT_CLASSES, {}) == {
        "rib_left_5": 3, "Vertebrae T12": 3, "lung_upper_lobe_right": 6, "Heart": 4, "trachea": 5, "ignore": IGNORE,
        "kidney_left": 2,
    }  # fmt: skip
    assert class_table(["rib_left_5", "Spine", "LeftLung"], FILM_CLASSES, {}) == {
        "rib_left_5": 3, "Spine": 4, "LeftLung": 1,
    }  # fmt: skip
    assert class_table(["Lunge", "Zähne"], CT_CLASSES, {"Lunge": CT_CLASSES[-1], "Zähne": "ignore"}) == {
        "Lunge": 6,
        "Zähne": 255,
    }


def test_unknown_names_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    assert len(CT_CLASSES) == 6
    with pytest.raises(SettingsError, match=r"no class for 'Lunge'") as refused:
        class_table(["Lunge"], CT_CLASSES, {})
    assert "mediastinum and heart (mediastinum, heart" in refused.value.remedy
    folder = masks(tmp_path / "in")
    write(folder / "classes.json", json.dumps({"1": "lungs", "2": "Herz"}))
    with pytest.raises(SettingsError, match="no class for 'Herz'"):
        read_site(folder, needs="labels")
    assert read_site(folder, needs="labels", names={"Herz": "mediastinum and heart"})


# -- refused before training -------------------------------------------------------------------------------------------
def untouched(folder: Path) -> None:
    """Nothing is wrong with the folder; it is given to the wrong trainer."""


BAD: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any], dict[str, Any], str]] = {
    "nothing labelled": (yolo, no_labels, {"needs": "sites"}, "nothing is labelled"),
    "contradiction": (yolo, put_text("labels/f0.txt", "0 .5 .5 .2 .2\n1 .5 .5 .2 .2"), {"needs": "sites"},
                      "contradict"),
    "another size": (masks, lambda f: put(f / "masks" / "f1.png", np.zeros((9, 9), np.uint8)), {"needs": "labels"},
                     "the mask has the size"),
    "one patient": (yolo, one_patient, {"needs": "sites"}, "of one patient"),
    "class out of range": (yolo, put_text("labels/f0.txt", "9 .5 .5 .2 .2"), {"needs": "sites"}, "class 9 is not"),
    "class of a mask": (masks, lambda f: put(f / "masks" / "f1.png", np.full(SIZE, 7, np.uint8)), {"needs": "labels"},
                        "class 7 has no name"),
    "films for CT": (masks, untouched, {"needs": "labels", "kind": "CT"},
                     "wants CT images(.|\n)*Use train_danger --domain film for masks on these"),
    "boxes on films": (yolo, untouched, {"needs": "sites", "kind": "CT"},
                       "wants CT images(.|\n)*on chest films are for Training.train_density"),
    "CT for films": (nnunet, untouched, {"needs": "labels", "kind": "film"}, "wants film images"),
    "MR": (yolo, sed("DX", "MR"), {"needs": "sites"}, "images of modality MR"),
    "mixed": (yolo, sed("p1,0.5,DX", "p1,0.5,MR"), {"needs": "sites"}, "several modalities"),
    "pictures of CT": (yolo, sed("DX", "CT"), {"needs": "sites"}, "no Hounsfield"),
    "sagittal": (nnunet, sagittal, {"needs": "labels"}, "not axial"),
    "no spacing": (yolo, sed(",0.5,", ",,"), {"needs": "sites"}, "pixel spacing is unknown"),
    "boxes for the mask": (yolo, untouched, {"needs": "labels"},
                           "no structure of the body(.|\n)*on chest films are for Training.train_density"),
    "masks for the places": (masks, untouched, {"needs": "sites"}, "no lesion is labelled"),
    "points without a size": (lambda f: annotated(f, diameter=None), untouched, {"needs": "sites"},
                              "point without a diameter"),
    "structures that overlap": (lambda f: annotated(f, segment="heart", second="lung"), untouched, {"needs": "labels"},
                                "claim the same pixels"),
    "boxes of structures": (yolo, put_text("classes.txt", "heart\nlung\n"), {"needs": "labels"},
                            "no structure of the body"),
    "labels of one patient": (yolo, lambda f: (f / "labels" / "f2.txt").unlink(), {"needs": "sites"},
                              "one side of the split"),
    "a volume as film": (lambda f: nnunet(f), lambda f: (
        [put_volume(p, np.zeros((6, *SIZE), np.uint8) + k) for k, p in enumerate((f / "imagesTr").iterdir())],
        write(f / "dataset.json", '{"channel_names": {"0": "x"}, "labels": {"bone": 1}}')), {"needs": "labels"},
        "a film has one slice"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_refused_before_training(name: str, tmp_path: Path) -> None:
    build, spoil, settings, words = BAD[name]
    folder = build(tmp_path / "in")
    spoil(folder)
    with pytest.raises(HiResMedSynthError, match=words) as refused:
        site_pictures(folder, **settings)  # no picture was asked for yet
    assert refused.value.remedy
    assert str(tmp_path) not in str(refused.value)


def test_half_written_folder(tmp_path: Path) -> None:
    folder = nnunet(tmp_path / "in")
    (folder / "imagesTr" / "case_001_0000.nii.gz").write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(ReadError, match="NIfTI"):
        read_site(folder, needs="labels")
