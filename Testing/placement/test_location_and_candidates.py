"""Heatmaps, places drawn from them, whole footprints and the nearest place that fits."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.placement.candidates import (
    OUTSIDE_IMAGE,
    PlaceSampler,
    candidates,
    footprint_problem,
    nearest_permitted,
)
from HiResMedSynthLib.placement.danger import danger
from HiResMedSynthLib.placement.danger_map import DangerMap
from HiResMedSynthLib.placement.location import heatmap
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.read import read_image
from Testing.placement.phantoms import chest_ct


def walled(shape: tuple[int, int, int]) -> DangerMap:
    labels = np.zeros(shape, dtype=np.uint8)
    labels[:, :, : shape[2] // 2] = 1
    labels[:, 0] = 2
    return DangerMap(labels=labels, names={1: "wall", 2: "roof"}, method="test")


@pytest.mark.parametrize("slices", [1, 4, 60])
def test_a_ct_heatmap_sums_to_one_and_is_zero_where_forbidden(slices: int) -> None:
    image = chest_ct(slices)
    found = danger(image, domain="lung-ct", margins=Margins())
    heat = heatmap(image, found, domain="lung-ct")
    assert heat.dtype == np.float32
    assert heat.shape == image.shape
    assert float(heat.sum(dtype=np.float64)) == pytest.approx(1.0, abs=1e-5)
    assert not heat[found.forbidden()].any()
    assert (heat[~found.forbidden()] > 0).all()


def test_film_heatmaps_sum_to_one(cxr_file: Path) -> None:
    image = read_image(cxr_file, spacing_mm=(0.342, 0.4175))
    found = danger(image, domain="cxr", margins=Margins())
    heat = heatmap(image, found, domain="cxr")
    assert float(heat.sum(dtype=np.float64)) == pytest.approx(1.0, abs=1e-5)
    assert not heat[found.forbidden()].any()


def test_no_permitted_voxel_is_said() -> None:
    nothing = DangerMap(labels=np.ones((1, 128, 128), dtype=np.uint8), names={1: "wall"}, method="test")
    with pytest.raises(PlacementError, match="no tissue"):
        heatmap(chest_ct(1), nothing, domain="lung-ct")
    with pytest.raises(PlacementError, match="no tissue"):
        PlaceSampler(np.zeros((1, 4, 4), dtype=np.float32))


def test_places_follow_the_heatmap_and_the_seed() -> None:
    heat = np.zeros((2, 3, 4), dtype=np.float32)
    heat[0, 1, 2], heat[1, 2, 3] = 0.25, 0.75
    sampler = PlaceSampler(heat)
    places = sampler.draw(np.random.default_rng(1), 4000)
    assert {tuple(place) for place in places.tolist()} == {(0, 1, 2), (1, 2, 3)}
    assert (places[:, 0] == 1).mean() == pytest.approx(0.75, abs=0.03)
    assert np.array_equal(places, sampler.draw(np.random.default_rng(1), 4000))


def test_candidates_keep_their_distance_in_millimetres() -> None:
    heat = np.full((4, 40, 40), 1 / 6400, dtype=np.float32)
    spacing = (5.0, 0.5, 2.0)
    places = candidates(heat, count=12, rng=np.random.default_rng(3), spacing_mm=spacing, min_distance_mm=12.0)
    assert len(places) >= 5
    points = np.array(places) * spacing
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)[~np.eye(len(points), dtype=bool)]
    assert apart.min() >= 12.0


def test_a_footprint_is_judged_whole() -> None:
    found = walled((3, 20, 20))
    footprint = np.ones((1, 3, 3), dtype=bool)
    assert footprint_problem(found, footprint, (1, 5, 12)) == ()
    assert footprint_problem(found, footprint, (1, 5, 8)) == ("wall",)
    assert footprint_problem(found, footprint, (1, 5, 8), allow=("wall",)) == ()
    assert footprint_problem(found, footprint, (1, 0, 8)) == ("wall", "roof")
    assert footprint_problem(found, footprint, (1, 18, 12)) == (OUTSIDE_IMAGE,)
    ring = footprint.copy()
    ring[0, :, 0] = False  # only voxels of the footprint count
    assert footprint_problem(found, ring, (1, 5, 9)) == ()


@pytest.mark.parametrize("spacing", [(5.0, 1.0, 1.0), (1.0, 0.5, 2.0)])
def test_the_nearest_place_is_the_nearest_by_exhaustion(spacing: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(5)
    forbidden = rng.random((4, 18, 18)) < 0.06
    footprint = np.zeros((2, 4, 3), dtype=bool)
    footprint[:, 1:3] = footprint[0, 0, 1] = footprint[1, 3, 2] = True
    corner = (1, 7, 7)
    found = nearest_permitted(forbidden, footprint, corner, spacing_mm=spacing)
    fits = [
        (s, r, c)
        for s in range(3)
        for r in range(15)
        for c in range(16)
        if not forbidden[s : s + 2, r : r + 4, c : c + 3][footprint].any()
    ]

    def away(place: tuple[int, int, int]) -> float:
        return float(np.linalg.norm((np.array(place) - corner) * spacing))

    assert found in fits
    assert away(found) == pytest.approx(min(map(away, fits)))


def test_no_near_place_is_none_and_an_outside_corner_is_brought_in() -> None:
    footprint = np.ones((1, 3, 3), dtype=bool)
    assert nearest_permitted(np.ones((1, 30, 30), dtype=bool), footprint, (0, 5, 5), spacing_mm=(1, 1, 1)) is None
    assert nearest_permitted(np.zeros((1, 2, 2), dtype=bool), footprint, (0, 0, 0), spacing_mm=(1, 1, 1)) is None
    free = np.zeros((1, 30, 30), dtype=bool)
    assert nearest_permitted(free, footprint, (0, -4, 40), spacing_mm=(1, 1, 1)) == (0, 0, 27)
    assert nearest_permitted(free, footprint, (0, 0, 400), spacing_mm=(1, 1, 1)) is None


def test_the_nearest_place_is_found_fast_in_a_real_series(ct_series_folder: Path) -> None:
    image = read_image(ct_series_folder)
    found = danger(image, domain="lung-ct", margins=Margins())
    grid = np.mgrid[-2:3, -9:10, -9:10].reshape(3, -1).T * image.spacing_mm
    footprint = (np.linalg.norm(grid, axis=1) <= 6.0).reshape(5, 19, 19)
    start = time.perf_counter()
    corner = nearest_permitted(found.forbidden(), footprint, (4, 250, 250), spacing_mm=image.spacing_mm)
    assert time.perf_counter() - start < 2.0
    assert corner is not None
    assert footprint_problem(found, footprint, corner) == ()
