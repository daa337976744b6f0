"""How a lesion hangs together with its neighbourhood: the vessels, strands and tags that end at it.

Found from the pixels alone, so that real and composed lesions are read in the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import measure

Point = tuple[float, float, float]
SMOOTH_MM = 0.5  # sigma: what is finer is noise
FAINTEST_HU = 120.0  # above the parenchyma: a strand of 1 mm in a usual scan
LOUDEST = 4.0  # robust standard deviations of the smoothed parenchyma
SHELL_MM = (2.5, 3.5)  # from the lesion: its own blur has faded there
REACH_MM = 8.0
SMALLEST_MM2 = 1.0  # cross-section
WIDE_MM = 5.0  # what is wider than that is pleura, wall or a large vessel, no strand
MAD_TO_SD = 1.4826


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """Something that ends at the lesion, as it crosses the shell.

    Args:
        width_mm: diameter of the disc that has its cross-section.
        excess_hu: its brightest part above the parenchyma, smoothed.
        reach_mm: how far from the lesion it can be followed, at most 8.
        direction: (slice, row, column) unit vector, seen from the lesion's centre.
    """

    width_mm: float
    excess_hu: float
    reach_mm: float
    direction: Point

    @property
    def is_wide(self) -> bool:
        """True for pleura, wall or a large vessel."""
        return self.width_mm > WIDE_MM


@dataclass(frozen=True, kw_only=True, eq=False)
class Belonging:
    """A lesion and what lies around it.

    Args:
        attached: what hangs together with the lesion where it crosses the shell.
        passing: how many things cross the shell and don't.
        shell_seen: share of the shell that lies inside the image.
        region: bool `[slice, row, column]`, the lesion.
        away_mm: distance from it.
        smooth: HU, what is finer than half a millimetre taken out.
        level_hu: of the parenchyma.
        faintest_hu: above it, from where on something is seen.
        own: bool, the lesion and all that hangs together with it within 8 mm.
    """

    attached: tuple[Attachment, ...]
    passing: int
    shell_seen: float
    region: NDArray[np.bool_]
    away_mm: NDArray[np.float64]
    smooth: NDArray[np.float32]
    level_hu: float
    faintest_hu: float
    own: NDArray[np.bool_]

    @property
    def strands(self) -> tuple[Attachment, ...]:
        """The attachments that are no pleura, wall or large vessel."""
        return tuple(one for one in self.attached if not one.is_wide)


def belonging(
    hu: NDArray[Any], outline: NDArray[np.bool_], *, spacing_mm: tuple[float, float, float]
) -> Belonging | None:
    """What a lesion hangs together with; None where no lesion or no parenchyma is found.

    Args:
        hu: `[slice, row, column]`, with 8 mm around the lesion where the image has them.
        outline: same shape, whoever's.
        spacing_mm: (slice, row, column).
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter, label

    region, parenchyma = measure.lesion_region(hu, outline, spacing_mm=spacing_mm)
    if not region.any() or int(parenchyma.sum()) < measure.FEWEST_AROUND:
        return None
    smooth = gaussian_filter(hu.astype(np.float32), [SMOOTH_MM / step for step in spacing_mm], truncate=3.0)
    level = float(np.median(smooth[parenchyma]))
    spread = MAD_TO_SD * float(np.median(np.abs(smooth[parenchyma] - level)))
    away = distance_transform_edt(~region, sampling=spacing_mm)
    faintest = max(FAINTEST_HU, LOUDEST * spread)
    dense = (smooth > level + faintest) & (away <= REACH_MM)
    touching = np.ones((3, 3, 3))
    pieces, _ = label(dense | region, touching)
    own = np.isin(pieces, np.unique(pieces[region]))
    shell = (away > SHELL_MM[0]) & (away <= SHELL_MM[1])
    outward, _ = label(own & (away > SHELL_MM[0]), touching)
    reaches = np.zeros(int(outward.max()) + 1)
    np.maximum.at(reaches, outward.ravel(), away.ravel())
    centre = np.argwhere(region).mean(axis=0)
    attached = []
    for at, area in _crossings(own & shell, spacing_mm):
        ray = (at.mean(axis=0) - centre) * spacing_mm
        ray /= max(float(np.linalg.norm(ray)), 1e-6)
        attached.append(
            Attachment(
                width_mm=math.sqrt(4 * area / math.pi),
                excess_hu=float(smooth[tuple(at.T)].max()) - level,
                reach_mm=float(reaches[outward[tuple(at[0])]]),
                direction=(float(ray[0]), float(ray[1]), float(ray[2])),
            )
        )
    return Belonging(
        attached=tuple(attached), passing=len(_crossings(dense & ~own & shell, spacing_mm)), region=region,
        shell_seen=_seen(region, shell, spacing_mm), away_mm=away, smooth=smooth, level_hu=level,
        faintest_hu=faintest, own=own,
    )  # fmt: skip


def _crossings(part: NDArray[np.bool_], spacing_mm: Point) -> list[tuple[NDArray[np.int64], float]]:
    """(indices `[n, 3]`, cross-section in mm2) of each thing that crosses the shell and isn't too small."""
    from scipy.ndimage import find_objects, label

    labels, _ = label(part, np.ones((3, 3, 3)))
    per_voxel = math.prod(spacing_mm) / (SHELL_MM[1] - SHELL_MM[0])
    found = []
    for k, box in enumerate(find_objects(labels), start=1):
        at = np.argwhere(labels[box] == k) + [side.start for side in box]
        if len(at) * per_voxel >= SMALLEST_MM2:
            found.append((at, len(at) * per_voxel))
    return found


def _seen(region: NDArray[np.bool_], shell: NDArray[np.bool_], spacing_mm: Point) -> float:
    """Share of the shell of a ball of the region's volume that lies in the image."""
    voxel = math.prod(spacing_mm)
    radius = (3 * int(region.sum()) * voxel / (4 * math.pi)) ** (1 / 3)
    whole = 4 / 3 * math.pi * ((radius + SHELL_MM[1]) ** 3 - (radius + SHELL_MM[0]) ** 3)
    return float(min(float(shell.sum()) * voxel / whole, 1.0))
