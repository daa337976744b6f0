"""Labelled chest CT slices on the network's grid, out of folders of several kinds.

Input format: folders, of any depth, of

- volumes in HU (NRRD, NIfTI, MHA) and DICOM CT series in ZIP archives. The patient is PatientID or the file name up to
  its first underscore. `NAME_danger.nrrd` beside a volume `NAME.nrrd` holds its classes by hand: 0 outside the body,
  1 chest wall or abdomen, 2 bone and spine, 3 mediastinum and heart, 4 trachea and main bronchi, 5 lung with what fills
  it, 255 unknown. Without it they are labelled by rule (Training/danger_ct_labels.py). `tumour_boxes.csv` (columns
  patient_id, z_mm, xmin, ymin, xmax, ymax) says where the rule is not to be believed. Files with `labels`, `readers`
  or `slab` in their name are left out;
- `slices.npz` and `slices.csv` as in Training/ct_data.py: single slices, labelled by rule;
- `voi.npz` and `voi.csv` as in Training/nodule_source.py: crops around nodules, labelled in part;
- `ct_3mm.nrrd` with `labels_3mm_upper30.nrrd` and `labels.json` (TotalSegmentator's class numbers).
"""

from __future__ import annotations

import csv
import json
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.network_ct import CLASSES, FACTS, to_grid
from HiResMedSynthLib.read import read_image
from Training.danger_ct_labels import AIRWAY, ANY, BONE, LUNG, MEDIASTINUM, SOFT, SOLID, WALL, rule_labels
from Training.danger_ct_nodules import crop_slices
from Training.danger_ct_outlines import SBU
from Training.folder_of_images import FORMATS, UNREADABLE

UNKNOWN = 255
LEFT_OUT = ("labels", "readers", "slab", "_danger")
VOLUMES = (".nrrd", ".nii", ".nii.gz", ".mha")
# what was seen on the public series: the rule is wrong there (disease), or liver lies between the lungs
DISEASED = {("A002304", 0)}  # and those that are outlined by hand
FIRST_CHEST_SLICE = {"LIDC-IDRI-0001": 68, "Lung_Dx-A0001": 3}
LIVER_BETWEEN = ("A067967",)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledStack:
    """Slices of one patient as they were read, with labels of Training/danger_ct_labels.py.

    Args:
        names: of each slice, for the record.
        patient: whose they are.
        hu, labels: int16 and uint8 [slice, row, column], feet first and face up.
        spacing_mm: (slice, row, column).
        by_hand: the lung's outline was drawn, not found by rule.
    """

    names: tuple[str, ...]
    patient: str
    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    by_hand: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledSlice:
    """One slice on the grid of the network.

    Args:
        name: for the record.
        patient: whose it is.
        folder: name of the folder that it came from.
        hu, labels: int16 and uint8 [row, column]; labels of Training/danger_ct_labels.py.
        crop: a piece around a nodule, not a whole slice.
    """

    name: str
    patient: str
    folder: str
    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    crop: bool = False


def read_sources(folders: Sequence[Path]) -> list[LabelledSlice]:
    """All slices of these folders, nodule crops among them.

    Raises:
        ReadError: a folder holds nothing that can be read, or labels that can't be.
    """
    from Training.site_material import ct_slices, is_site_folder  # it imports this file

    slices: list[LabelledSlice] = []
    for folder in folders:
        before = len(slices)
        if not any(folder.rglob("*_danger.nrrd")) and is_site_folder(folder):
            slices += ct_slices(folder)
            continue
        for stack in read_stacks(folder):
            for name, hu, labels in zip(stack.names, stack.hu, stack.labels, strict=True):
                small, classes = on_grid(hu, labels, stack.spacing_mm[1:])
                slices.append(
                    LabelledSlice(name=name, patient=stack.patient, folder=folder.name, hu=small, labels=classes)
                )
        for file in sorted(folder.rglob("voi.npz")):
            slices += [
                LabelledSlice(name=name, patient=patient, folder=folder.name, hu=hu, labels=labels, crop=True)
                for name, patient, hu, labels in crop_slices(file.parent)
            ]
        if len(slices) == before:
            raise ReadError("no CT was found here", where=folder, remedy=FORMATS)
    return slices


def read_stacks(folder: Path) -> Iterator[LabelledStack]:
    """The whole slices of one folder, by patient, in the order of its files.

    Raises:
        ReadError: labels that can't be, or an image that is no axial CT.
    """
    for file in sorted(folder.rglob("*")):
        if file.name == "slices.npz":
            yield from _single_slices(file)
        elif file.name == "ct_3mm.nrrd" and (file.parent / "labels_3mm_upper30.nrrd").is_file():
            yield _abdomen(file)
        elif file.name.endswith(VOLUMES) and not any(word in file.name for word in LEFT_OUT):
            yield _volume(read_image(file), file, file.name.split("_")[0])
        elif file.suffix == ".zip":
            yield _archive(file)


