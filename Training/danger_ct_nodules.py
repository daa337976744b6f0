"""Slices of the nodule crops with what can be told: air is lung, a thick dense part is wall, a nodule is lung."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.placement.network_ct import FACTS, to_grid
from Training.danger_ct_labels import AIR, ANY, LUNG, SOLID, disc, smoothed
from Training.nodule_source import SourceNodule, nodules

SLICES = 4  # of a crop, evenly spread
AIR_HU, GAS_HU, DENSE_HU = -500.0, -955.0, -300.0  # on the smoothed picture
WALL_RADIUS_MM, WALL_MM2 = 5.0, 40.0  # thinner is a vessel
NEAR_WALL_MM = 4.0  # there a dense pixel may be either


def crop_slices(folder: Path) -> Iterator[tuple[str, str, NDArray[np.int16], NDArray[np.uint8]]]:
    """(name, patient, HU, labels) of slices of each crop, on the network's grid."""
    for nodule in nodules(folder):
        count = len(nodule.hu)
        for index in np.unique(np.linspace(0, count - 1, min(count, SLICES)).round().astype(int)):
            hu, labels = crop_labels(nodule, int(index))
            yield f"{nodule.row['key']}-{index}", nodule.patient_id, hu, labels


def crop_labels(nodule: SourceNodule, index: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """HU and labels of one slice of a crop on the grid."""
    mm = nodule.spacing_mm[1:]
    grid = FACTS["pixel_mm"]
    hu = np.rint(to_grid(np.clip(nodule.hu[index], -1024, 3071).astype(np.float32), mm, grid)).astype(np.int16)
    held = to_grid((nodule.readers[index] > 0).astype(np.float32), mm, grid) > 0.3
    smooth = smoothed(hu, grid)
    near_nodule = cv2.dilate(held.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    dense = (smooth > DENSE_HU) & ~near_nodule
    kernel = disc(WALL_RADIUS_MM, grid)
    pad = 2 * len(kernel)  # a wall that the crop cuts goes on beyond its edge
    wide = cv2.copyMakeBorder(dense.astype(np.uint8), pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    core = np.ascontiguousarray(cv2.morphologyEx(wide, cv2.MORPH_OPEN, kernel)[pad:-pad, pad:-pad])
    _, parts, stats, _ = cv2.connectedComponentsWithStats(core, connectivity=4)
    large = stats[:, cv2.CC_STAT_AREA] * grid * grid >= WALL_MM2
    large[0] = False
    wall = large[parts].astype(np.uint8)
    labels = np.full(hu.shape, LUNG, dtype=np.uint8)
    labels[(cv2.dilate(wall, disc(NEAR_WALL_MM, grid)) > 0) & (smooth > AIR_HU)] = ANY
    labels[smooth < GAS_HU] = AIR
    labels[near_nodule] = ANY
    labels[held] = LUNG
    labels[wall > 0] = SOLID
    return hu, labels
