"""What the trainers (Training/, docs/annotations.md) need of a labelled folder, and which of them take it as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

from HiResMedSynthLib.annotation_check import FolderCheck
from HiResMedSynthLib.annotation_classes import (
    CT_CLASSES,
    FILM_CLASSES,
    IGNORE,
    IGNORED,
    LESIONS,
    class_table,
    is_anatomy,
    is_lesion,
    is_nodule,
)
from HiResMedSynthLib.annotation_facts import ImageFacts
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError, SettingsError

Needs = Literal["labels", "sites"]  # maps of structures, places of lesions
NEEDS: tuple[Needs, ...] = get_args(Needs)
Kind = Literal["CT", "film"]
CLASSES: dict[Kind, tuple[str, ...]] = {"CT": CT_CLASSES, "film": FILM_CLASSES}
TRAINERS: dict[tuple[Needs, Kind], tuple[str, ...]] = {
    ("labels", "CT"): ("train_danger --domain lung-ct",),
    ("labels", "film"): ("train_danger --domain film",),
    ("sites", "CT"): ("train_location", "train_yolo", "train_detector"),
    ("sites", "film"): ("train_density",),
}
OF_LESIONS: dict[Kind, str] = {
    "CT": "Places of lesions on CT are for Training.train_location.",
    "film": "Places of lesions on chest films are for Training.train_density.",
}
LEAST_PATIENTS = 5  # with lesions on films, to learn a density from
NO_SPACING = "Write it into the column spacing_mm of patients.csv."


def trainers_for(check: FolderCheck) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(trainers that take the folder as it is, where there are none: why, a sentence a need)."""
    taken: list[str] = []
    reasons: list[str] = []
    for needs in NEEDS:
        try:
            kind = kind_of(check, None, needs, where="")
            if needs == "labels":
                table_of_structures(check, kind, CLASSES[kind], {}, where="")
            elif (needs, kind) in TRAINERS:
                refuse_without_sites(check, where="")
                if kind == "film":
                    _refuse_without_nodules(check)
            taken += TRAINERS.get((needs, kind), ())
        except HiResMedSynthError as error:
            reasons.append(f"{error.what}. {error.remedy}".strip())
    return tuple(taken), () if taken else tuple(dict.fromkeys(reasons))


def kind_of(check: FolderCheck, wanted: Kind | None, needs: Needs, *, where: str) -> Kind:
    """What the folder's images are; refused where the trainer is for another kind.

    Raises:
        ReadError: they are none that a trainer takes; `where` names the folder.
    """
    kinds = {one.kind for one in check.images}
    if kinds == {"CT"}:
        found: Kind = "CT"
    elif kinds <= {"film", ""}:  # "": a PNG or the like, nobody said that it is no film
        found = "film"
    else:
        told = ", ".join(sorted({one.modality for one in check.images}))
        raise ReadError(f"images of modality {told} are none that a network here is trained on", where=where,
                        remedy="Give a CT in HU, or films.")  # fmt: skip
    if found == "CT" and any(one.units != "HU" for one in check.images):
        raise ReadError("pictures of CT slices hold no Hounsfield units", where=where,
                        remedy="Give DICOM, NIfTI or NRRD whose values are HU; a script that writes them says "
                        "MedicalImage(units='HU').")  # fmt: skip
    deep = [one for one in check.images if one.shape[0] > 1]
    if found == "film" and deep:
        raise ReadError("a film has one slice, this image has several", where=deep[0].name,
                        remedy="Where it is a CT, write that into the column modality of patients.csv.")  # fmt: skip
    turned = [one for one in check.images if found == "CT" and not one.axial]
    if turned:
        raise ReadError("its slices are not axial", where=turned[0].name, remedy="Store it as axial slices.")
    if wanted is not None and found != wanted:
        other = OF_LESIONS[found] if needs == "sites" else f"Use {TRAINERS['labels', found][0]} for masks on these."
        raise ReadError(f"this trainer wants {wanted} images, the folder holds {found} images", where=where,
                        remedy=f"Give {wanted} images. {other}")  # fmt: skip
    return found


def table_of_structures(
    check: FolderCheck, kind: Kind, classes: Sequence[str], names: Mapping[str, str], *, where: str
) -> dict[str, int]:
    """Label of each of the folder's anatomical classes, as `class_table` gives it; something is labelled by them.

    Raises:
        ReadError, SettingsError: a trainer of maps can't learn from the folder; `where` names the folder.
    """
    table = class_table([*check.counts()], classes, names)
    taught = [name for name, label in table.items() if label != IGNORE]

    def holds(one: ImageFacts) -> bool:
        return any(one.voxels.get(name) or one.segments.get(name) for name in taught)

    if not any(holds(one) for one in check.images):
        raise ReadError("no structure of the body is labelled in this folder", where=where,
                        remedy=f"Give masks of lungs, bone ... {OF_LESIONS[kind]}")  # fmt: skip
    for one in check.images:
        pair = next((pair for pair in one.overlapping if len({table.get(name) for name in pair} - {None}) > 1), None)
        if pair is not None:
            raise ReadError(f"'{pair[0]}' and '{pair[1]}' claim the same pixels", where=one.name,
                            remedy="Correct one of them: a pixel has one class.")  # fmt: skip
    flat = [one for one in check.images if one.kind == "CT" and one.spacing_mm is None]
    if flat:
        raise ReadError("its pixel spacing is unknown", where=flat[0].name, remedy=NO_SPACING)
    _refuse_one_sided(check, holds, where)
    return table


def refuse_without_sites(check: FolderCheck, *, where: str) -> None:
    """Refuses a folder from which no places of lesions can be learned.

    Raises:
        ReadError, SettingsError: why; `where` names the folder.
    """
    painted = [name for name in check.classes.values() if not is_anatomy(name) and name.lower() not in IGNORED]
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
        raise ReadError("no lesion is labelled in this folder", where=where,
                        remedy="Mark lesions (boxes, points with a diameter, segments); masks of anatomy are for "
                        "Training.train_danger.")  # fmt: skip
    flat = [one for one in check.images if one.spacing_mm is None]
    if flat:
        what = "its pixel spacing is unknown, so no lesion has a size in mm"
        raise ReadError(what, where=flat[0].name, remedy=NO_SPACING)
    unsized = [one for one in check.images if one.unsized]
    if unsized:
        raise ReadError("a point without a diameter has no size", where=unsized[0].name,
                        remedy="Give its diameter in the panel, or draw a box.")  # fmt: skip
    _refuse_one_sided(check, holds, where)


def _refuse_without_nodules(check: FolderCheck) -> None:
    """Refuses films from which Training.train_density can't learn."""
    having = {one.patient for one in check.images if any(is_nodule(name) for name in (*one.marks, *one.voxels))}
    if 0 < len(having) < LEAST_PATIENTS:
        raise ReadError(f"only {len(having)} patient(s) have nodules or masses on their films",
                        remedy=f"Label {LEAST_PATIENTS} patients' or more, for Training.train_density.")  # fmt: skip
    if not having:
        raise ReadError("no nodule or mass is labelled on these films",
                        remedy="Name other lesions of the lung by --class of Training.train_density, which learns "
                        "from nodules and masses.")  # fmt: skip


def _refuse_one_sided(check: FolderCheck, holds: Callable[[ImageFacts], bool], where: str) -> None:
    """Refuses a folder whose labelled images all fall on one side of the split."""
    sides = {one.patient in check.held_out for one in check.images if holds(one)}
    if len(sides) < 2:
        raise ReadError("all patients with such labels fall on one side of the split", where=where,
                        remedy="Label images of more patients.")  # fmt: skip
