"""The learned local factor of the location prior, and a detector's boxes as a heatmap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.placement.location_network import learned_heat, location_plan, log_likeness, network_likeness
from HiResMedSynthLib.placement.network import NetworkPlan, PlacementNetwork
from HiResMedSynthLib.placement.yolo import FLOOR, box_heat
from Testing.placement.phantoms import chest_ct


class Brightness(nn.Module):
    """Says that a lesion is likelier where it is brighter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures * self.scale


@pytest.fixture
def network() -> PlacementNetwork:
    return PlacementNetwork.of(location_plan(), Brightness())


def test_the_heat_has_mean_one_over_each_slices_lungs(network: PlacementNetwork) -> None:
    image = chest_ct(slices=5)
    lungs = (image.pixels < -800) & (image.pixels > -900)
    lungs[0] = False
    heat = learned_heat(image, lungs, model=network_likeness(network))
    assert heat.dtype == np.float32 and heat.shape == image.shape
    assert not heat[~lungs].any()
    for index in range(1, 5):
        assert heat[index][lungs[index]].mean() == pytest.approx(1, abs=1e-4)
    assert np.array_equal(heat[1], heat[2])


def test_the_brighter_place_is_the_likelier(network: PlacementNetwork) -> None:
    image = chest_ct(slices=1)
    lungs = np.zeros(image.shape, dtype=bool)
    lungs[0, 54:74, 82:102] = True  # around a vessel at (64, 92)
    heat = learned_heat(image, lungs, model=network_likeness(network))[0]
    assert heat[64, 92] > 1 > heat[64, 98] > 0


def test_smoothing_is_part_of_the_answer(network: PlacementNetwork) -> None:
    hu = np.full((1, 64, 64), -860, dtype=np.float32)
    hu[0, 32, 32] = 100
    answer = log_likeness(hu, network)[0]
    assert answer[32, 32] == pytest.approx(answer[30, 34], rel=1e-5)
    assert answer[32, 32] > answer[32, 40]


def test_another_task_or_shape_is_refused(network: PlacementNetwork) -> None:
    image = chest_ct(slices=2)
    other = NetworkPlan(task="danger-ct", classes=("bone",), facts=location_plan().facts)
    with pytest.raises(PlacementError, match="trained for danger-ct"):
        network_likeness(PlacementNetwork.of(other, Brightness()))
    with pytest.raises(PlacementError, match="doesn't fit"):
        learned_heat(image, np.ones((1, 4, 4), bool), model=network_likeness(network))


def test_boxes_become_a_heatmap() -> None:
    boxes = np.array([[20, 40, 10, 10], [50, 10, 4, 4]], dtype=np.float32)
    heat = box_heat(boxes, np.array([0.2, 0.1], np.float32), shape=(64, 64))
    assert np.unravel_index(heat.argmax(), heat.shape) in {(19, 39), (19, 40), (20, 39), (20, 40)}
    assert heat[50, 10] == pytest.approx(0.1, rel=0.05)
    assert heat.min() >= 0.2 * FLOOR * 0.99
    empty = box_heat(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), shape=(8, 8))
    assert (empty == empty[0, 0]).all() and empty[0, 0] > 0
