"""Annotation folders: written and read back equal, other tools' COCO, and folders that are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from HiResMedSynthLib.annotations import COCO_FILE, AnnotatedImage, Mark, read_annotations, write_annotations
from HiResMedSynthLib.errors import ExportError, HiResMedSynthError, ReadError, SettingsError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.synthetic_words import HOLDS_COMPOSED
from Testing.export.cases import ct_image

DOCS = Path(__file__).resolve().parents[1] / "docs" / "annotations.md"
KEPT = ("modality", "units", "photometric", "pixel_spacing_mm", "spacing_source", "slice_thickness_mm", "rescale",
        "bits_stored", "stored_signed", "padding_value", "window")  # fmt: skip


def segment(shape: tuple[int, int, int], seed: int = 3) -> np.ndarray:
    mask = np.random.default_rng(seed).random(shape) < 0.4
    mask[0, 0, 0] = mask[-1, -1, -1] = True
    return mask


def marks_of(image: MedicalImage) -> tuple[Mark, ...]:
    """A point, a sphere, a box and a segment that overlap."""
    z, y, x = image.slices // 2, image.rows // 2, image.columns // 2
    depth = min(2, image.slices)
    measured = 9.0 if image.pixel_spacing_mm else None
    return (
        Mark(class_name="nodule", shape="point", place=(0, 1, 2), comment="Müller's, \ud800 and \"so\"\n"),
        Mark(class_name="stone", shape="point", place=(z, y, x), diameter_mm=measured),
        Mark(class_name="nodule", shape="box", place=(0, 3, 4), corner=(0, 2, 3), mask=np.ones((depth, 5, 7), bool)),
        Mark(class_name="Läsion 2", shape="segment", place=(0, 4, 5), corner=(0, 4, 5), mask=segment((depth, 6, 9))),
        Mark(class_name="edge", shape="segment", place=(0, 0, 0), corner=(0, 0, 0),
             mask=np.ones((1, image.rows, 1), bool)),
    )  # fmt: skip


def same_marks(one: AnnotatedImage, other: AnnotatedImage) -> None:
    assert len(one.marks) == len(other.marks)
    for a, b in zip(one.marks, other.marks, strict=True):
        for name in ("class_name", "shape", "place", "diameter_mm", "corner", "comment"):
            assert getattr(a, name) == getattr(b, name), name
        assert (a.mask is None) == (b.mask is None)
        assert a.mask is None or np.array_equal(a.mask, b.mask)


def same_image(one: MedicalImage, other: MedicalImage) -> None:
    assert one.pixels.dtype == other.pixels.dtype
    assert np.array_equal(one.pixels, other.pixels)
    assert np.array_equal(one.positions_lps_mm, other.positions_lps_mm)
    assert np.array_equal(one.directions_lps, other.directions_lps)
    assert {name: getattr(one, name) for name in KEPT} == {name: getattr(other, name) for name in KEPT}


@pytest.fixture(scope="module")
def images(ct_series_folder: Path, cxr_file: Path) -> list[AnnotatedImage]:
    ct, film = read_image(ct_series_folder), read_image(cxr_file)
    part = replace(ct, pixels=ct.pixels[:3, 100:180, 90:200], positions_lps_mm=ct.positions_lps_mm[:3])
    return [AnnotatedImage(image=part, marks=marks_of(part)), AnnotatedImage(image=film, marks=marks_of(film))]


def test_a_volume_and_a_film_come_back_equal(images: list[AnnotatedImage], tmp_path: Path) -> None:
    turned = ct_image(positions_lps_mm=np.array([[0.0, 0.0, -3.0 * k] for k in range(7)]))  # slices downwards
    whole = [*images, AnnotatedImage(image=turned)]
    write_annotations(whole, tmp_path / "new" / "folder")
    for given, back in zip(whole, read_annotations(tmp_path / "new" / "folder"), strict=True):
        same_image(given.image, back.image)
        same_marks(given, back)


def test_files_have_our_names_and_nothing_of_the_header(images: list[AnnotatedImage], tmp_path: Path) -> None:
    write_annotations(images, tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    slices = {f"labels_yolo/IM0001_s00{k}.txt" for k in range(2)} | {"labels_yolo/IM0002_s000.txt"}
    assert names == slices | {COCO_FILE, "labels_yolo/classes.txt"} | {
        f"{kind}/IM000{k}.nrrd" for kind in ("images", "masks") for k in (1, 2)
    }
    mask = sitk.ReadImage(str(tmp_path / "out" / "masks" / "IM0001.nrrd"))
    image = sitk.ReadImage(str(tmp_path / "out" / "images" / "IM0001.nrrd"))
    assert mask.GetPixelIDTypeAsString() == "16-bit unsigned integer"
    assert (mask.GetOrigin(), mask.GetDirection()) == (image.GetOrigin(), image.GetDirection())
    assert np.array_equal(sitk.GetArrayFromImage(mask), images[0].label_map())
    same_place = images[0].image.index_to_lps([[1, 10, 20]])[0]
    assert image.TransformIndexToPhysicalPoint((20, 10, 1)) == pytest.approx(tuple(same_place), abs=1e-6)
    box = (tmp_path / "out" / "labels_yolo" / "IM0001_s000.txt").read_text().splitlines()
    names_in_order = (tmp_path / "out" / "labels_yolo" / "classes.txt").read_text().splitlines()
    assert names_in_order == sorted({mark.class_name for mark in images[0].marks})
    columns = images[0].image.columns
    assert any(line.startswith(f"{names_in_order.index('nodule')} {(3 + 3.5) / columns:.6f}") for line in box)
    assert (tmp_path / "out").stat().st_mode & 0o500 == 0o500


def test_a_point_with_a_diameter_is_a_sphere() -> None:
    one = AnnotatedImage(
        image=ct_image(), marks=(Mark(class_name="n", shape="point", place=(3, 10, 12), diameter_mm=8),)
    )
    corner, mask = one.patch(one.marks[0])
    assert corner == (2, 5, 7)
    assert mask.shape == (3, 11, 11)  # 4 mm each way: one slice of 2.5 mm, five pixels of 0.7 mm
    assert mask.sum() * 0.7 * 0.7 * 2.5 == pytest.approx(4 / 3 * np.pi * 4**3, rel=0.15)
    dot = AnnotatedImage(image=ct_image(), marks=(Mark(class_name="n", shape="point", place=(3, 10, 12)),))
    assert np.argwhere(dot.label_map()).tolist() == [[3, 10, 12]]


def test_the_page_in_docs_tells_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = DOCS.read_text(encoding="utf-8")
    code, shown = (re.search(rf"```{kind}\n(.*?)```", text, re.S).group(1) for kind in ("python", "json"))  # type: ignore[union-attr]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(DOCS), "exec"), {})
    assert json.loads((tmp_path / "my_annotations" / COCO_FILE).read_text()) == json.loads(shown)


def foreign(folder: Path, **changes: Any) -> Path:
    """Two PNG pictures and a COCO file as another tool writes it."""
    (folder / "images").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        sitk.WriteImage(
            sitk.GetImageFromArray(np.arange(48, dtype=np.uint8).reshape(6, 8)), str(folder / "images" / name)
        )
    document = {
        "licenses": [],
        "images": [{"id": 7, "file_name": "a.png", "width": 8, "height": 6, "slice": 4},
                   {"id": 9, "file_name": "images/b.png", "width": 8, "height": 6}],
        "annotations": [{"id": 1, "image_id": 9, "category_id": 3, "bbox": [1.2, 0, 3.0, 6], "iscrowd": 0, "area": 18,
                         "segmentation": [[1, 0, 4, 0, 4, 6]], "shape": "polygon"}],
        "categories": [{"id": 3, "name": "nodule", "supercategory": ""}],
    }  # fmt: skip
    (folder / "instances.json").write_text(json.dumps(document | changes))
    return folder


def test_what_is_synthetic_stays_so_when_it_is_annotated(images: list[AnnotatedImage], tmp_path: Path) -> None:
    real, film = images
    odd = ("the source is itself synthetic (0008,001C)", HOLDS_COMPOSED)
    made = replace(film, image=replace(film.image, oddities=odd))
    write_annotations([real, made], tmp_path / "marked")
    first, second = (one.image.oddities for one in read_annotations(tmp_path / "marked"))
    assert first == ()
    assert HOLDS_COMPOSED in second and any("synthetic" in oddity for oddity in second)
    assert HOLDS_COMPOSED in read_image(tmp_path / "marked" / "images" / "IM0002.nrrd").oddities
    document = json.loads((tmp_path / "marked" / COCO_FILE).read_text())
    assert "real and synthetic images" in document["info"]["description"]


def test_coco_of_another_tool_is_read(tmp_path: Path) -> None:
    first, second = read_annotations(foreign(tmp_path / "cvat"))
    assert first.marks == ()
    (mark,) = second.marks
    assert (mark.shape, mark.class_name, mark.corner) == ("box", "nodule", (0, 0, 1))
    assert mark.mask is not None
    assert mark.mask.shape == (1, 6, 4)


def test_a_box_that_another_tool_added_to_our_folder_is_read(images: list[AnnotatedImage], tmp_path: Path) -> None:
    write_annotations(images[:1], tmp_path / "out")
    document = json.loads((tmp_path / "out" / COCO_FILE).read_text())
    document["annotations"].append({"id": 999, "image_id": 1, "category_id": 1, "bbox": [4, 5, 6, 7]})
    (tmp_path / "out" / COCO_FILE).write_text(json.dumps(document))
    (back,) = read_annotations(tmp_path / "out")
    assert (back.marks[-1].shape, back.marks[-1].corner) == ("box", (0, 5, 4))
    assert len(back.marks) == len(images[0].marks) + 1


# -- refused -----------------------------------------------------------------------------------------------------------
def change(key: str, **values: Any) -> Callable[[Path], None]:
    """Changes the first entry of a list of the JSON file."""

    def apply(folder: Path) -> None:
        document = json.loads((folder / COCO_FILE).read_text())
        document[key][0] |= values
        (folder / COCO_FILE).write_text(json.dumps(document))

    return apply


def volume(**values: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        document = json.loads((folder / COCO_FILE).read_text())
        one = document["hiresmedsynth"]["volumes"][0]
        one["facts"] |= values.pop("facts", {})
        one |= values
        (folder / COCO_FILE).write_text(json.dumps(document))

    return apply


def own(**values: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        document = json.loads((folder / COCO_FILE).read_text())
        for one in document["annotations"]:
            one["hiresmedsynth"] |= values if one["hiresmedsynth"]["mark"] == 1 else {}
        (folder / COCO_FILE).write_text(json.dumps(document))

    return apply


def mask_of(array: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / "masks" / "IM0001.nrrd"))


def detached(folder: Path) -> None:
    """A header that names another file's bytes as voxels."""
    (folder / "secret.txt").write_bytes(bytes(7 * 24 * 32 * 2))
    text = "NRRD0004\ntype: short\ndimension: 3\nsizes: 32 24 7\nendian: little\nencoding: raw\ndata file: {}\n\n"
    (folder / "images" / "IM0001.nrrd").write_text(text.format(folder / "secret.txt"))


