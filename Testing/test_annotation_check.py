"""The check of labelled folders: what it finds, what it lets pass, and what its report shows."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from HiResMedSynthLib.annotated_image import AnnotatedImage, ClassMap, Mark
from HiResMedSynthLib.annotation_check import FolderCheck, check_annotations, refuse_problems
from HiResMedSynthLib.annotation_facts import thumbnail
from HiResMedSynthLib.annotation_picture import labelled_picture
from HiResMedSynthLib.annotation_report import as_html, as_text
from HiResMedSynthLib.annotation_sets import NEAR_COPY
from HiResMedSynthLib.annotations import write_annotations
from HiResMedSynthLib.errors import ReadError, SettingsError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.patient_split import chooses, fold_of, held_out_by_rule, held_out_patients
from Testing.labelled_folders import (
    SIZE,
    dicom,
    dicom_seg,
    dicom_series,
    film,
    masks,
    nnunet,
    put,
    put_text,
    seg_mask,
    write,
    yolo,
)


def texts(check: FolderCheck, severity: str) -> str:
    return "\n".join(finding.what for finding in check.findings if finding.severity == severity)


def test_a_sound_folder_passes(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    check = check_annotations(yolo(tmp_path / "in", 20), progress=lambda *step: told.append(step))
    assert check.problems == ()
    assert [finding.what for finding in check.findings] == []
    assert check.counts() == {
        "nodule": {"images": 5, "marks": 5, "voxels": 0},
        "mass": {"images": 5, "marks": 5, "voxels": 0},
    }
    assert check.facts()["unlabelled"] == 10
    assert check.facts()["patients"] == 20
    assert told[-1] == (20, 20, "images/f9.png")
    refuse_problems(check, tmp_path)
    text = as_text(check)
    assert "images with YOLO boxes" in text


@pytest.mark.parametrize("build", [masks, nnunet, dicom])
def test_other_formats_pass(build: Callable[[Path], Path], tmp_path: Path) -> None:
    check = check_annotations(build(tmp_path / "in"))
    assert check.problems == ()
    assert all(one.labelled for one in check.images)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (masks, "train_danger --domain film"),
        (nnunet, "train_danger --domain lung-ct"),
        (dicom, "train_location, train_yolo, train_detector"),
        (lambda folder: yolo(folder, 10), "train_density"),
        (yolo, "none: no structure of the body is labelled in this folder. Give masks of lungs, bone ... Places of "
               "lesions on chest films are for Training.train_density. And: only 2 patient(s) have nodules or masses"),
        (lambda folder: sed(",0.5,DX", ",0.5,MR")(yolo(folder)), "none: images of modality MR"),
    ],
)  # fmt: skip
def test_it_names_the_trainers_that_take_the_folder(build: Callable[[Path], Path], words: str, tmp_path: Path) -> None:
    build(tmp_path / "in")
    text = as_text(check_annotations(tmp_path / "in"))
    taken = not words.startswith("none")
    assert ("nothing stops training" in text, "but no trainer takes it" in text) == (taken, not taken)
    (line,) = (line for line in text.splitlines() if line.startswith("trainers"))
    assert words in line


# -- the split ---------------------------------------------------------------------------------------------------------
def test_the_split_is_the_one_that_shipped_weights_were_trained_by() -> None:
    patients = [f"patient {number}" for number in range(200)]
    held_out = [number for number, patient in enumerate(patients) if held_out_by_rule(patient)]
    assert held_out[:8] == [10, 12, 17, 25, 29, 46, 52, 54]
    assert held_out_patients(patients) == {patients[number] for number in held_out}
    assert held_out_by_rule("2")  # whose film is also the tests' film
    assert [fold_of(patient) for patient in patients[:10]] == [2, 2, 2, 2, 1, 2, 1, 1, 0, 2]
    assert [number for number, patient in enumerate(patients) if chooses(patient)][:5] == [6, 13, 21, 24, 28]


def test_of_few_patients_one_stands_on_each_side() -> None:
    for start in range(0, 60, 3):
        few = [f"p{number}" for number in range(start, start + 3)]
        assert 0 < len(held_out_patients(few)) < 3
        assert held_out_patients(few) == held_out_patients(few[::-1])
    assert held_out_patients(["one"]) in (frozenset(), frozenset({"one"}))


# -- what is found -----------------------------------------------------------------------------------------------------
def copy(name: str, other: str) -> Callable[[Path], Any]:
    return lambda folder: shutil.copy(folder / name, folder / other)


def steps(*changes: Callable[[Path], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for change in changes:
            change(folder)

    return apply


def one_patient(folder: Path) -> None:
    table = (folder / "patients.csv").read_text()
    (folder / "patients.csv").write_text(re.sub(r",p\d+,", ",p1,", table))


def no_labels(folder: Path) -> None:
    for path in (folder / "labels").iterdir():
        path.write_text("")


def resaved(folder: Path) -> None:
    """Film 0 again as film 1, smaller, of another grey curve, as JPEG."""
    smooth = np.asarray(Image.fromarray(film(0, (8, 12))).resize((480, 320), Image.Resampling.BICUBIC))
    put(folder / "images" / "f0.png", smooth)
    (folder / "images" / "f1.png").unlink()
    small = np.asarray(Image.fromarray(smooth).resize((300, 200)))
    put(folder / "images" / "f1.jpg", (255 * (small / 255.0) ** 0.8).astype(np.uint8))
    (folder / "patients.csv").write_text((folder / "patients.csv").read_text().replace("f1.png", "f1.jpg"))


def sed(old: str, new: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "patients.csv").write_text((folder / "patients.csv").read_text().replace(old, new))


FOUND: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "nothing labelled": (no_labels, "problem", "nothing is labelled"),
    "one patient": (one_patient, "problem", "of one patient"),
    "class out of range": (put_text("labels/f2.txt", "7 .5 .5 .1 .1"), "problem", "class 7 is not in the list"),
    "box outside": (put_text("labels/f2.txt", "0 .99 .5 .1 .1"), "problem", "reaches out"),
    "two classes, one place": (put_text("labels/f0.txt", "0 .5 .5 .2 .2\n1 .5 .5 .2 .21"), "problem",
                               "'mass' and 'nodule' mark the same place"),
    "one box twice": (put_text("labels/f0.txt", "0 .5 .5 .2 .2\n0 .5 .5 .2 .2"), "warning", "1 marks repeat"),
    "same image, other labels": (copy("images/f0.png", "images/f1.png"), "problem", "with different labels"),
    "same image, two patients": (
        steps(copy("images/f0.png", "images/f1.png"), copy("labels/f0.txt", "labels/f1.txt")), "problem",
        "of several patients"),
    "same image, one patient": (
        steps(copy("images/f0.png", "images/f1.png"), copy("labels/f0.txt", "labels/f1.txt"), sed("p1,", "p0,")),
        "warning", "stands here several times"),
    "resaved": (resaved, "warning", "look like copies"),
    "no patients": (lambda folder: (folder / "patients.csv").unlink(), "warning", "a patient of its own"),
    "no spacing": (sed(",0.5,", ",,"), "warning", "4 images tell no pixel spacing"),
    "odd spacing": (sed("p1,0.5", "p1,50"), "warning", "odd spacing: pixels of 50 x 50 mm"),
    "few patients": (steps(), "warning", "only 4 patients"),
    "class never used": (put_text("classes.txt", "nodule\nmass\ncyst\n"), "warning", "'cyst' occurs in no image"),
    "modality not told": (sed("DX", ""), "warning", "4 images don't tell their modality"),
    "modalities": (sed("p1,0.5,DX", "p1,0.5,MR"), "problem", "several modalities: 1 MR, 3 film"),
    "CR and DX are both films": (sed("p1,0.5,DX", "p1,0.5,CR"), "warning", "only 4 patients"),
    "half an image": (lambda folder: (folder / "images" / "f1.png").write_bytes(b"\x89PNG\r\n\x1a\n"), "problem",
                      "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_what_is_wrong_is_found(name: str, tmp_path: Path) -> None:
    spoil, severity, words = FOUND[name]
    folder = yolo(tmp_path / "in")
    spoil(folder)
    check = check_annotations(folder)
    assert words in texts(check, severity), check.findings
    assert bool(check.problems) == (severity == "problem"), check.problems
    assert all(finding.remedy for finding in check.findings)
    assert words in as_text(check)
    if severity == "problem":
        with pytest.raises(ReadError, match=re.escape(words)):
            refuse_problems(check, folder)


def test_every_bad_image_is_listed(tmp_path: Path) -> None:
    folder = masks(tmp_path / "in", 6)
    put(folder / "masks" / "f0.png", np.zeros((3, 3), np.uint8))
    put(folder / "masks" / "f2.png", np.full(SIZE, 9, np.uint8))
    (folder / "masks" / "f3.png").unlink()
    check = check_annotations(folder)
    assert [finding.where for finding in check.problems] == ["masks/f0.png", "masks/f2.png", "images/f3.png"]
    assert "3 problem(s) stop training" in as_text(check)
    with pytest.raises(ReadError, match=r"and 2 more problems"):
        refuse_problems(check, folder)


def test_rare_classes_are_told(tmp_path: Path) -> None:
    folder = masks(tmp_path)
    for number in range(3):
        put(folder / "masks" / f"f{number}.png", np.ones(SIZE, np.uint8))
    assert "class 'heart' is rare: in 1 of 4 patients" in texts(check_annotations(folder), "warning")
    for kept in (1, 2):  # so few say nothing of it
        few = masks(tmp_path / f"few{kept}", kept)
        assert "is rare" not in texts(check_annotations(few), "warning")


def test_two_series_of_a_patient_are_one_patient(tmp_path: Path) -> None:
    for number in range(2):
        headers = dicom_series(tmp_path / f"s{number}", 5, slices=3 + number)
        dicom_seg(headers, tmp_path / "segs" / f"{number}.dcm", seg_mask(3 + number))
    assert "of one patient" in texts(check_annotations(tmp_path), "problem")


def test_a_class_map_has_a_name_for_every_number_and_the_size_of_its_image() -> None:
    with pytest.raises(SettingsError, match="class 2 of the map has no name"):
        ClassMap(labels=np.full((1, 2, 2), 2, np.uint8), names={1: "lung"})
    with pytest.raises(SettingsError, match="the mask has the size"):
        AnnotatedImage(
            image=MedicalImage(pixels=film(1), modality="DX"),
            class_map=ClassMap(labels=np.zeros((1, 2, 2), np.uint8), names={}),
        )


def test_thumbnails_tell_patients_apart_and_survive_saving() -> None:
    rng = np.random.default_rng(3)
    base = Image.fromarray(rng.integers(0, 255, (12, 12), dtype=np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
    other = Image.fromarray(rng.integers(0, 255, (12, 12), dtype=np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
    small = [
        thumbnail(MedicalImage(pixels=np.asarray(one), modality="DX")) for one in (base, other, base.resize((99, 99)))
    ]
    deep = thumbnail(MedicalImage(pixels=np.asarray(base, dtype=np.uint16) * 12 + 400, modality="DX"))
    assert small[0] @ small[1] < 0.5
    assert min(small[0] @ small[2], small[0] @ deep) > NEAR_COPY
    assert not thumbnail(MedicalImage(pixels=np.full((40, 40), 7, np.uint8), modality="DX")).any()


# -- the report --------------------------------------------------------------------------------------------------------
def test_the_report_draws_labels_and_names_nobody(tmp_path: Path) -> None:
    folder = dicom(tmp_path / "in")
    shutil.copytree(folder / "s0", folder / "DOE_JANE")
    shutil.rmtree(folder / "s0")
    check = check_annotations(folder, pictures=60)
    page = as_html(check)
    assert len(check.pictures) == 2
    assert page.count("<img src='data:image/jpeg;base64,") == 2
    assert "Holds pixels of patients" in page
    for word in ("DOE", "JANE", "ID-0", "ID-1", str(tmp_path), "http"):
        assert word not in page
    assert "ID-0" not in as_text(check) + json.dumps(check.facts())


def test_a_bad_name_is_not_in_the_report(tmp_path: Path) -> None:
    folder = yolo(tmp_path / "in")
    (folder / "images" / "f1.png").rename(folder / "images" / "<DOE>.png")
    (folder / "labels" / "f1.txt").write_text("0 DOE")
    (folder / "classes.txt").write_text("<script>\nmass\n")
    page = as_html(check_annotations(folder, pictures=3))
    assert "DOE" not in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_labels_are_drawn_where_they_are() -> None:
    image = MedicalImage(pixels=np.full((3, 100, 200), 50, np.uint8), modality="DX", pixel_spacing_mm=(1.0, 1.0),
                         spacing_source="header")  # fmt: skip
    box = Mark(class_name="b", shape="box", place=(1, 30, 40), corner=(1, 20, 30), mask=np.ones((1, 20, 30), bool))
    dot = Mark(class_name="a", shape="point", place=(1, 80, 180))
    labels = np.zeros((3, 100, 200), np.uint8)
    labels[1, 50:70, 100:150] = 1
    one = AnnotatedImage(image=image, marks=(box, dot), class_map=ClassMap(labels=labels, names={1: "c"}))
    picture = labelled_picture(one, ["a", "b", "c"])
    assert picture.shape == (160, 320, 3)
    coloured = np.ptp(picture, axis=2) > 0
    assert coloured[32:36, 48:94].any(axis=0).all()  # upper edge of the box, at 1.6 pixels a millimetre
    assert coloured[120:136, 280:296].any()
    assert coloured[80:112, 158:164].any()
    assert not coloured[:30].any()
    assert not coloured[40:55, 55:90].any()


def test_an_annotate_folder_of_ours_is_checked(tmp_path: Path) -> None:
    marked = [
        AnnotatedImage(
            image=MedicalImage(
                pixels=film(number), modality="DX", pixel_spacing_mm=(0.5, 0.5), spacing_source="header"
            ),
            marks=(Mark(class_name="nodule", shape="point", place=(0, 9, 9), diameter_mm=5.0),) if number else (),
        )
        for number in range(3)
    ]
    write_annotations(marked, tmp_path / "own")
    check = check_annotations(tmp_path / "own", pictures=2)
    assert check.problems == ()
    assert check.counts()["nodule"] == {"images": 2, "marks": 2, "voxels": 0}
    assert len(check.pictures) == 2
    write(tmp_path / "own" / "patients.csv", "file,patient\n" + "".join(f"IM000{k}.nrrd,p\n" for k in (1, 2, 3)))
    assert "of one patient" in texts(check_annotations(tmp_path / "own"), "problem")
