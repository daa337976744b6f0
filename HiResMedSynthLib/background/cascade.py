"""Backgrounds from noise: a coarse film told any part of its codes, then its detail x4, once or twice.

The release is one safetensors file; its header's `cascade` entry (JSON) names the domain and, for each stage in order,
the network's shape, the unit of its values and the pixel spacing it makes. Values are -1..1 of the film's own grey
range, or of the domain's window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from HiResMedSynthLib.background.calibration import calibrated
from HiResMedSynthLib.background.film_network import PICTURE, CodeShape, FilmNetwork
from HiResMedSynthLib.background.find_model import DOMAIN_PATTERN
from HiResMedSynthLib.background.flow_unet import FlowUNet, FlowUNetShape
from HiResMedSynthLib.errors import ReadError, SettingsError
from HiResMedSynthLib.flow import guided, sample, sampling_times
from HiResMedSynthLib.whole_tensors import read_tensors, reason

REDUCTION = 4  # between one stage's film and the next
SEXES = {None: 0, "F": 1, "M": 2}


@dataclass(frozen=True, kw_only=True)
class TrainedStage:
    """One network, ready to sample.

    Attributes:
        network: a FilmNetwork for the first stage, a FlowUNet for detail.
        unit: the standard deviation its values are scaled by.
        spacing_mm: of the pixels it makes.
        shortcut: the times that a distilled network walks in Euler steps; None for a network that isn't distilled.
    """

    network: nn.Module
    unit: float
    spacing_mm: float
    shortcut: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How a film is walked from noise; the defaults are those measured in the training report.

    Attributes:
        film_steps, detail_steps: Heun steps of the first stage and of the others (Euler's lose fine detail).
        film_jump: time from which the first stage goes to the film in one step (see `flow.sampling_times`).
        film_bend: how the first stage's times crowd towards the jump, 1 for even ones.
        guidance: strength of the sex as class, 1 for none.
        condition_noise: share of the residual's SD that is added to a coarse film before its detail is drawn, for each
            detail stage in order; the networks learned to undo it.
    """

    film_steps: int = 20
    detail_steps: int = 8
    film_jump: float = 0.97
    film_bend: float = 1.0
    guidance: float = 1.0
    condition_noise: tuple[float, ...] = (0.3, 0.2)


