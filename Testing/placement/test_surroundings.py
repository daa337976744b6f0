"""Distances from the lung's border and from vessels, and what they say of a place."""

from __future__ import annotations

import numpy as np
import pytest

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.ground import prepare_ground
from HiResMedSynthLib.placement.method import PlacementMethod
from HiResMedSynthLib.placement.surroundings import DistanceTable, distance_heat, distances_mm, shipped_table
from Testing.placement.phantoms import chest_ct


def test_distances_are_in_millimetres_and_end_at_the_largest() -> None:
    hu = np.full((60, 80), -860, dtype=np.float32)
    lung = np.ones(hu.shape, dtype=bool)
    lung[:, :10] = False
    border, vessel = distances_mm(hu, lung, 0.5, most_mm=25.0)
    assert border[30, 29] == pytest.approx(10.0, rel=0.03)
    assert border[30, 79] == 25.0
    assert (vessel == 25.0).all()
    hu[28:33, 50:55] = 60  # a vessel of 2.5 mm
    hu[28:33, 0:5] = 60  # not in the lung
    _, vessel = distances_mm(hu, lung, 0.5, most_mm=25.0)
    assert vessel[30, 52] == 0
    assert vessel[30, 74] == pytest.approx(10.0, abs=0.6)
    assert vessel[30, 12] > 15


def test_the_table_is_linear_between_the_middles_of_its_bins() -> None:
    table = DistanceTable(edges_mm=np.array([0.0, 2.0, 4.0]), log_ratio=np.array([[0.0, 1, 2], [3, 4, 5], [6, 7, 8]]))
    at = table.of(np.array([1.0, 2.0, 0.0, 9.0], np.float32), np.array([1.0, 1.0, 2.0, 9.0], np.float32))
    assert at == pytest.approx([0.0, 1.5, 0.5, 8.0])


def test_the_shipped_table_prefers_places_near_the_border_to_deep_ones_near_vessels() -> None:
    near, deep = shipped_table().of(np.array([5.0, 25.0], np.float32), np.array([10.0, 3.0], np.float32))
    assert near > 0.1 > -0.5 > deep


def test_the_heat_has_mean_one_over_each_slices_lungs() -> None:
    image = chest_ct(slices=4)
    lungs = (image.pixels < -800) & (image.pixels > -900)
    lungs[0] = False
    heat = distance_heat(image, lungs)
    assert heat.dtype == np.float32
    assert not heat[~lungs].any()
    for index in (1, 2, 3):
        assert heat[index][lungs[index]].mean() == pytest.approx(1, abs=1e-4)
    row, column = 64, 92  # the vessel of the left lung: 45 mm from its border
    assert heat[1, row + 4, column] < heat[1, row, column + 14]


def test_the_default_prior_of_a_ct_is_weighted_by_distances_and_says_so() -> None:
    image = chest_ct(slices=3)
    ways = [PlacementMethod(danger="rule", prior=prior) for prior in ("auto", "distances", "density")]
    default, named, density = (prepare_ground(image, domain="lung-ct", placement=way) for way in ways)
    assert "distances from the lung's border and vessels" in default.method
    assert "distances" not in density.method
    assert np.array_equal(default.heat(), named.heat())
    assert not np.array_equal(default.heat(), density.heat())
    assert float(default.heat().sum(dtype=np.float64)) == pytest.approx(1, abs=1e-5)
    with pytest.raises(SettingsError, match="mean nothing on a chest film"):
        PlacementMethod(prior="distances").local_factor("cxr")
