"""Annotation folders that we wrote, and pictures with a COCO file of another tool. docs/annotations.md describes them.

No file outside of the folder is ever opened, whatever a name or header says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from HiResMedSynthLib.annotated_image import MOST_MARKS, AnnotatedImage, Index, Mark, Shape, refuse_unless
from HiResMedSynthLib.annotations_files import bad, nrrd_of, picture_of, sound
from HiResMedSynthLib.annotations_patients import patient_of
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError
from HiResMedSynthLib.image import MedicalImage, Photometric, SpacingSource, Window
from HiResMedSynthLib.write_annotations import COCO_FILE, FACTS

PICTURES_BELOW = ("", "images")  # where pictures of other tools lie
LARGEST_COCO = 2**29  # bytes; run lengths of many segments are long

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Facts(BaseModel):
    modality: str = Field(pattern="^[A-Z]{2}$")
    units: Literal["HU", "stored"]
    pixel_spacing_mm: tuple[Finite, Finite] | None
    spacing_source: SpacingSource
    positions_lps_mm: list[tuple[Finite, Finite, Finite]]
    directions_lps: tuple[tuple[Finite, Finite, Finite], tuple[Finite, Finite, Finite]]
    slice_thickness_mm: Finite | None
    photometric: Photometric
    rescale: tuple[Finite, Finite]
    bits_stored: int | None = Field(ge=1, le=32)
    stored_signed: bool
    padding_value: Finite | None
    window: tuple[Finite, Finite] | None


class _Volume(BaseModel):
    file_name: str
    mask: str
    facts: _Facts


class _Own(BaseModel):
    version: Literal[1]
    volumes: list[_Volume] = Field(min_length=1)


class _OwnMark(BaseModel):
    mark: int = Field(ge=1, le=MOST_MARKS)
    shape: Shape
    place: Index
    diameter_mm: Finite | None
    comment: str


class _Picture(BaseModel):
    id: int
    file_name: str
    width: int
    height: int
    slice: int = 0


class _Category(BaseModel):
    id: int
    name: str


class _Annotation(BaseModel):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[Finite, Finite, Finite, Finite]
    segmentation: Any = None
    hiresmedsynth: _OwnMark | None = None


class _Document(BaseModel):
    images: list[_Picture]
    categories: list[_Category]
    annotations: list[_Annotation]
    hiresmedsynth: _Own | None = None


class CocoFolder:
    """The images of a folder with a COCO file, each read when it is asked for.

    Raises:
        ReadError: something of the file is missing, damaged, or contradicts itself; `where` is relative to the folder.
    """

    def __init__(self, folder: Path, file_name: str) -> None:
        self.folder, self.file_name = folder, file_name
        document = _parsed(folder / file_name)
        self.pictures = {picture.id: picture for picture in document.images}
        self.classes = {category.id: category.name for category in document.categories}
        self.own = document.hiresmedsynth is not None
        listed = document.hiresmedsynth.volumes if document.hiresmedsynth else []
        self.volumes = {volume.file_name: volume for volume in listed}
        self.names = list(self.volumes) if self.own else [picture.file_name for picture in document.images]
        count = len(listed) if self.own else len(self.names)
        twice = len(self.pictures) < len(document.images) or len(set(self.names)) < count
        sound(not twice and bool(self.names), "two pictures have the same id or file, or there is none", file_name)
        for picture in document.images:
            place = f"{file_name}, image {picture.id}"
            known = picture.file_name in self.volumes or not self.own
            sound(known, "it names a file that is not listed", place)
            picture.slice = picture.slice if self.own else 0
        self.groups: dict[str, dict[tuple[bool, int], list[_Annotation]]] = {name: {} for name in self.names}
        self.wrong: dict[str, ReadError] = {}  # what only spoils one image waits until it is read
        for one in document.annotations:
            place = f"{file_name}, annotation {one.id}"
            sound(one.image_id in self.pictures, f"image {one.image_id} is unknown", place)
            name = self.pictures[one.image_id].file_name
            if one.category_id not in self.classes:
                self.wrong.setdefault(name, bad(f"class {one.category_id} is unknown", place))
                continue
            number = one.hiresmedsynth.mark if self.own and one.hiresmedsynth else None
            key = (True, one.id) if number is None else (False, number)
            self.groups[name].setdefault(key, []).append(one)

    def images(self) -> list[tuple[str, Callable[[], AnnotatedImage]]]:
        """(name, what reads the image) of each."""
        return [(name, partial(self._read, name)) for name in self.names]

    def _read(self, name: str) -> AnnotatedImage:
        if name in self.wrong:
            raise self.wrong[name]
        image = _own_image(self.folder, self.volumes[name]) if self.own else _picture(self.folder, name)
        for picture in self.pictures.values():
            if picture.file_name == name:
                fits = (picture.height, picture.width) == image.shape[1:] and 0 <= picture.slice < image.slices
                place = f"{self.file_name}, image {picture.id}"
                sound(fits, "its size or slice is not that of its file", place)
        groups = self.groups[name]
        keys = sorted(groups)  # marks by number, then what another tool added
        marks = []
        for key in keys:
            parts = groups[key]
            class_name = self.classes[parts[0].category_id]
            try:
                marks.append(_mark(parts, self.pictures, class_name, image, by_us=not key[0]))
            except HiResMedSynthError as error:
                place = f"{self.file_name}, annotation {parts[0].id}"
                raise ReadError(error.what, where=place, remedy=error.remedy) from error
        try:
            patient = "" if self.own else patient_of(self.folder, name, PICTURES_BELOW)
            whole = AnnotatedImage(image=image, marks=tuple(marks), name=name, patient=patient)
        except HiResMedSynthError as error:
            raise ReadError(error.what, where=name, remedy=error.remedy) from error
        if self.own:
            _check_mask(self.folder, self.volumes[name].mask, whole, [number for added, number in keys if not added])
        return whole


def _parsed(file: Path) -> _Document:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number")

    try:
        sound(file.stat().st_size <= LARGEST_COCO, "it is too large", file.name, "Split the folder.")
        return _Document.model_validate(json.loads(file.read_text(encoding="utf-8-sig"), parse_constant=refuse))
    except ValidationError as error:
        place = ".".join(str(part)[:40] for part in error.errors()[0]["loc"]) or "its beginning"
        why = f"at {place}: {error.errors()[0]['msg'].lower()}"
    except (ValueError, OSError, RecursionError) as error:
        why = str(error).split("\n")[0][:120]
    raise bad(f"it is no COCO file ({why})", file.name)


def _own_image(folder: Path, volume: _Volume) -> MedicalImage:
    facts: dict[str, Any] = {name: getattr(volume.facts, name) for name in FACTS}
    facts["positions_lps_mm"], facts["directions_lps"] = (
        np.array(facts[name], dtype=np.float64) for name in ("positions_lps_mm", "directions_lps")
    )
    array, oddities = nrrd_of(folder, volume.file_name)
    try:
        facts["window"] = None if (shown := facts["window"]) is None else Window(center=shown[0], width=shown[1])
        return MedicalImage(pixels=array, oddities=tuple(oddities), **facts)
    except HiResMedSynthError as error:
        raise ReadError(error.what, where=volume.file_name, remedy=error.remedy) from error


def _picture(folder: Path, name: str) -> MedicalImage:
    """A picture of another tool, in the folder or in its `images`."""
    image = picture_of(folder, name, PICTURES_BELOW)
    sound(image.slices == 1, "it holds several slices, COCO counts single pictures", name)
    return image


def _mark(
    parts: list[_Annotation], pictures: dict[int, _Picture], class_name: str, image: MedicalImage, *, by_us: bool
) -> Mark:
    """The mark that the annotations of its slices tell."""
    own = parts[0].hiresmedsynth if by_us else None
    slices = [pictures[one.image_id].slice for one in parts]
    same = all(one.category_id == parts[0].category_id and own in (None, one.hiresmedsynth) for one in parts)
    refuse_unless(same and len(set(slices)) == len(slices), "the slices of one mark contradict each other")
    boxes = [_box(one, image) for one in parts]
    if own and own.shape == "point":
        return Mark(
            class_name=class_name, shape="point", place=own.place, diameter_mm=own.diameter_mm, comment=own.comment
        )
    first = min(slices)
    if own and own.shape == "segment":
        mask = np.zeros((max(slices) + 1 - first, image.rows, image.columns), dtype=bool)
        for index, one in zip(slices, parts, strict=True):
            mask[index - first] = _plane(one.segmentation, image)
        corner: Index = (first, 0, 0)
    else:
        same = len(set(boxes)) == 1 and max(slices) - first + 1 == len(slices)
        refuse_unless(same, "a box is not the same in all its slices")
        row, column, rows, columns = boxes[0]
        mask, corner = np.ones((len(slices), rows, columns), dtype=bool), (first, row, column)
    return Mark(
        class_name=class_name,
        shape=own.shape if own else "box",
        place=own.place if own else (first, corner[1] + mask.shape[1] // 2, corner[2] + mask.shape[2] // 2),
        diameter_mm=own.diameter_mm if own else None,
        corner=corner,
        mask=mask,
        comment=own.comment if own else "",
    )


def _box(one: _Annotation, image: MedicalImage) -> tuple[int, int, int, int]:
    """(row, column, rows, columns) of the pixels that a COCO box touches."""
    x, y, width, height = one.bbox
    inside = x >= 0 and y >= 0 and x + width <= image.columns + 1e-3 and y + height <= image.rows + 1e-3
    refuse_unless(inside and width > 0 and height > 0, "its box is empty or reaches out of the picture")
    column, row = math.floor(x), math.floor(y)
    ends = min(math.ceil(x + width - 1e-3), image.columns), min(math.ceil(y + height - 1e-3), image.rows)
    return row, column, max(ends[1] - row, 1), max(ends[0] - column, 1)


def _plane(runs: Any, image: MedicalImage) -> NDArray[np.bool_]:
    """The plane of a segment from its run lengths."""
    counts = runs.get("counts") if isinstance(runs, dict) else None
    whole = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    size = image.rows * image.columns
    refuse_unless(whole and counts is not None and sum(counts) == size, "its run lengths are not those of its picture")
    flat = np.repeat(np.arange(len(counts or ())) % 2 == 1, counts or [])
    return flat.reshape(image.columns, image.rows).T


def _check_mask(folder: Path, name: str, whole: AnnotatedImage, numbers: list[int]) -> None:
    mask, _ = nrrd_of(folder, name)
    sound(mask.shape == whole.image.shape, "the mask has another shape than its image", name)
    counted = AnnotatedImage(image=whole.image, marks=whole.marks[: len(numbers)])
    same = np.array_equal(mask, counted.label_map(numbers))
    sound(same, f"the mask shows other marks than {COCO_FILE}: one of them was changed alone", name)
