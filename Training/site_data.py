"""A site's own labelled folder -> what the trainers of placement learn from. Formats: docs/annotations.md.

`read_site(folder, needs="labels")`: pictures with maps of anatomy for the danger trainer.
`read_site(folder, needs="sites")`: pictures with places of lesions for the location trainer.
Everything that `hiresmedsynth data check` calls a problem is refused before the first picture is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.annotation_check import FolderCheck, check_annotations, refuse_problems
from HiResMedSynthLib.annotation_facts import ImageFacts
from HiResMedSynthLib.annotations import LabelledFolder, open_annotations
from HiResMedSynthLib.errors import ReadError, SettingsError
from HiResMedSynthLib.image import MedicalImage
from Training.site_classes import CT_CLASSES, FILM_CLASSES, IGNORE, IGNORED, LESIONS, class_table, is_anatomy, is_lesion
from Training.site_labels import Site, label_map, lesion_sites

Needs = Literal["labels", "sites"]
Kind = Literal["CT", "film"]
Progress = Callable[[int, int, str], None]
NO_SPACING = "Write it into the column spacing_mm of patients.csv."


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
    found = _kind(check, kind, opened)
    classes = tuple(classes) or (CT_CLASSES if found == "CT" else FILM_CLASSES)
    if needs == "labels":
        table = class_table([*check.counts()], classes, names or {})
        _refuse_without_labels(check, table, opened)
    else:
        table = {}
        _refuse_without_sites(check, opened)
    return _pictures(opened, check, needs, classes, table)


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


def _kind(check: FolderCheck, wanted: Kind | None, opened: LabelledFolder) -> Kind:
    """What the folder's images are; refused where the trainer is for another kind."""
    kinds = {one.kind for one in check.images}
    if kinds == {"CT"}:
        found: Kind = "CT"
    elif kinds <= {"film", ""}:  # "": a PNG or the like, nobody said that it is no film
        found = "film"
    else:
        told = ", ".join(sorted({one.modality for one in check.images}))
        raise _refused(f"images of modality {told} are none that a network here is trained on", opened,
                       "Give a CT in HU, or films.")  # fmt: skip
    if found == "CT" and any(one.units != "HU" for one in check.images):
        raise _refused("pictures of CT slices hold no Hounsfield units", opened, "Give DICOM, NIfTI or NRRD.")
    deep = [one for one in check.images if one.shape[0] > 1]
    if found == "film" and deep:
        raise ReadError("a film has one slice, this image has several", where=deep[0].name,
                        remedy="Where it is a CT, write that into the column modality of patients.csv.")  # fmt: skip
    turned = [one for one in check.images if found == "CT" and not one.axial]
    if turned:
        raise ReadError("its slices are not axial", where=turned[0].name, remedy="Store it as axial slices.")
    if wanted is not None and found != wanted:
        raise _refused(f"this trainer wants {wanted} images, the folder holds {found} images", opened,
                       "Give a folder of those images; train_danger has --domain film for films.")  # fmt: skip
    return found


def _refuse_without_labels(check: FolderCheck, table: dict[str, int], opened: LabelledFolder) -> None:
    taught = [name for name, label in table.items() if label != IGNORE]

    def holds(one: ImageFacts) -> bool:
        return any(one.voxels.get(name) or one.segments.get(name) for name in taught)

    if not any(holds(one) for one in check.images):
        raise _refused("no structure of the body is labelled in this folder", opened,
                       "Give masks of lungs, bone ...; boxes of lesions are for Training.train_location.")  # fmt: skip
    for one in check.images:
        pair = next((pair for pair in one.overlapping if len({table.get(name) for name in pair} - {None}) > 1), None)
        if pair is not None:
            raise ReadError(f"'{pair[0]}' and '{pair[1]}' claim the same pixels", where=one.name,
                            remedy="Correct one of them: a pixel has one class.")  # fmt: skip
    flat = [one for one in check.images if one.kind == "CT" and one.spacing_mm is None]
    if flat:
        raise ReadError("its pixel spacing is unknown", where=flat[0].name, remedy=NO_SPACING)
    _refuse_one_sided(check, opened, holds)


def _refuse_without_sites(check: FolderCheck, opened: LabelledFolder) -> None:
    painted = [name for name in opened.classes.values() if not is_anatomy(name) and name.lower() not in IGNORED]
    voxels = {name for one in check.images for name, count in one.voxels.items() if count}
    strange = [name for name in painted if name in voxels and not is_lesion(name)]
    if strange:
        raise SettingsError(
            f"'{strange[0]}' is neither a lesion nor a structure that is known",
            remedy=f"Rename it in the folder's list, or call it 'ignore'. Lesions are: {', '.join(LESIONS)}.",
        )
    lesion_voxels = {name for name in voxels if is_lesion(name)}

    def holds(one: ImageFacts) -> bool:
        return any(not is_anatomy(name) for name in one.marks) or any(one.voxels.get(name) for name in lesion_voxels)

    if not any(holds(one) for one in check.images):
        raise _refused("no lesion is labelled in this folder", opened,
                       "Mark lesions (boxes, points with a diameter, segments); masks of anatomy are for "
                       "Training.train_danger.")  # fmt: skip
    flat = [one for one in check.images if one.spacing_mm is None]
    if flat:
        what = "its pixel spacing is unknown, so no lesion has a size in mm"
        raise ReadError(what, where=flat[0].name, remedy=NO_SPACING)
    unsized = [one for one in check.images if one.unsized]
    if unsized:
        raise ReadError("a point without a diameter has no size", where=unsized[0].name,
                        remedy="Give its diameter in the panel, or draw a box.")  # fmt: skip
    _refuse_one_sided(check, opened, holds)


def _refuse_one_sided(check: FolderCheck, opened: LabelledFolder, holds: Callable[[ImageFacts], bool]) -> None:
    """Refuses a folder whose labelled images all fall on one side of the split."""
    sides = {one.patient in check.held_out for one in check.images if holds(one)}
    if len(sides) < 2:
        raise _refused("all patients with such labels fall on one side of the split", opened,
                       "Label images of more patients.")  # fmt: skip


def _refused(what: str, opened: LabelledFolder, remedy: str) -> ReadError:
    return ReadError(what, where=opened.folder.name, remedy=remedy)
