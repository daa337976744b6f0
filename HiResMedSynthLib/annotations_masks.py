"""Images with label masks -> class maps: `images/` with `masks/` or `labels/`, and nnU-Net's raw folders.

A mask has the name of its image, its size, and a whole number per voxel: 0 = nothing, else a class. An image without a
mask is refused: that nothing was drawn and that nobody looked are two things.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from HiResMedSynthLib.annotated_image import AnnotatedImage, ClassMap, Mark, label_counts
from HiResMedSynthLib.annotations_files import bad, image_of, is_image_name, labels_of, sound, stem_of, text_of
from HiResMedSynthLib.annotations_patients import patient_of
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError
from HiResMedSynthLib.image import MedicalImage

CLASS_FILES = ("classes.json", "classes.txt")
NNUNET_FILE, NNUNET_IMAGES, NNUNET_LABELS = "dataset.json", "imagesTr", "labelsTr"
SAME_PLACE = 0.5  # of a voxel: how far mask and image may lie apart
HINT = 'Write {"1": "lungs", "2": "bone"} into classes.json, or a class a line into classes.txt (1 first).'
Images = list[tuple[str, Callable[[], AnnotatedImage]]]


def mask_folder(names: list[str]) -> str | None:
    """ "masks" or "labels", whichever holds masks as image files; None where there is none, both are refused."""
    found = [kind for kind in ("masks", "labels") if any(_below(name, kind) and is_image_name(name) for name in names)]
    sound(len(found) < 2, "there are masks in masks/ and in labels/", "masks", "Keep one of the two.")
    return found[0] if found else None


def _below(name: str, kind: str) -> bool:
    return kind in PurePosixPath(name).parts[:-1]


def mask_images(folder: Path, names: list[str], kind: str) -> tuple[dict[int, str], Images]:
    """(classes by number, (name, what reads the image) of each) of `images/` with `masks/` or `labels/`.

    Raises:
        ReadError: the classes have no names, or there is no image.
    """
    file = next((name for name in CLASS_FILES if name in names), None)
    sound(file is not None, "no file names the classes of the masks", CLASS_FILES[0], HINT)
    assert file is not None
    classes = _listed(folder, file)
    images: dict[str, str] = {}
    for name in (name for name in names if _below(name, "images") and is_image_name(name)):
        same = images.setdefault(_swapped(stem_of(name), "images", kind), name)
        sound(same == name, "two images have the same name, so that a mask can't tell whose it is", name,
              "Keep one of them.")  # fmt: skip
    sound(bool(images), "there is no image", "images", "Put the images into images/.")
    masks = [name for name in names if _below(name, kind) and is_image_name(name)]
    return classes, _paired(folder, images, {stem_of(name): name for name in masks}, masks, classes)


def _swapped(stem: str, old: str, new: str) -> str:
    return "/".join(new if part == old else part for part in stem.split("/"))


def nnunet_images(folder: Path, names: list[str]) -> tuple[dict[int, str], Images]:
    """(classes by number, (name, what reads the image) of each) of imagesTr, labelsTr and dataset.json of nnU-Net.

    Raises:
        ReadError: dataset.json is missing or tells no classes, or images have several channels.
    """
    document = _json(folder, NNUNET_FILE)
    listed = document.get("labels")
    told: dict[str, Any] = listed if isinstance(listed, dict) else {}
    sound(bool(told), "it holds no labels", NNUNET_FILE, "Write its labels, as nnU-Net does.")
    channels = document.get("channel_names", document.get("modality", {}))
    single = isinstance(channels, dict) and len(channels) < 2
    sound(single, "its images have several channels", NNUNET_FILE, "Give images of one channel.")
    modality = next(iter(channels.values()), "")
    classes = _by_number(told, NNUNET_FILE)
    images = {}
    for name in (name for name in names if name.startswith(f"{NNUNET_IMAGES}/") and is_image_name(name)):
        stem, channel = re.fullmatch(r"(.*?)(?:_(\d{4}))?", stem_of(name), re.S).groups()  # type: ignore[union-attr]
        sound(channel in (None, "0000"), "it is a second channel of an image", name, "Give images of one channel.")
        images[_swapped(stem, NNUNET_IMAGES, NNUNET_LABELS)] = name
    sound(bool(images), "there is no image", NNUNET_IMAGES, "Put the images there.")
    masks = [name for name in names if name.startswith(f"{NNUNET_LABELS}/") and is_image_name(name)]
    paired = _paired(folder, images, {stem_of(name): name for name in masks}, masks, classes)
    is_ct = isinstance(modality, str) and modality.strip().upper() == "CT"
    return classes, [(name, partial(_as_ct, read) if is_ct else read) for name, read in paired]


def _as_ct(read: Callable[[], AnnotatedImage]) -> AnnotatedImage:
    """The same as CT in HU, which dataset.json says and the file can't."""
    one = read()
    return replace(one, image=replace(one.image, modality="CT", units="HU"))