def linked(folder: Path) -> None:
    (folder / "images" / "IM0001.nrrd").rename(folder.parent / "elsewhere.nrrd")
    (folder / "images" / "IM0001.nrrd").symlink_to(folder.parent / "elsewhere.nrrd")


def cut(folder: Path) -> None:
    file = folder / "images" / "IM0001.nrrd"
    file.write_bytes(file.read_bytes()[:3000])


def huge(folder: Path) -> None:
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 99999 99999 999\nendian: little\nencoding: gzip\n\n"
    (folder / "images" / "IM0001.nrrd").write_text(head)


def text(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / COCO_FILE).write_bytes(content) and None


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no JSON file": (lambda folder: (folder / COCO_FILE).unlink(), "holds no annotations_coco"),
    "no JSON": (text(b"hello"), "no COCO"),
    "deep JSON": (text(b"[" * 100_000), "no COCO"),
    "not UTF-8": (text(b'{"images": "\xff"}'), "no COCO"),
    "a list": (text(b"[]"), "no COCO"),
    "nothing in it": (text(b'{"images": [], "annotations": [], "categories": []}'), "there is none"),
    "image missing": (lambda folder: (folder / "images" / "IM0001.nrrd").unlink(), "missing"),
    "mask missing": (lambda folder: (folder / "masks" / "IM0001.nrrd").unlink(), "missing"),
    "mask of another shape": (mask_of(np.zeros((7, 24, 31), np.uint16)), "another shape"),
    "mask of other marks": (mask_of(np.zeros((7, 24, 32), np.uint16)), "changed alone"),
    "mask in colour": (mask_of(np.zeros((7, 24, 32, 3), np.uint16)[..., :2]), "in colour|too large|shape"),
    "unknown class": (change("annotations", category_id=99), "class 99 is unknown"),
    "unknown image": (change("annotations", image_id=99), "image 99 is unknown"),
    "box outside": (change("annotations", bbox=[30, 1, 5, 5]), "out of the picture"),
    "box before the picture": (change("annotations", bbox=[-1, 1, 5, 5]), "out of the picture"),
    "empty box": (change("annotations", bbox=[1, 1, 0, 5]), "empty"),
    "NaN box": (change("annotations", bbox=[float("nan"), 1, 5, 5]), "NaN is no number"),
    "infinite box": (text(b'{"images": [], "categories": [], "annotations": [{"id": 1, "image_id": 1, '
                          b'"category_id": 1, "bbox": [1e999, 0, 1, 1]}]}'), "finite"),
    "box of three numbers": (change("annotations", bbox=[1, 1, 5]), "no COCO"),
    "NaN diameter": (own(diameter_mm=float("nan")), "NaN is no number"),
    "diameter below zero": (own(diameter_mm=-3.0), "diameter of -3"),
    "place outside": (own(place=[3, 900, 2]), "outside"),
    "unknown shape": (own(shape="star"), "no COCO"),
    "slices disagree": (change("annotations", category_id=2), "contradict"),
    "mark 0": (own(mark=0), "no COCO"),
    "absolute name": (volume(mask="/etc/passwd"), "leads out"),
    "climbing name": (volume(mask="../masks/IM0001.nrrd"), "leads out"),
    "climbing name inside": (volume(mask="masks/../../x.nrrd"), "leads out"),
    "Windows name": (volume(mask="C:\\x.nrrd"), "leads out"),
    "null byte": (volume(mask="masks/\0.nrrd"), "leads out"),
    "long name": (volume(mask="a" * 5000), "missing"),
    "folder as name": (volume(mask="masks"), "missing"),
    "link out": (linked, "missing, or is a link"),
    "voxels elsewhere": (detached, "voxels inside"),
    "image cut off": (cut, "damaged"),
    "image of 20 TB": (huge, "too large"),
    "empty image": (lambda folder: (folder / "images" / "IM0001.nrrd").write_bytes(b""), "voxels inside"),
    "picture of another size": (change("images", width=31), "not that of its file"),
    "picture of another slice": (change("images", slice=7), "not that of its file"),
    "picture of another file": (change("images", file_name="images/IM0002.nrrd"), "not listed"),
    "newer version": (text(b'{"images": [], "annotations": [], "categories": [], "hiresmedsynth": {"version": 2}}'),
                      "version"),
    "zero spacing": (volume(facts={"pixel_spacing_mm": [0.0, 1.0]}), "can't be"),
    "too few positions": (volume(facts={"positions_lps_mm": [[0, 0, 0]]}), "one point a slice"),
    "window of no width": (volume(facts={"window": [0, 0]}), "window"),
    "a name as modality": (volume(facts={"modality": "DOE^JANE"}), "no COCO"),
    "run lengths too long": (lambda folder: segment_runs(folder, [0, 10**9]), "run lengths"),
    "run lengths negative": (lambda folder: segment_runs(folder, [-1, 769]), "run lengths"),
    "run lengths as text": (lambda folder: segment_runs(folder, "abc"), "run lengths"),
}  # fmt: skip


