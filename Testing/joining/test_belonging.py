"""What hangs together with a lesion is found in phantoms: strands, vessels that pass by, the chest wall, nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from HiResMedSynthLib.joining.belonging import Belonging, belonging
from HiResMedSynthLib.joining.tube import filled_share
from Testing.joining.phantom import SPACING_MM, ball, lung

SHAPE = (13, 96, 96)
SIGMA_MM = 0.8
Line = tuple[tuple[float, float, float], tuple[float, float, float]]


def scene(*lines: Line, radius_mm: float = 1.2, diameter_mm: float = 10.0, wall: bool = False) -> NDArray[np.int16]:
    """A ball in the middle of the lung, and straight tubes of tissue from here to there (voxel indices)."""
    hu = lung(SHAPE, noise_hu=10.0, grain_px=0.6, wall=wall).astype(np.float64)
    share = ball(SHAPE, diameter_mm, edge_width_mm=2.0) / 65535
    hu += share * (40 - hu)
    tubes = [(np.linspace(*line, 60), np.full(60, radius_mm)) for line in lines]
    hu += filled_share(tubes, SHAPE, spacing_mm=SPACING_MM, sigma_mm=SIGMA_MM) * np.maximum(40 - hu, 0)
    return np.round(hu).astype(np.int16)


def found(hu: NDArray[np.int16], *, diameter_mm: float = 10.0) -> Belonging:
    there = belonging(hu, ball(SHAPE, diameter_mm) >= 32768, spacing_mm=SPACING_MM)
    assert there is not None
    return there


def test_a_lesion_alone_hangs_together_with_nothing() -> None:
    there = found(scene())
    assert (there.attached, there.passing) == ((), 0)
    assert there.shell_seen > 0.9


def test_strands_are_counted_measured_and_told_from_what_passes_by() -> None:
    to_the_right = ((6.0, 48.0, 50.0), (6.0, 48.0, 70.0))
    upwards = ((6.0, 46.0, 48.0), (6.0, 35.0, 48.0))  # ends 4 mm outside the ball
    beside = ((6.0, 20.0, 61.5), (6.0, 80.0, 61.5))  # its axis passes 4 mm outside it
    there = found(scene(to_the_right, upwards))
    assert there.passing == 0
    assert len(there.strands) == 2
    far, near = sorted(there.strands, key=lambda one: -one.reach_mm)
    assert far.reach_mm > 7.0
    assert near.reach_mm < 5.0
    assert far.direction == pytest.approx((0.0, 0.0, 1.0), abs=0.1)
    assert near.direction == pytest.approx((0.0, -1.0, 0.0), abs=0.1)
    assert 2.0 < far.width_mm < 5.0
    assert 300 < far.excess_hu < 900
    assert found(scene(beside)).attached == ()
    assert found(scene(beside)).passing > 0


def test_the_chest_wall_is_no_strand() -> None:
    hu = scene(wall=True)
    hu[:, :, :45] = 40
    there = found(hu)
    assert there.attached
    assert all(one.is_wide for one in there.attached)
    assert there.strands == ()


def test_where_there_is_no_lesion_nothing_is_said() -> None:
    hu = lung(SHAPE, noise_hu=10.0, wall=False)
    assert belonging(hu, ball(SHAPE, 10.0) >= 32768, spacing_mm=SPACING_MM) is None
    assert belonging(hu, np.zeros(SHAPE, bool), spacing_mm=SPACING_MM) is None
