"""Where a nodule must not go in a chest CT: by network and rule together or by the rule alone, slice by slice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.chest_by_slice import CHUNK, chest_by_both
from HiResMedSynthLib.placement.danger_map import DangerMap, Progress
from HiResMedSynthLib.placement.lungs_ct import find_chest_regions
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.regions_ct import LABELS_OF_NETWORK, LABELS_OF_RULE, ChestRegions, danger_of_regions

if TYPE_CHECKING:
    from HiResMedSynthLib.placement.network import PlacementNetwork

RULE_METHOD = "rule: thresholds and connectedness in HU"
Regions = Callable[[int, int, Progress | None], ChestRegions]


class DangerBySlice(DangerMap):
    """The danger map of a chest CT that names slices when they are first asked for, and all of them for `labels`.

    So a case whose places are given costs the slices around them. Each slice is what it is in the whole map: margins
    reach into it from the slices beside it.

    Args:
        regions: (first slice, last slice exclusive, progress) -> what the CT shows there.
        image: the CT.
        margins: distances added to the forbidden structures.
        names: class name by label.
        method: as in `DangerMap`.
    """

    def __init__(
        self, regions: Regions, image: MedicalImage, *, margins: Margins, names: dict[int, str], method: str
    ) -> None:
        for name, value in (("names", names), ("method", method)):
            object.__setattr__(self, name, value)  # fields of a frozen class
        self._regions: Regions | None = regions
        self._spacing_mm, self._margins = image.spacing_mm, margins
        self._labels = np.zeros(image.shape, dtype=np.uint8)
        self._known = np.zeros(image.slices, dtype=bool)

    def __repr__(self) -> str:  # that of the base class would look at all slices
        return f"DangerBySlice(shape={self.shape}, looked at {int(self._known.sum())} slices, method={self.method!r})"

    @property
    def labels(self) -> NDArray[np.uint8]:
        """uint8 `[slice, row, column]`, read-only; looks at all slices."""
        self.look_everywhere()
        return self._readable

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        slices, rows, columns = self._labels.shape
        return slices, rows, columns

    def part(self, region: tuple[slice, ...]) -> NDArray[np.uint8]:
        """The labels of a region, read-only; looks at its slices."""
        asked = range(len(self._known))[region[0]]
        if asked:
            self._look(min(asked), max(asked) + 1)
        return self._readable[region]

    def look_everywhere(self, progress: Progress | None = None) -> None:
        """Looks at all slices; `progress`: called with (slices done, slices in all)."""
        self._look(0, len(self._known), progress)
        self._regions = None  # the masks that it holds are needed no more

    @property
    def _readable(self) -> NDArray[np.uint8]:
        labels = self._labels.view()
        labels.flags.writeable = False
        return labels

    def _look(self, first: int, last: int, progress: Progress | None = None) -> None:
        unknown = first + np.flatnonzero(~self._known[first:last])
        if len(unknown) == 0:
            return
        assert self._regions is not None
        first = int(unknown[0]) // CHUNK * CHUNK
        last = min((int(unknown[-1]) // CHUNK + 1) * CHUNK, len(self._known))
        reach = int(max(self._margins.pleura_mm, self._margins.vessel_mm) // self._spacing_mm[0])
        low, high = max(first - reach, 0), min(last + reach, len(self._known))
        found = danger_of_regions(
            self._regions(low, high, progress), spacing_mm=self._spacing_mm, margins=self._margins, method=self.method
        )
        self._labels[first:last] = found.labels[first - low : last - low]
        self._known[first:last] = True


def danger_network_ct(
    image: MedicalImage,
    *,
    margins: Margins,
    network: PlacementNetwork,
    progress: Progress | None = None,
    by_slice: bool = False,
) -> DangerMap:
    """The danger map of a chest CT (one slice, a crop of a lung, thick slices, a volume) by the network.

    Args:
        image: axial, in HU, of known spacing.
        margins: distances added to the forbidden structures.
        network: of task "danger-ct".
        progress: called with (slices done, slices in all).
        by_slice: slices are looked at when they are asked for, now only those that tell that there is lung.

    Raises:
        GeometryError: the spacing is unknown.
        PlacementError: no lung is in the image, it is not in HU, or the network is for another task.
    """
    spacing_mm = image.spacing_mm
    if image.units != "HU":
        raise PlacementError("this image is not in Hounsfield units", remedy="Give a CT, or say what it shows.")
    chest = chest_by_both(image.pixels, spacing_mm=spacing_mm, network=network)
    if by_slice:
        chest.require_lung()
    method = f"network {network.name}, with the rule's lungs; vessels by HU"
    return _made(
        DangerBySlice(chest.regions, image, margins=margins, names=LABELS_OF_NETWORK, method=method),
        progress,
        by_slice=by_slice,
    )


def danger_lung_ct(
    image: MedicalImage, *, margins: Margins, progress: Progress | None = None, by_slice: bool = False
) -> DangerMap:
    """The danger map of a chest CT by rule: one slice, a few thick ones or a volume.

    Raises:
        GeometryError: the spacing is unknown.
        PlacementError: no lung is in the image.
    """
    ruled = find_chest_regions(image.pixels, spacing_mm=image.spacing_mm)

    def regions(first: int, last: int, _progress: Progress | None) -> ChestRegions:
        return ruled.slices(first, last)

    return _made(
        DangerBySlice(regions, image, margins=margins, names=LABELS_OF_RULE, method=RULE_METHOD),
        progress,
        by_slice=by_slice,
    )


def _made(found: DangerBySlice, progress: Progress | None, *, by_slice: bool) -> DangerMap:
    if by_slice:
        return found
    found.look_everywhere(progress)
    return DangerMap(labels=found.labels, names=found.names, method=found.method)