def on_grid(
    hu: NDArray[np.int16], labels: NDArray[np.uint8], mm: tuple[float, float]
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """One slice and its labels on the network's grid."""
    small = to_grid(np.clip(hu, -1024, 3071).astype(np.float32), mm, FACTS["pixel_mm"])
    rows, columns = small.shape
    return np.rint(small).astype(np.int16), cv2.resize(labels, (columns, rows), interpolation=cv2.INTER_NEAREST)


def _volume(image: MedicalImage, file: Path, patient: str) -> LabelledStack:
    if image.units != "HU":
        raise ReadError(f"This is no CT in HU ({image.modality})", where=file, remedy="Take it out of the folder.")
    hu, spacing = upright(image)
    by_hand = file.with_name(f"{file.name.split('.')[0]}_danger.nrrd")
    if by_hand.is_file():
        labels = hand_labels(by_hand, hu)
    else:
        labels = rule_labels(hu, spacing_mm=spacing, first_chest_slice=FIRST_CHEST_SLICE.get(patient))
        _mend_by_map(labels, file)
        _doubt_boxes(labels, image, file.parent / "tumour_boxes.csv", patient)
    names = tuple(f"{patient}-{index}" for index in range(len(hu)))
    return LabelledStack(names=names, patient=patient, hu=hu, labels=labels, spacing_mm=spacing)


def upright(image: MedicalImage) -> tuple[NDArray[np.int16], tuple[float, float, float]]:
    """(HU feet first and face up as the patient lies, spacing in mm).

    Raises:
        ReadError: the slices are not axial.
    """
    hu = np.clip(image.pixels, -1024, 3071).astype(np.int16)
    positions = image.positions_lps_mm
    if abs(image.directions_lps[0, 0]) < 0.9 or abs(image.directions_lps[1, 1]) < 0.9:
        raise ReadError("The slices are not axial", remedy="Give axial CT.")
    if positions is not None and image.slices > 1 and positions[-1, 2] < positions[0, 2]:
        hu = hu[::-1]
    if image.directions_lps[1, 1] < 0:
        hu = hu[:, ::-1]
    if image.directions_lps[0, 0] < 0:
        hu = hu[:, :, ::-1]
    return np.ascontiguousarray(hu), image.spacing_mm


def hand_labels(file: Path, hu: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Classes by hand, checked against the scan.

    Raises:
        ReadError: another size, a number that is no class, no lung or nothing else, or lung where the scan is dense.
    """
    found = read_image(file).pixels
    if found.shape != hu.shape:
        raise ReadError(
            f"The labels have the size {found.shape}, the scan {hu.shape}", where=file, remedy="Label this very scan."
        )
    wrong = sorted(set(np.unique(found).tolist()) - {*range(len(CLASSES)), UNKNOWN})
    if wrong:
        raise ReadError(
            f"The labels hold {wrong[:5]}, which are no classes", where=file,
            remedy=f"Use 0 to {len(CLASSES) - 1}, and {UNKNOWN} for unknown.",
        )  # fmt: skip
    lung = found == LUNG
    if not lung.any() or not ((found < LUNG) & (found > 0)).any():
        raise ReadError("The labels hold no lung, or nothing but lung", where=file, remedy="Label every class.")
    if np.median(hu[lung]) > -300 or np.median(hu[found == WALL] if (found == WALL).any() else [0]) < -300:
        raise ReadError(
            "The labels contradict the scan: lung is dense there, or the chest wall is air", where=file,
            remedy="Are the numbers mixed up, or the labels of another scan?",
        )  # fmt: skip
    return np.where(found == UNKNOWN, ANY, found).astype(np.uint8)


def _mend_by_map(labels: NDArray[np.uint8], file: Path) -> None:
    """Airways and nodule of the map that lies beside LIDC-IDRI-0001 (labels.json: 7 and 8)."""
    beside = file.with_name(file.name.replace("_ct_", "_simple_labels_"))
    if beside == file or not beside.is_file():
        return
    told = read_image(beside).pixels
    labels[told == 8] = LUNG
    labels[told == 7] = AIRWAY


def _doubt_boxes(labels: NDArray[np.uint8], image: MedicalImage, table: Path, patient: str) -> None:
    """What the rule doesn't call lung inside a tumour's box is unknown: tumour, or what it touches."""
    if not table.is_file() or image.positions_lps_mm is None:
        return
    heights = np.sort(image.positions_lps_mm[:, 2])
    with table.open(newline="") as stream:
        for row in csv.DictReader(stream):
            index = int(np.argmin(np.abs(heights - float(row["z_mm"]))))
            if row["patient_id"] == patient and abs(heights[index] - float(row["z_mm"])) < 0.6:
                left, top, right, bottom = (int(row[name]) for name in ("xmin", "ymin", "xmax", "ymax"))
                box = labels[index, top - 5 : bottom + 6, left - 5 : right + 6]
                box[(box != LUNG) & (box != BONE)] = ANY


def _archive(file: Path) -> LabelledStack:
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith(".dcm"):
                (Path(folder) / Path(name).name).write_bytes(archive.read(name))
        image = read_image(Path(folder))
    return _volume(image, file, file.name.split("_CT_")[0])


def _single_slices(file: Path) -> Iterator[LabelledStack]:
    """Slices of `slices.npz`; the lungs of diseased ones as outlined, or the slice left out."""
    for index, patient, hu, mm in stored_slices(file):
        outline = SBU.get(index)
        by_hand = outline is not None and outline.patient == patient
        if (patient, index) in DISEASED:
            continue
        spacing = (5.0, mm, mm)
        cavities = outline.mask(hu.shape)[np.newaxis] if outline is not None and by_hand else None
        labels = rule_labels(hu[np.newaxis], spacing_mm=spacing, first_chest_slice=0, cavities=cavities)
        if cavities is not None and outline is not None:
            labels[0][edge_of(cavities[0]) & np.isin(labels[0], (WALL, SOFT, MEDIASTINUM, LUNG))] = ANY
            labels[0, : outline.rows[0]] = ANY
        if patient in LIVER_BETWEEN:
            labels[labels == MEDIASTINUM] = SOFT
        yield LabelledStack(
            names=(f"{patient}-{index}",),
            patient=patient,
            hu=hu[np.newaxis],
            labels=labels,
            spacing_mm=spacing,
            by_hand=by_hand,
        )


def edge_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels within 3 of the mask's outline: as far as a hand errs."""
    kernel = np.ones((7, 7), np.uint8)
    wide, narrow = cv2.dilate(mask.astype(np.uint8), kernel), cv2.erode(mask.astype(np.uint8), kernel)
    return np.asarray(wide > narrow)


def stored_slices(file: Path) -> Iterator[tuple[int, str, NDArray[np.int16], float]]:
    """(index, patient, HU, pixel in mm) of each slice of `slices.npz`.

    Raises:
        ReadError: it or its slices.csv is missing, damaged, or of something else.
    """
    try:
        with np.load(file, allow_pickle=False) as packed:
            steps = packed["lo"].astype(np.int32) | (packed["hi"].astype(np.int32) << 8)
        hu = np.cumsum((steps >> 1) ^ -(steps & 1), axis=2).astype(np.int16)
        with file.with_suffix(".csv").open(newline="", encoding="utf-8-sig") as stream:
            rows = [(row["patient_id"], float(row["pixel_spacing_mm"])) for row in csv.DictReader(stream)]
        told = [(index, patient, hu[index], mm) for index, (patient, mm) in enumerate(rows)]
    except UNREADABLE as problem:
        what = f"its slices.npz or slices.csv can't be read ({problem})"
        raise ReadError(what, where=file.parent, remedy="Replace it.") from None
    for index, patient, slice_hu, mm in told:
        yield index, patient, np.maximum(slice_hu, -1024), mm


def _abdomen(file: Path) -> LabelledStack:
    """The abdomen CT: its upper part by TotalSegmentator's map, the rest by rule (a plain scan: dense is bone)."""
    image = read_image(file)
    hu, spacing = upright(image)
    labels = rule_labels(hu, spacing_mm=spacing, contrast=False, first_chest_slice=len(hu))
    labels[labels == AIRWAY] = WALL
    upper = read_image(file.with_name("labels_3mm_upper30.nrrd"))
    names = {
        int(key): value for key, value in json.loads(file.with_name("labels.json").read_text(encoding="utf-8")).items()
    }
    assert upper.positions_lps_mm is not None
    assert image.positions_lps_mm is not None
    first = int(np.argmin(np.abs(image.positions_lps_mm[:, 2] - upper.positions_lps_mm[0, 2])))
    part = labels[first : first + upper.slices]
    told = upper.pixels
    part[part == BONE] = SOLID
    part[(part == LUNG) & ~np.isin(told, _numbers(names, "lung"))] = ANY
    for words, label in ((("vertebrae", "rib_"), BONE), (("lung",), LUNG), (("aorta", "costal"), SOLID)):
        part[np.isin(told, _numbers(names, *words))] = label
    organs = ("liver", "spleen", "stomach", "kidney", "colon", "bowel", "duodenum", "pancreas", "gall")
    part[np.isin(told, _numbers(names, *organs))] = WALL
    shown = tuple(f"abdomen-{index}" for index in range(len(hu)))
    return LabelledStack(names=shown, patient="TotalSegmentator-example", hu=hu, labels=labels, spacing_mm=spacing)


def _numbers(names: dict[int, str], *words: str) -> list[int]:
    return [number for number, name in names.items() if any(word in name for word in words)]
