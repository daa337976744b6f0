"""The table of real nodules' depths on films: how it is read, and how a shadow is judged by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from HiResMedSynthLib.joining import film_contrasts
from HiResMedSynthLib.joining.acceptance import RangesError, Verdict
from HiResMedSynthLib.joining.film_contrasts import judge_shadow, shipped_contrasts
from HiResMedSynthLib.joining.film_shadow import ShadowMeasures

REAL = ShadowMeasures(contrast=10.0, edge_width_mm=2.9, anatomic_cnr=1.2)


@pytest.mark.parametrize("kind", ["solid", "calcified", "part-solid", "ground-glass"])
def test_depth_grows_with_size_and_with_the_share_of_nodules(kind: str) -> None:
    table = shipped_contrasts()
    by_size = [table.depth_mm(kind, diameter, 0.5) for diameter in np.geomspace(3, 40, 30)]
    assert (np.diff(by_size) > 0).all()
    by_share = [table.depth_mm(kind, 10.0, share) for share in np.linspace(0, 1, 11)]
    assert (np.diff(by_share) >= 0).all()
    assert by_share[0] < 0.8 * by_share[-1]


def test_a_type_without_nodules_takes_those_of_solid_ones() -> None:
    table = shipped_contrasts()
    assert table.depth_mm("juxtapleural", 9.0, 0.5) == table.depth_mm("solid", 9.0, 0.5)


def verdict(
    measures: ShadowMeasures, *, diameter_mm: float = 9.6, blur_width_mm: float = 1.0, asked: bool = False
) -> Verdict:
    cell = shipped_contrasts().nearest("solid", diameter_mm)
    return judge_shadow(measures, cell, diameter_mm=diameter_mm, blur_width_mm=blur_width_mm, contrast_was_asked=asked)


def test_what_is_like_real_nodules_passes_and_what_is_not_is_named() -> None:
    assert verdict(REAL).accepted
    faint = ShadowMeasures(contrast=1.0, edge_width_mm=2.9, anatomic_cnr=0.1)
    found = verdict(faint)
    assert list(found.outside) == ["anatomic_cnr"]
    assert found.excess > 0
    assert "ribs and vessels around 0.1 not in" in found.words
    assert verdict(faint, asked=True).accepted


def test_an_edge_may_be_as_blunt_as_a_blunt_film_makes_it() -> None:
    blunt = ShadowMeasures(contrast=10.0, edge_width_mm=5.0, anatomic_cnr=1.2)
    assert list(verdict(blunt).outside) == ["edge_width_mm"]
    assert verdict(blunt, blur_width_mm=4.0).accepted


def test_what_cannot_be_measured_passes_and_says_so() -> None:
    found = verdict(ShadowMeasures(contrast=10.0, edge_width_mm=float("nan"), anatomic_cnr=1.2))
    assert found.accepted
    assert found.tested == ("anatomic_cnr",)


@pytest.mark.parametrize("text", ["", "{}", '{"cells": {}, "reference": {"detail": 1}}'])
def test_a_damaged_table_is_told(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "film_contrasts.json"
    file.write_text(text)
    monkeypatch.setattr(film_contrasts, "SHIPPED", file)
    with pytest.raises(RangesError, match="can't be read"):
        shipped_contrasts.__wrapped__()
