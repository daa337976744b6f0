"""Labelled folders: where real lesions and structures are in real images. docs/annotations.md describes each format.

The format is told by what lies in the folder. No file outside of it is ever opened, whatever a name or header says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from HiResMedSynthLib.annotated_image import AnnotatedImage, ClassMap, Index, Mark, Shape
from HiResMedSynthLib.annotations_coco import CocoFolder
from HiResMedSynthLib.annotations_dicom import holds_segmentation, segmented_images
from HiResMedSynthLib.annotations_files import file_names
from HiResMedSynthLib.annotations_masks import NNUNET_FILE, NNUNET_IMAGES, mask_folder, mask_images, nnunet_images
from HiResMedSynthLib.annotations_patients import Told, read_patients, with_told
from HiResMedSynthLib.annotations_yolo import yolo_class_file, yolo_images
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError
from HiResMedSynthLib.write_annotations import COCO_FILE, write_annotations

__all__ = [
    "COCO_FILE", "AnnotatedImage", "ClassMap", "Format", "Index", "LabelledFolder", "Mark", "ReadImages", "Shape",
    "open_annotations", "read_annotations", "write_annotations",
]  # fmt: skip

Format = Literal["annotate", "coco", "yolo", "masks", "nnunet", "dicom-seg"]
FORMAT_NAMES: dict[str, str] = {
    "annotate": "HiResMedSynth annotation folder",
    "coco": "pictures with a COCO file",
    "yolo": "images with YOLO boxes",
    "masks": "images with label masks",
    "nnunet": "nnU-Net raw folder",
    "dicom-seg": "DICOM series with DICOM SEG",
}
DATASET_LABELS = ("coco/", "nnunet/", "yolo/")  # folders of a data set (docs/datasets.md) that can be opened


@dataclass(frozen=True, kw_only=True)
class LabelledFolder:
    """A folder of which the lists were read; the images come one by one.

    Args:
        folder: where it is.
        format: what it was taken for.
        classes: class names by their number in the folder's own counting.
        names: names of the images, relative to the folder.
        readers: what reads each of them; raises ReadError where something is wrong with the image or its labels.
        notes: what was left out, one sentence each.
    """

    folder: Path
    format: Format
    classes: dict[int, str]
    names: tuple[str, ...]
    readers: tuple[Callable[[], AnnotatedImage], ...]
    notes: tuple[str, ...] = ()


class ReadImages(tuple[AnnotatedImage, ...]):
    """Images with their labels; `format` says what the folder was taken for, `classes` names its classes by number."""

    format: Format
    classes: dict[int, str]

    def __new__(cls, images: Iterable[AnnotatedImage], *, format: Format, classes: dict[int, str]) -> ReadImages:
        """The images with what is true of all of them."""
        result = super().__new__(cls, images)
        result.format, result.classes = format, classes
        return result


def read_annotations(folder: str | Path) -> ReadImages:
    """All images of a folder with their labels; `.format` says which of the known formats it was.

    Raises:
        ReadError: something is missing, damaged, or contradicts itself; `where` is relative to the folder.
    """
    opened = open_annotations(folder)
    return ReadImages((read() for read in opened.readers), format=opened.format, classes=opened.classes)


def open_annotations(folder: str | Path) -> LabelledFolder:
    """The folder's format, classes and images; each image is read when its reader is called.

    Raises:
        ReadError: its format is not known or not plain, or a list of it is missing or damaged.
    """
    folder = Path(folder).absolute()
    names = file_names(folder)
    kind = _format(folder, names)
    notes: list[str] = []
    if kind in ("annotate", "coco"):
        coco = CocoFolder(folder, _coco_file(names) or COCO_FILE)
        kind, classes, images = "annotate" if coco.own else "coco", coco.classes, coco.images()
    elif kind == "nnunet":
        classes, images = nnunet_images(folder, names)
    elif kind == "yolo":
        classes, images = yolo_images(folder, names)
    elif kind == "masks":
        classes, images = mask_images(folder, names, mask_folder(names) or "masks")
    else:
        classes, images, notes = segmented_images(folder, names)
    told = read_patients(folder, [name for name, _ in images])
    readers = [partial(_read, name, read, told) for name, read in images]
    return LabelledFolder(
        folder=folder,
        format=kind,
        classes=classes,
        names=tuple(name for name, _ in images),
        readers=tuple(readers),
        notes=tuple(notes),
    )


def _read(name: str, read: Callable[[], AnnotatedImage], told: Mapping[str, Told] | None) -> AnnotatedImage:
    try:
        one = read()
        return with_told(one if one.name else replace(one, name=name), told)
    except HiResMedSynthError as error:
        raise ReadError(error.what, where=error.where or name, remedy=error.remedy) from error


def _coco_file(names: list[str]) -> str | None:
    """Our own COCO file, or the only other JSON file that no other format has a use for."""
    if COCO_FILE in names:
        return COCO_FILE
    plain = [name for name in names if name.endswith(".json") and "/" not in name]
    found = [name for name in plain if name not in (NNUNET_FILE, "classes.json", "notes.json")]
    return found[0] if len(found) == 1 else None


def _format(folder: Path, names: list[str]) -> Format:
    """What the folder holds.

    Raises:
        ReadError: nothing that is known, or labels of two kinds.
    """
    if COCO_FILE in names:
        return "annotate"
    if {"card.json", "manifest.csv"} <= set(names):
        inside = (PurePosixPath(name).parts for name in names if name.startswith(DATASET_LABELS))
        layouts = {"/".join(parts[: 1 if parts[0] == "yolo" else 2]) for parts in inside}
        raise ReadError(
            "this is a data set, whose layouts are folders of their own", where=folder.name,
            remedy=f"Name one of them: {', '.join(sorted(layouts))}." if layouts
            else "Make it with formats coco, yolo or nnunet too, and name one of those folders.",
        )  # fmt: skip
    found: list[Format] = []
    if any(name.startswith(f"{NNUNET_IMAGES}/") for name in names):
        return "nnunet"
    if _coco_file(names):
        found.append("coco")
    own = any(name.startswith("labels_yolo/") for name in names)  # what we wrote, without its JSON file
    texts = [name for name in names if name.endswith(".txt") and "labels" in PurePosixPath(name).parts[:-1]]
    boxes = [name for name in texts if PurePosixPath(name).name != "classes.txt"]
    masks = None if own else mask_folder(names)
    if masks:
        found.append("masks")
    if not own and (boxes or (yolo_class_file(names) and not masks)):
        found.append("yolo")
    if len(found) > 1:
        kinds = " and ".join(FORMAT_NAMES[kind] for kind in found)
        raise ReadError(
            f"it holds labels of two kinds: {kinds}", where=folder.name, remedy="Keep one kind of labels in a folder."
        )
    if found:
        return found[0]
    if not own and holds_segmentation(folder, names):
        return "dicom-seg"
    raise ReadError(
        f"this folder holds no {COCO_FILE} and no other labels that are known",
        where=folder.name,
        remedy="Give images with a COCO file, YOLO boxes (labels/*.txt, classes.txt), label masks (masks/, "
        "classes.json), an nnU-Net folder, or a DICOM series with its SEG.",
    )
