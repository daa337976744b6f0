"""Boxes of the lesions as COCO JSON and as YOLO text files, one picture a slice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from HiResMedSynthLib.case import RequestType
from HiResMedSynthLib.compose import Box, Composition

# One list for all cases, so that data sets can be merged: COCO counts from 1, YOLO from 0.
CLASSES = tuple(name for name in get_args(RequestType) if name != "any")


def picture_name(slice_index: int) -> str:
    """Stem of the DICOM file that holds a slice: IM0001 is slice 0."""
    return f"IM{slice_index + 1:04d}"


def coco_document(composition: Composition, slices: Sequence[int]) -> dict[str, Any]:
    """The COCO object detection document (boxes as [x, y, width, height] in pixels; x counts columns)."""
    image = composition.image
    return {
        "info": {"description": "SYNTHETIC lesions, HiResMedSynth, research only"},
        "images": [
            {
                "id": number,
                "file_name": f"dicom/{picture_name(index)}.dcm",
                "width": image.columns,
                "height": image.rows,
            }
            for number, index in enumerate(slices, start=1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)],
        "annotations": [
            {
                "id": number,
                "image_id": list(slices).index(box.slice) + 1,
                "category_id": CLASSES.index(box.type) + 1,
                "bbox": [box.column_min, box.row_min, _width(box), _height(box)],
                "area": _width(box) * _height(box),
                "iscrowd": 0,
                "lesion": box.lesion,
            }
            for number, box in enumerate(_written(composition, slices), start=1)
        ],
    }


def write_boxes(composition: Composition, folder: Path, slices: Sequence[int]) -> None:
    """Writes boxes_coco.json and labels_yolo/ (a file a slice, empty where there is no lesion; classes.txt)."""
    (folder / "boxes_coco.json").write_text(json.dumps(coco_document(composition, slices), indent=1), encoding="utf-8")
    labels = folder / "labels_yolo"
    labels.mkdir()
    (labels / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    rows, columns = composition.image.rows, composition.image.columns
    lines: dict[int, list[str]] = {index: [] for index in slices}
    for box in _written(composition, slices):
        x, y = (box.column_min + box.column_max) / 2 / columns, (box.row_min + box.row_max) / 2 / rows
        size = f"{_width(box) / columns:.6f} {_height(box) / rows:.6f}"
        lines[box.slice].append(f"{CLASSES.index(box.type)} {x:.6f} {y:.6f} {size}")
    for index, own in lines.items():
        text = "".join(line + "\n" for line in own)
        (labels / f"{picture_name(index)}.txt").write_text(text, encoding="utf-8")


def _written(composition: Composition, slices: Sequence[int]) -> list[Box]:
    return [box for box in composition.boxes if box.slice in set(slices)]


def _width(box: Box) -> int:
    return box.column_max - box.column_min


def _height(box: Box) -> int:
    return box.row_max - box.row_min
