"""Writes an annotation folder: NRRD images and masks, COCO, YOLO; all or nothing. docs/annotations.md describes it."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.annotated_image import AnnotatedImage, Index
from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.detection_formats import coco_categories, run_lengths, yolo_line
from HiResMedSynthLib.errors import ExportError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.synthetic_words import text_by_oddities
from HiResMedSynthLib.write_volume import to_simpleitk, write_whole

COCO_FILE = "annotations_coco.json"
# technical facts that no image file keeps for us, in the order of the JSON file
FACTS = (
    "modality", "units", "pixel_spacing_mm", "spacing_source", "positions_lps_mm", "directions_lps",
    "slice_thickness_mm", "photometric", "rescale", "bits_stored", "stored_signed", "padding_value", "window",
)  # fmt: skip


def write_annotations(images: Sequence[AnnotatedImage], folder: str | Path) -> None:
    """Writes the new folder: aside first, moved in place when whole.

    Raises:
        ExportError: there is no image, the folder exists, or it can't be written; nothing is left behind.
    """
    folder = Path(folder).absolute()
    if not images:
        raise ExportError("there is no image to save", where=folder, remedy="Mark at least one image first.")
    aside: Path | None = None
    try:
        if folder.exists():
            raise ExportError("the folder already exists", where=folder, remedy="Choose another name.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".annotations-", dir=folder.parent))
        new = aside / "new"  # made by mkdir, so that the user's own permissions hold
        for name in ("images", "masks", "labels_yolo"):
            (new / name).mkdir(parents=True)
        for number, one in enumerate(images, start=1):
            told = text_by_oddities(one.image.oddities)
            _write_nrrd(new / _file_name("images", number), one.image.pixels, one.image, compress=False, told=told)
            _write_nrrd(new / _file_name("masks", number), one.label_map(), one.image, compress=True)
        document = coco_document(images)
        (new / COCO_FILE).write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")
        _write_yolo(document, new / "labels_yolo")
        new.rename(folder)
    except OSError as error:
        raise ExportError(
            f"the annotations can't be written ({error.strerror or error})",
            where=folder,
            remedy="Choose a folder that you may write, on a disk with space.",
        ) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def coco_document(images: Sequence[AnnotatedImage]) -> dict[str, Any]:
    """COCO detection JSON, a picture a slice that holds a mark; what COCO has no word for is in `hiresmedsynth`."""
    classes = sorted({mark.class_name for one in images for mark in one.marks})
    pictures: dict[tuple[int, int], dict[str, Any]] = {}
    found: list[dict[str, Any]] = []
    for number, one in enumerate(images, start=1):
        for mark_number, mark in enumerate(one.marks, start=1):
            own = {
                "mark": mark_number,
                "shape": mark.shape,
                "place": list(mark.place),
                "diameter_mm": mark.diameter_mm,
                "comment": mark.comment,
            }
            for index, (row, column), plane in _planes(*one.patch(mark)):
                size = {"width": one.image.columns, "height": one.image.rows}
                picture = {"id": len(pictures) + 1, "file_name": _file_name("images", number), **size, "slice": index}
                picture = pictures.setdefault((number, index), picture)
                found.append({
                    "id": len(found) + 1,
                    "image_id": picture["id"],
                    "category_id": classes.index(mark.class_name) + 1,
                    "bbox": [column, row, plane.shape[1], plane.shape[0]],
                    "area": int(plane.sum()),
                    "iscrowd": 0,
                    "segmentation": _runs(plane, row, column, one.image),
                    "hiresmedsynth": own,
                })  # fmt: skip
    return {
        "info": {"description": f"Lesions marked in {_kinds(images)} images with HiResMedSynth"},
        "images": list(pictures.values()),
        "categories": coco_categories(classes),
        "annotations": found,
        "hiresmedsynth": {"version": 1, "volumes": [_volume(one.image, n) for n, one in enumerate(images, start=1)]},
    }


def _kinds(images: Sequence[AnnotatedImage]) -> str:
    found = {text_by_oddities(one.image.oddities) != "" for one in images}
    return "real and synthetic" if len(found) > 1 else "synthetic" if True in found else "real"


def _file_name(kind: str, number: int) -> str:
    return f"{kind}/IM{number:04d}.nrrd"


def _volume(image: MedicalImage, number: int) -> dict[str, Any]:
    """File names and technical facts of an image; none of them can hold a word of the source's header."""
    facts = {f: getattr(image, f) for f in FACTS}
    facts["positions_lps_mm"] = np.asarray(image.positions_lps_mm).tolist()
    facts["directions_lps"] = image.directions_lps.tolist()
    facts["window"] = None if image.window is None else [image.window.center, image.window.width]
    facts["modality"] = image.modality if re.fullmatch("[A-Z]{2}", image.modality) else "OT"
    return {"file_name": _file_name("images", number), "mask": _file_name("masks", number), "facts": facts}


def _planes(corner: Index, mask: NDArray[np.bool_]) -> Iterator[tuple[int, tuple[int, int], NDArray[np.bool_]]]:
    """(slice, (row, column), tight plane) of every slice that a patch touches."""
    for index, plane in enumerate(mask, start=corner[0]):
        if plane.any():
            rows, columns = bounding_box(plane)
            yield index, (corner[1] + rows.start, corner[2] + columns.start), plane[rows, columns]


def _runs(plane: NDArray[np.bool_], row: int, column: int, image: MedicalImage) -> dict[str, list[int]]:
    whole = np.zeros((image.rows, image.columns), dtype=bool)
    whole[row : row + plane.shape[0], column : column + plane.shape[1]] = plane
    return run_lengths(whole)


def _write_nrrd(path: Path, array: NDArray[Any], image: MedicalImage, *, compress: bool, told: str = "") -> None:
    volume = to_simpleitk(array, image)[0]
    if told:
        volume.SetMetaData("SYNTHETIC", told)
    write_whole(volume, path, useCompression=compress, imageIO="NrrdImageIO")


def _write_yolo(document: dict[str, Any], folder: Path) -> None:
    """labels_yolo/IM0001_s012.txt: a line a box."""
    names = [category["name"] for category in document["categories"]]
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    for picture in document["images"]:
        lines = [
            yolo_line(one["category_id"] - 1, one["bbox"], columns=picture["width"], rows=picture["height"])
            for one in document["annotations"]
            if one["image_id"] == picture["id"]
        ]
        stem = PurePosixPath(picture["file_name"]).stem
        (folder / f"{stem}_s{picture['slice']:03d}.txt").write_text("".join(lines), encoding="utf-8")
