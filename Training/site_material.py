"""A site's own labelled folder (docs/annotations.md) in the form that the tasks of placement's trainers take.

`ct_slices` for Training/danger_ct_data.py, `labelled_films` for Training/danger_film_data.py, `lung_patches` for
Training/erased_pairs.py. What stops training is refused by Training/site_data.py before anything is returned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.annotation_classes import CT_CLASSES, FILM_CLASSES, IGNORE
from HiResMedSynthLib.annotations import open_annotations
from HiResMedSynthLib.errors import ReadError
from Training.danger_ct_labels import ANY, rule_labels
from Training.danger_ct_sources import LabelledSlice, on_grid
from Training.danger_film_sources import STORED_PX, RealFilm
from Training.location_data import SIDE, LungPatch, lung_of
from Training.site_data import LabelledPicture, read_site, site_pictures

Progress = Callable[[int, int, str], None]
SLICE_MM = 5.0  # thickness that the rules are told of a single slice
AIR_HU = -1000.0
SQUARE = 1.01  # sides of a pixel may differ by this factor


def is_site_folder(folder: Path) -> bool:
    """Whether a folder holds labels of a known format; what is wrong with them is told when they are read."""
    try:
        open_annotations(folder)
    except ReadError as error:
        # a JSON file beside the images may be anything
        return "no other labels that are known" not in error.what and "is no COCO file" not in error.what
    return True


def ct_slices(
    folder: Path, *, names: Mapping[str, str] | None = None, progress: Progress | None = None
) -> list[LabelledSlice]:
    """CT slices on the network's grid: the site's labels, and the rule's where the site labels nothing.

    Where the rule sees a structure that the site labels, but not there, nobody knows: the label allows any class.

    Raises:
        ReadError, SettingsError: as Training/site_data.py says.
    """
    found = []
    for one in site_pictures(folder, needs="labels", kind="CT", classes=CT_CLASSES, names=names, progress=progress):
        assert one.labels is not None
        assert one.spacing_mm is not None
        hu = np.clip(np.rint(one.pixels), -1024, 3071).astype(np.int16)
        small, labels = on_grid(hu, _over_rule(one, hu), one.spacing_mm)
        found.append(LabelledSlice(name=one.name, patient=one.patient, folder=folder.name, hu=small, labels=labels))
    return found


def _over_rule(one: LabelledPicture, hu: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Labels of Training/danger_ct_labels.py: the site's over those of the rule."""
    assert one.labels is not None
    assert one.spacing_mm is not None
    labels = rule_labels(hu[np.newaxis], spacing_mm=(SLICE_MM, *one.spacing_mm))[0]
    told = [one.classes.index(name) for name in one.labelled]
    labels[np.isin(labels, told) & (one.labels == 0)] = ANY
    labels[one.labels == IGNORE] = ANY
    said = (one.labels > 0) & (one.labels != IGNORE)
    labels[said] = one.labels[said] - 1
    return np.asarray(labels)


def labelled_films(
    folder: Path, *, names: Mapping[str, str] | None = None, progress: Progress | None = None
) -> list[RealFilm]:
    """Films with square pixels, and what is known of each structure.

    A map holds one class a pixel, a film shows several: where another structure is labelled, a structure is unknown.

    Raises:
        ReadError, SettingsError: as Training/site_data.py says.
    """
    films = read_site(folder, needs="labels", kind="film", classes=FILM_CLASSES, names=names, progress=progress)
    return [_film(one, folder.name) for one in films]


