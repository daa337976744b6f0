"""Ranges of real nodules: cells by type, thick and thin slices apart where there are enough of both."""

from __future__ import annotations

import math

from HiResMedSynthLib.measure import LesionMeasures
from Training.build_nodule_ranges import FEWEST, ranges


def measured(width: float) -> LesionMeasures:
    return LesionMeasures(
        edge_width_mm=width, rim_gradient_hu_mm=400.0, gradient_jump_per_mm2=0.6,
        noise_ratio=math.nan if width > 2 else 1, cnr=90.0, noise_hu=8.0, ring_noise_hu=8.0, texture_hu=80.0,
        contrast_hu=800.0,
    )  # fmt: skip


def test_cells_and_percentiles() -> None:
    solid = [("solid", 1.0, measured(1 + k / 10)) for k in range(21)]
    solid += [("solid", 2.5, measured(2.0)) for _ in range(FEWEST)]
    cells = ranges([*solid, *(("calcified", 1.0, measured(1.5)) for _ in range(5))])
    assert [(cell["type"], cell["scans"], cell["n"]) for cell in cells] == [
        ("calcified", "any", 5), ("solid", "thin", 21), ("solid", "thick", 20), ("solid", "any", 41),
    ]  # fmt: skip
    thin = cells[1]["measures"]
    assert thin["edge_width_mm"] == {"n": 21, "low": 1.1, "median": 2.0, "high": 2.9}  # type: ignore[index]
    assert thin["noise_ratio"]["n"] == 11  # type: ignore[index]
