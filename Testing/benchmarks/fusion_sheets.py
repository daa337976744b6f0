"""Pictures of real and composed lesions beside each other, in random order, the key apart.

A row is a pair: on either side the axial slice at once, then axial, coronal and sagittal at four times in the lung
window, and axial in the soft-tissue window.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

EDGE_PX, ENLARGED = 36, 4
LUNG, SOFT = (-600.0, 1500.0), (40.0, 400.0)
OUTSIDE_HU = -2000.0  # where the crop has no slice: black in either window
SEED = 3
QUALITY = 80  # JPEG

Crop = tuple[NDArray[np.int16], tuple[int, int, int], tuple[float, float, float]]  # HU, lesion's centre, spacing in mm


def sheet(pairs: Sequence[tuple[Crop, Crop]], file: Path) -> list[str]:
    """Writes a sheet of (real, composed) pairs and tells on which side the real one is, row by row."""
    rng = np.random.default_rng(SEED)
    rows, key = [], []
    for real, made in pairs:
        real_left = bool(rng.integers(2))
        sides = [_side(*crop) for crop in ((real, made) if real_left else (made, real))]
        rows.append(np.hstack([sides[0], np.zeros((sides[0].shape[0], 8), np.uint8), sides[1]]))
        key.append("left" if real_left else "right")
    _write(rows, file)
    return key


def strand_sheet(rows: Sequence[Sequence[Crop]], file: Path) -> None:
    """Writes a sheet: a place as it is, with a lesion without strands and with them; axial, coronal, sagittal."""
    _write([np.hstack([_side(*crop, soft=False) for crop in row]) for row in rows], file)


def _write(rows: list[NDArray[np.uint8]], file: Path) -> None:
    import cv2

    part = file.with_name(f"{file.stem}.part{file.suffix}")
    sheet_ = np.vstack([np.pad(row, ((0, 6), (0, 0))) for row in rows])
    cv2.imwrite(str(part), sheet_, [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1])
    part.replace(file)


def _side(
    hu: NDArray[np.int16], at: tuple[int, int, int], spacing_mm: tuple[float, float, float], *, soft: bool = True
) -> NDArray[np.uint8]:
    """One lesion's tiles in a row."""
    axial = _middle(hu[at[0]].astype(np.float32), at[1], at[2])
    taller = spacing_mm[0] / spacing_mm[1]  # slices are drawn as far apart as they are
    planes = [(hu[:, at[1]], at[2]), (hu[:, :, at[2]], at[1])]
    upright = [
        _upright(plane[::-1].astype(np.float32), len(hu) - 1 - at[0], middle, taller) for plane, middle in planes
    ]
    once = np.pad(_grey(axial, LUNG), ((0, EDGE_PX * (ENLARGED - 1)), (0, 2)))
    tiles = [_large(_grey(tile, LUNG)) for tile in (axial, *upright)]
    return np.hstack([once, *tiles, _large(_grey(axial, SOFT))] if soft else tiles)


def _middle(plane: NDArray[np.float32], row: int, column: int) -> NDArray[np.float32]:
    half = EDGE_PX // 2
    padded = np.pad(plane, EDGE_PX, constant_values=OUTSIDE_HU)
    row, column = row + EDGE_PX - half, column + EDGE_PX - half
    return np.asarray(padded[row : row + EDGE_PX, column : column + EDGE_PX])


def _upright(plane: NDArray[np.float32], slice_: int, middle: int, taller: float) -> NDArray[np.float32]:
    """A plane along the slices on square pixels, the lesion in the middle."""
    import cv2

    size = (plane.shape[1], max(round(plane.shape[0] * taller), 1))
    square = cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)
    return _middle(np.asarray(square, np.float32), round((slice_ + 0.5) * taller - 0.5), middle)


def _grey(plane: NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.uint8]:
    return np.asarray(np.clip((plane - window[0]) / window[1] + 0.5, 0, 1) * 255, np.uint8)


def _large(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    large = cv2.resize(tile, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.pad(large, ((0, 0), (0, 2))), np.uint8)
