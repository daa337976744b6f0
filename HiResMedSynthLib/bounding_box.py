"""The box around what a mask holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def bounding_box(mask: NDArray[Any], margin: int | Sequence[int] = 0) -> tuple[slice, ...]:
    """The smallest box around all that isn't 0, for each axis a slice within the array.

    Args:
        mask: any number of axes.
        margin: voxels by which the box is wider on each side, the same for all axes or one for each.

    Raises:
        IndexError: nothing is in the mask.
    """
    box = []
    for axis, wide in enumerate(np.broadcast_to(margin, mask.ndim).tolist()):
        held = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(max(int(held[0]) - wide, 0), min(int(held[-1]) + 1 + wide, mask.shape[axis])))
    return tuple(box)
