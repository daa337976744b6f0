"""own_lesion(image, mask or box) -> Lesion: what a radiologist marks in a CT becomes a lesion to place elsewhere."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import measure, synthetic_words
from HiResMedSynthLib.choices import LesionType
from HiResMedSynthLib.errors import BankError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.lesion.cut_out import cut_out
from HiResMedSynthLib.lesion.lesion import Lesion, LesionCard

AROUND_MM = 10.0  # lung kept around the outline: the matte completes the parenchyma from it
LUNG_HU = (-1000, -700)
SMALLEST_VOXELS = 20
SMALLEST_SLICES = 3
LARGEST_MM = 60.0
LICENCE = "the owner's own"
SLICE_VOXELS = 12  # enough of a lesion in one slice to cut it from that slice alone


def own_lesion(
    image: MedicalImage,
    corner: tuple[int, int, int],
    inside: NDArray[np.bool_],
    *,
    name: str,
    lesion_type: LesionType = "solid",
    find: bool = False,
) -> Lesion:
    """The lesion that is outlined in a CT volume.

    Args:
        image: CT in HU, several slices.
        corner: (slice, row, column) of the first voxel of `inside`.
        inside: True in the lesion; with `find` True in a box around it.
        name: how it is listed.
        lesion_type: what it is.
        find: look for the lesion inside the box: what is denser than halfway between lung and its brightest part.

    Raises:
        BankError: no CT, too small, too large, or without lung around it.
    """
    if image.units != "HU" or image.slices < SMALLEST_SLICES:
        raise BankError(
            "a lesion can be cut out of a CT volume only",
            remedy=f"Choose a CT with {SMALLEST_SLICES} slices or more, or one slice of it: --slice N.",
        )
    spacing = image.spacing_mm
    reach = [math.ceil(AROUND_MM / step) for step in spacing]
    low = [max(0, c - r) for c, r in zip(corner, reach, strict=True)]
    high = [min(n, c + s + r) for n, c, s, r in zip(image.shape, corner, inside.shape, reach, strict=True)]
    if any(c < 0 or c + s > n for c, s, n in zip(corner, inside.shape, image.shape, strict=True)):
        raise BankError("the outline reaches beyond the image", remedy="Draw it inside the image.")
    region = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    hu = np.clip(image.pixels[region], -1024, 3071).astype(np.int16)
    mask = np.zeros(hu.shape, dtype=bool)
    mask[tuple(slice(c - a, c - a + s) for c, a, s in zip(corner, low, inside.shape, strict=True))] = inside
    lung = _lung(hu, mask, spacing)
    if find:
        mask = _densest_piece(hu, mask, float(np.median(hu[lung])))
    voxels, slices = int(mask.sum()), int(mask.any(axis=(1, 2)).sum())
    diameter = float((6 * voxels * math.prod(spacing) / math.pi) ** (1 / 3))
    if voxels < SMALLEST_VOXELS or slices < SMALLEST_SLICES:
        areas = mask.sum(axis=(1, 2))
        widest = low[0] + int(areas.argmax())
        alone = f" Or take it from slice {widest} alone: --slice {widest}." if areas.max() >= SLICE_VOXELS else ""
        raise BankError(
            f"the outlined lesion has {voxels} voxels in {slices} slice(s): too few to cut it out",
            remedy=f"Outline one that is seen in {SMALLEST_SLICES} slices or more, all of it.{alone}",
        )
    if diameter > LARGEST_MM:
        raise BankError(f"the outlined lesion is {diameter:.0f} mm wide", remedy="Outline one lesion only.")
    origin, licence, attribution = source_texts(image)
    card = LesionCard(
        name=name,
        type=lesion_type,
        diameter_mm=round(diameter, 1),
        origin=origin,
        licence=licence,
        attribution=attribution,
        noise_hu=round(float(measure.noise(hu, lung)), 1),
        background_hu=float(np.median(hu[lung])),
        slice_spacing_mm=spacing[0],
    )
    return cut_out(hu, mask.astype(np.uint8), spacing_mm=spacing, card=card)


def source_texts(image: MedicalImage, *, one_slice: bool = False) -> tuple[str, str, str]:
    """Origin, licence and attribution for the card of a lesion that is cut out of this image."""
    guess = ", rounded in depth" if one_slice else ""
    if synthetic_words.is_synthetic(image.oddities):
        part = "a slice of " if one_slice else ""
        return (
            f"cut out of {part}a synthetic image{guess}",
            "that of the source image",
            "cut out of a synthetic image by the user; to be named: whom the source image names",
        )
    part = " of one slice" if one_slice else ""
    return f"real cut-out{part}{guess}", LICENCE, "cut out by the user"


def is_synthetic(card: LesionCard) -> bool:
    """Whether the lesion was cut out of an image that is itself synthetic."""
    return "synthetic image" in card.origin


def _lung(hu: NDArray[np.int16], mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        raise BankError("nothing is outlined", remedy="Draw the outline, or move the box onto the lesion.")
    away = distance_transform_edt(~mask, sampling=spacing)
    lung = (away > 2) & (hu > LUNG_HU[0]) & (hu < LUNG_HU[1])
    if int(lung.sum()) < 200:
        raise BankError(
            "there is no lung around the outlined lesion", remedy="Outline a lesion that lies in aerated lung."
        )
    return np.asarray(lung)


def _densest_piece(hu: NDArray[np.int16], box: NDArray[np.bool_], lung_hu: float) -> NDArray[np.bool_]:
    """The piece nearest the box's centre of what is denser than halfway between lung and the densest there."""
    from scipy.ndimage import center_of_mass, label

    middle = np.array(center_of_mass(box))
    halfway = (lung_hu + float(np.percentile(hu[box], 98))) / 2
    pieces, count = label(box & (hu > halfway))
    if count == 0:
        return np.zeros_like(box)
    sizes = np.bincount(pieces.ravel())
    found = [k for k in range(1, count + 1) if sizes[k] >= 0.2 * sizes[1:].max()]
    near = min(found, key=lambda k: float(np.linalg.norm(np.argwhere(pieces == k) - middle, axis=1).min()))
    return np.asarray(pieces == near)