def _paired(folder: Path, images: dict[str, str], by_stem: dict[str, str], masks: list[str], classes: dict[int, str]
) -> Images:  # fmt: skip
    sound(len(by_stem) == len(masks), "two masks have the same name", masks[0] if masks else "", "Keep one of them.")
    found: Images = [
        (name, partial(_read, folder, name, by_stem.get(stem), classes)) for stem, name in sorted(images.items())
    ]
    lonely = [name for stem, name in by_stem.items() if stem not in images]
    return found + [(name, partial(_refuse_lonely, name)) for name in lonely]


def _refuse_lonely(name: str) -> AnnotatedImage:
    raise bad("it is the mask of an image that is not here", name, "Add the image, or remove the mask.")


def _read(folder: Path, name: str, mask: str | None, classes: dict[int, str]) -> AnnotatedImage:
    if mask is None:
        raise bad("this image has no mask", name, "Add it (all 0 where nothing is there), or leave the image out.")
    image = image_of(folder, name)
    labels, volume = labels_of(folder, mask)
    strange = sorted(set(np.flatnonzero(label_counts(labels)).tolist()) - {0, *classes})
    if strange == [255] and bool(((labels == 0) | (labels == 255)).all()):
        raise bad("it holds 0 and 255, a picture of black and white", mask, "Write 1 (the class's number) for 255.")
    told = ", ".join(map(str, strange[:5]))
    sound(not strange, f"class {told} has no name: the list has {', '.join(map(str, sorted(classes)))}", mask,
          "Add the class to the list, or correct the mask.")  # fmt: skip
    if volume is not None:
        _refuse_other_place(image, volume, mask)
    try:
        class_map = ClassMap(labels=labels, names=classes)
        return AnnotatedImage(image=image, class_map=class_map, name=name, patient=patient_of(folder, name))
    except HiResMedSynthError as error:
        raise bad(error.what, mask, error.remedy) from error


def _refuse_other_place(image: MedicalImage, mask: MedicalImage, name: str) -> None:
    """Refuses a mask volume that lies elsewhere in the patient than its image, where both tell."""
    if image.shape != mask.shape or image.pixel_spacing_mm is None or mask.pixel_spacing_mm is None:
        return
    corners = [(0, 0, 0), (image.slices - 1, image.rows - 1, image.columns - 1)]
    apart = np.abs(image.index_to_lps(corners) - mask.index_to_lps(corners)).max()
    near = apart <= SAME_PLACE * max(image.spacing_mm)
    sound(bool(near), f"it lies {apart:.1f} mm from its image, by the headers", name,
          "Export it on the grid of its image.")  # fmt: skip


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        document = json.loads(text_of(folder, name))
    except (ValueError, RecursionError) as error:
        raise bad("it is no JSON file", name, "Mend it.") from error
    if isinstance(document, list):  # a list of classes
        return {"labels": document}
    sound(isinstance(document, dict), "it is no table", name, HINT)
    return dict(document)


def _listed(folder: Path, file: str) -> dict[int, str]:
    """Classes of classes.json or classes.txt; a first entry "background" is number 0, else the first is 1."""
    if file.endswith(".json"):
        document = _json(folder, file)
        told = document["labels"] if set(document) == {"labels"} else document
        if isinstance(told, dict):
            return _by_number(told, file)
        lines = [str(entry) for entry in told] if isinstance(told, list) else []
    else:
        lines = [line.strip() for line in text_of(folder, file).splitlines() if line.strip()]
    first = 0 if lines and lines[0].strip().lower() == "background" else 1
    return _by_number({str(number): name for number, name in enumerate(lines, start=first)}, file)


def _by_number(told: dict[str, Any], file: str) -> dict[int, str]:
    """{number: name} of {number: name} or {name: number}; 0 is left out, as it is no class."""
    classes: dict[int, str] = {}
    for key, value in told.items():
        number, name = (key, value) if isinstance(value, str) else (value, key)
        whole = type(number) is int or (isinstance(number, str) and number.strip().isdecimal())
        sound(whole and isinstance(name, str), f"class '{str(key)[:40]}' has no single number", file, HINT)
        value = int(number)
        sound(0 <= value <= 255 and value not in classes, f"class {value} stands twice or is above 255", file, HINT)
        classes[value] = name.strip()
    classes.pop(0, None)
    sound(bool(classes), "it names no class", file, HINT)
    for number, name in classes.items():
        try:
            Mark(class_name=name, shape="point", place=(0, 0, 0))
        except HiResMedSynthError as error:
            raise ReadError(f"class {number}: {error.what}", where=file, remedy="Correct the name.") from error
    return classes
