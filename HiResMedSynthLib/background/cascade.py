"""Films from noise: the film at 64 px, its detail to 256 px, its detail to 1024 px.

The release is one safetensors file; its header's `cascade` entry (JSON) names for each stage the network's shape, the
unit of its residual and the pixel spacing it makes. Values are -1..1 of the film's own grey range.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from HiResMedSynthLib.background.flow import guided, sample
from HiResMedSynthLib.background.flow_unet import FlowUNet, FlowUNetShape
from HiResMedSynthLib.errors import ReadError, SettingsError

STAGES = ("film", "detail-256", "detail-1024")
REDUCTION = 4  # between one stage's film and the next


@dataclass(frozen=True, kw_only=True)
class TrainedStage:
    """One network, ready to sample: `unit` is the standard deviation its values are scaled by."""

    network: nn.Module
    unit: float
    spacing_mm: float


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How a film is walked from noise; the defaults are those measured in the training report.

    Attributes:
        film_steps, detail_steps: Heun steps of the first stage and of the two others (Euler's lose fine detail).
        film_jump: time from which the first stage goes to the film in one step (see `flow.sample`).
        guidance: strength of the sex as class, 1 for none.
        condition_noise: share of the residual's SD that is added to a coarse film before its detail is drawn, for each
            of the two detail stages; the networks learned to undo it.
    """

    film_steps: int = 30
    detail_steps: int = 8
    film_jump: float = 0.9
    guidance: float = 1.0
    condition_noise: tuple[float, float] = (0.3, 0.2)


@dataclass(frozen=True, kw_only=True)
class FilmCascade:
    """The three stages of one release."""

    stages: Mapping[str, TrainedStage]
    size: int

    def generate(
        self,
        *,
        seed: int,
        sex: str | None = None,
        settings: SamplingSettings | None = None,
        until: str = "detail-1024",
        on_step: Callable[[str], None] | None = None,
    ) -> NDArray[np.float32]:
        """[row, column] in -1..1: one film, the same for the same seed; `until` stops after an earlier stage.

        Args:
            seed: of all noise.
            sex: "F", "M" or None for unknown.
            settings: how to sample.
            until: the last stage to run.
            on_step: told each stage's name before it starts.

        Raises:
            SettingsError: no such stage or sex.
        """
        if until not in STAGES or sex not in (None, "F", "M"):
            raise SettingsError(f"no stage {until} or sex {sex}", remedy=f"Stages: {', '.join(STAGES)}; sex F or M.")
        settings = settings or SamplingSettings()
        generator = torch.Generator().manual_seed(seed)
        film = torch.zeros(0)
        for name in STAGES[: STAGES.index(until) + 1]:
            if on_step is not None:
                on_step(name)
            if name == "film":
                film = self._coarse(generator, sex, settings)
            else:
                noise = settings.condition_noise[STAGES.index(name) - 1]
                film = self.add_detail(name, film, generator, steps=settings.detail_steps, condition_noise=noise)
        made: NDArray[np.float32] = film[0, 0].clamp(-1, 1).numpy()
        return made

    @torch.no_grad()
    def add_detail(
        self, name: str, coarse: Tensor, generator: torch.Generator, *, steps: int, condition_noise: float
    ) -> Tensor:
        """[1, 1, 4 H, 4 W] from a coarse film [1, 1, H, W], by the detail stage of that name."""
        stage = self.stages[name]
        grain = torch.randn(coarse.shape, generator=generator)
        upsampled = upsample(coarse + condition_noise * stage.unit * grain)
        mask = torch.ones_like(upsampled)
        velocity = guided(
            stage.network,
            condition=torch.cat([upsampled, mask], dim=1),
            level=torch.full((1,), condition_noise),
        )
        noise = torch.randn(upsampled.shape, generator=generator)
        return upsampled + stage.unit * sample(velocity, noise, steps=steps, mask=mask)

    def _coarse(self, generator: torch.Generator, sex: str | None, settings: SamplingSettings) -> Tensor:
        stage = self.stages["film"]
        noise = torch.randn(1, 1, self.size, self.size, generator=generator)
        mask = torch.ones_like(noise)
        label = torch.tensor([{None: 0, "F": 1, "M": 2}[sex]])
        velocity = guided(stage.network, condition=mask, label=label, guidance=settings.guidance)
        return stage.unit * sample(velocity, noise, steps=settings.film_steps, mask=mask, jump=settings.film_jump)


def upsample(coarse: Tensor) -> Tensor:
    """[B, 1, 4 H, 4 W]: bicubic, edges replicated."""
    return nn.functional.interpolate(coarse, scale_factor=REDUCTION, mode="bicubic", align_corners=False)


def load_cascade(path: Path) -> FilmCascade:
    """The cascade of a release file, in float32, evaluating.

    Raises:
        ReadError: it is no such file, or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            described: dict[str, dict[str, Any]] = json.loads(file.metadata()["cascade"])
            stored = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (it is no dict)
        stages = {}
        for name in STAGES:
            if name not in described:
                continue
            network = FlowUNet(FlowUNetShape.from_json(described[name]["network"]))
            network.load_state_dict({key: stored[f"{name}.{key}"] for key in network.state_dict()})
            placed: Any = network.eval()
            placed.to(memory_format=torch.channels_last)  # its overload is not in torch's types
            stages[name] = TrainedStage(
                network=network, unit=described[name]["unit"], spacing_mm=described[name]["spacing_mm"]
            )
        size = int(described["film"]["size"])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as problem:
        raise ReadError(
            f"This is no film cascade ({str(problem)[:120]})", where=path, remedy="Use the file of a release."
        ) from None
    return FilmCascade(stages=stages, size=size)
