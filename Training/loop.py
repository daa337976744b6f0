"""One training loop for every flow stage: resumable to the step, safe to cut, and honest about where it stands.

A run's folder holds `checkpoint.safetensors` (weights, their moving average, Adam's moments; the state as JSON in its
header), `log.jsonl` (a line per report), `sheet-*.png`. Randomness depends on seed and step alone, so a resumed run
gives the weights of an uninterrupted one. Nothing is ever pickled.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from HiResMedSynthLib.background.flow import FlowBatch, draw_times, spread_times, velocity_loss
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError

CHECKPOINT = "checkpoint.safetensors"
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


@dataclass(kw_only=True)
class Progress:
    """Where a run stands; stored in its checkpoint."""

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    losses: list[float] = field(default_factory=list)


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
) -> nn.Module:
    """The moving average of the trained network; checkpoints, log and sheets in `out`.

    Raises:
        SettingsError: `out` holds a run and `resume` wasn't asked, or its checkpoint is of other layers.
        HiResMedSynthError: the loss stayed NaN or infinite.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise SettingsError("This folder holds a run", where=out, remedy="Give --resume, or another folder.")
    placed: Any = network.to(device)
    placed.to(memory_format=torch.channels_last)  # its overload is not in torch's types
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
    )
    progress = load_checkpoint(checkpoint, network, average, optimiser) if checkpoint.exists() else Progress()
    began, last_saved, bad = time.monotonic(), time.monotonic(), 0
    seconds_before, first_step = progress.seconds, progress.step

    def save() -> None:
        progress.seconds = seconds_before + time.monotonic() - began
        save_checkpoint(
            checkpoint, network, average, optimiser, progress=progress, description={**description, **stage.constants()}
        )

    network.train()
    try:
        while progress.step < settings.steps and time.monotonic() - began < time_limit_s:
            used = (time.monotonic() - began) / time_limit_s
            rate = settings.learning_rate * _rate_share(progress.step, used, settings)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss = _step(network, stage, optimiser, settings, step=progress.step, device=device)
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
                for name, value in network.state_dict().items():
                    average[name].lerp_(value.detach(), 1 - decay)
            progress.step += 1
            if progress.step % settings.report_every == 0 or progress.step == settings.steps:
                elapsed = time.monotonic() - began
                pace = elapsed / (progress.step - first_step)
                left_s = min((settings.steps - progress.step) * pace, time_limit_s - elapsed)
                measured = measure(network, average, stage, device=device)
                entry = {
                    "step": progress.step,
                    "loss": round(float(np.mean(progress.losses)), 5) if progress.losses else None,
                    **{name: round(value, 5) for name, value in measured.items()},
                    "rate": rate,
                    "seconds_per_step": round(pace, 3),
                    "seconds": round(seconds_before + elapsed, 1),
                    "left_s": round(left_s, 0) if math.isfinite(left_s) else None,
                    "skipped": progress.skipped,
                }
                progress.losses.clear()
                with (out / "log.jsonl").open("a", encoding="utf-8") as log:
                    log.write(json.dumps(entry) + "\n")
                click.echo(" ".join(f"{name}={value}" for name, value in entry.items()))
            if progress.step % settings.sheet_every == 0:
                write_sheet(network, average, stage, out / f"sheet-{progress.step:06d}.png")
            if time.monotonic() - last_saved > settings.checkpoint_minutes * 60:
                save()
                last_saved = time.monotonic()
    except KeyboardInterrupt:
        save()  # so that --resume goes on from here
        raise
    save()
    write_sheet(network, average, stage, out / "sheet-last.png")
    network.load_state_dict(average)
    return network


def measure(network: nn.Module, average: dict[str, Tensor], stage: Stage, *, device: str) -> dict[str, float]:
    """Loss of the averaged weights on unchanged training and held-out films, with fixed times and noise."""
    results = {}
    with _AveragedWeights(network, average), torch.no_grad():
        for held_out in (False, True):
            losses = []
            for batch in stage.measured_batches(held_out=held_out):
                generator = torch.Generator().manual_seed(7)
                noise = torch.randn(batch.data.shape, generator=generator)
                order = torch.randperm(len(noise), generator=generator)
                times = spread_times(len(noise))[order]
                losses.append(
                    float(velocity_loss(network, _to(batch, device), time=times.to(device), noise=noise.to(device)))
                )
            results["measured_held_out" if held_out else "measured_train"] = float(np.mean(losses))
    return results


