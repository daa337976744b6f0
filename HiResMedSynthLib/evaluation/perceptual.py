"""Learned measures where their weights exist: ST-LPIPS of pairs, ST-LPIPS VGG features of an image, LPIPS."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.evaluation.st_lpips import st_lpips

VERSION = 1
SPACE = "st-lpips-vgg"
SIDE = 256  # px; larger pictures are brought to it, for time
LPIPS_BACKBONE = "alexnet-owt-7be5be79.pth"
Distance = Callable[[NDArray[np.float32], NDArray[np.float32]], float]


def st_lpips_distance() -> Distance:
    """The distance of two pictures `[row, column]` in 0..1, brought to 256 pixels.

    Raises:
        HiResMedSynthError: its package is not installed.
    """
    return _distance(st_lpips())


def lpips_distance() -> Distance:
    """LPIPS (AlexNet) of two pictures in 0..1, brought to 256 pixels; nothing is fetched.

    Raises:
        HiResMedSynthError: the package lpips or its backbone's weights are not on this machine.
    """
    if importlib.util.find_spec("lpips") is None:
        raise HiResMedSynthError("lpips is not installed", remedy="Install it: python -m pip install lpips.")
    import torch

    file = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_BACKBONE
    if not file.is_file():
        raise HiResMedSynthError(
            f"LPIPS needs the backbone {LPIPS_BACKBONE}, which is not on this machine",
            remedy="Put it into torch's hub folder, checkpoints; ST-LPIPS comes with its own.",
        )
    from importlib import import_module

    from HiResMedSynthLib.torchvision_guard import import_torchvision

    import_torchvision()
    return _distance(import_module("lpips").LPIPS(net="alex", verbose=False).eval())


def vgg_features(unit: NDArray[np.float32]) -> NDArray[np.float64]:
    """[1472] means over the picture of the five stages of ST-LPIPS' VGG.

    Raises:
        HiResMedSynthError: its package is not installed.
    """
    import torch

    network = st_lpips()
    with torch.no_grad():
        stages = network.net(network.scaling_layer(_tensor(unit)))
    return np.concatenate([stage[0].mean(dim=(1, 2)).double().numpy() for stage in stages])


def _distance(network: Any) -> Distance:
    def measure(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        import torch

        with torch.no_grad():
            return float(network(_tensor(one), _tensor(other)))

    return measure


def _tensor(unit: NDArray[np.float32]) -> Any:
    """[1, 3, 256, 256] in -1..1; pictures smaller than that stay as they are."""
    import cv2
    import torch

    rows, columns = (min(n, SIDE) for n in unit.shape)
    small = unit if (rows, columns) == unit.shape else cv2.resize(unit, (columns, rows), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(np.ascontiguousarray(small * 2 - 1, dtype=np.float32))[None, None].expand(-1, 3, -1, -1)
