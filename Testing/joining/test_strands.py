"""Where strands run: to vessels that end near, along faint ridges, out into the lung; as many as a lesion lacks."""

from __future__ import annotations

import numpy as np
import pytest

from HiResMedSynthLib.joining.real_strands import Strand
from HiResMedSynthLib.joining.strands import Path, paths
from Testing.joining.phantom import SPACING_MM, ball
from Testing.joining.test_belonging import SHAPE, Line, found, scene

VESSEL: Line = ((6.0, 20.0, 66.0), (6.0, 76.0, 66.0))  # 7 mm beside the ball
LINK, SHORT = Strand(radius_mm=0.9, reach_mm=8.0), Strand(radius_mm=0.8, reach_mm=4.0)


def ways(*lines: Line, wanted: list[Strand], seed: int = 0, one_slice: bool = False) -> list[Path]:
    rng = np.random.default_rng(seed)
    return paths(found(scene(*lines)), wanted, spacing_mm=SPACING_MM, one_slice=one_slice, rng=rng)


def test_a_link_leads_from_inside_the_lesion_to_the_vessel() -> None:
    (link,) = ways(VESSEL, wanted=[LINK])
    assert link.to == "vessel"
    first, last = link.points[0], link.points[-1]
    assert ball(SHAPE, 10.0)[tuple(np.rint(first).astype(int))] > 32768
    assert abs(last[2] - 66.0) * SPACING_MM[2] < 2.0
    steps = np.linalg.norm(np.diff(link.points, axis=0) * SPACING_MM, axis=1)
    assert steps.max() < 2.0
    assert link.radii_mm[0] > link.radii_mm[-1] >= 0.9


def test_a_link_prefers_a_faint_ridge_to_plain_lung() -> None:
    opposite: Line = ((6.0, 20.0, 27.0), (6.0, 76.0, 27.0))  # 2 mm farther away than the other vessel
    plain = scene(VESSEL, opposite)
    ridge = scene(((6.0, 48.0, 45.0), (6.0, 48.0, 27.0)), radius_mm=0.35).astype(int) - scene()
    to_the_left = []
    for pixels in (plain, (plain + np.where(ridge > 0, ridge, 0)).astype(np.int16)):
        there = found(pixels)
        ends = [
            paths(there, [LINK], spacing_mm=SPACING_MM, one_slice=False, rng=np.random.default_rng(seed))[0].points[-1]
            for seed in range(4)
        ]
        to_the_left.append(sum(end[2] < 48 for end in ends))
    assert to_the_left[0] <= 1
    assert to_the_left[1] >= 3


def test_without_a_structure_near_strands_run_out_into_the_lung_and_taper() -> None:
    made = ways(wanted=[LINK, SHORT, SHORT])
    assert [path.to for path in made] == ["lung"] * 3
    for path in made:
        assert path.radii_mm[-1] < 0.6 * path.radii_mm[0]
    rays = [path.points[-1] - path.points[0] for path in made]
    rays = [ray * SPACING_MM / np.linalg.norm(ray * SPACING_MM) for ray in rays]
    assert max(float(a @ b) for k, a in enumerate(rays) for b in rays[:k]) < 0.95


def test_what_ends_at_the_lesion_already_counts() -> None:
    there: Line = ((6.0, 48.0, 50.0), (6.0, 48.0, 75.0))
    assert ways(there, wanted=[LINK]) == []
    assert len(ways(there, wanted=[LINK, LINK])) == 1


def test_in_a_single_slice_strands_stay_in_it() -> None:
    made = ways(wanted=[SHORT] * 4, one_slice=True)
    assert made
    assert all(np.ptp(path.points[:, 0]) == 0 for path in made)


def test_a_lesion_that_is_full_of_strands_gets_no_endless_search() -> None:
    made = ways(wanted=[SHORT] * 60)
    assert 5 < len(made) < 40


@pytest.mark.parametrize("wanted", [[LINK], [SHORT, SHORT]])
def test_the_same_stream_gives_the_same_ways(wanted: list[Strand]) -> None:
    one, other = (ways(VESSEL, wanted=wanted, seed=5) for _ in range(2))
    assert all(np.array_equal(a.points, b.points) for a, b in zip(one, other, strict=True))
