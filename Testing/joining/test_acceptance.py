"""The test of a lesion in its place against real nodules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from HiResMedSynthLib.joining import acceptance
from HiResMedSynthLib.joining.acceptance import TESTED, RangesError, judge, shipped_ranges
from HiResMedSynthLib.joining.scan_resolution import ScanResolution
from HiResMedSynthLib.measure import LesionMeasures

USUAL = ScanResolution(edge_width_mm=2.2, usual_width_mm=1.15 * 2.2, count=100)
RANGES = shipped_ranges().of("solid", slice_mm=1.0)
REAL = LesionMeasures(
    edge_width_mm=2.2, rim_gradient_hu_mm=480.0, gradient_jump_per_mm2=0.6, noise_ratio=0.95, cnr=90.0, noise_hu=10.0,
    ring_noise_hu=9.5, texture_hu=85.0, contrast_hu=830.0,
)  # fmt: skip


def test_a_usual_nodule_is_accepted() -> None:
    verdict = judge(REAL, RANGES, resolution=USUAL, pixel_mm=0.7)
    assert verdict.accepted
    assert verdict.excess == 0
    assert verdict.tested == TESTED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("edge_width_mm", 0.9),
        ("edge_width_mm", 5.0),
        ("rim_gradient_hu_mm", 2000.0),
        ("noise_ratio", 6.0),
        ("gradient_jump_per_mm2", 3.0),
        ("cnr", 900.0),
    ],
)
def test_what_no_real_nodule_has_is_told_with_its_range(name: str, value: float) -> None:
    verdict = judge(replace(REAL, **{name: value}), RANGES, resolution=USUAL, pixel_mm=0.7)
    assert not verdict.accepted
    assert verdict.excess > 0
    assert list(verdict.outside) == [name]
    assert "not in" in verdict.words
    assert verdict.record()["outside"][name][0] == value


def test_what_cannot_be_measured_passes_and_is_not_called_tested() -> None:
    verdict = judge(replace(REAL, noise_ratio=float("nan"), cnr=float("nan")), RANGES, resolution=USUAL, pixel_mm=0.7)
    assert verdict.accepted
    assert set(verdict.tested) == set(TESTED) - {"noise_ratio", "cnr"}


def test_a_soft_or_coarse_scan_may_have_soft_edges_and_a_noisy_one_a_low_cnr() -> None:
    blunt = replace(REAL, edge_width_mm=3.6, rim_gradient_hu_mm=280.0)
    assert not judge(blunt, RANGES, resolution=USUAL, pixel_mm=0.7).accepted
    soft = ScanResolution(edge_width_mm=3.2, usual_width_mm=3.6, count=9)
    assert judge(blunt, RANGES, resolution=soft, pixel_mm=0.7).accepted
    assert judge(blunt, RANGES, resolution=USUAL, pixel_mm=2.0).accepted
    assert judge(replace(REAL, cnr=8.3, ring_noise_hu=100.0), RANGES, resolution=USUAL, pixel_mm=0.7).accepted


def test_a_contrast_that_was_asked_for_is_not_tested() -> None:
    faint = replace(REAL, rim_gradient_hu_mm=60.0, cnr=1.0)
    assert not judge(faint, RANGES, resolution=USUAL, pixel_mm=0.7).accepted
    assert judge(faint, RANGES, resolution=USUAL, pixel_mm=0.7, contrast_was_asked=True).accepted


def test_every_type_has_ranges_and_thick_slices_their_own() -> None:
    for kind in ("solid", "part-solid", "ground-glass", "calcified", "juxtapleural"):
        for slice_mm in (0.6, 5.0):
            found = shipped_ranges().of(kind, slice_mm=slice_mm)
            assert {*TESTED, "contrast_hu"} <= set(found)
            assert all(one.low < one.median < one.high and one.n >= 20 for one in found.values())
    assert shipped_ranges().of("solid", slice_mm=5.0) != RANGES


def test_damaged_ranges_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ranges.json").write_text('{"cells": [{"type": "solid"}]}')
    monkeypatch.setattr(acceptance, "SHIPPED", tmp_path / "ranges.json")
    shipped_ranges.cache_clear()
    with pytest.raises(RangesError, match="can't be read"):
        shipped_ranges()
    shipped_ranges.cache_clear()
