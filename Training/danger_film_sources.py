"""What the film network learns from, read and checked: folders of films with lung masks, CT volumes, anatomy masks.

Input, any number of folders of these kinds, told apart by what they hold:

- films with lung masks: `index.csv` with the columns `file`, `patient_id`, `lung_mask` (paths below the folder). The
  mask has the film's size: 0 not lung, 1 and 2 lung (with what lies behind heart and diaphragm), 3 not to be counted;
- CT of chest or abdomen: NRRD or NIfTI volumes in HU, or DICOM series, also zipped. 10 cm or more along the body;
- radiologists' outlines without pictures: an npz with `masks` (bits 0, 1 lungs, 2 cardiomediastinum, 3 airways).
"""

from __future__ import annotations

import csv
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.regions_film import STRUCTURES
from Training.danger_film_structures import AIRWAY, HEART, LUNG, PELVIS_AT, SPINE_AT, LabelledVolume, label_volume
from Training.folder_of_images import FORMATS, DicomFile, dicom_files, files_below

STORED_PX = 280
IGNORED = 3
SHORTEST_MM = 100.0
NEIGHBOURS = 15
SURE = (0.05, 0.85)  # share of like people: below the first nobody has the structure there, above the second all
SPINE_SHARE = 0.22  # of the lungs' width: farther from the middle no spine lies
VOLUME_ENDINGS = (".nrrd", ".nii", ".nii.gz", ".mha")
NO_CT = ("label", "reader", "seg", "mask")  # in the names of label maps
SHAPES = "covid_cxr_bitmasks_256.npz"


@dataclass(frozen=True, kw_only=True, eq=False)
class RealFilm:
    """A film with square pixels, short side 280.

    Args:
        film: float32 `[row, column]`, dense = high.
        there, sure: bool `[structure, row, column]`, whether a structure is there, and whether that is known.
        patient, view, name, source: of the index; `source` is the folder's name.
    """

    film: NDArray[np.float32]
    there: NDArray[np.bool_]
    sure: NDArray[np.bool_]
    patient: str
    view: str
    name: str
    source: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Sources:
    """All that the folders hold; `folders` names the folder of each volume."""

    films: tuple[RealFilm, ...]
    volumes: tuple[LabelledVolume, ...]
    folders: tuple[str, ...]


def read_sources(folders: Sequence[Path]) -> Sources:
    """Films and volumes of the folders.

    Raises:
        ReadError: a folder holds nothing of use; masks of another size, with numbers that aren't classes, or empty.
    """
    from Training.site_material import is_site_folder, labelled_films  # it imports this file

    shapes = next((read_shapes(folder / SHAPES) for folder in folders if (folder / SHAPES).is_file()), None)
    films: list[RealFilm] = []
    volumes: list[LabelledVolume] = []
    names: list[str] = []
    for folder in folders:
        if (folder / "index.csv").is_file():
            films += read_films(folder, shapes)
        elif (folder / SHAPES).is_file():
            continue
        elif is_site_folder(folder):
            films += labelled_films(folder)
        else:
            found = read_volumes(folder)
            volumes += found
            names += [folder.name] * len(found)
    if not films and not volumes:
        raise ReadError(
            "These folders hold no films with masks and no CT",
            where=folders[0] if folders else None,
            remedy=FORMATS,
        )
    return Sources(films=tuple(films), volumes=tuple(volumes), folders=tuple(names))


