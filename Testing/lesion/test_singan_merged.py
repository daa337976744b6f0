"""The GPU's form of the official iteration gives the weights of the plain one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from HiResMedSynthLib.lesion.singan import make_generator
from HiResMedSynthLib.lesion.singan_data import LesionSet
from HiResMedSynthLib.lesion.singan_merged import MergedScale
from HiResMedSynthLib.lesion.singan_settings import PAPER, preset
from HiResMedSynthLib.lesion.singan_step import Chain, Scale

SMALL = dataclasses.replace(PAPER, channels=4, most_channels=8)
CPU = torch.device("cpu")


@pytest.mark.parametrize("scale", [0, 1])
def test_merged_iterations_are_the_plain_ones(scale: int, flats: list[np.ndarray], doubles: None) -> None:
    trained = []
    for kind in (Scale, MergedScale):
        lesions = LesionSet(SMALL, flats, seed=1, device=CPU)
        below = make_generator(SMALL, 0, lesions=2, dims=2).eval().requires_grad_(False)
        below.draw_weights([torch.Generator().manual_seed(k) for k in range(2)], official=True)
        amplitude = torch.full((1, 4, 1, 1), 0.5)
        chain = Chain(SMALL, [below][:scale], [amplitude][:scale], lesions.sizes)
        one = kind(SMALL, lesions.data(chain), chain, scale=scale, lesions=2, seed=1, device=CPU, bf16=False)
        for iteration in range(3):
            one.prepare(iteration)
            one.iterate()
        trained.append(one)
    plain, merged = trained
    assert torch.allclose(plain.metrics, merged.metrics, rtol=1e-9)
    for part in ("generator", "critic"):
        mine, theirs = (getattr(one, part).state_dict() for one in trained)
        for name, value in mine.items():
            if "weight" in name or (name.startswith("norms") and "bias" in name):
                assert torch.allclose(value, theirs[name], rtol=1e-9, atol=1e-12), f"{part} {name}"
    for mine, theirs in zip(plain.generator.norms, merged.generator.norms, strict=True):
        assert torch.allclose(mine.variance, theirs.variance, rtol=1e-9)
        assert torch.allclose(mine.mean, theirs.mean, atol=1e-4)  # plain biases before a norm drift by rounding


def test_only_the_official_iteration_is_merged() -> None:
    assert MergedScale.fits(preset("paper", 2))
    assert not MergedScale.fits(preset("better", 2))
    assert not MergedScale.fits(dataclasses.replace(PAPER, batch=2))