def segment_runs(folder: Path, counts: Any) -> None:
    document = json.loads((folder / COCO_FILE).read_text())
    one = next(a for a in document["annotations"] if a["hiresmedsynth"]["shape"] == "segment")
    one["segmentation"]["counts"] = counts
    (folder / COCO_FILE).write_text(json.dumps(document))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_is_refused(name: str, tmp_path: Path) -> None:
    image = ct_image()
    sphere = Mark(class_name="nodule", shape="point", place=(3, 10, 12), diameter_mm=8.0)
    free = Mark(class_name="stone", shape="segment", place=(0, 1, 1), corner=(0, 0, 0), mask=segment((2, 4, 4)))
    write_annotations([AnnotatedImage(image=image, marks=(sphere, free))], tmp_path / "out")
    spoil, words = BAD[name]
    spoil(tmp_path / "out")
    with pytest.raises(ReadError, match=words) as refused:
        read_annotations(tmp_path / "out")
    assert refused.value.remedy
    assert name == "no JSON file" or str(tmp_path) not in str(refused.value)


FOREIGN_BAD: dict[str, tuple[dict[str, Any], str]] = {
    "absolute": ({"images": [{"id": 1, "file_name": "/etc/passwd", "width": 8, "height": 6}]}, "leads out"),
    "climbs": ({"images": [{"id": 1, "file_name": "../a.png", "width": 8, "height": 6}]}, "leads out"),
    "no picture": ({"images": [{"id": 1, "file_name": "instances.json", "width": 8, "height": 6}]}, "no PNG"),
    "other size": ({"images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 6}]}, "not that of its file"),
    "same id": ({"images": [{"id": 1, "file_name": n, "width": 8, "height": 6} for n in "ab"]}, "same id"),
    "same file": ({"images": [{"id": k, "file_name": "a.png", "width": 8, "height": 6} for k in (1, 2)]}, "same id"),
    "empty class": ({"categories": [{"id": 3, "name": ""}]}, "class needs a name"),
    "class of two lines": ({"categories": [{"id": 3, "name": "a\nb"}]}, "class needs a name"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN_BAD)
def test_bad_coco_of_another_tool_is_refused(name: str, tmp_path: Path) -> None:
    changes, words = FOREIGN_BAD[name]
    without = {} if "categories" in changes else {"annotations": []}
    with pytest.raises(ReadError, match=words):
        read_annotations(foreign(tmp_path / "in", **changes, **without))


BAD_MARKS: dict[str, dict[str, Any]] = {
    "no class": {"class_name": " "},
    "class with a line break": {"class_name": "a\nb"},
    "class with a backslash": {"class_name": "a\\b"},
    "NaN diameter": {"diameter_mm": float("nan")},
    "no diameter": {"diameter_mm": 0.0},
    "giant": {"diameter_mm": 1e9},
    "two numbers": {"place": (1, 2)},
    "half a voxel": {"place": (1, 2, 3.5)},
    "point with a corner": {"corner": (0, 0, 0)},
    "star": {"shape": "star"},
    "box without mask": {"shape": "box", "corner": (1, 2, 3)},
    "empty segment": {"shape": "segment", "corner": (1, 2, 3), "mask": np.zeros((2, 2, 2), bool)},
    "mask of numbers": {"shape": "segment", "corner": (1, 2, 3), "mask": np.ones((2, 2, 2))},
    "flat mask": {"shape": "segment", "corner": (1, 2, 3), "mask": np.ones((2, 2), bool)},
    "box with holes": {"shape": "box", "corner": (1, 2, 3), "mask": segment((2, 3, 3))},
    "place beside the box": {"shape": "box", "corner": (4, 4, 4), "mask": np.ones((1, 1, 1), bool)},
    "long comment": {"comment": "x" * 3000},
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MARKS)
def test_a_mark_that_cannot_be_is_refused(name: str) -> None:
    fields: dict[str, Any] = {"class_name": "nodule", "shape": "point", "place": (1, 2, 3)} | BAD_MARKS[name]
    with pytest.raises(SettingsError) as refused:
        Mark(**fields)
    assert refused.value.remedy


def test_a_mark_must_fit_its_image(cxr_file: Path) -> None:
    with pytest.raises(SettingsError, match="outside"):
        AnnotatedImage(image=ct_image(), marks=(Mark(class_name="n", shape="point", place=(7, 0, 0)),))
    box = Mark(class_name="n", shape="box", place=(0, 20, 30), corner=(0, 20, 30), mask=np.ones((1, 5, 5), bool))
    with pytest.raises(SettingsError, match="outside"):
        AnnotatedImage(image=ct_image(), marks=(box,))
    sized = Mark(class_name="n", shape="point", place=(0, 1, 1), diameter_mm=5.0)
    with pytest.raises(SettingsError, match="spacing of its image is unknown"):
        AnnotatedImage(image=read_image(cxr_file), marks=(sized,))


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = [AnnotatedImage(image=ct_image())]
    write_annotations(one, tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    for bad, words in (([], "no image"), (one, "already exists")):
        with pytest.raises(ExportError, match=words):
            write_annotations(bad, tmp_path / "out")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HiResMedSynthError, match="can't be written"):
        write_annotations(one, tmp_path / "file" / "out")
    (tmp_path / "file").unlink()
    cut_off = np.zeros((7, 24, 32), np.int16)
    monkeypatch.setattr("SimpleITK.ReadImage", lambda _: sitk.GetImageFromArray(cut_off))  # what a full disk has left
    with pytest.raises(ExportError, match="No space left"):
        write_annotations(one, tmp_path / "other")
    assert sorted(tmp_path.rglob("*")) == before
