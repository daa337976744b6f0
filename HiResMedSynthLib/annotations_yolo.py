"""Images with YOLO boxes, as Ultralytics, Darknet and labelling tools lay them out -> marks of shape box.

`images/X.png` with `labels/X.txt` (train and val below or above them), or `X.txt` beside `X.png`. A line is `class x y
width height`, parts of the picture, class numbers from 0. An image without a text file, or with an empty one, shows
nothing of the classes. Of data.yaml only `names` is read: its paths are never followed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from HiResMedSynthLib.annotated_image import MOST_MARKS, AnnotatedImage, Mark
from HiResMedSynthLib.annotations_files import bad, image_of, is_image_name, sound, stem_of, text_of
from HiResMedSynthLib.annotations_patients import patient_of
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError
from HiResMedSynthLib.image import MedicalImage

CLASS_LISTS = ("classes.txt", "labels/classes.txt", "obj.names")
TABLES = ("data.yaml", "data.yml", "dataset.yaml")
LINE = "Write each line as: class x y width height, all but the class as parts (0 to 1) of the picture."
ROUNDING = 2e-3  # of the picture: what four decimals of a box at the border explain


def yolo_class_file(names: list[str]) -> str | None:
    """The file among these that names YOLO's classes, or None."""
    return next((name for name in (*TABLES, *CLASS_LISTS) if name in names), None)


def yolo_images(
    folder: Path, names: list[str]
) -> tuple[dict[int, str], list[tuple[str, Callable[[], AnnotatedImage]]]]:
    """(classes by number, (name, what reads the image) of each).

    Args:
        folder: the labelled folder.
        names: all its files.

    Raises:
        ReadError: no image, no list of classes, or two lists that differ.
    """
    classes = _classes(folder, names)
    inside_images = [name for name in names if is_image_name(name) and "images" in PurePosixPath(name).parts[:-1]]
    images = inside_images or [name for name in names if is_image_name(name)]
    sound(bool(images), "there is no image beside the YOLO labels", "images", "Put the images into images/.")
    there, used = set(names), set()
    result: list[tuple[str, Callable[[], AnnotatedImage]]] = []
    for name in images:
        labels = [text for text in _label_names(name) if text in there]
        used |= set(labels)
        result.append((name, partial(_read, folder, name, labels, classes)))
    for name in names:
        lists = PurePosixPath(name).name in ("classes.txt", "notes.txt")
        if "labels" in PurePosixPath(name).parts[:-1] and name.endswith(".txt") and name not in used and not lists:
            result.append((name, partial(_refuse_lonely, name)))
    stems = [stem_of(name) for name in images]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None) if len(set(stems)) < len(stems) else None
    sound(twice is None, "two images would share one label file", twice or "", "Give them different names.")
    return classes, result


def _label_names(image: str) -> list[str]:
    """Where the boxes of an image may lie: `images` in its path replaced by `labels`, or beside it."""
    stem = PurePosixPath(stem_of(image))
    levels = [k for k, part in enumerate(stem.parts[:-1]) if part == "images"]
    found = [PurePosixPath(*stem.parts[:k], "labels", *stem.parts[k + 1 :]) for k in levels]
    return [f"{place}.txt" for place in [*found, stem]]


def _refuse_lonely(name: str) -> AnnotatedImage:
    raise bad("it labels an image that is not here", name, "Add the image, or remove this file.")


def _read(folder: Path, name: str, labels: list[str], classes: dict[int, str]) -> AnnotatedImage:
    image = image_of(folder, name)
    sound(image.slices == 1, "it holds several slices, YOLO labels single pictures", name, "Give label masks instead.")
    sound(len(labels) < 2, "it has two label files", name, "Remove one of them.")
    marks: list[Mark] = []
    problems: list[ReadError] = []
    for label in labels:
        for number, line in enumerate(text_of(folder, label).splitlines(), start=1):
            if not line.strip():
                continue
            sound(number <= MOST_MARKS, f"more than {MOST_MARKS} boxes in one image are not kept", label)
            try:
                marks.append(_box(line, classes, image))
            except HiResMedSynthError as error:
                problems.append(bad(error.what, f"{label}, line {number}", error.remedy))
    if problems:
        first = problems[0]
        more = f" (and {len(problems) - 1} more line(s) of this file)" if len(problems) > 1 else ""
        raise bad(f"{first.what}{more}", first.where or name, first.remedy)
    return AnnotatedImage(image=image, marks=tuple(marks), name=name, patient=patient_of(folder, name))


