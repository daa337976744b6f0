"""A VQGAN run on disk: one safetensors file that holds all a run needs to go on exactly. Nothing is ever pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.whole_tensors import read_tensors, save_state
from Training.checkpoint import moments_of, put_back_moments
from Training.vqgan_losses import LeCam


@dataclass(kw_only=True)
class Progress:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    precision: str = "auto"
    lecam: tuple[float, float] = (0.0, 0.0)


@dataclass(kw_only=True)
class RunState:
    """All that changes in training."""

    network: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    adversary: nn.Module
    adversary_optimiser: torch.optim.Optimizer
    counts: Tensor
    lecam: LeCam = field(default_factory=LeCam)
    progress: Progress = field(default_factory=Progress)

    def save(self, path: Path, description: Mapping[str, Any]) -> None:
        """Writes the run as one file that is either the old or the new one."""
        self.progress.lecam = (self.lecam.real, self.lecam.fake)
        tensors = {f"average.{name}": value for name, value in self.average.items()} | {"counts": self.counts}
        for part, (network, optimiser) in self._parts().items():
            tensors |= {f"{part}.{name}": value for name, value in network.state_dict().items()}
            tensors |= moments_of(optimiser, network, prefix=f"{part}_")
        save_state(path, tensors, {"progress": asdict(self.progress), "description": dict(description)})

    def load(self, path: Path) -> None:
        """Becomes the run in that file, in place.

        Raises:
            SettingsError: the file is damaged, or was written for other layers.
        """
        try:
            stored, state = read_tensors(path, "state", "pt")
            for part, (network, optimiser) in self._parts().items():
                network.load_state_dict({name: stored[f"{part}.{name}"] for name in network.state_dict()})
                put_back_moments(optimiser, network, stored, prefix=f"{part}_")
            for name, value in self.average.items():
                value.copy_(stored[f"average.{name}"])
            self.counts.copy_(stored["counts"])
            self.progress = Progress(**state["progress"])
            self.lecam.real, self.lecam.fake = self.progress.lecam
        except (KeyError, TypeError, RuntimeError, ValueError, OSError) as problem:
            raise SettingsError(
                f"The checkpoint doesn't fit this preset: {str(problem)[:200]}",
                where=path,
                remedy="Use the run's preset.",
            ) from None

    def _parts(self) -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
        return {
            "weights": (self.network, self.optimiser),
            "adversary": (self.adversary, self.adversary_optimiser),
        }
