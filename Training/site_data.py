"""A site's own labelled folder -> what the trainers of placement learn from. Formats: docs/annotations.md.

`read_site(folder, needs="labels")`: pictures with maps of anatomy for the danger trainer.
`read_site(folder, needs="sites")`: pictures with places of lesions for the location trainer.
Everything that `hiresmedsynth data check` calls a problem is refused before the first picture is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.annotated_image import AnnotatedImage
from HiResMedSynthLib.annotation_check import FolderCheck, check_annotations, refuse_problems
from HiResMedSynthLib.annotation_needs import (
    CLASSES,
    Kind,
    Needs,
    kind_of,
    refuse_without_sites,
    table_of_structures,
)
from HiResMedSynthLib.annotations import LabelledFolder, open_annotations
from HiResMedSynthLib.image import MedicalImage
from Training.site_labels import Site, label_map, lesion_sites

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledPicture:
    """One film, or one slice of a CT, with its labels.

    Args:
        pixels: float32 `[row, column]` in modality units (HU for CT); bright = dense. Of a CT the rows run to the back
            and the columns to the patient's left, however the file stores them.
        labels: uint8 `[row, column]`: k = `classes[k - 1]`, 0 = none of those that the folder labels, 255 = ignore.
            None where sites are asked for.
        sites: (row, column, diameter in mm) of the lesions that the picture cuts; centres of pixels are whole numbers.
        classes: the network's classes, in its order.
        labelled: those of them that the folder labels at all: only of these does a 0 say "not here".
        spacing_mm: (between rows, between columns); None where unknown (films with labels only).
        patient: id for the split; never shown.
        held_out: whether training must not see it.
        modality: DICOM modality, OT where nobody said.
        name: file in the folder, and slice.
    """

    pixels: NDArray[np.float32]
    labels: NDArray[np.uint8] | None
    sites: tuple[Site, ...]
    classes: tuple[str, ...]
    labelled: tuple[str, ...]
    spacing_mm: tuple[float, float] | None
    patient: str
    held_out: bool
    modality: str
    name: str


def read_site(
    folder: str | Path,
    *,
    needs: Needs,
    kind: Kind | None = None,
    classes: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> list[LabelledPicture]:
    """The pictures of a labelled folder, patients split by the project's rule; a volume gives slices.

    Args:
        folder: any format of docs/annotations.md.
        needs: "labels" for maps of anatomy, "sites" for places of lesions.
        kind: what the trainer is for; None takes what the folder holds.
        classes: the network's classes; none: those of the danger networks for this kind.
        names: a site's name of a class -> the network's, "ignore" for a class that is to teach nothing.
        progress: called with (done, total, name).

    Raises:
        ReadError: anything that stops training; `where` is relative to the folder.
        SettingsError: a class has no counterpart in the network.
    """
    return list(site_pictures(folder, needs=needs, kind=kind, classes=classes, names=names, progress=progress))


def site_pictures(
    folder: str | Path,
    *,
    needs: Needs,
    kind: Kind | None = None,
    classes: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Iterator[LabelledPicture]:
    """The same one by one, for folders that don't fit into memory; all checks are done before the first."""
    opened = open_annotations(folder)
    check = check_annotations(opened, progress=progress)
    refuse_problems(check, folder)
    found, where = kind_of(check, kind, needs, where=opened.folder.name), opened.folder.name
    classes = tuple(classes) or CLASSES[found]
    if needs == "labels":
        table = table_of_structures(check, found, classes, names or {}, where=where)
    else:
        table = {}
        refuse_without_sites(check, where=where)
    return _pictures(opened, check, needs, classes, table)


def site_films(folder: str | Path, *, progress: Progress | None = None) -> Iterator[tuple[AnnotatedImage, str]]:
    """(film as it lies, patient) of a folder with lesions on films; checks as in `site_pictures`."""
    opened = open_annotations(folder)
    check = check_annotations(opened, progress=progress)
    refuse_problems(check, folder)
    kind_of(check, "film", "sites", where=opened.folder.name)
    refuse_without_sites(check, where=opened.folder.name)
    patients = {one.number: one.patient for one in check.images}
    for number, read in enumerate(opened.readers, start=1):
        yield read(), patients[number]


def _pictures(
    opened: LabelledFolder, check: FolderCheck, needs: Needs, classes: tuple[str, ...], table: dict[str, int]
) -> Iterator[LabelledPicture]:
    labelled = tuple(name for number, name in enumerate(classes, start=1) if number in table.values())
    facts = {one.number: one for one in check.images}
    for number, read in enumerate(opened.readers, start=1):
        one = read()
        structures = any(mark.shape == "segment" and mark.class_name in table for mark in one.marks)
        if needs == "labels" and one.class_map is None and not structures:
            continue  # nobody looked for structures here
        labels = label_map(one, table) if needs == "labels" else None
        sites = lesion_sites(one) if needs == "sites" else {}
        held = labels.any(axis=(1, 2)) if labels is not None else np.isin(np.arange(one.image.slices), list(sites))
        turn = _upright(one.image)
        for index in chosen_slices(np.asarray(held)):
            spacing = one.image.pixel_spacing_mm
            yield LabelledPicture(
                pixels=_dense_bright(one.image, index)[turn],
                labels=None if labels is None else labels[index][turn],
                sites=tuple(_turned(site, one.image, turn) for site in sites.get(index, ())),
                classes=classes,
                labelled=labelled,
                spacing_mm=spacing,
                patient=facts[number].patient,
                held_out=facts[number].patient in check.held_out,
                modality=one.image.modality,
                name=one.name if one.image.slices == 1 else f"{one.name}, slice {index}",
            )


def _upright(image: MedicalImage) -> tuple[slice, slice]:
    """How to index rows and columns so that a CT lies face up with its left at the right; others stay as they are."""
    if image.units != "HU":
        return slice(None), slice(None)
    back, left = image.directions_lps[1, 1] > 0, image.directions_lps[0, 0] > 0
    return slice(None, None, 1 if back else -1), slice(None, None, 1 if left else -1)


def _turned(site: Site, image: MedicalImage, turn: tuple[slice, slice]) -> Site:
    """The site in the picture turned upright."""
    row, column, diameter = site
    flips = [part.step == -1 for part in turn]
    return image.rows - 1 - row if flips[0] else row, image.columns - 1 - column if flips[1] else column, diameter


def _dense_bright(image: MedicalImage, index: int) -> NDArray[np.float32]:
    """`[row, column]` of a slice; a MONOCHROME1 film turned round within its own range."""
    plane: NDArray[np.float32] = image.pixels[index].astype(np.float32)
    return plane if image.bright_is_dense else plane.max() + plane.min() - plane


def chosen_slices(holds: NDArray[np.bool_]) -> list[int]:
    """The slices that hold labels, and as many without, evenly spaced over the rest; all of a single picture."""
    if len(holds) == 1:
        return [0]
    with_labels, without = np.flatnonzero(holds), np.flatnonzero(~holds)
    count = min(max(len(with_labels), 1), len(without))
    even = without[np.linspace(0, len(without) - 1, count).round().astype(int)] if count else without[:0]
    return sorted({*with_labels.tolist(), *even.tolist()})
