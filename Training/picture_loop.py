"""Training of networks that answer a picture with a map: danger masks and location heatmaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from Training.precision import autocast


@dataclass(frozen=True, kw_only=True)
class PictureBatch:
    """Pictures and what is wanted of them; all on one device.

    Attributes:
        picture: [B, C, rows, columns].
        targets: by name, as the task's loss wants them.
    """

    picture: Tensor
    targets: dict[str, Tensor]

    def to(self, device: str) -> PictureBatch:
        """The batch on that device."""
        return PictureBatch(
            picture=self.picture.to(device), targets={name: value.to(device) for name, value in self.targets.items()}
        )


class PictureTask(Protocol):
    """What is learned."""

    def constants(self) -> dict[str, float]:
        """Numbers that a user of the network needs beside the weights."""

    def train_batch(self, rng: np.random.Generator) -> PictureBatch:
        """A batch drawn with this generator only."""

    def loss(self, logits: Tensor, batch: PictureBatch) -> Tensor:
        """A scalar; `logits` are float32 [B, classes, rows, columns]."""

    def measured_batches(self, *, held_out: bool) -> list[PictureBatch]:
        """Unchanged batches of one side, the same each time."""

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """A picture of what the network says."""


class PictureLesson:
    """A task's batches and losses, as the loop wants them."""

    def __init__(self, task: PictureTask) -> None:
        self.task = task

    def constants(self) -> dict[str, float]:
        """The task's."""
        return self.task.constants()

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """The task's."""
        return self.task.sheet(network, seed=seed)

    def draw(self, rng: np.random.Generator, *, seed: int, device: str) -> PictureBatch:  # noqa: ARG002 (protocol)
        """The task's batch."""
        return self.task.train_batch(rng).to(device)

    def drawn_loss(self, network: nn.Module, *, precision: str, device: str) -> None:
        """None: these batches are made on the host."""

    def loss(self, network: nn.Module, drawn: PictureBatch, *, precision: str, device: str) -> Tensor:
        """The task's loss of what the network says."""
        with autocast(precision, device):
            logits = network(drawn.picture.contiguous(memory_format=torch.channels_last))
        return self.task.loss(logits.float(), drawn)

    def noted(self, network: nn.Module) -> dict[str, float]:  # noqa: ARG002 (protocol)
        """Nothing more."""
        return {}

    def measured(self, network: nn.Module, *, held_out: bool, device: str, precision: str) -> list[float]:
        """Losses of unchanged batches of one side."""
        batches = self.task.measured_batches(held_out=held_out)
        return [float(self.loss(network, b.to(device), precision=precision, device=device)) for b in batches]
