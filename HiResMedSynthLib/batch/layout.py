"""What the layouts of a data set share: the images of a case with their labels, and the records they are listed from.

A layout writes a case's files below a folder, at their final relative places, and says in plain values what its lists
need of them. When all cases are whole, it writes its lists from those values, in the order of the cases' numbers.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.annotations_patients import COLUMNS, MODALITIES, PATIENTS_FILE
from HiResMedSynthLib.batch.picture_form import PictureForm, picture_form
from HiResMedSynthLib.batch.spec import Output, Side
from HiResMedSynthLib.compose import Box, Composition
from HiResMedSynthLib.export.identity import OutputIdentity
from HiResMedSynthLib.image import MedicalImage

Kind = Literal["lesions", "negative", "without"]
Entry = dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImage:
    """An image of a case.

    Args:
        name: of its files, without suffix.
        kind: with lesions, a negative case, or the same as another without its lesions.
        image: its pixels.
        mask: uint16 `[slice, row, column]`, number of the lesion or 0.
        boxes: of the lesions that it shows.
        slices: those in which a lesion is, or would be: what is written where single pictures are.
        form: how its pixels are stored in pictures, the same for a pair.
    """

    name: str
    kind: Kind
    image: MedicalImage
    mask: NDArray[np.uint16]
    boxes: tuple[Box, ...]
    slices: tuple[int, ...]
    form: PictureForm


@dataclass(frozen=True, kw_only=True, eq=False)
class MadeCase:
    """A case that was drawn and composed.

    Args:
        number, name, side: of the plan.
        composition: background, lesions and both together; a negative case leaves the lesions out.
        negative: whether it is one.
        paired: whether it is also written without its lesions.
        identity: UIDs and dates of its DICOM objects.
    """

    number: int
    name: str
    side: Side
    composition: Composition
    negative: bool
    paired: bool
    identity: OutputIdentity

    def images(self) -> Iterator[LabelledImage]:
        """The images of the case."""
        whole = self.composition
        slices = tuple(sorted({box.slice for box in whole.boxes}))
        form = picture_form(whole.image, whole.background)
        if not self.negative:
            yield LabelledImage(
                name=self.name, kind="lesions", image=whole.image, mask=whole.instance_mask, boxes=whole.boxes,
                slices=slices, form=form,
            )  # fmt: skip
        if self.negative or self.paired:
            yield LabelledImage(
                name=self.name if self.negative else f"{self.name}_without",
                kind="negative" if self.negative else "without",
                image=whole.background,
                mask=np.zeros(whole.image.shape, np.uint16),
                boxes=(),
                slices=slices,
                form=form,
            )


Entries = Callable[[], Iterator[tuple[Side, Entry]]]


class Layout(Protocol):
    """One way to lay a data set out; each of its entries has the name of its image under "image"."""

    def write(self, made: MadeCase, root: Path) -> list[Entry]:
        """Writes a case's files below `root`, at their final places; returns what the lists need."""

    def paths(self, entry: Entry) -> list[str]:
        """The files and folders of an entry, relative to the data set."""

    def finish(self, entries: Entries, out: Path, output: Output) -> None:
        """Writes the lists of a whole data set; `entries` goes through all of them, in order, as often as called."""


def facts_of(one: LabelledImage) -> Entry:
    """What each entry tells of its image: its name and what its file may not tell."""
    spacing = one.image.pixel_spacing_mm
    square = spacing is not None and spacing[0] == spacing[1]
    return {
        "image": one.name,
        "modality": one.image.modality if one.image.modality in MODALITIES else "OT",
        "spacing_mm": spacing[0] if square and spacing is not None else None,
    }


def write_patients(folder: Path, files: Iterable[tuple[str, Entry]]) -> None:
    """Writes patients.csv of a labelled folder: whose each image is, as a number, and what its file doesn't tell.

    Args:
        folder: of the layout.
        files: (name relative to it, entry).
    """
    aside = folder / ".patients.csv.part"
    with aside.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for name, entry in files:
            spacing = "" if entry["spacing_mm"] is None else f"{entry['spacing_mm']:g}"
            writer.writerow((name, entry["patient"], spacing, entry["modality"]))
    aside.replace(folder / PATIENTS_FILE)


def slice_name(one: LabelledImage, index: int) -> str:
    """Name of a single picture of an image."""
    return one.name if one.image.slices == 1 else f"{one.name}_s{index + 1:04d}"


def write_joined(stream: TextIO, parts: Iterable[Entry]) -> None:
    """Writes the parts of a JSON list one by one: those of a large data set don't fit into memory."""
    for number, part in enumerate(parts):
        stream.write((",\n" if number else "") + json.dumps(part))


def whole_text(path: Path, text: str) -> None:
    """Writes a text file aside, then in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