REBUILDING = SamplingSettings(film_steps=7, film_jump=0.96, film_bend=2.0)
"""Where all codes are known there is little to choose early on: a third of the evaluations, most of them late, make as
good a film (measured in docs/results/film_cascade.md)."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Gains at frequencies (cycles/pixel) for a finished film; see `calibration.calibrated`."""

    frequencies: tuple[float, ...]
    gains: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class FilmCascade:
    """The stages of one release in order; `film_side` and `grid` are the sides of the first film and of its codes."""

    domain: str
    stages: Mapping[str, TrainedStage]
    film_side: int
    grid: int
    calibration: Calibration | None = None

    @property
    def device(self) -> torch.device:
        """Where its networks lie; what goes in and comes out lies on the CPU."""
        return next(self.first.parameters()).device

    def on(self, device: str) -> FilmCascade:
        """The same cascade, its networks moved to that device; a seed's noise is the same on every one."""
        for stage in self.stages.values():
            stage.network.to(device)
        return self

    @property
    def side(self) -> int:
        """Side of the finished film."""
        side: int = self.film_side * REDUCTION ** (len(self.stages) - 1)
        return side

    @property
    def spacing_mm(self) -> float:
        """Pixel spacing of the finished film."""
        return list(self.stages.values())[-1].spacing_mm

    def generate(
        self,
        *,
        seed: int,
        sex: str | None = None,
        codes: Tensor | None = None,
        known: Tensor | None = None,
        settings: SamplingSettings | None = None,
        until: str | None = None,
        on_step: Callable[[str], None] | None = None,
    ) -> NDArray[np.float32]:
        """[row, column] in -1..1: one film, the same for the same seed.

        Args:
            seed: of all noise.
            sex: "F", "M" or None for unknown.
            codes: [1, digits, grid, grid] from `encode`; None: none.
            known: [1, 1, grid, grid], 1 where the codes hold; None: everywhere, if there are any.
            settings: how to sample.
            until: the last stage to run; None: all.
            on_step: told each stage's name before it starts.

        Raises:
            SettingsError: no such stage or sex.
        """
        names = list(self.stages)
        if until not in (None, *names) or sex not in SEXES:
            raise SettingsError(
                f"no stage {until} or sex {sex}", remedy=f"Choose a stage of {', '.join(names)}, and sex F or M."
            )
        generator = torch.Generator().manual_seed(seed)
        if on_step is not None:
            on_step(names[0])
        film = self.coarse(generator, sex=sex, codes=codes, known=known, settings=settings)
        return self.finish(film, generator, until=until, settings=settings, on_step=on_step)

    def coarse(
        self,
        generator: torch.Generator,
        *,
        sex: str | None = None,
        codes: Tensor | None = None,
        known: Tensor | None = None,
        inside: Tensor | None = None,
        settings: SamplingSettings | None = None,
    ) -> Tensor:
        """[1, 1, h, w], about -1..1: the first stage's film.

        `inside` [1, 1, h, w] is 1 in the film's field (None: everywhere); the others are those of `generate`.
        """
        settings, stage = settings or SamplingSettings(), next(iter(self.stages.values()))
        noise = torch.randn(1, 1, self.film_side, self.film_side, generator=generator)
        if codes is None:
            codes = torch.zeros(1, len(self.first.code_shape.levels), self.grid, self.grid)
            known = torch.zeros(1, 1, self.grid, self.grid)
        elif known is None:
            known = torch.ones(1, 1, self.grid, self.grid)
        inside = torch.ones_like(noise) if inside is None else inside
        told = {"condition": inside, "label": torch.tensor([SEXES[sex]]), "codes": codes, "known": known}
        told = {name: value.to(self.device) for name, value in told.items()}
        velocity = guided(stage.network, guidance=settings.guidance, **told)
        times = sampling_times(settings.film_steps, jump=settings.film_jump, bend=settings.film_bend)
        film = sample(velocity, noise.to(self.device), times=times, mask=told["condition"])
        return stage.unit * film.cpu()

    def finish(
        self,
        film: Tensor,
        generator: torch.Generator,
        *,
        until: str | None = None,
        settings: SamplingSettings | None = None,
        on_step: Callable[[str], None] | None = None,
    ) -> NDArray[np.float32]:
        """[row, column] in -1..1: a coarse film [1, 1, h, w] with its detail up to the stage `until`, calibrated."""
        settings, names = settings or SamplingSettings(), list(self.stages)
        until = names[-1] if until is None else until
        for number, name in enumerate(names[1 : names.index(until) + 1]):
            if on_step is not None:
                on_step(name)
            noise = settings.condition_noise[number]
            film = self.add_detail(name, film, generator, steps=settings.detail_steps, condition_noise=noise)
        made: NDArray[np.float32] = film[0, 0].cpu().numpy()
        if self.calibration is not None and until == names[-1]:
            made = calibrated(made, self.calibration.frequencies, self.calibration.gains)
        return np.clip(made, -1, 1)

    @torch.no_grad()
    def encode(self, film: NDArray[np.float32], field: NDArray[np.bool_] | None = None) -> Tensor:
        """[1, digits, grid, grid]: the codes of a finished film [row, column] in -1..1; `field` is False in padding."""
        inside = np.ones(film.shape, dtype=np.float32) if field is None else field.astype(np.float32)
        picture = torch.from_numpy(np.stack([film, inside]).astype(np.float32))[None]
        factor = film.shape[0] // (self.film_side * PICTURE)
        reduced = nn.functional.avg_pool2d(picture, factor) if factor > 1 else picture
        codes: Tensor = self.first.encoder(reduced.to(self.device))
        return codes.cpu()

    @property
    def first(self) -> FilmNetwork:
        """The network of the first stage."""
        network = next(iter(self.stages.values())).network
        assert isinstance(network, FilmNetwork)
        return network

    @torch.no_grad()
    def add_detail(
        self, name: str, coarse: Tensor, generator: torch.Generator, *, steps: int, condition_noise: float
    ) -> Tensor:
        """[1, 1, 4 H, 4 W] from a coarse film [1, 1, H, W], by the detail stage of that name."""
        stage = self.stages[name]
        grain = torch.randn(coarse.shape, generator=generator)
        upsampled = upsample((coarse.cpu() + condition_noise * stage.unit * grain).to(self.device))
        assert isinstance(stage.network, FlowUNet)
        velocity = guided(
            stage.network,
            seen=stage.network.see(torch.cat([upsampled, torch.ones_like(upsampled)], dim=1)),
            level=torch.full((1,), condition_noise, device=self.device),
        )
        noise = torch.randn(upsampled.shape, generator=generator).to(self.device)
        times = sampling_times(steps) if stage.shortcut is None else torch.tensor(stage.shortcut)
        return upsampled + stage.unit * sample(velocity, noise, times=times, heun=stage.shortcut is None)


