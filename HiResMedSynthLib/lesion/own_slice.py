"""own_slice(image, mask or box) -> Lesion: a lesion cut from one CT slice, and grey pictures as Hounsfield units."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import measure
from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.choices import LesionType
from HiResMedSynthLib.errors import BankError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.inpaint import inpaint
from HiResMedSynthLib.lesion.cut_out import VOXEL_MM
from HiResMedSynthLib.lesion.inflate import half_thickness, inflate
from HiResMedSynthLib.lesion.lesion import Lesion, LesionCard
from HiResMedSynthLib.lesion.lesion_grid import LUNG_HU, UNIT_HU, from_grid
from HiResMedSynthLib.lesion.matte import FILL_MM, pull_matte
from HiResMedSynthLib.lesion.own import AROUND_MM, LARGEST_MM, SLICE_VOXELS, source_texts

LUNG_RANGE_HU = (-1000, -700)
SMALLEST_PIXELS = SLICE_VOXELS
SMALLEST_LUNG_PIXELS = 30


def as_hounsfield(image: MedicalImage, low_hu: float, high_hu: float) -> MedicalImage:
    """A grey picture of a CT as a CT: its darkest storable value is `low_hu`, its brightest `high_hu`.

    Raises:
        BankError: it is a CT already, or holds more than 8 bits.
    """
    if image.units == "HU" or image.pixels.dtype != np.uint8:
        raise BankError(
            "a window in HU belongs to an 8-bit picture only", remedy="Leave --window-hu out: this image has more."
        )
    grey = image.pixels.astype(np.float32) / 255
    grey = grey if image.bright_is_dense else 1 - grey
    return replace(
        image,
        pixels=np.round(low_hu + grey * (high_hu - low_hu)).astype(np.int16),
        units="HU",
        modality="CT",
        photometric="MONOCHROME2",
        bits_stored=None,
        window=None,
        oddities=(*image.oddities, f"grey values taken for {low_hu:g} to {high_hu:g} HU, as the user said"),
    )


def own_slice(
    image: MedicalImage,
    corner: tuple[int, int, int],
    inside: NDArray[np.bool_],
    *,
    name: str,
    lesion_type: LesionType = "solid",
    find: bool = False,
) -> Lesion:
    """The lesion that is outlined in one CT slice, rounded in depth (`inflate`).

    Args:
        image: one slice in HU.
        corner, inside, name, lesion_type, find: as in `own_lesion`; one slice of each.

    Raises:
        BankError: no HU, too small, too large, or without lung around it.
    """
    if image.units != "HU":
        raise BankError(
            "grey values of a picture are no Hounsfield units",
            remedy="Give the CT slice itself, or say what black and white mean: --window-hu -1350:150.",
        )
    _, row_mm, column_mm = image.spacing_mm
    hu, mask = _around(image, corner, inside, (row_mm, column_mm))
    if not mask.any():
        raise BankError("nothing is outlined", remedy="Draw the outline, or move the box onto the lesion.")
    lung = _lung(hu, mask, (row_mm, column_mm))
    lung_hu = float(np.median(hu[lung]))
    if find:
        mask = _densest_piece(hu, mask, lung_hu)
    pixels = int(mask.sum())
    diameter = math.sqrt(4 * pixels * row_mm * column_mm / math.pi)
    if pixels < SMALLEST_PIXELS:
        raise BankError(
            f"the outlined lesion has {pixels} pixels: too few to cut it out",
            remedy=f"Outline one of {SMALLEST_PIXELS} pixels or more, all of it.",
        )
    if diameter > LARGEST_MM:
        raise BankError(f"the outlined lesion is {diameter:.0f} mm wide", remedy="Outline one lesion only.")
    origin, licence, attribution = source_texts(image, one_slice=True)
    card = LesionCard(
        name=name,
        type=lesion_type,
        diameter_mm=round(diameter, 1),
        origin=origin,
        licence=licence,
        attribution=attribution,
        noise_hu=round(float(measure.noise(hu, lung)), 1),
        background_hu=lung_hu,
    )
    alpha, foreground = _matte_in_plane(
        hu, mask, (row_mm, column_mm), soft=lesion_type in ("part-solid", "ground-glass")
    )
    voxel_mm = round(float(np.clip(diameter / 14, *VOXEL_MM)), 2)
    flat = _resampled(alpha, foreground, (row_mm / voxel_mm, column_mm / voxel_mm))
    solid = np.pad(inflate(flat), ((0, 0), (1, 1), (1, 1), (1, 1)))
    return from_grid(solid[(slice(None), *bounding_box(solid[1], 1))], voxel_mm, card)


def _around(
    image: MedicalImage, corner: tuple[int, int, int], inside: NDArray[np.bool_], spacing: tuple[float, float]
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """(HU, mask) `[row, column]` of the outline and `AROUND_MM` about it."""
    reach = [math.ceil(AROUND_MM / step) for step in spacing]
    ends = [c + n for c, n in zip(corner[1:], inside.shape[1:], strict=True)]
    if min(corner) < 0 or any(end > n for end, n in zip(ends, image.shape[1:], strict=True)):
        raise BankError("the outline reaches beyond the image", remedy="Draw it inside the image.")
    low = [max(0, c - r) for c, r in zip(corner[1:], reach, strict=True)]
    high = [min(n, end + r) for n, end, r in zip(image.shape[1:], ends, reach, strict=True)]
    hu = np.clip(image.pixels[0, low[0] : high[0], low[1] : high[1]], -1024, 3071).astype(np.int16)
    mask = np.zeros(hu.shape, dtype=bool)
    top, left = corner[1] - low[0], corner[2] - low[1]
    mask[top : top + inside.shape[1], left : left + inside.shape[2]] = inside.any(axis=0)
    return hu, mask


def _lung(hu: NDArray[np.int16], mask: NDArray[np.bool_], spacing: tuple[float, float]) -> NDArray[np.bool_]:
    from scipy.ndimage import distance_transform_edt

    away = distance_transform_edt(~mask, sampling=spacing)
    lung = (away > FILL_MM) & (hu > LUNG_RANGE_HU[0]) & (hu < LUNG_RANGE_HU[1])
    if int(lung.sum()) < SMALLEST_LUNG_PIXELS:
        raise BankError(
            "there is no lung around the outlined lesion", remedy="Outline a lesion that lies in aerated lung."
        )
    return np.asarray(lung)


def _densest_piece(hu: NDArray[np.int16], box: NDArray[np.bool_], lung_hu: float) -> NDArray[np.bool_]:
    """The largest piece of what is denser than halfway between lung and the densest in the box."""
    from scipy.ndimage import label

    pieces, count = label(box & (hu > (lung_hu + float(np.percentile(hu[box], 98))) / 2))
    if count == 0:
        return np.zeros_like(box)
    return np.asarray(pieces == int(np.bincount(pieces.ravel())[1:].argmax()) + 1)


def _matte_in_plane(
    hu: NDArray[np.int16], mask: NDArray[np.bool_], spacing: tuple[float, float], *, soft: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(alpha, foreground HU) `[row, column]`, by the matte of a volume that is this slice rounded in depth."""
    from scipy.ndimage import distance_transform_edt

    step = math.sqrt(spacing[0] * spacing[1])
    half = half_thickness(mask)
    depth = math.ceil(float(half.max()) + FILL_MM / step) + 2
    offsets = np.abs(np.arange(-depth, depth + 1))[:, None, None]
    body = (offsets <= half) & mask
    filled = inpaint(hu.astype(np.float32), distance_transform_edt(~mask, sampling=spacing) <= FILL_MM)
    near = distance_transform_edt(~body, sampling=(step, *spacing)) <= FILL_MM
    volume = np.where(near, hu, filled)
    volume[depth] = hu
    matte = pull_matte(np.round(volume).astype(np.int16), body.astype(np.uint8), spacing_mm=(step, *spacing), soft=soft)
    middle = matte.padding + depth
    return matte.alpha[middle], matte.foreground_hu[middle]


def _resampled(
    alpha: NDArray[np.float32], foreground: NDArray[np.float32], factors: tuple[float, float]
) -> NDArray[np.float32]:
    """`[2, row, column]` premultiplied intensity and alpha (`LesionGrid`), cubic, on square pixels."""
    from scipy.ndimage import zoom

    weighted = alpha * (foreground - LUNG_HU) / UNIT_HU
    fine = np.stack([zoom(plane, factors, order=3, mode="nearest", grid_mode=True) for plane in (weighted, alpha)])
    fine[1] = np.clip(fine[1], 0, 1)
    fine[:, fine[1] < 2 / 255] = 0
    return np.asarray(fine, dtype=np.float32)
