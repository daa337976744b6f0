"""The sharpness of a scan, found from its own edges."""

from __future__ import annotations

import numpy as np
import pytest

from HiResMedSynthLib.joining.scan_resolution import DEFAULT_WIDTH_MM, scan_resolution
from Testing.joining.phantom import SPACING_MM, lung


@pytest.mark.parametrize("width_mm", [1.8, 2.6, 3.4])
@pytest.mark.parametrize("noise_hu", [0.0, 15.0])
def test_the_width_of_the_scans_edges_is_found(width_mm: float, noise_hu: float) -> None:
    found = scan_resolution(lung(edge_width_mm=width_mm, noise_hu=noise_hu), spacing_mm=SPACING_MM)
    assert found.edge_width_mm == pytest.approx(width_mm, abs=0.35)  # pixels of 0.7 mm widen a sharp one
    assert found.sigma_mm == pytest.approx(found.edge_width_mm / 2.563)
    assert found.count > 100
    assert "edges of the image" in found.source


def test_one_slice_is_enough() -> None:
    assert scan_resolution(lung((1, 96, 96)), spacing_mm=SPACING_MM).count >= 40


@pytest.mark.parametrize("hu", [lung(wall=False), np.zeros((2, 40, 40), np.int16)])
def test_without_edges_the_default_is_named(hu: np.ndarray) -> None:
    found = scan_resolution(hu, spacing_mm=SPACING_MM)
    assert (found.edge_width_mm, found.count) == (DEFAULT_WIDTH_MM, 0)
    assert found.source.startswith("default")


def test_what_is_left_out_does_not_count() -> None:
    hu = lung()
    assert scan_resolution(hu, spacing_mm=SPACING_MM, leave_out=np.ones(hu.shape, bool)).count == 0