def write_sheet(network: nn.Module, average: dict[str, Tensor], stage: Stage, path: Path) -> None:
    """Writes the stage's picture as the averaged weights make it."""
    with _AveragedWeights(network, average):
        Image.fromarray(stage.sheet(network, seed=1)).save(path)


def save_checkpoint(
    path: Path,
    network: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    *,
    progress: Progress,
    description: dict[str, Any],
) -> None:
    """Writes everything a run needs to go on, as one file that is either the old or the new one."""
    tensors = {f"weights.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for name, parameter in network.named_parameters():
        for moment, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = value
    state = {"progress": asdict(progress), "description": description}
    fresh = path.with_suffix(".new")
    contiguous = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(contiguous, fresh, metadata={"state": json.dumps(state)})
    fresh.replace(path)


def load_checkpoint(
    path: Path, network: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> Progress:
    """Where the run stood; fills network, average and optimiser in place.

    Raises:
        SettingsError: the file is damaged, or was written for other layers.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        network.load_state_dict({name: stored[f"weights.{name}"] for name in network.state_dict()})
        for name, value in average.items():
            value.copy_(stored[f"average.{name}"])
        for name, parameter in network.named_parameters():
            moments = {m: stored[f"{m}.{name}"] for m in ("step", "exp_avg", "exp_avg_sq") if f"{m}.{name}" in stored}
            if moments:
                optimiser.state[parameter] = {
                    m: value.clone() if m == "step" else torch.empty_like(parameter).copy_(value)
                    for m, value in moments.items()
                }
        return Progress(**state["progress"])
    except (KeyError, RuntimeError, ValueError, OSError, SafetensorError) as problem:
        raise SettingsError(
            f"The checkpoint doesn't fit this preset: {str(problem)[:200]}", where=path, remedy="Use the run's preset."
        ) from None


def stored_unit(out: Path) -> float | None:
    """The unit that the run in `out` scales its data by; None where there is no run."""
    path = out / CHECKPOINT
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return float(json.loads(file.metadata()["state"])["description"]["unit"])
    except (KeyError, TypeError, ValueError, OSError, SafetensorError):
        return None  # load_checkpoint says what is wrong


def _step(
    network: nn.Module,
    stage: Stage,
    optimiser: torch.optim.Optimizer,
    settings: LoopSettings,
    *,
    step: int,
    device: str,
) -> float:
    """One update; its loss, NaN or infinite where the step was skipped."""
    torch.manual_seed(settings.seed * 1_000_003 + step)  # dropout
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    batch = stage.train_batch(np.random.default_rng((settings.seed, step)))
    noise = torch.randn(batch.data.shape, generator=generator)
    times = draw_times(len(noise), generator, mean=settings.time_mean, sd=settings.time_sd)
    loss = velocity_loss(network, _to(batch, device), time=times.to(device), noise=noise.to(device))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    length = nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
    if torch.isfinite(loss) and torch.isfinite(length):
        optimiser.step()
        return float(loss.detach())
    return math.nan


def _rate_share(step: int, used: float, settings: LoopSettings) -> float:
    """Share of the learning rate: up over `warm_up` steps, down to zero over the last `anneal` of steps or of time."""
    left = min(1 - step / settings.steps, 1 - used)
    fall = min(1.0, left / settings.anneal) if settings.anneal > 0 else 1.0
    return min(1.0, (step + 1) / settings.warm_up) * max(fall, 0.0)


def _to(batch: FlowBatch, device: str) -> FlowBatch:
    return FlowBatch(
        data=batch.data.to(device),
        mask=batch.mask.to(device),
        condition=batch.condition.to(device),
        label=None if batch.label is None else batch.label.to(device),
        level=None if batch.level is None else batch.level.to(device),
    )


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
