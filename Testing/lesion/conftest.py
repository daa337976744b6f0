"""Lesions in the standard grid, and a SinGAN of one of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from HiResMedSynthLib.lesion.bank import load_bank
from HiResMedSynthLib.lesion.lesion_grid import crop_2d, to_grid
from HiResMedSynthLib.lesion.singan import SinGan
from HiResMedSynthLib.lesion.singan_train import train_singan
from Testing.lesion.singan_runs import NAMES


@pytest.fixture(scope="module")
def solids() -> list[np.ndarray]:
    return [to_grid(load_bank().lesion(name), 16).values for name in NAMES]


@pytest.fixture(scope="module")
def flats() -> list[np.ndarray]:
    return [crop_2d(load_bank().lesion(name), 30) for name in NAMES]


@pytest.fixture(scope="module")
def trained(solids: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> SinGan:
    return train_singan(solids[:1], "tiny", out=tmp_path_factory.mktemp("run"))[0]


@pytest.fixture
def doubles() -> Iterator[None]:
    """Float64: in float32 a GAN's training doubles every rounding error in a few iterations."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