def _film(one: LabelledPicture, source: str) -> RealFilm:
    assert one.labels is not None
    row_mm, column_mm = one.spacing_mm or (1.0, 1.0)
    size_mm = one.pixels.shape[0] * row_mm, one.pixels.shape[1] * column_mm
    scale = STORED_PX / min(size_mm)
    size = round(size_mm[1] * scale), round(size_mm[0] * scale)
    smaller = min(size) < min(one.pixels.shape)
    film = cv2.resize(one.pixels, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    labels = cv2.resize(one.labels, size, interpolation=cv2.INTER_NEAREST)
    there = np.zeros((len(one.classes), *labels.shape), dtype=bool)
    sure = np.zeros_like(there)
    for name in one.labelled:
        structure = one.classes.index(name)
        there[structure] = labels == structure + 1
        sure[structure] = there[structure] | (labels == 0)
    if "body" not in one.labelled and "lungs" in one.labelled:
        there[-1] = sure[-1] = there[one.classes.index("lungs")]  # the body is sure where lung is
    return RealFilm(
        film=film, there=there, sure=sure, patient=one.patient, view="", name=one.name, source=source
    )  # fmt: skip


def lung_patches(folder: Path, *, progress: Progress | None = None) -> list[LungPatch]:
    """Lung pictures `[128, 128]` with a lesion in the middle: of each lesion the slice that cuts it widest.

    Raises:
        ReadError: as Training/site_data.py says, or no lesion lies beside lung, or in fewer than two patients.
    """
    widest: dict[str, list[tuple[LabelledPicture, tuple[float, float, float]]]] = {}
    pictures = site_pictures(folder, needs="sites", kind="CT", progress=progress)
    candidates = [(one, site) for one in pictures for site in one.sites]
    for one, site in sorted(candidates, key=lambda pair: -pair[1][2]):
        chosen = widest.setdefault(one.name.split(", slice ")[0], [])
        if all(_apart_mm(site, other, one) > other[2] for _, other in chosen):
            chosen.append((one, site))
    patches = [patch for chosen in widest.values() for one, site in chosen if (patch := _patch(one, site)) is not None]
    if len({patch.patient_id for patch in patches}) < 2:
        raise ReadError("fewer than two patients have a lesion beside lung", where=folder.name,
                        remedy="Give chest CT with lesions in the lung.")  # fmt: skip
    return patches


def _apart_mm(one: tuple[float, ...], other: tuple[float, ...], picture: LabelledPicture) -> float:
    steps = picture.spacing_mm or (1.0, 1.0)
    return math.hypot((one[0] - other[0]) * steps[0], (one[1] - other[1]) * steps[1])


def _patch(one: LabelledPicture, site: tuple[float, float, float]) -> LungPatch | None:
    """The piece of a slice round a site; None where no lung is found in it."""
    assert one.spacing_mm is not None
    row_mm, column_mm = one.spacing_mm
    hu, (row, column, diameter_mm) = one.pixels, site
    others = [other for other in one.sites if other != site]
    if max(row_mm, column_mm) > SQUARE * min(row_mm, column_mm):
        columns = max(round(hu.shape[1] * column_mm / row_mm), 1)
        wider = columns / hu.shape[1]
        column = (column + 0.5) * wider - 0.5
        others = [(other[0], (other[1] + 0.5) * wider - 0.5, other[2]) for other in others]
        hu = cv2.resize(hu, (columns, hu.shape[0]), interpolation=cv2.INTER_LINEAR)
    half = SIDE // 2
    padded = np.pad(hu, half, constant_values=AIR_HU)  # outside the picture nothing is known; air is no lung
    top, left = round(row), round(column)
    piece: NDArray[Any] = padded[top : top + SIDE, left : left + SIDE]
    rows, columns_ = np.ogrid[:SIDE, :SIDE]
    away = np.hypot(rows - half - (row - top), columns_ - half - (column - left))
    lesion = away <= max(diameter_mm / 2 / row_mm, 0.5)
    lung = lung_of(piece.astype(np.float32), row_mm)
    beside = tuple((r - top + half, c - left + half, d / 2) for r, c, d in others)
    for r, c, radius_mm in beside:  # what is known to be a lesion is no place for anything without one
        lung &= np.hypot(rows - r, columns_ - c) * row_mm > radius_mm
    if not lung.any():
        return None
    return LungPatch(
        patient_id=one.patient, hu=piece.astype(np.float32), lung=lung, lesion=lesion, spacing_mm=row_mm, others=beside
    )  # fmt: skip
