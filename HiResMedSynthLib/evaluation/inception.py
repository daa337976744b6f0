"""Features of Inception v3 where torchvision's weights lie on this machine; nothing is fetched."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.torchvision_guard import import_torchvision

VERSION = 1
SPACE = "inception-v3"
WEIGHTS = "inception_v3_google-0cc3c7bd.pth"  # ImageNet, of torchvision: not the network of published FIDs
SIDE = 299  # px
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def inception_features(unit: NDArray[np.float32]) -> NDArray[np.float64]:
    """[2048] features before the classifier, of a picture `[row, column]` in 0..1 brought to 299 pixels.

    Raises:
        HiResMedSynthError: torchvision is not installed, or the weights are not on this machine or not these.
    """
    import cv2
    import torch

    network = inception()
    shrinks = min(unit.shape) >= SIDE
    square = cv2.resize(unit, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    colours = [(square - mean) / sd for mean, sd in zip(MEAN, SD, strict=True)]
    with torch.no_grad():
        found = network(torch.from_numpy(np.stack(colours)[np.newaxis].astype(np.float32)))
    return np.asarray(found[0].double().numpy())


def inception() -> Any:
    """The network without its classifier, loaded once.

    Raises:
        HiResMedSynthError: as `inception_features`.
    """
    return _network(_weights())


def _weights() -> Path:
    import torch

    file = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
    if not file.is_file():
        raise HiResMedSynthError(
            f"Inception's weights {WEIGHTS} are not on this machine",
            remedy="Put them into torch's hub folder, checkpoints; --features texture needs no weights.",
        )
    return file


@lru_cache(maxsize=1)
def _network(weights: Path) -> Any:
    import torch

    import_torchvision()
    network = import_module("torchvision.models").inception_v3(weights=None, init_weights=False, transform_input=True)
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:  # torch names a cut, foreign or unsafe file by a dozen types
        raise HiResMedSynthError(
            f"{WEIGHTS} is not torchvision's Inception v3",
            where=weights,
            remedy="Replace it by the file of that name that torchvision offers, or take --features texture.",
        ) from error
    network.fc = torch.nn.Identity()
    return network.eval().requires_grad_(False)
