"""Makes torchvision importable beside a torch of another build.

A torchvision built for CUDA can't load its compiled operators beside a CPU torch; its import then fails with
"operator torchvision::nms does not exist", and with it segmentation-models-pytorch, timm, lpips and torchmetrics. The
operators that its Python code looks up at import are declared here, `nms` with an implementation in plain torch.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from HiResMedSynthLib.errors import HiResMedSynthError

if TYPE_CHECKING:
    from torch import Tensor

_keep_alive: list[Any] = []  # a torch.library.Library undoes its definitions when it is collected


def import_torchvision() -> ModuleType:
    """The module torchvision, whatever build of torch it stands beside.

    Raises:
        HiResMedSynthError: torchvision is not installed.
    """
    try:
        import torchvision
    except ModuleNotFoundError as error:
        raise HiResMedSynthError(
            "torchvision is not installed",
            remedy="Install the extra from the project's folder: python -m pip install '.[models]'.",
        ) from error
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare_operators()
        import torchvision

        torchvision.extension._has_ops = lambda: True
    assert isinstance(torchvision, ModuleType)
    return torchvision


def _declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", _non_maximum_suppression, "CPU")
    _keep_alive.append(library)


def _non_maximum_suppression(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes `[n, 4]` kept, by falling score: none overlaps a better one by more than the threshold."""
    import torch

    order = scores.argsort(descending=True, stable=True)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while order.numel():
        best, rest = order[0], order[1:]
        kept.append(best)
        corner = torch.maximum(boxes[best, :2], boxes[rest, :2])
        opposite = torch.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = (opposite - corner).clamp(min=0).prod(dim=1)
        order = rest[shared / (area[best] + area[rest] - shared) <= iou_threshold]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.int64)
