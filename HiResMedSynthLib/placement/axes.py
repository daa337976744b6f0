"""Which way an axial image's axes run in the patient, and whether it holds the whole lung."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.image import MedicalImage

AXIAL_COSINE = 0.7
WHOLE_LUNG_MM = 150.0  # a stack shorter than this can't hold a whole adult lung
CUT_SHARE = 0.35  # a first or last slice with more lung than this share of the largest cuts the lung


def senses(image: MedicalImage) -> tuple[bool, bool, bool]:
    """Whether slices rise upwards, rows to the back, columns to the patient's left."""
    assert image.positions_lps_mm is not None
    travel = image.positions_lps_mm[-1] - image.positions_lps_mm[0] if image.slices > 1 else image.normal_lps
    return bool(travel[2] >= 0), bool(image.directions_lps[1, 1] >= 0), bool(image.directions_lps[0, 0] >= 0)


def film_leftwards(image: MedicalImage) -> bool:
    """Whether a film's columns run to the patient's left, as it is usually hung; not where its header says right."""
    hangs = image.facts.patient_orientation
    return not (hangs and hangs[0].startswith("R"))


def is_axial(image: MedicalImage) -> bool:
    """Whether rows run across the patient and columns from front to back, within 45 degrees."""
    return bool(min(abs(image.directions_lps[0, 0]), abs(image.directions_lps[1, 1])) >= AXIAL_COSINE)


def both_lungs(lungs: NDArray[np.bool_]) -> bool:
    """Whether somewhere lung lies on both sides of something else, as beside the mediastinum."""
    columns = np.asarray(lungs.any(axis=0))
    left = np.logical_or.accumulate(columns, axis=1)
    right = np.logical_or.accumulate(columns[:, ::-1], axis=1)[:, ::-1]
    gap = np.asarray((left & right & ~columns).any(axis=0))
    seen = np.flatnonzero(columns.any(axis=0))
    middle = slice(int(seen[0] + 0.25 * len(seen)), int(seen[-1] - 0.25 * len(seen)) + 1) if len(seen) else slice(0)
    return bool(gap[middle].any())


def holds_whole_lung(image: MedicalImage, lungs: NDArray[np.bool_]) -> bool:
    """Whether the stack is long enough and neither its first nor its last slice cuts the lung."""
    area = lungs.sum(axis=(1, 2))
    seen = np.flatnonzero(area)
    return bool(
        len(seen) > 1
        and (seen[-1] - seen[0] + 1) * image.slice_spacing_mm >= WHOLE_LUNG_MM
        and max(area[0], area[-1]) < CUT_SHARE * area.max()
    )
