"""Lesion: a three-dimensional object in Hounsfield units with an alpha matte; the form in which the bank holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.choices import LesionType
from HiResMedSynthLib.errors import BankError

ALPHA_ONE = 65535  # uint16 alpha that means fully lesion


@dataclass(frozen=True, kw_only=True)
class LesionCard:
    """Where a lesion comes from and what it is.

    `origin` is "real cut-out", "cut out of a synthetic image", "procedural" or what a generator writes. Ratings are the
    readers' means, 1..5 (LIDC-IDRI), None if procedural.
    `diameter_mm` is that of the sphere of equal volume; `noise_hu` and `background_hu` are the robust noise and median
    of the source's parenchyma nearby.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by pydantic where JSON comes in)

    name: str
    origin: str
    type: LesionType
    diameter_mm: float
    licence: str
    attribution: str
    collection: str | None = None
    patient_id: str | None = None
    noise_hu: float | None = None
    background_hu: float | None = None
    spiculation: float | None = None
    lobulation: float | None = None
    texture: float | None = None
    malignancy: float | None = None
    slice_spacing_mm: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesion:
    """A lesion on an isotropic grid, nothing of its old surroundings inside alpha = 0.

    Args:
        intensity_hu: int16 `[slice, row, column]`, HU of the lesion's own tissue, extended outwards past its edge.
        alpha: uint16, same shape, 0..65535 = share of lesion in the voxel; zero on the whole outer shell.
        voxel_mm: edge of the cubic voxels in millimetres.
        card: origin and properties.

    Raises:
        BankError: arrays that can't be a lesion.
    """

    intensity_hu: NDArray[np.int16]
    alpha: NDArray[np.uint16]
    voxel_mm: float
    card: LesionCard

    def __post_init__(self) -> None:
        ok = (
            self.intensity_hu.ndim == 3
            and self.intensity_hu.dtype == np.int16
            and self.alpha.dtype == np.uint16
            and self.alpha.shape == self.intensity_hu.shape
            and self.voxel_mm > 0
        )
        if not ok:
            raise BankError(
                f"lesion '{self.card.name}' has arrays of the wrong shape or type",
                remedy="Reinstall HiResMedSynth, or build the bank anew.",
            )
        if not self.alpha.any() or _shell_is_set(self.alpha):
            raise BankError(
                f"the matte of lesion '{self.card.name}' is empty or cut off at its box",
                remedy="Rebuild the entry with a margin of at least one voxel.",
            )
        for name in ("intensity_hu", "alpha"):
            array = getattr(self, name).view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)


def _shell_is_set(alpha: NDArray[Any]) -> bool:
    return any(bool(side.any()) for axis in range(3) for side in (alpha.take(0, axis), alpha.take(-1, axis)))
