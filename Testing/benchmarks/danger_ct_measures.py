"""Intervals, overlaps, and the two ways to a danger map that the CT benchmark compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.chest_by_slice import find_regions_by_network
from HiResMedSynthLib.placement.danger import danger
from HiResMedSynthLib.placement.danger_ct import danger_network_ct
from HiResMedSynthLib.placement.danger_map import DangerMap
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.network import PlacementNetwork
from HiResMedSynthLib.placement.regions_ct import ChestRegions, danger_of_regions
from Training.danger_ct_labels import AIRWAY, BONE, LUNG, MEDIASTINUM, OUTSIDE, SOFT, smoothed

BOOT = 2000
MARGINS = Margins()


@dataclass(frozen=True)
class Ways:
    """The ways to a danger map: by rule, by network alone, by both (what ships)."""

    network: PlacementNetwork

    def maps(self, image: MedicalImage) -> dict[str, DangerMap | None]:
        """Danger map by each way; None where it found no lung."""
        found: dict[str, DangerMap | None] = {}
        for name in ("rule", "network", "both"):
            try:
                if name == "rule":
                    found[name] = danger(image, domain="lung-ct", margins=MARGINS)
                elif name == "both":
                    found[name] = danger_network_ct(image, margins=MARGINS, network=self.network)
                else:
                    spacing = image.spacing_mm
                    regions = find_regions_by_network(image.pixels, spacing_mm=spacing, network=self.network)
                    found[name] = danger_of_regions(regions, spacing_mm=spacing, margins=MARGINS, method=name)
            except PlacementError:
                found[name] = None
        return found


def as_image(hu: NDArray[Any], spacing_mm: tuple[float, float, float]) -> MedicalImage:
    return MedicalImage(
        pixels=np.ascontiguousarray(hu, dtype=np.int16), modality="CT", units="HU", pixel_spacing_mm=spacing_mm[1:],
        spacing_source="header", slice_thickness_mm=spacing_mm[0],
    )  # fmt: skip


def true_map(hu: NDArray[Any], labels: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> DangerMap:
    """The danger map that follows from the labels, by the step that both ways share."""
    regions = ChestRegions(
        smooth_hu=np.stack([smoothed(picture, spacing_mm[1]) for picture in hu]),
        body=labels != OUTSIDE, lungs=labels == LUNG, airways=labels == AIRWAY, bone=labels == BONE,
        mediastinum=np.isin(labels, (MEDIASTINUM, SOFT)),
    )  # fmt: skip
    return danger_of_regions(regions, spacing_mm=spacing_mm, margins=MARGINS, method="labels")


def interval(values: NDArray[Any], statistic: Any = np.median) -> tuple[float, float, float]:
    """(statistic, 2.5 %, 97.5 %) by bootstrap over the values."""
    rng = np.random.default_rng(0)
    drawn = [statistic(rng.choice(values, len(values))) for _ in range(BOOT)]
    return float(statistic(values)), float(np.percentile(drawn, 2.5)), float(np.percentile(drawn, 97.5))


def wilson(count: int, total: int) -> tuple[float, float, float]:
    """(share, lower, upper) with Wilson's 95 % interval."""
    z, share = 1.96, count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total**2)) / (1 + z * z / total)
    return share, middle - half, middle + half


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_], counted: NDArray[np.bool_]) -> float:
    total = (one & counted).sum() + (other & counted).sum()
    return float(2 * (one & other & counted).sum() / total) if total else float("nan")
