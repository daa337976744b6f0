"""Pictures of the danger map and the prior can be laid beside each other."""

from __future__ import annotations

import numpy as np

from HiResMedSynthLib.placement.danger_map import DangerMap
from HiResMedSynthLib.placement.picture import danger_picture, prior_picture
from Testing.placement.phantoms import chest_ct


def test_both_show_the_same_slice_and_any_slice_that_is_asked_for() -> None:
    image = chest_ct(4)
    labels = np.ones(image.shape, dtype=np.uint8)
    labels[:, 40:60, 40:60] = 0
    labels[2, 40:80, 40:80] = 0
    danger_map = DangerMap(labels=labels, names={1: "wall"}, method="test")
    heat = np.where(labels == 0, np.float32(1e-6), np.float32(0))
    heat[1] *= 1000  # likelier in another slice than that with most room
    danger, prior = np.asarray(danger_picture(image, danger_map)), np.asarray(prior_picture(image, heat, danger_map))
    assert np.array_equal(danger, danger_picture(image, danger_map, index=2))
    assert np.array_equal(prior, prior_picture(image, heat, danger_map, index=2))
    assert not np.array_equal(prior, prior_picture(image, heat, danger_map, index=1))
