"""The table of real nodules' strands: spiculated and large ones have more, a damaged table is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from HiResMedSynthLib.joining import real_strands
from HiResMedSynthLib.joining.acceptance import RangesError
from HiResMedSynthLib.joining.real_strands import shipped_strands


def mean_count(kind: str, diameter_mm: float, spiculation: float | None) -> float:
    rng = np.random.default_rng(0)
    table = shipped_strands()
    return float(np.mean([len(table.draw(kind, diameter_mm, spiculation, rng)) for _ in range(200)]))


def test_spiculated_and_large_nodules_have_more() -> None:
    assert mean_count("solid", 12.0, 4.0) > 1.5 * mean_count("solid", 12.0, 1.0)
    assert mean_count("solid", 18.0, None) > 2 * mean_count("solid", 6.0, None)
    assert mean_count("calcified", 10.0, None) < mean_count("solid", 10.0, None)


def test_a_type_without_a_row_is_read_as_solid() -> None:
    assert mean_count("juxtapleural", 9.0, None) == mean_count("solid", 9.0, None)


def test_strands_come_the_thickest_first_and_are_of_a_size() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        found = shipped_strands().draw("solid", 14.0, 3.0, rng)
        radii = [strand.radius_mm for strand in found]
        assert radii == sorted(radii, reverse=True)
        assert all(0.2 < radius < 3.0 for radius in radii)
        assert all(2.5 <= strand.reach_mm <= 8.0 for strand in found)


@pytest.mark.parametrize("text", ["", "{}", '{"nodules": [["solid", 3]]}', '{"nodules": [["solid", 3, 1, 1, [[1]]]]}'])
def test_a_damaged_table_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    file = tmp_path / "nodule_strands.json"
    file.write_text(text)
    monkeypatch.setattr(real_strands, "SHIPPED", file)
    shipped_strands.cache_clear()
    try:
        with pytest.raises(RangesError, match="can't be read"):
            shipped_strands()
    finally:
        shipped_strands.cache_clear()