def upsample(coarse: Tensor) -> Tensor:
    """[B, 1, 4 H, 4 W]: bicubic, edges replicated."""
    return nn.functional.interpolate(coarse, scale_factor=REDUCTION, mode="bicubic", align_corners=False)


def build_network(described: Mapping[str, Any]) -> nn.Module:
    """The untrained network that a stage's description (or a preset's table) asks for."""
    shape = FlowUNetShape.from_json(described["network"])
    return FilmNetwork(shape, CodeShape.from_json(described["code"])) if "code" in described else FlowUNet(shape)


def load_cascade(path: Path) -> FilmCascade:
    """The cascade of a release file, in float32, evaluating.

    Raises:
        ReadError: it is no such file, or is damaged.
    """
    try:
        stored, described = read_tensors(path, "cascade", "pt")
        _check_described(described)
        stages = {}
        for name, entry in described["stages"].items():
            network = build_network(entry)
            network.load_state_dict({key: stored[f"{name}.{key}"] for key in network.state_dict()})
            placed: Any = network.eval()
            placed.to(memory_format=torch.channels_last)  # its overload is not in torch's types
            shortcut = tuple(entry["shortcut"]) if entry.get("shortcut") else None
            stages[name] = TrainedStage(
                network=network, unit=float(entry["unit"]), spacing_mm=float(entry["spacing_mm"]), shortcut=shortcut
            )
        first = next(iter(described["stages"].values()))
        told = described.get("calibration")
        return FilmCascade(
            domain=described["domain"],
            stages=stages,
            film_side=int(first["size"]),
            grid=int(first["grid"]),
            calibration=None if told is None else Calibration(**{key: tuple(told[key]) for key in told}),
        )
    except (
        OSError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        OverflowError,
    ) as problem:
        raise ReadError(
            f"This is no film cascade ({reason(problem)})", where=path, remedy="Use the file of a release."
        ) from None


def _check_described(described: Mapping[str, Any]) -> None:
    """Refuses what can't be walked: the first stage makes a film by codes, each other one its detail."""
    domain, stages = described["domain"], described["stages"]
    if not isinstance(domain, str) or not DOMAIN_PATTERN.fullmatch(domain):
        raise ValueError(f"its domain {str(domain)[:40]!r} is no name of small letters, digits and hyphens")
    most = 1 + len(SamplingSettings.condition_noise)
    if not isinstance(stages, dict) or not 1 <= len(stages) <= most:
        raise ValueError(f"its stages are not 1 to {most} by name")
    for number, (name, entry) in enumerate(stages.items()):
        if ("code" in entry) != (number == 0):
            raise ValueError(f"its stage '{name[:40]}' {'has no' if number == 0 else 'has'} codes")
        for key in ("unit", "spacing_mm"):
            if not 0 < float(entry[key]) < math.inf:
                raise ValueError(f"the {key} of its stage '{name[:40]}' is {entry[key]}")
