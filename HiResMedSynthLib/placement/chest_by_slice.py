"""What a chest CT shows by network and rule together; slices are looked at when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.placement.danger_map import Progress
from HiResMedSynthLib.placement.lungs_ct import find_chest_regions, no_lung, smoothed
from HiResMedSynthLib.placement.network_ct import AIR_HU, name_slices, refuse_other_task
from HiResMedSynthLib.placement.regions_ct import MASKS, ChestRegions, components

if TYPE_CHECKING:
    from HiResMedSynthLib.placement.network import PlacementNetwork

CHUNK = 8  # slices at a time
LEAST_LUNG_MM2 = 150.0  # of lung in the best slice; less is no chest


class ChestBySlice:
    """Regions of a stack of axial slices by the network, and with the rule's where it found lung.

    The rule is right wherever lung is aerated, the network also where disease fills it; air that the network alone
    calls lung and that touches no lung of the rule's is gas, or lies beside an arm. In a slice without lung of the
    rule's there is none: what is dense there is abdomen. Where the rule finds no lung in the whole image (a crop, a
    white lung) the network stands alone. Chunks begin where they begin in the whole stack, so that a slice is the same
    whichever others are looked at.

    Args:
        hu: `[slice, row, column]` in HU.
        spacing_mm: (slice, row, column).
        network: of task "danger-ct".
        ruled: the rule's regions of the whole stack; None: the network alone.

    Raises:
        PlacementError: the network is for another task.
    """

    def __init__(
        self,
        hu: NDArray[Any],
        *,
        spacing_mm: tuple[float, float, float],
        network: PlacementNetwork,
        ruled: ChestRegions | None,
    ) -> None:
        refuse_other_task(network)
        self._hu, self._network, self._ruled = hu, network, ruled
        self._mm = (float(spacing_mm[1]), float(spacing_mm[2]))
        smooth = np.empty(hu.shape, dtype=np.int16) if ruled is None else ruled.smooth_hu
        self._found = ChestRegions(smooth_hu=smooth, **{name: np.zeros(hu.shape, dtype=bool) for name in MASKS})
        self._seen = np.zeros(-(-len(hu) // CHUNK), dtype=bool)
        self._holds_lung = False

    def regions(self, first: int, last: int, progress: Progress | None = None) -> ChestRegions:
        """What slices `first` to `last` (exclusive) show; `progress`: called with (slices done, slices asked for).

        Raises:
            PlacementError: the network finds no lung in the whole stack.
        """
        self._look(first // CHUNK, -(-last // CHUNK), progress)
        if not self._holds_lung:
            self._look(0, len(self._seen), progress)
        if not self._holds_lung:
            raise self._no_lung()
        return self._found.slices(first, last)

    def require_lung(self) -> None:
        """Looks where lung is surest, at the slice with most of the rule's, and wherever else it has to.

        Raises:
            PlacementError: the network finds no lung in the whole stack.
        """
        surest = len(self._hu) // 2 if self._ruled is None else int(np.argmax(_areas(self._ruled.lungs)))
        self.regions(surest, surest + 1)

    def _no_lung(self) -> PlacementError:
        if not self._network.own or self._ruled is None:
            return no_lung(self._network.name if self._network.own else "")
        return PlacementError(
            f"the model '{self._network.name}' found no lung in this image, the rule did",
            remedy="Check the model on another picture, or say --danger rule.",
        )

    def _look(self, first: int, last: int, progress: Progress | None) -> None:
        """Looks at chunks `first` to `last` (exclusive) that were not looked at yet."""
        total = min(last * CHUNK, len(self._hu)) - first * CHUNK
        chunks = [chunk for chunk in range(first, last) if not self._seen[chunk]]
        done = total - sum(len(self._hu[self._slices(chunk)]) for chunk in chunks)
        for chunk in chunks:
            some = self._slices(chunk)
            self._name(some)
            self._seen[chunk] = True
            done += len(self._hu[some])
            if progress is not None:
                progress(done, total)

    def _slices(self, chunk: int) -> slice:
        return slice(chunk * CHUNK, (chunk + 1) * CHUNK)

    def _name(self, some: slice) -> None:
        smooth = self._found.smooth_hu[some]
        if self._ruled is None:
            for offset, picture in enumerate(self._hu[some]):
                smooth[offset] = np.rint(smoothed(picture, self._mm))
        named = name_slices(self._hu[some], smooth, mm=self._mm, network=self._network)
        largest_mm2 = max(_areas(named.lungs)) * self._mm[0] * self._mm[1]
        self._holds_lung = self._holds_lung or bool(largest_mm2 >= LEAST_LUNG_MM2)
        if self._ruled is not None:
            named = _with_rule(named, self._ruled.slices(some.start, some.stop))
        for name in MASKS:
            getattr(self._found, name)[some] = getattr(named, name)


def find_regions_by_network(
    hu: NDArray[Any],
    *,
    spacing_mm: tuple[float, float, float],
    network: PlacementNetwork,
    progress: Progress | None = None,
) -> ChestRegions:
    """Body, lungs, airways, bone and mediastinum of a stack of axial slices by the network alone.

    Args:
        hu: `[slice, row, column]` in HU.
        spacing_mm: (slice, row, column).
        network: of task "danger-ct".
        progress: called with (slices done, slices in all).

    Raises:
        PlacementError: no lung is in the image, or the network is for another task.
    """
    return ChestBySlice(hu, spacing_mm=spacing_mm, network=network, ruled=None).regions(0, len(hu), progress)


def find_regions_by_both(
    hu: NDArray[Any],
    *,
    spacing_mm: tuple[float, float, float],
    network: PlacementNetwork,
    progress: Progress | None = None,
) -> ChestRegions:
    """The same as it ships, by network and rule (`ChestBySlice`).

    Args, Raises: as `find_regions_by_network`.
    """
    return chest_by_both(hu, spacing_mm=spacing_mm, network=network).regions(0, len(hu), progress)


def chest_by_both(
    hu: NDArray[Any], *, spacing_mm: tuple[float, float, float], network: PlacementNetwork
) -> ChestBySlice:
    """A stack of axial slices looked at as a whole by the rule, and ready for the network.

    Args:
        hu: `[slice, row, column]` in HU.
        spacing_mm: (slice, row, column).
        network: of task "danger-ct".

    Raises:
        PlacementError: the network is for another task.
    """
    refuse_other_task(network)
    try:
        ruled = find_chest_regions(hu, spacing_mm=spacing_mm)
    except PlacementError:
        ruled = None
    return ChestBySlice(hu, spacing_mm=spacing_mm, network=network, ruled=ruled)


def _areas(lungs: NDArray[np.bool_]) -> list[int]:
    """Pixels of lung in each slice."""
    return [int(np.count_nonzero(picture)) for picture in lungs]


def _with_rule(named: ChestRegions, ruled: ChestRegions) -> ChestRegions:
    """The network's regions with the rule's lungs added, and without air that the rule knows to be no lung."""
    lungs = np.stack([
        _lungs_of_both(learned, rule, smooth)
        for learned, rule, smooth in zip(named.lungs, ruled.lungs, named.smooth_hu, strict=True)
    ])  # fmt: skip
    airways = (ruled.airways | named.airways) & ~ruled.lungs
    lungs &= ~airways
    assert named.bone is not None
    assert named.mediastinum is not None
    free = ~(lungs | airways)
    return ChestRegions(
        smooth_hu=named.smooth_hu, body=named.body | ruled.body, lungs=lungs, airways=airways, bone=named.bone & free,
        mediastinum=named.mediastinum & free,
    )  # fmt: skip


def _lungs_of_both(
    learned: NDArray[np.bool_], ruled: NDArray[np.bool_], smooth_hu: NDArray[np.int16]
) -> NDArray[np.bool_]:
    """The lungs of one slice by both, without the network's pieces of air that lie apart from the rule's lungs."""
    import cv2

    if not ruled.any():
        return ruled
    near = cv2.dilate(ruled.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    lungs = ruled.copy()
    for box, piece, _ in components(learned, connectivity=8):
        if (piece & near[box]).any() or np.median(smooth_hu[box][piece]) > AIR_HU:
            lungs[box] |= piece
    return lungs
