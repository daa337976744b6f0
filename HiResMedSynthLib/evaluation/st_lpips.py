"""ST-LPIPS (Ghildyal & Liu, 2022), the perceptual distance that the paper names: its network and its weights."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.torchvision_guard import import_torchvision

UNUSED = (("IPython", "embed"), ("torchsummary", "summary"))  # the package imports both, and uses neither


@lru_cache(maxsize=2)
def st_lpips(backbone: str = "vgg") -> Any:
    """The network on VGG16 ("alex": AlexNet), frozen; of two batches [B, 3, H, W] in -1..1 it gives [B, 1, 1, 1].

    Raises:
        HiResMedSynthError: the package stlpips-pytorch or torchvision is not installed.
    """
    stand_ins = {}
    for name, attribute in UNUSED:
        if name not in sys.modules:
            stand_ins[name] = ModuleType(name)
            setattr(stand_ins[name], attribute, None)
    sys.modules.update(stand_ins)
    try:
        import_torchvision()
        package = import_module("stlpips_pytorch.stlpips")
    except ModuleNotFoundError as error:
        raise HiResMedSynthError(
            "stlpips-pytorch is not installed",
            remedy="Install it: python -m pip install --no-deps stlpips-pytorch==0.0.2.",
        ) from error
    finally:
        for name in stand_ins:
            sys.modules.pop(name, None)
    network = package.LPIPS(net=backbone, variant="shift_tolerant", verbose=False).eval()
    return network.requires_grad_(False)
