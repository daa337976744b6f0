"""Where lesions are likely by the lung around a place: the learned local factor of the location prior.

The network was trained on pictures whose nodule had been erased, against sham erasures of the same shape in the same
lung (Training/train_location.py): exp of its answer is the density of nodules relative to even in the lung, up to a
factor. It knows vessels, pleura and fissures within about 2 cm, nothing of the place in the whole lung: multiply it
with the density of `location.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.network import NetworkPlan, PlacementNetwork, to_unit

TASK = "location-ct"
PIXEL_MM = 0.7  # of the network's grid
WINDOW_HU = (-1100.0, 100.0)  # becomes -1..1
SMOOTH_PX = 5  # the answer at a place is the mean over this square
LARGEST_LOG = 3.0  # no place is more than 20 times as likely, or as unlikely, as the mean
SLICES_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class SliceLikeness:
    """A model that looks at slices: where is a lesion likely?

    Args:
        name: for the record.
        pixel_mm: of its grid.
        log_likeness: HU `[n, row, column]` on that grid -> float32 of that shape, up to a constant per picture.
    """

    name: str
    pixel_mm: float
    log_likeness: Callable[[NDArray[np.float32]], NDArray[np.float32]]


def location_plan(
    *, encoder: str = "tu-mobilenetv4_conv_small_050", decoder: Sequence[int] = (64, 48, 32, 16)
) -> NetworkPlan:
    """The plan of the location network."""
    return NetworkPlan(
        task=TASK,
        classes=("nodule",),
        encoder=encoder,
        decoder=tuple(decoder),
        facts={"pixel_mm": PIXEL_MM, "low_hu": WINDOW_HU[0], "high_hu": WINDOW_HU[1], "smooth_px": SMOOTH_PX},
    )


def log_likeness(hu: NDArray[np.float32], network: PlacementNetwork) -> NDArray[np.float32]:
    """float32 `[n, row, column]`: logarithm of how likely a nodule's centre is, up to a constant per picture.

    Args:
        hu: `[n, row, column]` on the network's grid (`PIXEL_MM`).
        network: one of `location_plan`.
    """
    import cv2

    facts = network.plan.facts
    logits = network.logits(to_unit(hu, facts)[:, np.newaxis])[:, 0]
    side = int(facts["smooth_px"])
    return np.stack([cv2.blur(picture, (side, side), borderType=cv2.BORDER_REPLICATE) for picture in logits])


def network_likeness(network: PlacementNetwork) -> SliceLikeness:
    """The answer of a network of `location_plan`.

    Raises:
        PlacementError: it is of another task.
    """
    if network.plan.task != TASK:
        raise PlacementError(
            f"the network '{network.name}' was trained for {network.plan.task}, not for {TASK}",
            remedy="Give a network of Training.train_location.",
        )
    return SliceLikeness(
        name=network.name, pixel_mm=network.plan.facts["pixel_mm"], log_likeness=lambda hu: log_likeness(hu, network)
    )


def learned_heat(image: MedicalImage, lungs: NDArray[np.bool_], *, model: SliceLikeness) -> NDArray[np.float32]:
    """How likely a nodule is by the lung around each voxel; float32 `[slice, row, column]`, mean 1 over the lungs of a
    slice, 0 outside them.

    Args:
        image: a chest CT in HU.
        lungs: `[slice, row, column]`.
        model: what looks at the slices.

    Raises:
        PlacementError: the shapes differ.
    """
    import cv2

    if lungs.shape != image.shape:
        raise PlacementError(
            f"a lung mask of shape {lungs.shape} doesn't fit an image of {image.shape}", remedy="Resample the mask."
        )
    _, row_mm, column_mm = image.spacing_mm
    pixel_mm = model.pixel_mm
    rows = max(1, round(image.rows * row_mm / pixel_mm))
    columns = max(1, round(image.columns * column_mm / pixel_mm))
    heat = np.zeros(image.shape, dtype=np.float32)
    seen = np.flatnonzero(lungs.any(axis=(1, 2)))
    for first in range(0, len(seen), SLICES_AT_ONCE):
        part = seen[first : first + SLICES_AT_ONCE]
        hu = np.stack(
            [
                cv2.resize(image.pixels[k].astype(np.float32), (columns, rows), interpolation=_way(rows, image.rows))
                for k in part
            ]
        )
        for index, answer in zip(part, model.log_likeness(hu), strict=True):
            wide = cv2.resize(answer, (image.columns, image.rows), interpolation=cv2.INTER_LINEAR)
            inside = lungs[index]
            centred = np.clip(wide - wide[inside].mean(), -LARGEST_LOG, LARGEST_LOG)
            plane = np.where(inside, np.exp(centred), 0)
            heat[index] = plane / plane[inside].mean()
    return heat


def _way(rows: int, before: int) -> int:
    import cv2

    return cv2.INTER_AREA if rows < before else cv2.INTER_LINEAR
