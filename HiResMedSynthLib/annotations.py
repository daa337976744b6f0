"""Annotation folders: where real lesions are in real images. Reads and checks what write_annotations wrote, and COCO.

docs/annotations.md describes the folder. No file outside of it is ever opened, whatever a name or header says.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from HiResMedSynthLib.annotated_image import MOST_MARKS, AnnotatedImage, Index, Mark, Shape, refuse_unless
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError
from HiResMedSynthLib.image import MedicalImage, Photometric, SpacingSource, Window
from HiResMedSynthLib.read import PICTURE_MAGIC, read_image
from HiResMedSynthLib.read_dicom import looks_like_dicom
from HiResMedSynthLib.write_annotations import COCO_FILE, FACTS, nrrd_array, write_annotations

__all__ = ["COCO_FILE", "AnnotatedImage", "Index", "Mark", "Shape", "read_annotations", "write_annotations"]

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


def read_annotations(folder: str | Path) -> tuple[AnnotatedImage, ...]:
    """The images and marks of a folder that we wrote, or of pictures with a COCO file of another tool.

    Raises:
        ReadError: something is missing, damaged, or contradicts itself; `where` is relative to the folder.
    """
    folder = Path(folder)
    file = _coco_file(folder)
    document = _parsed(file)
    pictures = {picture.id: picture for picture in document.images}
    classes = {category.id: category.name for category in document.categories}
    own = document.hiresmedsynth
    volumes = {volume.file_name: volume for volume in own.volumes} if own else {}
    names = list(volumes) if own else [picture.file_name for picture in document.images]
    twice = len(pictures) < len(document.images) or len(set(names)) < (len(own.volumes) if own else len(names))
    _sound(not twice and bool(names), "two pictures have the same id or file, or there is none", file.name)
    images = {name: _own_image(folder, volumes[name]) if own else _picture(folder, name) for name in names}
    for picture in document.images:
        place = f"{file.name}, image {picture.id}"
        _sound(picture.file_name in images, "it names a file that is not listed", place)
        image = images[picture.file_name]
        picture.slice = picture.slice if own else 0
        fits = (picture.height, picture.width) == image.shape[1:] and 0 <= picture.slice < image.slices
        _sound(fits, "its size or slice is not that of its file", place)
    groups: dict[str, dict[tuple[bool, int], list[_Annotation]]] = {name: {} for name in names}
    for one in document.annotations:
        place = f"{file.name}, annotation {one.id}"
        _sound(one.category_id in classes, f"class {one.category_id} is unknown", place)
        _sound(one.image_id in pictures, f"image {one.image_id} is unknown", place)
        number = one.hiresmedsynth.mark if own and one.hiresmedsynth else None
        key = (True, one.id) if number is None else (False, number)
        groups[pictures[one.image_id].file_name].setdefault(key, []).append(one)
    result = []
    for name in names:
        keys = sorted(groups[name])  # marks by number, then what another tool added
        marks = []
        for key in keys:
            parts = groups[name][key]
            try:
                marks.append(_mark(parts, pictures, classes[parts[0].category_id], images[name], by_us=not key[0]))
            except HiResMedSynthError as error:
                place = f"{file.name}, annotation {parts[0].id}"
                raise ReadError(error.what, where=place, remedy=error.remedy) from error
        try:
            whole = AnnotatedImage(image=images[name], marks=tuple(marks))
        except HiResMedSynthError as error:
            raise ReadError(error.what, where=name, remedy=error.remedy) from error
        if own:
            _check_mask(folder, volumes[name].mask, whole, [number for added, number in keys if not added])
        result.append(whole)
    return tuple(result)


def _coco_file(folder: Path) -> Path:
    found = [folder / COCO_FILE] if (folder / COCO_FILE).is_file() else sorted(folder.glob("*.json"))
    if len(found) != 1:
        raise ReadError(
            f"this folder holds no {COCO_FILE}", where=folder, remedy="Name a folder of images with their COCO file."
        )
    return found[0]


def _parsed(file: Path) -> _Document:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number")

    try:
        return _Document.model_validate(json.loads(file.read_text(encoding="utf-8-sig"), parse_constant=refuse))
    except ValidationError as error:
        place = ".".join(str(part)[:40] for part in error.errors()[0]["loc"]) or "its beginning"
        why = f"at {place}: {error.errors()[0]['msg'].lower()}"
    except (ValueError, OSError, RecursionError) as error:
        why = str(error).split("\n")[0][:120]
    raise _bad(f"it is no COCO file ({why})", file.name)


def _own_image(folder: Path, volume: _Volume) -> MedicalImage:
    facts: dict[str, Any] = {name: getattr(volume.facts, name) for name in FACTS}
    facts["positions_lps_mm"], facts["directions_lps"] = (
        np.array(facts[name], dtype=np.float64) for name in ("positions_lps_mm", "directions_lps")
    )
    array = _read_nrrd(folder, volume.file_name)
    try:
        facts["window"] = None if (shown := facts["window"]) is None else Window(center=shown[0], width=shown[1])
        return MedicalImage(pixels=array, **facts)
    except HiResMedSynthError as error:
        raise ReadError(error.what, where=volume.file_name, remedy=error.remedy) from error


def _picture(folder: Path, name: str) -> MedicalImage:
    """A picture of another tool: by its content a PNG, JPEG, TIFF or DICOM file, which name no further file."""
    path = _inside(folder, name, ("", "images"))
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
        _sound(head.startswith(PICTURE_MAGIC) or looks_like_dicom(head), "it is no PNG, JPEG, TIFF or DICOM file", name)
        image = read_image(path)
    except (HiResMedSynthError, OSError) as error:
        told = error if isinstance(error, HiResMedSynthError) else _bad("it can't be read", name)
        raise ReadError(told.what, where=name, remedy=told.remedy) from error
    _sound(image.slices == 1, "it holds several slices, COCO counts single pictures", name)
    return image


def _inside(folder: Path, name: str, below: tuple[str, ...] = ("",)) -> Path:
    """The file of that name in the folder; refuses names and links that lead out of it."""
    parts = PurePosixPath(name).parts
    plain = bool(parts) and not any(part in ("..", "/", "//") or set(part) & set("\\:\0") for part in parts)
    _sound(plain, "a file's name leads out of the folder", name[:80])
    try:
        root = folder.resolve()
        for found in (folder / first / name for first in below):
            if found.is_file() and found.resolve().is_relative_to(root):
                return found
    except (OSError, ValueError):
        pass
    raise _bad("this file is missing, or is a link that leads out of the folder", name[:80])


def _read_nrrd(folder: Path, name: str) -> NDArray[Any]:
    """The array of an NRRD file; one whose header names another file is refused, whatever that file is."""
    path = _inside(folder, name)
    with path.open("rb") as stream:
        header = b""
        while (line := stream.readline(4096)).rstrip(b"\r\n") and len(header) < 65536:
            header += line
    attached = header.startswith(b"NRRD") and len(header) < 65536 and not re.search(rb"data\s*file", header, re.I)
    _sound(attached, "it is no NRRD file with its voxels inside", name)
    try:
        return nrrd_array(path)
    except RuntimeError as error:  # its text names paths
        raise _bad("it can't be read: it is damaged or cut off, in colour, or too large", name) from error


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
    mask = _read_nrrd(folder, name)
    _sound(mask.shape == whole.image.shape, "the mask has another shape than its image", name)
    counted = AnnotatedImage(image=whole.image, marks=whole.marks[: len(numbers)])
    same = np.array_equal(mask, counted.label_map(numbers))
    _sound(same, f"the mask shows other marks than {COCO_FILE}: one of them was changed alone", name)


def _sound(condition: bool, what: str, where: str) -> None:
    if not condition:
        raise _bad(what, where)


def _bad(what: str, where: str) -> ReadError:
    return ReadError(what, where=where, remedy="Save the annotations again from the panel, or mend the folder.")
