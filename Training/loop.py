"""One training loop for every flow stage: resumable to the step, safe to cut, and honest about where it stands.

A run's folder holds `checkpoint.safetensors` (weights, their moving average, Adam's moments; the state as JSON in its
header), `best.safetensors` (averaged weights where the held-out loss was lowest), `log.jsonl` (a line per report),
`sheet-*.png`. Randomness depends on seed and step alone, so a resumed run gives the weights of an uninterrupted one on
the same device and in the same precision. Nothing is ever pickled.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.flow import FlowBatch, noised, velocity_error
from Training.checkpoint import (
    BEST,
    CHECKPOINT,
    Progress,
    check_same_run,
    load_checkpoint,
    save_checkpoint,
    write_tensors,
)
from Training.objective import FlowMatching, Objective
from Training.precision import autocast, check_precision, faster_precision

BAD_STEPS_ALLOWED = 20


class Stage(Protocol):
    """What is learned: batches, measured losses, a picture."""

    def constants(self) -> dict[str, float]:
        """Numbers that a sampler needs beside the weights."""

    def train_batch(self, rng: np.random.Generator) -> FlowBatch:
        """A batch drawn with this generator only."""

    def measured_batches(self, *, held_out: bool) -> list[FlowBatch]:
        """Unchanged batches of one side, the same each time."""

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """A grey picture of what the network makes."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Optimisation and reporting; a preset's [loop] table.

    Attributes:
        learning_rate: of AdamW, after `warm_up` steps.
        steps: where the run ends if time doesn't end it before.
        anneal: share of the steps (or of this call's time limit) at the end in which the rate falls to zero.
        average: decay of the moving average of the weights (EMA).
        report_every, sheet_every: in steps.
        time_mean, time_sd: of the logit-normal of times; leaning to the data (above 0) removes grain from samples.
        checkpoint_minutes: longest time between two checkpoints.
        precision: "float32", "bfloat16", or "auto" for the faster on this device.
    """

    learning_rate: float = 5e-4
    steps: int = 100_000
    warm_up: int = 50
    anneal: float = 0.3
    average: float = 0.998
    weight_decay: float = 0.01
    clip: float = 1.0
    report_every: int = 50
    sheet_every: int = 500
    time_mean: float = 0.0
    time_sd: float = 1.0
    checkpoint_minutes: float = 3.0
    seed: int = 1
    precision: str = "auto"

    @classmethod
    def changed(cls, *tables: dict[str, Any], changes: Sequence[str] = (), steps: int | None = None) -> LoopSettings:
        """The settings of preset tables, later ones winning, then of KEY=NUMBER from the command line.

        Raises:
            SettingsError: a change that can't be read, or of nothing there is.
        """
        values: dict[str, Any] = {key: value for table in tables for key, value in table.items()}
        values |= {} if steps is None else {"steps": steps}
        for change in changes:
            key, _, text = change.partition("=")
            kind = {entry.name: type(entry.default) for entry in fields(cls)}.get(key)
            try:
                values[key] = None if kind is None else kind(text)
            except ValueError:
                kind = None
            if kind is None:
                raise SettingsError(
                    f"--loop {change} can't be understood", remedy="Give KEY=NUMBER, such as report_every=500."
                )
        return cls(**values)


def train(
    network: nn.Module,
    stage: Stage,
    settings: LoopSettings,
    *,
    out: Path,
    description: dict[str, Any],
    resume: bool = False,
    time_limit_s: float = math.inf,
    device: str = "cpu",
    objective: Objective | None = None,
) -> nn.Module:
    """The moving average of the trained network; checkpoints, log and sheets in `out`.

    Raises:
        SettingsError: `out` holds a run and `resume` wasn't asked, or its checkpoint is of other layers.
        HiResMedSynthError: the loss stayed NaN or infinite.
    """
    check_precision(settings.precision)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise SettingsError("This folder holds a run", where=out, remedy="Give --resume, or another folder.")
    objective = objective or FlowMatching(time_mean=settings.time_mean, time_sd=settings.time_sd)
    placed: Any = network.to(device)
    if all(parameter.ndim <= 4 for parameter in network.parameters()):
        placed.to(memory_format=torch.channels_last)  # its overload is not in torch's types
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
    )
    progress = Progress()
    if checkpoint.exists():
        check_same_run(checkpoint, description)
        progress = load_checkpoint(checkpoint, network, average, optimiser)
    step = _Step(network, stage, objective, optimiser, settings, device=device)
    network.train()
    step.prepare(progress)
    began, last_saved, bad = time.monotonic(), time.monotonic(), 0
    seconds_before, first_step = progress.seconds, progress.step

    def save() -> None:
        progress.seconds = seconds_before + time.monotonic() - began
        save_checkpoint(
            checkpoint, network, average, optimiser, progress=progress, description={**description, **stage.constants()}
        )

    with _HeldInterrupts() as interrupts:
        while progress.step < settings.steps and time.monotonic() - began < time_limit_s and not interrupts.came:
            used = (time.monotonic() - began) / time_limit_s
            rate = settings.learning_rate * _rate_share(progress.step, used, settings)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss = step.take(progress.step)
            if not math.isfinite(loss):
                progress.skipped += 1
                bad += 1
                if bad >= BAD_STEPS_ALLOWED:
                    save()
                    raise HiResMedSynthError(
                        f"The loss wasn't finite in {bad} steps running",
                        where=out,
                        remedy="Lower learning_rate, resume.",
                    )
            else:
                bad = 0
                progress.losses.append(loss)
                decay = min(settings.average, (1 + progress.step) / (10 + progress.step))
                _blend(average, network.state_dict(), 1 - decay)
            progress.step += 1
            if progress.step % settings.report_every == 0 or progress.step == settings.steps:
                elapsed = time.monotonic() - began
                pace = elapsed / (progress.step - first_step)
                left_s = min((settings.steps - progress.step) * pace, time_limit_s - elapsed)
                measured = measure(network, average, stage, objective, device=device, precision=progress.precision)
                entry = {
                    "step": progress.step,
                    "loss": round(float(np.mean(progress.losses)), 5) if progress.losses else None,
                    **{name: round(value, 5) for name, value in measured.items()},
                    "rate": rate,
                    "seconds_per_step": round(pace, 4),
                    "seconds": round(seconds_before + elapsed, 1),
                    "left_s": round(left_s, 0) if math.isfinite(left_s) else None,
                    "skipped": progress.skipped,
                }
                progress.losses.clear()
                with (out / "log.jsonl").open("a", encoding="utf-8") as log:
                    log.write(json.dumps(entry) + "\n")
                click.echo(" ".join(f"{name}={value}" for name, value in entry.items()))
                held_out = measured["measured_held_out"]
                if math.isfinite(held_out) and held_out < (progress.lowest_held_out or math.inf):
                    progress.lowest_held_out = held_out
                    best = {"step": progress.step, "description": {**description, **stage.constants()}}
                    write_tensors(out / BEST, {f"average.{n}": value for n, value in average.items()}, best)
            if progress.step % settings.sheet_every == 0:
                write_sheet(network, average, stage, out / f"sheet-{progress.step:06d}.png")
            if time.monotonic() - last_saved > settings.checkpoint_minutes * 60:
                save()
                last_saved = time.monotonic()
        save()  # so that --resume goes on from here
    if interrupts.came:
        raise KeyboardInterrupt
    write_sheet(network, average, stage, out / "sheet-last.png")
    network.load_state_dict(average)
    return network


def measure(
    network: nn.Module,
    average: dict[str, Tensor],
    stage: Stage,
    objective: Objective,
    *,
    device: str,
    precision: str = "float32",
) -> dict[str, float]:
    """Loss of the averaged weights on unchanged training and held-out films, with fixed times and noise."""
    results = {}
    with _AveragedWeights(network, average), torch.no_grad():
        for held_out in (False, True):
            losses = []
            for batch in stage.measured_batches(held_out=held_out):
                placed = batch.to(device)
                generator = torch.Generator().manual_seed(7)
                noise = torch.randn(batch.data.shape, generator=generator).to(device)
                order = torch.randperm(len(noise), generator=generator)
                times = objective.measured_times(len(noise))[order].to(device)
                noisy = noised(placed, time=times, noise=noise)
                with autocast(precision, device):
                    predicted = network(noisy, times, **placed.inputs)
                target = objective.target(placed, noisy, times, noise)
                losses.append(float(velocity_error(predicted, target, placed.mask)))
            results["measured_held_out" if held_out else "measured_train"] = float(np.mean(losses))
    return results


def write_sheet(network: nn.Module, average: dict[str, Tensor], stage: Stage, path: Path) -> None:
    """Writes the stage's picture as the averaged weights make it."""
    with _AveragedWeights(network, average):
        Image.fromarray(stage.sheet(network, seed=1)).save(path)


class _Step:
    """One update of the network; on a GPU the network's own work is captured once as a CUDA graph and replayed."""

    def __init__(
        self,
        network: nn.Module,
        stage: Stage,
        objective: Objective,
        optimiser: torch.optim.Optimizer,
        settings: LoopSettings,
        *,
        device: str,
    ) -> None:
        self.network, self.stage, self.objective, self.optimiser = network, stage, objective, optimiser
        self.settings, self.device, self.precision = settings, device, "float32"
        self.call: Any = network

    def prepare(self, progress: Progress) -> None:
        """Chooses the precision (a resumed run keeps its own) and captures the graph."""
        if progress.precision == "auto":
            progress.precision = self.settings.precision
        if progress.precision == "auto":
            progress.precision, seconds = faster_precision(self._timed, self.device)
            click.echo("seconds a step: " + ", ".join(f"{name} {value:.4f}" for name, value in seconds.items()))
        self.precision = progress.precision
        if torch.device(self.device).type == "cuda":
            batch, noisy, time_drawn, _ = self._drawn(progress.step)
            arguments = (noisy, time_drawn, *batch.inputs.values())
            wrapped = _Positional(self.network, tuple(batch.inputs), self.precision, self.device)
            self.call = torch.cuda.make_graphed_callables(wrapped, arguments)  # type: ignore[no-untyped-call]

    def take(self, step: int) -> float:
        """The loss of one update, NaN or infinite where it was skipped."""
        batch, noisy, times, target = self._drawn(step)
        loss = velocity_error(self._velocity(batch, noisy, times), target, batch.mask)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        length = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        if torch.isfinite(loss) and torch.isfinite(length):
            self.optimiser.step()
            return float(loss.detach())
        return math.nan

    def _velocity(self, batch: FlowBatch, noisy: Tensor, times: Tensor) -> Tensor:
        if self.call is not self.network:
            made: Tensor = self.call(noisy, times, *batch.inputs.values())
        else:
            with autocast(self.precision, self.device):
                made = self.network(noisy, times, **batch.inputs)
        return made

    def _drawn(self, step: int) -> tuple[FlowBatch, Tensor, Tensor, Tensor]:
        """Batch, noisy data, times and target of a step: seed and step decide them."""
        seed = self.settings.seed * 1_000_003 + step
        torch.manual_seed(seed)  # dropout
        generator = torch.Generator().manual_seed(seed)
        batch = self.stage.train_batch(np.random.default_rng((self.settings.seed, step))).to(self.device)
        if torch.device(self.device).type == "cpu":
            noise = torch.randn(batch.data.shape, generator=generator)
        else:
            noise = torch.randn(batch.data.shape, device=self.device)
        times = self.objective.times(len(noise), generator).to(self.device)
        noisy = noised(batch, time=times, noise=noise)
        with torch.no_grad():
            target = self.objective.target(batch, noisy, times, noise)
        return batch, noisy, times, target

    def _timed(self, precision: str) -> None:
        self.precision = precision
        batch, noisy, times, target = self._drawn(0)
        velocity_error(self._velocity(batch, noisy, times), target, batch.mask).backward()
        self.optimiser.zero_grad(set_to_none=True)


class _Positional(nn.Module):
    """The network with its named inputs in a fixed order, as a CUDA graph wants them."""

    def __init__(self, network: nn.Module, names: tuple[str, ...], precision: str, device: str) -> None:
        super().__init__()
        self.network, self.names, self.precision, self.device = network, names, precision, device

    def forward(self, noisy: Tensor, time: Tensor, *inputs: Tensor) -> Tensor:
        """The network's velocity in float32."""
        with autocast(self.precision, self.device):
            velocity: Tensor = self.network(noisy, time, **dict(zip(self.names, inputs, strict=True)))
        return velocity.float()


def _rate_share(step: int, used: float, settings: LoopSettings) -> float:
    """Share of the learning rate: up over `warm_up` steps, down to zero over the last `anneal` of steps or of time."""
    left = min(1 - step / settings.steps, 1 - used)
    fall = min(1.0, left / settings.anneal) if settings.anneal > 0 else 1.0
    return min(1.0, (step + 1) / settings.warm_up) * max(fall, 0.0)


def _blend(average: dict[str, Tensor], now: dict[str, Tensor], share: float) -> None:
    """Moves each average towards the weights by `share`."""
    values = [now[name].detach() for name in average]
    torch._foreach_lerp_(list(average.values()), values, share)  # one launch for all on a GPU


class _HeldInterrupts:
    """Within it Ctrl-C only sets `came`: a step is never cut in two. A second Ctrl-C interrupts at once."""

    def __enter__(self) -> _HeldInterrupts:
        self.came = False
        here = threading.current_thread() is threading.main_thread()
        self.before = signal.signal(signal.SIGINT, self._hold) if here else None
        return self

    def __exit__(self, *reason: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)

    def _hold(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (a signal handler's signature)
        if self.came:
            raise KeyboardInterrupt
        self.came = True


class _AveragedWeights:
    """Within it the network has its averaged weights and doesn't train; after it, it is as before."""

    def __init__(self, network: nn.Module, average: dict[str, Tensor]) -> None:
        self.network, self.average = network, average

    def __enter__(self) -> None:
        self.own = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        self.network.eval()

    def __exit__(self, *reason: object) -> None:
        self.network.load_state_dict(self.own)
        self.network.train()
