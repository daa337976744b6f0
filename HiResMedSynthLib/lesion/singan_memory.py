"""How much memory a training needs, told before it starts."""

from __future__ import annotations

import math

import torch

from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.free_memory import free_bytes
from HiResMedSynthLib.lesion.singan import CHANNELS
from HiResMedSynthLib.lesion.singan_settings import SinGanSettings

BYTES = 4
LIBRARIES = 100e6  # that torch's kernels take at their first call
HELD = 4  # of each layer: its result before and after the LeakyReLU, and the slopes of both
LESS = "Close other programs, take fewer or smaller lesions at once, or another machine."


def needed_bytes(settings: SinGanSettings, shape: tuple[int, ...], lesions: int) -> float:
    """Most bytes in use at the last scale: the images learned from, and what a step holds of every layer.

    Measured on a CPU (peak of the process): 260 MB for one 32^3 lesion of `better`, 180 more for each further one,
    200 MB for one slice of `paper`; told are 310, 210 and 190.
    """
    padded = math.prod(side + 2 * settings.layers * settings.pad_outside for side in shape)
    images = CHANNELS * (2 * settings.reals + settings.cache)
    held = HELD * settings.layers * settings.width(len(settings.sizes(shape)) - 1) * (2 * settings.batch + 1)
    return LIBRARIES + BYTES * lesions * padded * (images + held)


def check_memory(settings: SinGanSettings, shape: tuple[int, ...], lesions: int, device: torch.device) -> None:
    """Refuses a training that can't fit; says nothing where the free memory isn't known.

    Raises:
        HiResMedSynthError: too little is free.
    """
    needed, free = needed_bytes(settings, shape, lesions), free_bytes(str(device))
    if free is not None and needed > free:
        raise HiResMedSynthError(
            f"too little memory: training needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free", remedy=LESS
        )
