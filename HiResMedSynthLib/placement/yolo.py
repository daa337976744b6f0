"""The paper's location prior: a YOLOv11n detector whose boxes, trusted or not, are summed into a heatmap.

ultralytics is AGPL-3.0 and imported here only, when a detector is loaded (the extra `yolo`). The network is built from
the package's own yolo11n.yaml, its weights come from safetensors; no .pt file is read, nothing is fetched. None ships:
docs/results/location_prior.md says why and how to train one (Training/train_yolo.py).
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import weights
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.placement.location_network import PIXEL_MM, WINDOW_HU, SliceLikeness
from HiResMedSynthLib.placement.network import KIND, to_unit
from HiResMedSynthLib.weights import ModelError

if TYPE_CHECKING:
    from torch import nn

PLAN = "yolo11n.yaml"
TASK = "yolo-ct"
ENLARGED = 2  # the detector's finest cells are 8 pixels wide
MOST_BOXES = 100
SMALLEST_SIGMA_MM = 3.0
FLOOR = 1e-3  # of the highest score: no place is impossible
MULTIPLE = 32


def require_ultralytics() -> None:
    """Imports nothing.

    Raises:
        HiResMedSynthError: ultralytics isn't installed.
    """
    if importlib.util.find_spec("ultralytics") is None:
        raise HiResMedSynthError(
            "ultralytics is not installed",
            remedy="Install the extra (AGPL-3.0) from the project's folder: python -m pip install '.[yolo]'.",
        )


def prepare_ultralytics() -> Any:
    """The package ultralytics, told to fetch and install nothing.

    Raises:
        HiResMedSynthError: it isn't installed.
    """
    require_ultralytics()
    os.environ.update({"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"})
    from HiResMedSynthLib.torchvision_guard import import_torchvision

    import_torchvision()
    import ultralytics

    return ultralytics


def build_detector() -> nn.Module:
    """An untrained YOLOv11n of one class, `[n, 3, rows, columns]` in 0..1, sides multiples of 32."""
    prepare_ultralytics()
    from ultralytics.nn.tasks import DetectionModel

    network: nn.Module = DetectionModel(PLAN, ch=3, nc=1, verbose=False)
    return network


class YoloDetector:
    """A trained detector as a location prior for slices on the grid of `location_network`.

    Args:
        network: of `build_detector`.
        name: for messages.
    """

    def __init__(self, network: nn.Module, *, name: str = "in training") -> None:
        self.name = name
        self._network = network.eval()

    @classmethod
    def load(cls, path: Path) -> YoloDetector:
        """The detector with the weights of that safetensors file.

        Raises:
            ModelError: it can't be read, or holds another architecture.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        network = build_detector()
        try:
            network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
        except (OSError, SafetensorError, RuntimeError) as error:
            raise ModelError(
                f"this file holds no YOLOv11n of one class ({type(error).__name__})",
                where=path,
                remedy="Train one: python -m Training.train_yolo --help.",
            ) from error
        return cls(network, name=path.stem)

    def boxes(self, hu: NDArray[np.float32]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """For each picture of `[n, row, column]` its boxes `[k, 4]` (row, column, rows, columns; pixels) and scores."""
        import cv2
        import torch

        facts = {"low_hu": WINDOW_HU[0], "high_hu": WINDOW_HU[1]}
        found = []
        for picture in (to_unit(hu, facts) + 1) / 2:
            large = cv2.resize(picture, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_LINEAR)
            rows, columns = large.shape
            large = np.pad(large, ((0, -rows % MULTIPLE), (0, -columns % MULTIPLE)), mode="edge")
            with torch.inference_mode():
                answer = self._network(torch.from_numpy(np.repeat(large[np.newaxis, np.newaxis], 3, axis=1)))
            across, down, width, height, score = (answer[0] if isinstance(answer, tuple) else answer)[0].numpy()
            best = np.argsort(-score, kind="stable")[:MOST_BOXES]
            boxes = np.stack([down, across, height, width], axis=1)[best] / ENLARGED
            found.append((boxes.astype(np.float32), score[best].astype(np.float32)))
        return found

    def log_likeness(self, hu: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 `[n, row, column]`: logarithm of how likely a lesion is, up to a constant per picture."""
        return np.stack([np.log(box_heat(*found, shape=hu.shape[1:])) for found in self.boxes(hu)])


def load_detector(name: str) -> SliceLikeness:
    """The detector of a model of that name (`hiresmedsynth models add`).

    Raises:
        ModelError: there is none, or it is damaged.
        HiResMedSynthError: ultralytics isn't installed.
    """
    detector = YoloDetector.load(weights.find(name, KIND).path)
    return SliceLikeness(name=name, pixel_mm=PIXEL_MM, log_likeness=detector.log_likeness)


def box_heat(boxes: NDArray[np.float32], scores: NDArray[np.float32], *, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """float32 `[row, column]`: sum of one Gaussian a box, of its score's height and half its size; positive.

    Args:
        boxes: `[k, 4]` centre (row, column) and size (rows, columns) in pixels.
        scores: `[k]`, 0..1.
        shape: of the picture.
    """
    rows, columns = np.arange(shape[0])[:, np.newaxis] + 0.5, np.arange(shape[1])[np.newaxis] + 0.5
    heat = np.zeros(shape, dtype=np.float64)
    for (row, column, height, width), score in zip(boxes, scores, strict=True):
        down, across = (max(size / 2, SMALLEST_SIGMA_MM / PIXEL_MM) for size in (height, width))
        heat += score * np.exp(-(((rows - row) / down) ** 2 + ((columns - column) / across) ** 2) / 2)
    return np.asarray(heat + max(FLOOR * float(scores.max(initial=0.0)), 1e-9), dtype=np.float32)
