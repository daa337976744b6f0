"""The picture of a lesion: nothing of it is cut off, wherever its centre lies."""

from __future__ import annotations

import numpy as np
import pytest

from HiResMedSynthLib.lesion.bank import load_bank
from HiResMedSynthLib.lesion.sheet import GAP, HEAD, TILE, lesion_sheet


@pytest.mark.parametrize("name", ["solid-23mm-a", "calcified-04mm-a"])  # the first has a tail of 13 mm on one side
def test_every_cut_shows_the_whole_lesion(name: str) -> None:
    sheet = np.asarray(lesion_sheet(load_bank().lesion(name)).convert("L"), dtype=int)
    step = TILE + GAP
    for row in range(3):
        for column in range(3):
            top, left = HEAD + row * step, GAP + column * step
            tile = sheet[top : top + TILE, left : left + TILE]
            for rim in (tile[:2], tile[-2:], tile[:, :2], tile[:, -2:]):
                assert np.ptp(rim) == 0, (row, column)
    axial, coronal, sagittal = (sheet[-TILE + 24 : -40, GAP + k * step :][:, :TILE] > 128 for k in range(3))
    rows, columns = axial.any(axis=1).sum(), axial.any(axis=0).sum()
    assert min(rows, columns, coronal.any(axis=0).sum(), sagittal.any(axis=0).sum()) > TILE / 5
