"""DangerMap: where a lesion must not go, with named classes. `danger.danger` makes one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.choices import RequestType
from HiResMedSynthLib.errors import PlacementError

OUTSIDE_BODY = "outside the body"
OUTSIDE_LUNGS = "outside the lungs"
CHEST_WALL = "chest wall, bone or abdomen"
MEDIASTINUM = "mediastinum, heart or spine"
CENTRAL_AIRWAYS = "trachea and main bronchi"
VESSELS = "vessels and airways"
PLEURA_MARGIN = "pleura margin"
CONSOLIDATION = "consolidation or effusion"
BESIDE_HEART = "beside heart or mediastinum"
SPINE = "spine"
PELVIS = "pelvis and hips"
LUNG_CLASSES = (PLEURA_MARGIN, VESSELS, CONSOLIDATION, BESIDE_HEART)  # lie inside the lung
# by the type of a lesion: classes that are permitted to it, and the one that it has to touch
MAY_TOUCH: dict[RequestType, tuple[str, ...]] = {"juxtapleural": (PLEURA_MARGIN,)}
MUST_TOUCH: dict[RequestType, str] = {"juxtapleural": PLEURA_MARGIN}

PERMITTED = 0
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class DangerMap:
    """Forbidden tissue by class, on the voxels of an image.

    Args:
        labels: uint8 `[slice, row, column]`; 0 = permitted, else a key of `names`. Made read-only.
        names: class name by label.
        method: how it was found, for case.json and the panel: "rule: ..." or a network's name.
    """

    labels: NDArray[np.uint8]
    names: dict[int, str]
    method: str

    def __post_init__(self) -> None:
        if self.labels.ndim != 3 or self.labels.dtype != np.uint8:
            raise PlacementError(
                f"a danger map of shape {self.labels.shape} and type {self.labels.dtype} can't be",
                remedy="Give uint8 labels [slice, row, column].",
            )
        if PERMITTED in self.names or (self.labels.size and int(self.labels.max()) > max(self.names, default=0)):
            raise PlacementError("the danger map holds labels without a name", remedy="Name every label from 1 up.")
        labels = self.labels.view()
        labels.flags.writeable = False
        object.__setattr__(self, "labels", labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        slices, rows, columns = self.labels.shape
        return slices, rows, columns

    def part(self, region: tuple[slice, ...]) -> NDArray[np.uint8]:
        """The labels of a region: slices along (slice, row, column)."""
        return self.labels[region]

    def look_everywhere(self, progress: Progress | None = None) -> None:
        """Finds what is not found yet (`DangerBySlice`); `progress`: called with (slices done, slices in all)."""

    def forbidden(self, allow: Collection[str] = (), *, within: tuple[slice, ...] | None = None) -> NDArray[np.bool_]:
        """`[slice, row, column]`, True = forbidden; classes named in `allow` count as permitted; `within` a region."""
        table = np.zeros(256, dtype=bool)
        for label, name in self.names.items():
            table[label] = name not in allow
        return np.take(table, self.labels if within is None else self.part(within))

    def region(self, names: Collection[str]) -> NDArray[np.bool_]:
        """`[slice, row, column]`, True where the class is one of `names`, or permitted."""
        return ~self.forbidden(names)

    def classes_in(self, region: tuple[slice, ...], footprint: NDArray[np.bool_] | None = None) -> tuple[str, ...]:
        """Names of the forbidden classes inside a region of the map, most frequent first.

        Args:
            region: slices along (slice, row, column).
            footprint: which voxels of the region count; None: all.
        """
        part = self.part(region)
        counts = np.bincount(part.ravel() if footprint is None else part[footprint], minlength=1)
        order = [int(label) for label in np.argsort(-counts, kind="stable") if label != PERMITTED and counts[label]]
        return tuple(self.names[label] for label in order)


def named_labels(
    shape: tuple[int, int, int], layers: list[tuple[str, NDArray[Any]]]
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """(labels, names): layers painted in order, later ones over earlier ones; 0 where none is."""
    labels = np.zeros(shape, dtype=np.uint8)
    names = {}
    for number, (name, mask) in enumerate(layers, start=1):
        labels[mask] = number
        names[number] = name
    return labels, names
