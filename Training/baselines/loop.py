"""The training of a baseline: one CUDA graph a step where there is a GPU, resumable, stopped in time to draw films.

A run's folder holds `checkpoint.safetensors`, `log.jsonl` (a line a report), `sheet-*.png`. Randomness depends on seed
and step alone, so a resumed run on a CPU gives the weights of an uncut one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click
import torch
from PIL import Image
from torch import Tensor, nn

from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.whole_tensors import read_tensors, save_state
from Training.baselines.films import DeviceFilms
from Training.baselines.samples import sheet_of
from Training.checkpoint import CHECKPOINT, check_same_run, moments_of, put_back_moments
from Training.clock import now_s
from Training.interrupts import HeldInterrupts

EAGER_STEPS = 3  # before a graph is captured
SHEET_SEEDS = range(1, 9)


@dataclass(frozen=True, kw_only=True)
class LearningPart:
    """A network and the optimiser that moves it."""

    network: nn.Module
    optimiser: torch.optim.Optimizer


class Baseline(Protocol):
    """One way to make films."""

    metrics: tuple[str, ...]
    """Names of what `update` tells."""
    parts: Mapping[str, LearningPart]
    """All that learns; the moving average of "generator" is what draws."""

    def update(self, film: Tensor, mask: Tensor) -> Tensor:
        """[metrics]: one step on films [B, 1, S, S] in -1..1; it never waits for the device."""

    def draw(self, network: nn.Module, seeds: Sequence[int]) -> Tensor:
        """[n, 1, S, S] in -1..1 by the averaged generator, on the CPU; each film depends on its seed alone."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """A preset's [NAME.loop] table.

    Attributes:
        batch: films a step.
        steps: where the run ends if time doesn't end it before.
        average: decay of the moving average of the generator's weights.
        report_every, sheet_every: in steps.
        graph: on a GPU, record the step as a CUDA graph.
        draw_share: of the time limit, kept for drawing films after training.
        checkpoint_minutes: longest time between two checkpoints.
        counted: the seconds of the time limit, "wall" or "cpu" (see `clock.now_s`).
    """

    batch: int
    steps: int = 1_000_000
    average: float = 0.999
    report_every: int = 100
    sheet_every: int = 5000
    graph: bool = True
    draw_share: float = 0.1
    checkpoint_minutes: float = 3.0
    seed: int = 1
    counted: str = "wall"


def train(
    baseline: Baseline,
    films: DeviceFilms,
    settings: LoopSettings,
    *,
    out: Path,
    description: dict[str, Any],
    resume: bool = False,
    time_limit_s: float = math.inf,
) -> tuple[nn.Module, dict[str, Any]]:
    """(the averaged generator, facts of the run); checkpoint, log and sheets in `out`.

    Raises:
        SettingsError: `out` holds a run and `resume` wasn't asked, or its checkpoint is of other layers.
        HiResMedSynthError: a loss is NaN or infinite.
    """
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(baseline, films, settings)
    checkpoint = out / CHECKPOINT
    if checkpoint.exists():
        if not resume:
            raise SettingsError("This folder holds a run", where=out, remedy="Give --resume, or another folder.")
        check_same_run(checkpoint, description)
        run.load(checkpoint)
    began = last_saved = now_s(settings.counted)
    before, first = run.seconds, run.step
    training_s = time_limit_s * (1 - settings.draw_share)
    with HeldInterrupts() as interrupts:
        while run.step < settings.steps and now_s(settings.counted) - began < training_s and not interrupts.came:
            run.take()
            if run.step % settings.report_every == 0 or run.step == settings.steps:
                values = run.values()  # waits for the device
                run.seconds = before + now_s(settings.counted) - began
                entry = {"step": run.step, **{name: round(value, 5) for name, value in values.items()}}
                entry |= {
                    "seconds_per_step": round((run.seconds - before) / (run.step - first), 5),
                    "seconds": round(run.seconds, 1),
                    "graph": run.graph is not None,
                }
                with (out / "log.jsonl").open("a", encoding="utf-8") as log:
                    log.write(json.dumps(entry) + "\n")
                if not all(map(math.isfinite, values.values())):
                    raise HiResMedSynthError(
                        f"A loss isn't finite at step {run.step}", where=out, remedy="Begin anew with another --seed."
                    )
                if run.step % (10 * settings.report_every) == 0 or run.step == settings.steps:
                    click.echo(" ".join(f"{name}={value}" for name, value in entry.items()))
                if now_s(settings.counted) - last_saved > settings.checkpoint_minutes * 60:
                    run.save(checkpoint, description)
                    last_saved = now_s(settings.counted)
            if run.step % settings.sheet_every == 0:
                run.write_sheet(out / f"sheet-{run.step:06d}.png")
    run.values()  # the last steps are done
    run.seconds = before + now_s(settings.counted) - began
    run.save(checkpoint, description)  # so that --resume goes on from here
    if interrupts.came:
        raise KeyboardInterrupt
    run.write_sheet(out / "sheet-last.png")
    facts = {"steps": run.step, "films_seen": run.step * settings.batch, "training_s": round(run.seconds, 1)}
    return run.average, facts


class _Run:
    """The state of a run, and one step after another."""

    def __init__(self, baseline: Baseline, films: DeviceFilms, settings: LoopSettings) -> None:
        self.baseline, self.films, self.settings = baseline, films, settings
        self.device = films.films.device
        self.generator = baseline.parts["generator"].network
        self.average = deepcopy(self.generator).eval().requires_grad_(False)
        self.step, self.seconds, self.eager = 0, 0.0, 0
        self.share = torch.zeros((), device=self.device)  # that the average moves by
        self.told = torch.zeros(len(baseline.metrics))
        self.graph: torch.cuda.CUDAGraph | None = None
        self.may_capture = self.device.type == "cuda" and settings.graph
        self.stream = torch.cuda.Stream(self.device) if self.may_capture else None

    def take(self) -> None:
        """One step."""
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
        self.share.fill_(1 - min(self.settings.average, (1 + self.step) / (10 + self.step)))
        if self.may_capture and self.eager == EAGER_STEPS:
            self._capture()
            torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
        if self.graph is not None:
            self.graph.replay()
        elif self.may_capture:
            self._on_side_stream()
        else:
            self.told = self._update()
        self.step, self.eager = self.step + 1, self.eager + 1

    def _update(self) -> Tensor:
        told = self.baseline.update(*self.films.batch(self.settings.batch))
        with torch.no_grad():
            for kept, now in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                kept.lerp_(now, self.share)
            for old, new in zip(self.average.buffers(), self.generator.buffers(), strict=True):
                old.copy_(new)
        return told

    def _on_side_stream(self) -> None:
        """A step on the stream that the graph is captured on: gradients remember their stream."""
        assert self.stream is not None
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            self.told = self._update()
        torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def _capture(self) -> None:
        """Records the step as a CUDA graph; plain steps go on where that fails."""
        graph = torch.cuda.CUDAGraph()
        for part in self.baseline.parts.values():
            part.optimiser.zero_grad(set_to_none=True)
        torch.cuda.synchronize(self.device)
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.told = self._update()
            self.graph = graph
        except RuntimeError as problem:
            click.echo(f"no CUDA graph: {str(problem)[:300]}")
            torch.cuda.synchronize(self.device)
            self.may_capture = False

    def values(self) -> dict[str, float]:
        """What the last step told."""
        return dict(zip(self.baseline.metrics, self.told.tolist(), strict=True))

    def write_sheet(self, path: Path) -> None:
        """Films of the averaged weights, seeds 1 to 8."""
        Image.fromarray(sheet_of(self.baseline.draw(self.average, list(SHEET_SEEDS)))).save(path)

    def save(self, path: Path, description: dict[str, Any]) -> None:
        """Writes the run as one file that is either the old or the new one."""
        tensors = {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for key, part in self.baseline.parts.items():
            tensors |= {f"{key}.{name}": value for name, value in part.network.state_dict().items()}
            tensors |= moments_of(part.optimiser, part.network, prefix=f"{key}_")
        save_state(path, tensors, {"step": self.step, "seconds": self.seconds, "description": description})

    def load(self, path: Path) -> None:
        """Goes on where `save` left off.

        Raises:
            SettingsError: the file is damaged, or of other layers.
        """
        try:
            stored, state = read_tensors(path, "state", "pt")
            self.average.load_state_dict(_under("average.", stored))
            for key, part in self.baseline.parts.items():
                part.network.load_state_dict(_under(f"{key}.", stored))
                put_back_moments(part.optimiser, part.network, stored, prefix=f"{key}_")
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
        except (KeyError, RuntimeError, TypeError, ValueError, OSError) as problem:
            raise SettingsError(
                f"The checkpoint doesn't fit this preset: {str(problem)[:200]}",
                where=path,
                remedy="Use the run's preset.",
            ) from None


def adam(network: nn.Module, rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam that a CUDA graph can hold where the network lies on a GPU."""
    capturable = next(network.parameters()).device.type == "cuda"
    return torch.optim.Adam(network.parameters(), lr=rate, betas=betas, capturable=capturable, foreach=True)


def move(part: LearningPart, loss: Tensor) -> None:
    """One step down the loss's gradient; a gradient that isn't a number counts as none."""
    part.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for parameter in part.network.parameters():
        if parameter.grad is not None:
            torch.nan_to_num_(parameter.grad, nan=0.0, posinf=1e5, neginf=-1e5)
    nn.utils.clip_grad_norm_(part.network.parameters(), 10.0)
    part.optimiser.step()


def noise_of(seeds: Sequence[int], *shape: int) -> Tensor:
    """[n, *shape] standard normal, each row by its own seed."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def _under(prefix: str, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
