"""Checks a labelled folder before anything is trained on it: labels, spacing, copies, balance, patients, modality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.annotation_facts import Finding, ImageFacts, facts_of
from HiResMedSynthLib.annotation_picture import labelled_picture
from HiResMedSynthLib.annotation_sets import findings_of
from HiResMedSynthLib.annotations import FORMAT_NAMES, Format, LabelledFolder, open_annotations
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError
from HiResMedSynthLib.patient_split import held_out_patients

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderCheck:
    """What was found in a labelled folder.

    Args:
        format: what the folder was taken for.
        classes: class names by number.
        total: number of images, those that can't be read too.
        images: facts of those that can be read.
        findings: problems first.
        pictures: (number of the image, uint8 `[row, column, 3]` with its labels drawn) of as many as were asked for.
    """

    format: Format
    classes: dict[int, str]
    total: int
    images: tuple[ImageFacts, ...]
    findings: tuple[Finding, ...]
    pictures: tuple[tuple[int, NDArray[np.uint8]], ...] = ()

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that stop training."""
        return tuple(finding for finding in self.findings if finding.severity == "problem")

    @cached_property
    def held_out(self) -> frozenset[str]:
        """The patients that training will not see."""
        labelled = {one.patient for one in self.images if one.labelled}
        return held_out_patients({one.patient for one in self.images}, labelled)

    def counts(self) -> dict[str, dict[str, int]]:
        """By class: images that hold it, marks, voxels of the class map."""
        names = [*dict.fromkeys([*self.classes.values(), *(name for one in self.images for name in one.marks)])]
        return {
            name: {
                "images": sum(bool(one.marks.get(name, 0) or one.voxels.get(name, 0)) for one in self.images),
                "marks": sum(one.marks.get(name, 0) for one in self.images),
                "voxels": sum(one.voxels.get(name, 0) for one in self.images),
            }
            for name in names
        }

    def facts(self) -> dict[str, Any]:
        """The same for JSON. It names files, as mending needs them, but no patient: they are counted."""
        return {
            "format": self.format,
            "classes": {str(number): name for number, name in self.classes.items()},
            "images": self.total,
            "readable": len(self.images),
            "unlabelled": sum(not one.labelled for one in self.images),
            "patients": len({one.patient for one in self.images}),
            "patients_held_out": len(self.held_out),
            "images_held_out": sum(one.patient in self.held_out for one in self.images),
            "images_of_unknown_patients": sum(not one.patient_known for one in self.images),
            "modalities": {kind: sum(one.modality == kind for one in self.images) for kind in self.modalities},
            "counts": self.counts(),
            "problems": [_plain(finding) for finding in self.problems],
            "warnings": [_plain(finding) for finding in self.findings if finding.severity == "warning"],
        }

    @property
    def modalities(self) -> list[str]:
        """The modalities that occur."""
        return sorted({one.modality for one in self.images})

    @property
    def format_name(self) -> str:
        """The format in words."""
        return FORMAT_NAMES[self.format]


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "what": finding.what,
        "remedy": finding.remedy,
        "images": list(finding.images),
        "where": finding.where,
    }


def check_annotations(
    folder: str | Path | LabelledFolder, *, pictures: int = 0, progress: Progress | None = None
) -> FolderCheck:
    """Everything that can be said of a folder before training; what is wrong with one image doesn't hide the next.

    Args:
        folder: the labelled folder.
        pictures: how many pictures of labelled images to draw.
        progress: called with (done, total, name) after each image.

    Raises:
        ReadError: the folder has no known format, or one of its lists can't be read.
    """
    opened = folder if isinstance(folder, LabelledFolder) else open_annotations(folder)
    images: list[ImageFacts] = []
    findings = [Finding(severity="warning", what=note) for note in opened.notes]
    total = len(opened.names)
    wanted = {int(k) for k in np.linspace(1, total, min(pictures, total)).round()} if pictures else set()
    drawn = []
    for number, (name, read) in enumerate(zip(opened.names, opened.readers, strict=True), start=1):
        try:
            one = read()
            images.append(facts_of(one, number))
            if number in wanted:
                drawn.append((number, labelled_picture(one, sorted(set(opened.classes.values())))))
        except HiResMedSynthError as error:
            findings.append(Finding(severity="problem", what=error.what, remedy=error.remedy, images=(number,),
                                    where=error.where or name))  # fmt: skip
        if progress is not None:
            progress(number, total, name)
    findings += findings_of(images, opened.classes.values())
    return FolderCheck(
        format=opened.format,
        classes=opened.classes,
        total=total,
        images=tuple(images),
        findings=tuple(sorted(findings, key=lambda finding: finding.severity != "problem")),
        pictures=tuple(drawn),
    )


def refuse_problems(check: FolderCheck, folder: str | Path) -> None:
    """Raises ReadError where the check found something that stops training; it tells the first and counts the rest."""
    if not check.problems:
        return
    first = check.problems[0]
    rest = len(check.problems) - 1
    more = f" (and {rest} more problem{'s' if rest > 1 else ''})" if rest else ""
    raise ReadError(
        f"{first.what}{more}",
        where=first.where or Path(folder).name,
        remedy=f"{first.remedy} 'hiresmedsynth data check FOLDER' lists all.".strip(),
    )
