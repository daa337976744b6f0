"""Annotations through a real backend: saved as a zip with DICOM SEG, loaded again; and what is refused."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from HiResMedSynthLib.annotations import COCO_FILE, AnnotatedImage, Mark, read_annotations
from HiResMedSynthLib.image import HeaderFacts, MedicalImage
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.service.annotation_tasks import annotation_segmentation, header_of
from HiResMedSynthLib.service.client import BackendError
from HiResMedSynthLib.service.protocol import pack_arrays
from Testing.export.cases import ct_image, film_image
from Testing.service.conftest import Backend
from Testing.test_annotations import marks_of, same_image, same_marks


def sent_mark(backend: Backend, mark: Mark) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: getattr(mark, name) for name in ("class_name", "shape", "place", "diameter_mm", "corner", "comment")
    }
    if mark.shape == "box" and mark.mask is not None:
        fields["size"] = mark.mask.shape
    if mark.shape == "segment" and mark.mask is not None:
        fields["mask"] = backend.client.send_bytes(pack_arrays({"mask": mark.mask}))
    return fields


def save(backend: Backend, images: list[AnnotatedImage], out: Path, **options: Any) -> tuple[str, ...]:
    client = backend.client
    sent = []
    for one in images:
        name = client.send_image(one.image.pixels, header_of(one.image))
        sent.append({"image": name, "marks": [sent_mark(backend, mark) for mark in one.marks]})
    job = client.submit("save_annotations", parameters={"images": sent, **options})
    notes = client.wait(job).notes
    client.fetch_export(job, out)
    return notes


@pytest.fixture(scope="module")
def images(ct_series_folder: Path, cxr_file: Path) -> list[AnnotatedImage]:
    ct, film = read_image(ct_series_folder), read_image(cxr_file)
    part = replace(ct, pixels=ct.pixels[:4, 100:180, 90:200], positions_lps_mm=ct.positions_lps_mm[:4])
    return [AnnotatedImage(image=one, marks=marks_of(one)) for one in (part, film)]


def test_saved_and_loaded_they_are_the_same(backend: Backend, images: list[AnnotatedImage], tmp_path: Path) -> None:
    assert save(backend, images, tmp_path / "out") == ()
    for given, back in zip(images, read_annotations(tmp_path / "out"), strict=True):
        same_image(given.image, back.image)
        same_marks(given, back)
    client = backend.client
    job = client.submit("load_annotations", parameters={"folder": client.send_folder(tmp_path / "out")})
    client.wait(job)
    arrays, document = client.result(job)
    for number, (given, told) in enumerate(zip(images, document["images"], strict=True), start=1):
        assert np.array_equal(arrays[f"{number}.pixels"], given.image.pixels)
        assert told["header"]["modality"] == given.image.modality
        assert told["header"]["facts"] == dict.fromkeys(told["header"]["facts"])
        for index, (mark, plain) in enumerate(zip(given.marks, told["marks"], strict=True), start=1):
            back = Mark(**plain, mask=arrays.get(f"{number}.{index}.mask"))
            same_marks(
                AnnotatedImage(image=given.image, marks=(mark,)), AnnotatedImage(image=given.image, marks=(back,))
            )


def test_a_folder_packed_with_its_name_is_loaded(backend: Backend, tmp_path: Path) -> None:
    save(backend, [AnnotatedImage(image=ct_image())], tmp_path / "in" / "my case", seg=False)
    assert not (tmp_path / "in" / "my case" / "segmentations").exists()
    client = backend.client
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "in")
    (tmp_path / "in" / "my case" / "letter.nrrd").write_bytes(b"not of this folder")
    for folder in (client.send_bytes(Path(packed).read_bytes()), client.send_folder(tmp_path / "in" / "my case")):
        job = client.submit("load_annotations", parameters={"folder": folder})
        client.wait(job)
        assert client.result(job)[1]["images"][0]["marks"] == []
    with pytest.raises(BackendError, match="holds no annotations_coco"):
        client.send_folder(tmp_path)


def test_the_seg_is_of_real_lesions_and_of_nobody(images: list[AnnotatedImage], tmp_path: Path) -> None:
    facts = HeaderFacts(
        sop_class_uid=images[0].image.facts.sop_class_uid, body_part_examined="DOE^JANE", view_position="X"
    )
    secret = AnnotatedImage(image=replace(images[0].image, facts=facts, oddities=("DOE^JANE",)), marks=images[0].marks)
    annotation_segmentation(secret).save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    raw = (tmp_path / "seg.dcm").read_bytes()
    for word in (b"SYNTHETIC", b"ynthetic", b"DOE", b"Synthesizing", "Müller".encode(), b"\x08\x00\x1c\x00"):
        assert word not in raw, word
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    assert data.PatientIdentityRemoved == "YES"
    assert str(data.PatientName).startswith("ANNOTATED^")
    assert [segment.SegmentLabel for segment in data.SegmentSequence][:2] == ["1: nodule", "2: stone"]
    assert data.SegmentSequence[3].SegmentLabel == "4: Läsion 2"
    assert {segment.SegmentAlgorithmType for segment in data.SegmentSequence} == {"MANUAL"}
    assert annotation_segmentation(secret).PatientID != data.PatientID
    total = sum(int(secret.patch(mark)[1].sum()) for mark in secret.marks)
    assert int(data.pixel_array.sum()) == total  # overlapping marks are whole


TURNED = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]])
KINDS: dict[str, MedicalImage] = {
    "CT": ct_image(),
    "one CT slice": ct_image().single_slice(3),
    "downwards": ct_image(positions_lps_mm=np.array([[0.0, 0.0, -3.0 * k] for k in range(7)])),
    "sagittal": ct_image(directions_lps=TURNED, positions_lps_mm=np.array([[-3.0 * k, 0.0, 0.0] for k in range(7)])),
    "tilted": ct_image(positions_lps_mm=np.array([[0.0, 1.0 * k, 3.0 * k] for k in range(7)])),
    "volume of a file": ct_image(facts=HeaderFacts(), bits_stored=None),
    "film": film_image(),
    "film of a file": film_image(facts=HeaderFacts(), pixel_spacing_mm=None, spacing_source="unknown"),
}  # fmt: skip


@pytest.mark.validators
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overlap", [True, False])
def test_dciodvfy_finds_no_error(kind: str, overlap: bool, tmp_path: Path) -> None:
    from Testing.export.test_validators import need

    image = KINDS[kind]
    marks = marks_of(image)
    one = AnnotatedImage(image=image, marks=marks if overlap else marks[:2])
    annotation_segmentation(one).save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    done = subprocess.run(
        [need("dciodvfy"), "-new", str(tmp_path / "seg.dcm")], capture_output=True, text=True, check=False
    )
    said = (done.stdout + done.stderr).splitlines()
    assert "Segmentation" in said, said
    assert not [line for line in said if line.startswith("Error")]


def test_a_volume_of_unknown_spacing_has_no_seg(backend: Backend, tmp_path: Path) -> None:
    image = ct_image(pixel_spacing_mm=None, spacing_source="unknown")
    notes = save(backend, [AnnotatedImage(image=image, marks=marks_of(image))], tmp_path / "out")
    assert "no DICOM SEG" in notes[0]
    assert (tmp_path / "out" / COCO_FILE).is_file()


POINT = {"class_name": "n", "shape": "point", "place": [0, 1, 1]}
BAD_MARKS: dict[str, tuple[Any, str]] = {
    "unknown field": (POINT | {"path": "/etc/passwd"}, "path"),
    "outside": (POINT | {"place": [0, 999, 1]}, "outside"),
    "astronomic place": (POINT | {"place": [0, 10**30, 1]}, "outside|place"),
    "text as place": (POINT | {"place": "abc"}, "place"),
    "NaN": (POINT | {"diameter_mm": float("nan")}, "diameter"),
    "astronomic box": (POINT | {"shape": "box", "corner": [0, 1, 1], "size": [10**9] * 3}, "fit"),
    "empty box": (POINT | {"shape": "box", "corner": [0, 1, 1], "size": [0, 1, 1]}, "fit"),
    "box without size": (POINT | {"shape": "box", "corner": [0, 1, 1]}, "needs its corner"),
    "path as mask": (POINT | {"shape": "segment", "corner": [0, 1, 1], "mask": "/etc/passwd"}, "doesn't hold"),
    "mask outside": (np.ones((1, 30, 30), bool), "outside"),
    "empty mask": (np.zeros((1, 3, 3), bool), "empty"),
    "mask of numbers": (np.ones((1, 3, 3), np.float32), "no mask"),
    "flat mask": (np.ones((3, 3), bool), "no mask"),
    "mask that is no npz": (b"hello", "damaged"),
    "npz without mask": (pack_arrays({"x": np.ones(3)}), "corner and its mask"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MARKS)
def test_a_bad_mark_is_refused(backend: Backend, name: str) -> None:
    client = backend.client
    image = client.send_image(ct_image().pixels, header_of(ct_image()))
    mark, words = BAD_MARKS[name]
    if not isinstance(mark, dict):
        content = mark if isinstance(mark, bytes) else pack_arrays({"mask": mark})
        mark = POINT | {"shape": "segment", "corner": [0, 1, 1], "mask": client.send_bytes(content)}
    job = client.submit("save_annotations", parameters={"images": [{"image": image, "marks": [mark]}]})
    with pytest.raises(BackendError, match=words) as refused:
        client.wait(job)
    assert "bug" not in str(refused.value)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "images"),
        ({"images": []}, "no image"),
        ({"images": [{"image": "0" * 64}]}, "doesn't hold image 1: together they may be more than it can"),
        ({"images": [{"image": "/etc/passwd"}]}, "doesn't hold image 1"),
        ({"images": [], "out": "/tmp/x"}, "no parameter"),
    ],
)
def test_a_bad_save_is_refused(backend: Backend, parameters: dict, words: str) -> None:
    client = backend.client
    with pytest.raises(BackendError, match=words):
        client.wait(client.submit("save_annotations", parameters=parameters))


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def link() -> bytes:
    stream = io.BytesIO()
    entry = zipfile.ZipInfo("images/IM0001.nrrd")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    return stream.getvalue()


LISTED = {"images": [{"id": 1, "file_name": "images/IM0001.nrrd", "width": 8, "height": 6}], "annotations": [],
          "categories": []}  # fmt: skip
DETACHED = b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 8 6 1\nencoding: raw\ndata file: /etc/passwd\n\n"
META = b"ObjectType = Image\nNDims = 3\nDimSize = 8 6 1\nElementType = MET_UCHAR\nElementDataFile = /etc/passwd\n"
BAD_ZIPS: dict[str, tuple[bytes, str]] = {
    "no zip": (b"hello", "unpacked"),
    "empty": (zipped({}), "holds no"),
    "climbs out": (zipped({"../evil": b"x"}), "unpacked"),
    "absolute": (zipped({"/tmp/evil": b"x"}), "unpacked"),
    "link": (link(), "unpacked"),
    "cut off": (zipped({COCO_FILE: b"x" * 5000})[:60], "unpacked"),
    "no JSON in it": (zipped({"a.txt": b"x"}), "holds no"),
    "damaged JSON": (zipped({COCO_FILE: b"{"}), "no COCO"),
    "missing image": (zipped({COCO_FILE: json.dumps(LISTED).encode()}), "missing"),
    "voxels elsewhere": (zipped({COCO_FILE: json.dumps(LISTED).encode(), "images/IM0001.nrrd": DETACHED}), "no PNG"),
    "MetaImage elsewhere": (zipped({COCO_FILE: json.dumps(LISTED).encode(), "images/IM0001.nrrd": META}), "no PNG"),
    "file named as folder": (zipped({"a": b"x", "a/b": b"x"}), "unpacked"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ZIPS)
def test_a_bad_zip_is_refused(backend: Backend, name: str) -> None:
    client = backend.client
    content, words = BAD_ZIPS[name]
    job = client.submit("load_annotations", parameters={"folder": client.send_bytes(content)})
    with pytest.raises(BackendError, match=words) as refused:
        client.wait(job)
    assert "bug" not in str(refused.value)
    assert "/tmp" not in str(refused.value)


def test_an_unknown_folder_is_refused(backend: Backend, tmp_path: Path) -> None:
    client = backend.client
    for folder in ("0" * 64, "/etc", str(tmp_path)):
        with pytest.raises(BackendError, match="doesn't hold"):
            client.wait(client.submit("load_annotations", parameters={"folder": folder}))
