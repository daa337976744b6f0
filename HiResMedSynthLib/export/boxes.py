"""Boxes of the lesions as COCO JSON and as YOLO text files, one picture a slice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from HiResMedSynthLib.choices import REQUEST_TYPES
from HiResMedSynthLib.compose import Box, Composition
from HiResMedSynthLib.detection_formats import coco_categories, yolo_line

# One list for all cases, so that data sets can be merged: COCO counts from 1, YOLO from 0.
CLASSES = tuple(name for name in REQUEST_TYPES if name != "any")


def class_number(lesion_type: str) -> int:
    """Number of a lesion's class, from 0, the same in all data sets."""
    return CLASSES.index(lesion_type)


def corner_and_size(box: Box) -> list[int]:
    """[x, y, width, height] in pixels."""
    return [box.column_min, box.row_min, box.column_max - box.column_min, box.row_max - box.row_min]


def picture_name(slice_index: int) -> str:
    """Stem of the DICOM file that holds a slice: IM0001 is slice 0."""
    return f"IM{slice_index + 1:04d}"


def coco_document(composition: Composition, slices: Sequence[int]) -> dict[str, Any]:
    """The COCO object detection document (boxes as [x, y, width, height] in pixels, areas those of the masks)."""
    image, mask = composition.image, composition.instance_mask
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
        "categories": coco_categories(CLASSES),
        "annotations": [
            {
                "id": number,
                "image_id": list(slices).index(box.slice) + 1,
                "category_id": class_number(box.type) + 1,
                "bbox": corner_and_size(box),
                "area": int((mask[box.slice] == box.lesion).sum()),
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
    size = {"columns": composition.image.columns, "rows": composition.image.rows}
    lines: dict[int, list[str]] = {index: [] for index in slices}
    for box in _written(composition, slices):
        lines[box.slice].append(yolo_line(class_number(box.type), corner_and_size(box), **size))
    for index, own in lines.items():
        (labels / f"{picture_name(index)}.txt").write_text("".join(own), encoding="utf-8")


def _written(composition: Composition, slices: Sequence[int]) -> list[Box]:
    return [box for box in composition.boxes if box.slice in set(slices)]
