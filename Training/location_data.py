"""Lung pictures with one outlined nodule each: the material of the location prior, in grey that is close to HU.

Input: the folder `lidc_nodule_patches` (its README: 128x128 pictures of 8 bits, readers' masks, one patient each). A
site gives the same: `patches.csv` and sheets of pictures and masks. Grey values of unknown scale are matched by two
peaks, lung and soft tissue.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d, label

from HiResMedSynthLib.errors import ReadError

SIDE = 128
LUNG_HU, SOFT_HU = -860.0, 40.0  # what the two peaks are taken for
AIR_HU = -400.0
DARKER_HU = 40.0
CLOSING_MM = 12.0  # vessels and nodules at the rim belong to the lung; less leaves one nodule in four outside
SMALLEST_LUNG_MM2 = 300.0
MOST_READERS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class LungPatch:
    """One picture `[row, column]` of one patient.

    Args:
        hu: float32, HU-like.
        lung: vessels and the nodule included.
        lesion: held by any reader.
        spacing_mm: of the pixels.
        others: (row, column, radius in mm) of further lesions, which are taken out of the lung.
    """

    patient_id: str
    hu: NDArray[np.float32]
    lung: NDArray[np.bool_]
    lesion: NDArray[np.bool_]
    spacing_mm: float
    others: tuple[tuple[float, float, float], ...] = ()


def grey_to_hu(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """HU-like values by the peaks of lung and soft tissue.

    Raises:
        ReadError: the picture has no two peaks.
    """
    values = grey[grey > 0] if _padded(grey) else grey.ravel()
    threshold, _ = cv2.threshold(values.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    counts = gaussian_filter1d(np.bincount(values, minlength=256).astype(np.float64), 2.0)
    counts[0] = min(counts[0], counts[1])
    split = int(threshold) + 1
    if counts[:split].sum() < SIDE or counts[split:].sum() < SIDE / 4:
        raise ReadError("a picture shows no lung beside soft tissue", remedy="Leave it out.")
    low, high = int(np.argmax(counts[:split])), split + int(np.argmax(counts[split:]))
    if high - low < 8:
        raise ReadError("a picture's lung and soft tissue have nearly the same grey", remedy="Leave it out.")
    slope = (SOFT_HU - LUNG_HU) / (high - low)
    return ((grey.astype(np.float32) - low) * slope + LUNG_HU).astype(np.float32)


def _padded(grey: NDArray[np.uint8]) -> bool:
    """Whether black stands for 'outside the field of view': black pixels beside none that are nearly black."""
    return bool((grey == 0).mean() > 0.005 and ((grey > 0) & (grey < 20)).mean() < 0.02)


def lung_of(hu: NDArray[np.float32], spacing_mm: float) -> NDArray[np.bool_]:
    """The lung in a picture that may show no more than a part of it; vessels and small nodules are closed over."""
    air = cv2.GaussianBlur(hu, (0, 0), 1.0 / spacing_mm) < AIR_HU
    parts, count = label(air)
    areas = np.bincount(parts.ravel(), minlength=count + 1) * spacing_mm**2
    medians = [
        np.median(hu[parts == number]) if areas[number] >= SMALLEST_LUNG_MM2 else 0.0 for number in range(count + 1)
    ]
    middle = parts[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4]
    main = int(np.argmax(np.bincount(middle[middle > 0], minlength=count + 1)))
    lung = np.zeros(air.shape, dtype=bool)
    for number in range(1, count + 1):
        large = areas[number] >= SMALLEST_LUNG_MM2
        if large and (
            number == main or medians[number] > medians[main] - DARKER_HU
        ):  # air beside the patient is darker
            lung |= parts == number
    radius = max(1, round(CLOSING_MM / spacing_mm))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    padded = cv2.copyMakeBorder(lung.astype(np.uint8), radius, radius, radius, radius, cv2.BORDER_REPLICATE)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc)[radius:-radius, radius:-radius]
    return np.asarray(closed > 0)


def load_patches(folder: Path) -> tuple[list[LungPatch], dict[str, int]]:
    """The usable pictures, in the order of the table, and why others were left out.

    Raises:
        ReadError: no such folder, masks of another size, numbers that aren't reader counts, one patient only.
    """
    try:
        with (folder / "patches.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        names = sorted({row["sheet"] for row in rows})
        sheets = {name: np.asarray(Image.open(folder / name)) for name in names}
        masks = {name: np.asarray(Image.open(folder / name.replace("images", "readers"))) for name in names}
    except (OSError, KeyError) as problem:
        raise ReadError(
            f"There are no nodule pictures here ({problem})", where=folder, remedy="Give lidc_nodule_patches."
        ) from None
    for name in names:
        if sheets[name].shape != masks[name].shape or sheets[name].ndim != 2:
            raise ReadError(
                f"pictures {sheets[name].shape} and masks {masks[name].shape} differ in size", where=folder / name,
                remedy="Each sheet of grey pictures needs a sheet of masks of its size.",
            )  # fmt: skip
        if masks[name].max() > MOST_READERS:
            raise ReadError(
                f"a mask holds {masks[name].max()}, which is no number of readers", where=folder / name,
                remedy=f"Masks count the readers, 0 to {MOST_READERS}.",
            )  # fmt: skip
    patches: list[LungPatch] = []
    left_out: dict[str, int] = {}
    for row in rows:
        patch, why = _patch(row, sheets[row["sheet"]], masks[row["sheet"]])
        if patch is None:
            left_out[why] = left_out.get(why, 0) + 1
        else:
            patches.append(patch)
    if len({patch.patient_id for patch in patches}) < 2:
        raise ReadError(
            f"{len(patches)} of {len(rows)} pictures are usable ({left_out}), of fewer than two patients",
            where=folder, remedy="A prior needs patients to learn from and others to be judged on.",
        )  # fmt: skip
    return patches, left_out


def _patch(row: dict[str, Any], sheet: NDArray[np.uint8], masks: NDArray[np.uint8]) -> tuple[LungPatch | None, str]:
    top, left = int(row["row0"]), int(row["col0"])
    place = (slice(top, top + SIDE), slice(left, left + SIDE))
    lesion, spacing = masks[place] > 0, float(row["pixel_spacing_mm"])
    if not lesion.any():
        return None, "no lesion outlined"
    try:
        hu = grey_to_hu(sheet[place])
    except ReadError:
        return None, "grey not matched"
    lung = lung_of(hu, spacing)
    if not lung.any():
        return None, "no lung found"
    return LungPatch(patient_id=row["patient_id"], hu=hu, lung=lung, lesion=lesion, spacing_mm=spacing), ""