def _box(line: str, classes: dict[int, str], image: MedicalImage) -> Mark:
    """The pixels that a box touches, as a mark."""
    parts = line.split()
    what = "an outline is no box" if len(parts) > 6 else f"it holds {len(parts)} values, not 5"
    sound(len(parts) == 5, what, "", LINE)
    try:
        number, (x, y, width, height) = int(parts[0]), map(float, parts[1:])
    except ValueError:
        raise bad("it is no box", "", LINE) from None
    sound(all(map(math.isfinite, (x, y, width, height))), "it holds a value that is no number", "", LINE)
    sound(number in classes, f"class {number} is not in the list of {len(classes)} classes (from 0)", "",
          "Correct the number, or add the class to the list.")  # fmt: skip
    scaled = max(x, y, width, height) <= 1 + ROUNDING
    sound(scaled, "its values are not parts of the picture (0 to 1)", "", LINE)
    sound(width > 0 and height > 0, "the box is empty", "", "Remove it, or draw it anew.")
    ends = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    within = min(ends) >= -ROUNDING and max(ends) <= 1 + ROUNDING
    sound(within, "the box reaches out of the picture", "", "Draw it anew within the picture.")
    left, right = (min(max(end, 0.0), 1.0) * image.columns for end in ends[::2])
    top, bottom = (min(max(end, 0.0), 1.0) * image.rows for end in ends[1::2])
    row, column = min(math.floor(top + 1e-3), image.rows - 1), min(math.floor(left + 1e-3), image.columns - 1)
    rows, columns = max(math.ceil(bottom - 1e-3) - row, 1), max(math.ceil(right - 1e-3) - column, 1)
    return Mark(
        class_name=classes[number],
        shape="box",
        place=(0, row + rows // 2, column + columns // 2),
        corner=(0, row, column),
        mask=np.ones((1, rows, columns), dtype=bool),
    )


def _classes(folder: Path, names: list[str]) -> dict[int, str]:
    """Class names by number, from classes.txt or the `names` of data.yaml."""
    file = yolo_class_file(names)
    sound(file is not None, "no file names the classes", "classes.txt", "Add classes.txt, a class a line.")
    assert file is not None
    text = text_of(folder, file)
    if file in TABLES:
        classes = _yaml_names(text)
        sound(bool(classes), "it holds no names: the classes are unknown", file, "Write names: [nodule, ...] into it.")
        other = next((name for name in CLASS_LISTS if name in names), None)
        if other is not None:
            listed = dict(enumerate(text_of(folder, other).split("\n")))
            same = classes == {number: name.strip() for number, name in listed.items() if name.strip()}
            sound(same, f"it names other classes than {other}", file, "Make them agree, or remove one.")
    else:
        lines = [line.strip() for line in text.splitlines()]
        classes = {number: name for number, name in enumerate(lines) if name}
        sound(bool(classes), "it names no class", file, "Write a class a line.")
    for number, name in classes.items():
        try:
            Mark(class_name=name, shape="point", place=(0, 0, 0))
        except HiResMedSynthError as error:
            raise bad(f"class {number}: {error.what}", file, "Correct the name.") from error
    return classes


def _yaml_names(text: str) -> dict[int, str]:
    """The `names` of a data.yaml: `[a, b]`, `{0: a}`, or a block of `- a` or `0: a` lines; {} where there are none."""
    found = re.search(r"^names[ \t]*:[ \t]*(\[[^\]]*\]|\{[^}]*\})?", text, re.M)
    if found is None:
        return {}
    flow = found.group(1)
    if flow:
        parts = [part for part in re.findall(r"\s*((?:'[^']*'|\"[^\"]*\"|[^,'\"])+)", flow[1:-1]) if part.strip()]
        lines = parts if flow[0] == "{" else [f"- {part}" for part in parts]
    else:
        rest = text[found.end() :].split("\n")[1:]
        end = next((k for k, line in enumerate(rest) if line.strip() and not re.match(r"\s+\S|-\s", line)), len(rest))
        lines = rest[:end]
    names: dict[int, str] = {}
    for line in lines:
        entry = re.match(r"\s*(?:-|(\d{1,5})\s*:)\s*(.*)", line)
        if entry and entry.group(2).strip():
            names[int(entry.group(1)) if entry.group(1) else len(names)] = _unquoted(entry.group(2))
    return names


def _unquoted(text: str) -> str:
    text = text.strip()
    if text[:1] == '"':
        quoted = re.match(r'"(?:[^"\\]|\\.)*"', text)
        try:
            return str(json.loads(quoted.group(0))) if quoted else text
        except ValueError:
            return text
    if text[:1] == "'":
        return text[1:].split("'")[0]
    return text.split(" #")[0].strip()