def read_shapes(path: Path) -> NDArray[np.float32]:
    """Radiologists' outlines in the box round both lungs, float32 `[person, 3, 64, 64]`: lungs, heart, airways."""
    bits = np.load(path, allow_pickle=False)["masks"]
    whole = [person for person in bits if all((person & bit).any() for bit in (1, 2, 4))]
    return np.stack([_in_box(np.stack([(p & 3) > 0, (p & 4) > 0, (p & 8) > 0]), box_of((p & 3) > 0)) for p in whole])


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _in_box(masks: NDArray[np.bool_], box: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """Masks `[k, row, column]` in the box widened by an eighth on each side, `[k, 64, 64]`."""
    import cv2

    top, bottom, left, right = box
    step_y, step_x = (bottom - top) * 1.25 / 64, (right - left) * 1.25 / 64
    to_film = np.array([[step_x, 0, left - (right - left) / 8], [0, step_y, top - (bottom - top) / 8]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.stack([cv2.warpAffine(m.astype(np.float32), to_film, (64, 64), flags=flags) for m in masks])


def read_films(folder: Path, shapes: NDArray[np.float32] | None) -> list[RealFilm]:
    """The films of a folder that have a lung mask.

    Raises:
        ReadError: see `read_sources`.
    """
    from PIL import Image

    with (folder / "index.csv").open(newline="", encoding="utf-8-sig") as lines:
        rows = [row for row in csv.DictReader(lines) if row.get("lung_mask")]
    if not rows:
        raise ReadError("No film of index.csv has a lung_mask", where=folder, remedy="Fill the column lung_mask.")
    films = []
    for row in rows:
        try:
            with Image.open(folder / row["file"]) as picture, Image.open(folder / row["lung_mask"]) as outlined:
                grey, mask = np.asarray(picture, dtype=np.float32), np.asarray(outlined)
            patient = row["patient_id"]
        except (OSError, KeyError, ValueError) as problem:
            raise ReadError(
                f"a film or mask can't be read: {problem}", where=folder, remedy="Mend index.csv."
            ) from None
        check_mask(grey, mask, where=folder / row["lung_mask"])
        films.append(_real_film(grey, mask, shapes, patient, row.get("view", ""), row["file"], folder.name))
    return films


def check_mask(film: NDArray[Any], mask: NDArray[Any], *, where: Path) -> None:
    """Refuses a lung mask that can't be used.

    Raises:
        ReadError: of another size or number of channels than the film, with other numbers than 0 to 3, or without lung.
    """
    if film.ndim != 2 or mask.shape != film.shape:
        raise ReadError(
            f"the film has the shape {film.shape}, its mask {mask.shape}",
            where=where,
            remedy="Give grey pictures and masks of the same size.",
        )
    odd = sorted(set(np.unique(mask).tolist()) - {0, 1, 2, IGNORED})
    if odd:
        raise ReadError(
            f"the mask holds {odd[:5]}: that is no class",
            where=where,
            remedy="0 is not lung, 1 and 2 are lung, 3 is not to be counted.",
        )
    if not np.isin(mask, (1, 2)).any():
        raise ReadError("the mask marks no lung", where=where, remedy="Outline both lungs, or clear its lung_mask.")


def _real_film(
    grey: NDArray[np.float32],
    mask: NDArray[Any],
    shapes: NDArray[np.float32] | None,
    patient: str,
    view: str,
    name: str,
    source: str,
) -> RealFilm:
    import cv2

    scale = STORED_PX / min(grey.shape)
    size = (round(grey.shape[1] * scale), round(grey.shape[0] * scale))
    film = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    lungs, counted = np.isin(small, (1, 2)), small != IGNORED
    there = np.zeros((len(STRUCTURES), *lungs.shape), dtype=bool)
    sure = np.zeros_like(there)
    there[LUNG], sure[LUNG] = lungs, counted
    there[-1], sure[-1] = lungs, lungs  # the body is sure where lung is
    _, bottom, left, right = box_of(lungs)
    aside = np.abs(np.arange(lungs.shape[1]) - (left + right) / 2) > SPINE_SHARE * (right - left)
    sure[SPINE_AT] = lungs & aside
    sure[PELVIS_AT, :bottom] = True
    if shapes is not None:
        share = like_people(lungs, shapes)
        for structure, map_ in ((HEART, share[0]), (AIRWAY, share[1])):
            there[structure] = map_ > SURE[1]
            sure[structure] = ((map_ > SURE[1]) | (map_ < SURE[0])) & counted
    return RealFilm(film=film, there=there, sure=sure, patient=patient, view=view, name=name, source=source)


def like_people(lungs: NDArray[np.bool_], shapes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of the people with the most similar lungs who have heart, airways there, float32 `[2, row, column]`."""
    import cv2

    box = box_of(lungs)
    own = _in_box(lungs[np.newaxis], box)[0]
    shared = np.minimum(shapes[:, 0], own).sum(axis=(1, 2)) / np.maximum(shapes[:, 0], own).sum(axis=(1, 2))
    mean = shapes[np.argsort(-shared)[:NEIGHBOURS], 1:].mean(axis=0)
    top, bottom, left, right = box
    to_film = np.array(
        [
            [(right - left) * 1.25 / 64, 0, left - (right - left) / 8],
            [0, (bottom - top) * 1.25 / 64, top - (bottom - top) / 8],
        ]
    )
    size = (lungs.shape[1], lungs.shape[0])
    return np.stack([cv2.warpAffine(m, to_film, size, flags=cv2.INTER_LINEAR) for m in mean]).astype(np.float32)


def read_volumes(folder: Path) -> list[LabelledVolume]:
    """The CT volumes of a folder with their structures.

    Raises:
        ReadError: there is none.
    """
    from HiResMedSynthLib.read import read_image
    from HiResMedSynthLib.read_dicom import read_dicom_files

    files = files_below(folder)
    with tempfile.TemporaryDirectory() as unpacked:
        for archive in (file for file in files if file.suffix == ".zip"):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(Path(unpacked) / archive.stem)
        found: dict[tuple[str, str], list[Path]] = {}  # files of each series: those of several may lie in one folder
        for entry in dicom_files(files + sorted(p for p in Path(unpacked).rglob("*") if p.is_file())):
            if isinstance(entry, DicomFile) and entry.modality == "CT":
                found.setdefault((entry.patient, entry.series), []).append(entry.path)

        def images() -> Iterator[tuple[MedicalImage, str]]:  # one in memory at a time
            for (patient, _), paths in found.items():
                where = paths[0].parent
                yield read_dicom_files(paths, where=where, spacing_mm=None, series=None, slice_index=None), patient
            for file in files:
                if file.name.endswith(VOLUME_ENDINGS) and not any(word in file.name.lower() for word in NO_CT):
                    stem = file.name.split("_ct")[0]
                    yield read_image(file), stem if stem != file.name and not stem.startswith("ct") else folder.name

        volumes = [label_volume(image, patient=patient) for image, patient in images() if _long_enough(image)]
    if not volumes:
        raise ReadError(
            "No film with labels was found, nor a CT volume of 10 cm or more",
            where=folder,
            remedy="Give masks/ with classes.json, or index.csv with lung_mask (docs/annotations.md), or CT in HU.",
        )
    return volumes


def _long_enough(image: MedicalImage) -> bool:
    return image.units == "HU" and image.slices > 1 and image.slices * image.spacing_mm[0] >= SHORTEST_MM
