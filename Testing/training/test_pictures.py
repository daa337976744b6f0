"""Films as grey sheets: levels at the ends and beyond, and a last row that isn't full."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from Training.pictures import grey8, tiled

VALUES = [-1.0, 0.0, 1.0, -2.0, 9.0, float("nan"), float("inf")]


@pytest.mark.parametrize("values", [np.array(VALUES), torch.tensor(VALUES, dtype=torch.bfloat16, requires_grad=True)])
def test_levels(values: torch.Tensor | np.ndarray) -> None:
    assert grey8(values).tolist() == [0, 128, 255, 0, 255, 128, 255]


def test_the_last_row_is_filled_up_with_black() -> None:
    films = np.full((5, 2, 3), 9, np.uint8)
    sheet = tiled(films, across=4)
    assert sheet.shape == (4, 12)
    assert (sheet[:2] == 9).all()
    assert sheet[2:].sum() == 9 * 2 * 3
    assert tiled(films, across=8).shape == (2, 15)
