"""Single pictures with boxes, as detectors are trained on: COCO (a folder a side) and YOLO (one data.yaml).

Pictures are grey PNG, bright = dense, lossless and left-justified: a value of n bits stands in the upper n of 16, so
that readers who take the upper byte alone see the picture too. CT: (HU + 1024) x 16, clipped to -1024..3071 HU.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from HiResMedSynthLib.batch.layout import (
    Entries,
    Entry,
    LabelledImage,
    MadeCase,
    facts_of,
    slice_name,
    whole_text,
    write_joined,
    write_patients,
)
from HiResMedSynthLib.batch.picture_form import left_justified
from HiResMedSynthLib.batch.spec import SIDES, Output, Side
from HiResMedSynthLib.compose import Box
from HiResMedSynthLib.detection_formats import coco_categories, run_lengths, yolo_line
from HiResMedSynthLib.export.boxes import CLASSES, class_number, corner_and_size
from HiResMedSynthLib.export.image_file import MARK, save_png
from HiResMedSynthLib.synthetic_words import COMPOSED


def write_picture(one: LabelledImage, index: int, path: Path) -> None:
    """Writes one slice as PNG."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    told = f"{len({box.lesion for box in one.boxes})} {COMPOSED}. {MARK}" if one.kind == "lesions" else MARK
    save_png(Image.fromarray(left_justified(one.image, one.form, index)), path, told, compress_level=3)


class Coco:
    """coco/SIDE/images/NAME.png and coco/SIDE/annotations.json; masks as uncompressed run lengths."""

    def write(self, made: MadeCase, root: Path) -> list[Entry]:
        """One entry a picture."""
        entries = []
        for one in made.images():
            for index in one.slices:
                name = f"{slice_name(one, index)}.png"
                write_picture(one, index, root / "coco" / made.side / "images" / name)
                boxes = [box for box in one.boxes if box.slice == index]
                entries.append(
                    {
                        **facts_of(one),
                        "file": f"coco/{made.side}/images/{name}",
                        "width": one.image.columns,
                        "height": one.image.rows,
                        "annotations": [_annotation(one, box) for box in boxes],
                    }
                )
        return entries

    def paths(self, entry: Entry) -> list[str]:
        """The picture."""
        return [entry["file"]]

    def finish(self, entries: Entries, out: Path, output: Output) -> None:
        """Writes annotations.json of each side."""
        for side in SIDES:
            folder = out / "coco" / side
            if not folder.is_dir():
                continue
            write_patients(folder, ((f"images/{Path(one['file']).name}", one) for one in _of_side(entries, side)))
            aside = folder / ".annotations.json.part"
            with aside.open("w", encoding="utf-8") as stream:
                head = {"description": f"{output.name}: {MARK}"}
                classes = coco_categories(CLASSES)
                stream.write(f'{{"info": {json.dumps(head)},\n"categories": {json.dumps(classes)},\n"images": [\n')
                write_joined(stream, _images(_of_side(entries, side)))
                stream.write('\n],\n"annotations": [\n')
                write_joined(stream, _annotations(_of_side(entries, side)))
                stream.write("\n]}\n")
            aside.replace(folder / "annotations.json")


def _of_side(entries: Entries, wanted: Side) -> Iterator[Entry]:
    return (entry for side, entry in entries() if side == wanted)


def _images(entries: Iterable[Entry]) -> Iterator[Entry]:
    for number, entry in enumerate(entries, start=1):
        file = f"images/{Path(entry['file']).name}"
        yield {"id": number, "file_name": file, "width": entry["width"], "height": entry["height"]}


def _annotations(entries: Iterable[Entry]) -> Iterator[Entry]:
    count = 0
    for number, entry in enumerate(entries, start=1):
        for annotation in entry["annotations"]:
            count += 1
            yield {"id": count, "image_id": number, **annotation}


def _annotation(one: LabelledImage, box: Box) -> Entry:
    plane = one.mask[box.slice] == box.lesion
    return {
        "category_id": class_number(box.type) + 1,
        "bbox": corner_and_size(box),
        "area": int(plane.sum()),
        "iscrowd": 0,
        "segmentation": run_lengths(plane),
    }


class Yolo:
    """yolo/images/SIDE/NAME.png, yolo/labels/SIDE/NAME.txt and yolo/data.yaml."""

    def write(self, made: MadeCase, root: Path) -> list[Entry]:
        """One entry a picture."""
        entries = []
        for one in made.images():
            for index in one.slices:
                name = slice_name(one, index)
                write_picture(one, index, root / "yolo" / "images" / made.side / f"{name}.png")
                labels = root / "yolo" / "labels" / made.side / f"{name}.txt"
                labels.parent.mkdir(parents=True, exist_ok=True)
                labels.write_text("".join(_line(one, box) for box in one.boxes if box.slice == index), encoding="utf-8")
                entries.append({**facts_of(one), "name": name, "side": made.side})
        return entries

    def paths(self, entry: Entry) -> list[str]:
        """The picture and its boxes."""
        place = f"{entry['side']}/{entry['name']}"
        return [f"yolo/images/{place}.png", f"yolo/labels/{place}.txt"]

    def finish(self, entries: Entries, out: Path, output: Output) -> None:
        """Writes data.yaml and patients.csv."""
        files = ((self.paths(entry)[0].removeprefix("yolo/"), entry) for _, entry in entries())
        write_patients(out / "yolo", files)
        sides = [side for side in SIDES if (out / "yolo" / "images" / side).is_dir()]
        lines = [f"# {output.name}: {MARK}", *(f"{side}: images/{side}" for side in sides)]
        if "train" in sides and "val" not in sides:
            lines.append("val: images/train  # this data set has no side to validate on")
        lines += ["names:", *(f"  {number}: {name}" for number, name in enumerate(CLASSES))]
        whole_text(out / "yolo" / "data.yaml", "\n".join(lines) + "\n")


def _line(one: LabelledImage, box: Box) -> str:
    return yolo_line(class_number(box.type), corner_and_size(box), columns=one.image.columns, rows=one.image.rows)
