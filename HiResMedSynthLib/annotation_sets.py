"""What only the whole folder shows: patients and their split, copies, balance of classes, mixed modalities, spacing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np

from HiResMedSynthLib.annotation_facts import Finding, ImageFacts, spacing_oddity

NEAR_COPY = 0.95  # of the product of two thumbnails
RARE = 0.05  # share of the patients below which a class can hardly be learned
FEWEST_FOR_RARE = 3  # patients; with fewer no class is rare or common
NO_CLASS = ("ignore", "unknown", "void")  # names of pixels that teach nothing
BLOCK = 1024  # thumbnails compared at once


def findings_of(images: Sequence[ImageFacts], classes: Collection[str]) -> list[Finding]:
    """Findings about the folder as a whole.

    Args:
        images: the images that could be read.
        classes: names of the folder's list of classes.
    """
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        lambda: _labels(images, classes),
        lambda: _patients(images),
        lambda: _copies(images),
        lambda: _near_copies(images),
        lambda: _modalities(images),
        lambda: _spacing(images),
    )
    return [finding for check in checks for finding in check()]


def _numbers(images: Sequence[ImageFacts]) -> tuple[int, ...]:
    return tuple(one.number for one in images)


def _labels(images: Sequence[ImageFacts], classes: Collection[str]) -> Iterator[Finding]:
    if not images:
        return
    if not any(one.labelled for one in images):
        yield Finding(
            severity="problem", what="nothing is labelled in any image", remedy="Label lesions or structures."
        )
        return
    for one in (one for one in images if one.contradictions):
        pairs = "; ".join(f"'{a}' and '{b}'" for a, b in one.contradictions[:3])
        yield Finding(severity="problem", what=f"labels contradict each other: {pairs} mark the same place",
                      remedy="Keep the right one.", images=(one.number,), where=one.name)  # fmt: skip
    repeated = [one for one in images if one.repeated]
    if repeated:
        yield Finding(severity="warning", what=f"{sum(one.repeated for one in repeated)} marks repeat another",
                      remedy="Remove the copies.", images=_numbers(repeated))  # fmt: skip
    unsized = [one for one in images if one.unsized]
    if unsized:
        yield Finding(severity="warning", what=f"{sum(one.unsized for one in unsized)} points have no diameter",
                      remedy="Give it in the panel: the location trainer wants it.",
                      images=_numbers(unsized))  # fmt: skip
    labelled = len({one.patient for one in images if one.labelled})
    for name in sorted({*classes, *(name for one in images for name in one.marks)} - set(NO_CLASS)):
        holders = {one.patient for one in images if one.marks.get(name) or one.voxels.get(name)}
        if not holders:
            yield Finding(
                severity="warning", what=f"class '{name}' occurs in no image", remedy="Remove it, or label it."
            )
        elif labelled >= FEWEST_FOR_RARE and len(holders) < max(2, RARE * labelled):
            yield Finding(severity="warning", what=f"class '{name}' is rare: in {len(holders)} of {labelled} patients",
                          remedy="Label more of it, or join it with another class.")  # fmt: skip


def _patients(images: Sequence[ImageFacts]) -> Iterator[Finding]:
    unknown = [one for one in images if not one.patient_known]
    if unknown:
        what = f"of {len(unknown)} images nobody says whose they are: each is taken for a patient of its own"
        remedy = "Add patients.csv (file,patient): one patient on both sides of the split flatters every figure."
        yield Finding(severity="warning", what=what, remedy=remedy, images=_numbers(unknown))
    patients = {one.patient for one in images}
    if len(patients) == 1:
        yield Finding(severity="problem", what="all images are of one patient: nothing can be held out",
                      remedy="Give at least two; where ids were removed, add patients.csv (file,patient).")  # fmt: skip
    elif 1 < len(patients) < 16:
        what = f"only {len(patients)} patients: what is measured on those held out is vague"
        yield Finding(severity="warning", what=what, remedy="Give 16 or more.")


def _copies(images: Sequence[ImageFacts]) -> Iterator[Finding]:
    groups: dict[str, list[ImageFacts]] = defaultdict(list)
    for one in images:
        groups[one.pixels_sha256].append(one)
    for group in (group for group in groups.values() if len(group) > 1):
        known = {one.patient for one in group if one.patient_known}
        if len({one.labels_sha256 for one in group}) > 1:
            what, severity = "the same image stands here several times with different labels", True
        elif len(known) > 1:
            what, severity = "the same image stands here as that of several patients", True
        elif len({one.patient for one in group}) > 1:
            what, severity = "the same image stands here several times, and would be taken for several patients", True
        else:
            what, severity = "the same image stands here several times", False
        yield Finding(severity="problem" if severity else "warning", what=what, remedy="Keep one of them.",
                      images=_numbers(group), where=", ".join(one.name for one in group[:3]))  # fmt: skip


def _near_copies(images: Sequence[ImageFacts]) -> Iterator[Finding]:
    """Pairs of different patients whose thumbnails are alike; volumes with volumes, pictures with pictures."""
    for deep in (False, True):
        group = [one for one in images if (one.shape[0] > 1) == deep]
        if len(group) < 2:
            continue
        small = np.stack([one.thumbnail for one in group])
        for first in range(0, len(group), BLOCK):
            alike = np.argwhere(small[first : first + BLOCK] @ small.T > NEAR_COPY)
            for a, b in ((first + int(row), int(column)) for row, column in alike if column > first + row):
                one, other = group[a], group[b]
                if one.patient != other.patient and one.pixels_sha256 != other.pixels_sha256:
                    yield Finding(severity="warning", what="two images of different patients look like copies of one",
                                  remedy="Look at them; if they are one, keep one or name the same patient.",
                                  images=(one.number, other.number), where=f"{one.name}, {other.name}")  # fmt: skip


def _modalities(images: Sequence[ImageFacts]) -> Iterator[Finding]:
    made = [one for one in images if one.synthetic]
    if made:
        yield Finding(severity="warning", what=f"{len(made)} images are synthetic by their header",
                      remedy="Train on real images.", images=_numbers(made))  # fmt: skip
    kinds = Counter(one.kind for one in images)
    told = {kind: count for kind, count in kinds.items() if kind}
    text = ", ".join(f"{count} {kind}" for kind, count in sorted(told.items()))
    if len(told) > 1:
        yield Finding(severity="problem", what=f"the images are of several modalities: {text}",
                      remedy="Make a folder for each; a network is trained on one.")  # fmt: skip
    if kinds[""]:
        what = f"{kinds['']} images don't tell their modality" + (f", the others are: {text}" if told else "")
        remedy = "Write it into the column modality of patients.csv; else they are taken for films."
        unsaid = _numbers([one for one in images if not one.kind])
        yield Finding(severity="warning", what=what, remedy=remedy, images=unsaid)


def _spacing(images: Sequence[ImageFacts]) -> Iterator[Finding]:
    turned = [one for one in images if one.kind == "CT" and not one.axial]
    if turned:
        yield Finding(severity="warning", what=f"{len(turned)} CTs are not stored as axial slices",
                      remedy="Store them as axial slices: the trainers refuse others.",
                      images=_numbers(turned))  # fmt: skip
    missing = [one for one in images if one.spacing_mm is None]
    if missing:
        what = f"{len(missing)} images tell no pixel spacing: sizes in mm are unknown"
        remedy = "Write it into the column spacing_mm of patients.csv."
        yield Finding(severity="warning", what=what, remedy=remedy, images=_numbers(missing))
    odd: dict[str, list[ImageFacts]] = defaultdict(list)
    for one in images:
        if oddity := spacing_oddity(one):
            odd[oddity].append(one)
    for oddity, group in odd.items():
        yield Finding(severity="warning", what=f"odd spacing: {oddity}", remedy="Check it against the scanner's own.",
                      images=_numbers(group), where=group[0].name)  # fmt: skip
