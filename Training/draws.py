"""Random numbers of a training step, drawn where they are used: nothing waits for the host, a CUDA graph holds it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Draws:
    """Random tensors on one device.

    Args:
        device: where they lie.
        generator: of that device; None: the device's own (the one a CUDA graph can be seeded by).
    """

    def __init__(self, device: str | torch.device, generator: torch.Generator | None = None) -> None:
        self.device, self.generator = torch.device(device), generator

    @classmethod
    def of(cls, rng: np.random.Generator, device: str | torch.device) -> Draws:
        """Decided by `rng` alone, drawn on the CPU and then moved: the same numbers on every device."""
        return _Moved(device, torch.Generator().manual_seed(int(rng.integers(2**62))))

    @classmethod
    def seeded(cls, seed: int, device: str | torch.device) -> Draws:
        """Decided by `seed`; on a GPU by its own generator, which must have been seeded."""
        cpu = torch.device(device).type == "cpu"
        return cls(device, torch.Generator().manual_seed(seed) if cpu else None)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Floats in low..high."""
        return low + (high - low) * self._rand(shape)

    def normal(self, sd: float, *shape: int) -> Tensor:
        """Floats about 0."""
        return sd * self._randn(shape)

    def below(self, count: int, *shape: int) -> Tensor:
        """Integers from 0 to count - 1."""
        return (self._rand(shape) * count).long().clamp(max=count - 1)

    def one_of(self, values: Sequence[int] | Tensor, *shape: int) -> Tensor:
        """Entries of `values`, with replacement; a tensor of values must lie on this device."""
        held = values if isinstance(values, Tensor) else torch.tensor(values, device=self.device)
        return held[self.below(len(held), *shape)]

    def times(self, count: int, *, mean: float, sd: float) -> Tensor:
        """[count] times in 0..1 from a logit-normal: most midway, the hardest; `mean` above 0 leans to the data."""
        return torch.sigmoid(mean + self.normal(sd, count))

    def _rand(self, shape: Sequence[int]) -> Tensor:
        return torch.rand(tuple(shape), device=self.device, generator=self.generator)

    def _randn(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), device=self.device, generator=self.generator)


class _Moved(Draws):
    """Draws on the CPU, for the device."""

    def _rand(self, shape: Sequence[int]) -> Tensor:
        return torch.rand(tuple(shape), generator=self.generator).to(self.device)

    def _randn(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator).to(self.device)
