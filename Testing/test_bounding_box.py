"""The box around a mask holds all of it and nothing beside it; with a margin it ends at the array's edges."""

from __future__ import annotations

import numpy as np
import pytest

from HiResMedSynthLib.bounding_box import bounding_box


def test_the_box_is_tight_on_every_axis_and_wider_by_the_margin_within_the_array() -> None:
    mask = np.zeros((5, 20, 30), dtype=np.uint16)
    mask[1, 4, 25], mask[3, 9, 28] = 1, 7
    assert bounding_box(mask) == (slice(1, 4), slice(4, 10), slice(25, 29))
    assert bounding_box(mask[3]) == (slice(9, 10), slice(28, 29))
    assert bounding_box(mask, 2) == (slice(0, 5), slice(2, 12), slice(23, 30))
    assert bounding_box(mask, (0, 3, 1)) == (slice(1, 4), slice(1, 13), slice(24, 30))


def test_nothing_has_no_box() -> None:
    with pytest.raises(IndexError):
        bounding_box(np.zeros((2, 3), dtype=bool))
