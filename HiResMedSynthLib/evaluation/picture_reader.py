"""A machine reader of pictures: a small 2-D network, folds by patient, and where it looked.

It reads films and slices as `cnn_reader` reads volumes: nothing comes in but the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation.reader_training import read, taught_in_folds
from HiResMedSynthLib.evaluation.reading import BATCH, FOLDS, Reading, dealt, labels, patients_of, reading_of

if TYPE_CHECKING:
    from torch import Tensor, nn

WIDTHS = (32, 64, 128, 128)  # 240 thousand weights
DETAIL_FLOOR = 0.02  # of the pictures' unit: fainter detail is noise
DROPOUT = 0.3
PATIENCE = 12  # epochs without a better inner loss before it stops
FEWEST_PX = 16
FARTHEST_PX = 3  # by which a picture is shifted in training


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureReading:
    """What the reader found, and by what.

    Args:
        reading: who won against whom.
        scores: float `[real + made]`, high = real; of one scale within a fold only.
        saliency: float32 `[real + made, rows, columns]`, how much the score moves with each pixel.
    """

    reading: Reading
    scores: NDArray[np.float64]
    saliency: NDArray[np.float32]


def picture_reader(
    real: NDArray[np.floating],
    made: NDArray[np.floating],
    groups_real: Sequence[Any] | NDArray[Any],
    groups_made: Sequence[Any] | NDArray[Any],
    seed: int,
    *,
    epochs: int = 30,
) -> PictureReading:
    """Reads pictures by a small network trained in each fold; it stops early on an inner split by patient.

    Args:
        real, made: `[n, rows, columns]`, even sides, about -1 to 1, both cut and scaled in the same way.
        groups_real, groups_made: patient of each.
        seed: of folds, weights and order.
        epochs: at most.

    Raises:
        SettingsError: too few pictures or patients, groups that don't fit, odd sides.
    """
    import torch

    groups, label = patients_of(real, made, groups_real, groups_made), labels(real, made)
    if real.ndim != 3 or any(side % 2 or side < FEWEST_PX for side in real.shape[1:]):
        raise SettingsError(
            f"pictures of shape {real.shape[1:]} can't be read",
            remedy=f"Give grey pictures of even sides, {FEWEST_PX} pixels or more.",
        )
    rng = np.random.default_rng(seed)
    fold, scores = dealt(groups, label, FOLDS, rng), np.empty(len(label))
    pictures = torch.from_numpy(np.concatenate([real, made]).astype(np.float32))[:, np.newaxis]
    saliency = np.empty((len(label), *real.shape[1:]), np.float32)
    networks = taught_in_folds(
        _network, pictures, groups, label, fold, rng, epochs=epochs, patience=PATIENCE, turned=_turned
    )
    for held, network in networks:
        out = pictures[torch.from_numpy(held)]
        scores[held], saliency[held] = read(network, out), _saliency(network, out)
    return PictureReading(reading=reading_of([(fold, scores)], groups, label), scores=scores, saliency=saliency)


def _network() -> nn.Module:
    """Pictures `[n, 1, rows, columns]` to one score each, by the mean and the strongest response of each feature."""
    import torch
    from torch import nn
    from torch.nn.functional import avg_pool2d

    class WithDetail(nn.Module):
        """Adds the deviation from the local mean over the local SD: texture is seen whatever its contrast."""

        def forward(self, picture: Tensor) -> Tensor:
            def mean(values: Tensor) -> Tensor:
                return avg_pool2d(values, 5, stride=1, padding=2, count_include_pad=False)

            spread = (mean(picture**2) - mean(picture) ** 2).clamp(min=1e-8).sqrt()
            return torch.cat([picture, (picture - mean(picture)) / (spread + DETAIL_FLOOR)], dim=1)

    class Pooled(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)

    layers: list[nn.Module] = [WithDetail(), nn.PixelUnshuffle(2)]
    before = 2 * 4
    for depth, width in enumerate(WIDTHS):
        layers += [nn.Conv2d(before, width, 3, stride=1 if depth == 0 else 2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        before = width
    return nn.Sequential(*layers, Pooled(), nn.Dropout(DROPOUT), nn.Linear(2 * before, 1))


def _turned(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """The batch under one flip, quarter turn and small shift."""
    import torch

    if rng.integers(2):
        pictures = pictures.flip(3)
    if pictures.shape[2] == pictures.shape[3]:
        pictures = torch.rot90(pictures, int(rng.integers(4)), (2, 3))
    padded = torch.nn.functional.pad(pictures, [FARTHEST_PX] * 4, mode="replicate")
    row, column = rng.integers(0, 2 * FARTHEST_PX + 1, 2)
    return padded[:, :, row : row + pictures.shape[2], column : column + pictures.shape[3]]


def _saliency(network: nn.Module, pictures: Tensor) -> NDArray[np.float32]:
    """Size of the score's gradient at each pixel (Simonyan et al., 2013)."""
    import torch

    network.eval()
    found = []
    for part in pictures.split(BATCH):
        seen = part.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(network(seen).sum(), seen)
        found.append(slope.abs()[:, 0].cpu().numpy())
    return np.concatenate(found)
