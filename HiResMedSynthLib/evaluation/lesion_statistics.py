"""Lesions in numbers, from their masks: size, contrast, edge, texture; whether historical nodules have such numbers.

CT: the measures that `joining.acceptance` tests, in HU and mm. Other images: the same in the picture's 0..1 and pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.edge_profile import edges
from HiResMedSynthLib.evaluation.comparable import Grid
from HiResMedSynthLib.evaluation.image_sets import Loaded
from HiResMedSynthLib.joining.acceptance import shipped_ranges
from HiResMedSynthLib.measure import contrast, lesion_measures
from HiResMedSynthLib.placement.sizes import shipped_sizes

MARGIN_MM, MARGIN_PX = 14.0, 24
SIZE = "diameter, mm"
CT_NAMES = {
    "contrast_hu": "contrast, HU",
    "cnr": "CNR",
    "edge_width_mm": "edge width, mm",
    "texture_hu": "texture (SD inside), HU",
    "noise_ratio": "noise around over inside",
}
FLAT_NAMES = ("contrast, of the range", "edge width, px", "texture (SD inside), of the range")
HISTORICAL = (0.05, 0.95)
FEWEST_INSIDE = 16


@dataclass(frozen=True, kw_only=True)
class LesionNumbers:
    """One lesion.

    Args:
        source, group: where it is, whose it is.
        values: by name; NaN where it can't be measured.
        historical: by name, whether the value lies between the 5 and 95 % points of real nodules; only those on record.
    """

    source: str
    group: str
    values: dict[str, float]
    historical: dict[str, bool]


def lesion_numbers(name: str, group: str, loaded: Loaded, grid: Grid) -> list[LesionNumbers]:
    """The numbers of all lesions of a source."""
    if loaded.lesions is None:
        return []
    found = []
    for number in np.unique(loaded.lesions[loaded.lesions > 0]):
        mask = loaded.lesions == number
        in_ct = loaded.image.units == "HU" and loaded.image.pixel_spacing_mm is not None
        values, historical = _in_ct(loaded, mask) if in_ct else (_in_plane(loaded, mask, grid), {})
        found.append(LesionNumbers(source=name, group=group, values=values, historical=historical))
    return found


def numbers_by_name(lesions: Sequence[LesionNumbers]) -> dict[str, NDArray[np.float64]]:
    """`[lesion]` the values of each name; NaN where a lesion has none."""
    names = list(dict.fromkeys(name for one in lesions for name in one.values))
    return {name: np.array([one.values.get(name, math.nan) for one in lesions]) for name in names}


def _in_ct(loaded: Loaded, mask: NDArray[np.bool_]) -> tuple[dict[str, float], dict[str, bool]]:
    spacing = loaded.image.spacing_mm
    box = bounding_box(mask, [math.ceil(MARGIN_MM / s) for s in spacing])
    measured = lesion_measures(loaded.image.pixels[box].astype(np.float32), mask[box], spacing_mm=spacing)
    values = {SIZE: _diameter(mask, spacing)}
    values |= {name: float(getattr(measured, key)) for key, name in CT_NAMES.items()}
    ranges = shipped_ranges().of("solid", slice_mm=spacing[0])
    sizes = shipped_sizes()
    low, high = (float(np.interp(share, sizes.levels, sizes.all_mm)) for share in HISTORICAL)
    historical = {SIZE: low <= values[SIZE] <= high}
    for key, name in CT_NAMES.items():
        if key in ranges and math.isfinite(values[name]):
            historical[name] = ranges[key].low <= values[name] <= ranges[key].high
    return values, historical


def _in_plane(loaded: Loaded, mask: NDArray[np.bool_], grid: Grid) -> dict[str, float]:
    """Of the slice that holds most of the lesion, at its own size, in 0..1."""
    from scipy.ndimage import binary_erosion

    k = int(mask.sum(axis=(1, 2)).argmax())
    image = loaded.image.single_slice(k)
    unit = replace(grid, size=(image.rows, image.columns)).values(image)
    plane = mask[k]
    box = bounding_box(plane, MARGIN_PX)
    cut, inside = unit[box], plane[box]
    rays = edges(cut, inside, spacing_mm=(1.0, 1.0))
    deep = binary_erosion(inside, np.ones((3, 3)))
    values = dict(
        zip(
            FLAT_NAMES,
            (
                contrast(cut, inside, spacing_mm=(1.0, 1.0)),
                float(np.median(rays.width_mm)) if len(rays.width_mm) else math.nan,
                float(cut[deep].std()) if int(deep.sum()) >= FEWEST_INSIDE else math.nan,
            ),
            strict=True,
        )
    )
    spacing = loaded.image.pixel_spacing_mm
    if spacing is not None:
        values = {SIZE: 2 * math.sqrt(int(plane.sum()) * spacing[0] * spacing[1] / math.pi)} | values
    return values


def _diameter(mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> float:
    """Of the sphere of equal volume; of a single slice that of the circle of equal area."""
    if mask.shape[0] == 1:
        return 2 * math.sqrt(int(mask.sum()) * spacing[1] * spacing[2] / math.pi)
    return float((6 * int(mask.sum()) * math.prod(spacing) / math.pi) ** (1 / 3))
