"""One training loop for all but the adversarial networks: resumable to the step, safe to cut, honest about its state.

A run's folder holds `checkpoint.safetensors` (weights, their moving average, Adam's moments; the state as JSON in its
header), `best.safetensors` (averaged weights where the held-out loss was lowest), `log.jsonl` (a line per report, the
first before any step), `sheet-*.png`. Randomness depends on seed, step and process alone, so a resumed run gives the
weights of an uninterrupted one on the same device and in the same precision; processes that train together take what
one process would take as parts of a step. Nothing is ever pickled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.whole_tensors import save_state
from Training.average import averaged, follow
from Training.captured_step import CapturedStep, adamw
from Training.checkpoint import (
    BEST,
    CHECKPOINT,
    Progress,
    check_same_run,
    load_checkpoint,
    save_checkpoint,
)
from Training.clock import Clock
from Training.interrupts import HeldInterrupts
from Training.options import loop_values
from Training.precision import check_precision, faster_precision
from Training.ranks import Ranks
from Training.report import begin_log, log_entry
from Training.schedule import rate_share

BAD_STEPS_ALLOWED = 20
READ_EVERY = 20  # steps of a graph


class Lesson(Protocol):
    """What is learned: examples, their loss, a picture."""

    def constants(self) -> dict[str, float]:
        """Numbers that a user of the network needs beside the weights."""

    def draw(self, rng: np.random.Generator, *, seed: int, device: str) -> Any:
        """What one step learns from; `rng` and `seed` decide it."""

    def loss(self, network: nn.Module, drawn: Any, *, precision: str, device: str) -> Tensor:
        """A scalar."""

    def drawn_loss(self, network: nn.Module, *, precision: str, device: str) -> Callable[[], Tensor] | None:
        """On a GPU: draws by its own generator and gives the loss, without the host; None where it can't."""

    def measured(self, network: nn.Module, *, held_out: bool, device: str, precision: str) -> list[float]:
        """Losses of unchanged examples of one side, the same ones each time."""

    def noted(self, network: nn.Module) -> dict[str, float]:
        """What else the log should say of the network; nothing where there is no more."""

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """A picture of what the network makes."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Optimisation and reporting; a preset's [loop] table.

    Attributes:
        learning_rate: of AdamW, after `warm_up` steps.
        accumulate: parts of a step's batch, drawn and learned from one after the other where memory is short.
        steps: where the run ends if time doesn't end it before.
        anneal: share of the steps (or of this call's time limit) at the end in which the rate falls to zero.
        average: decay of the moving average of the weights (EMA).
        report_every, sheet_every: in steps.
        time_mean, time_sd: of the logit-normal of times; leaning to the data (above 0) removes grain from samples.
        checkpoint_minutes: longest time between two checkpoints.
        precision: "float32", "bfloat16", or "auto" for the faster on this device.
        counted: the seconds of a time limit, "wall" or "cpu" (see `clock.now_s`).
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
    counted: str = "wall"
    accumulate: int = 1

    def part_of(self, batch: int, *, world: int = 1) -> int:
        """How many of a step's examples a process draws at a time, where `world` processes train together.

        Raises:
            SettingsError: they can't be split evenly.
        """
        parts = world * self.accumulate
        if self.accumulate < 1 or batch < 1 or batch % parts:
            raise SettingsError(
                f"A batch of {batch} can't be split over {world} process(es) x {self.accumulate} part(s)",
                remedy="Give a --batch that is a multiple of both.",
            )
        return batch // parts

    @classmethod
    def changed(cls, *tables: dict[str, Any], changes: Sequence[str] = (), steps: int | None = None) -> LoopSettings:
        """The settings of preset tables, later ones winning, then of KEY=NUMBER from the command line.

        Raises:
            SettingsError: a change that can't be read, or of nothing there is.
        """
        values: dict[str, Any] = {key: value for table in tables for key, value in table.items()}
        values |= {} if steps is None else {"steps": steps}
        try:
            return cls(**values | loop_values(cls, changes))
        except TypeError as problem:  # a key of the preset's [loop] that there isn't
            raise SettingsError(f"The preset's [loop] can't be: {problem}", remedy="See better.toml.") from None


def run(
    network: nn.Module,
    lesson: Lesson,
    settings: LoopSettings,
    *,
    out: Path,
    description: dict[str, Any],
    resume: bool = False,
    time_limit_s: float = math.inf,
    device: str = "cpu",
    ranks: Ranks | None = None,
) -> nn.Module:
    """The moving average of the trained network; checkpoints, log and sheets in `out`.

    `ranks`: this process among those that train together, its device in place of `device`; None: it trains alone.

    Raises:
        SettingsError: `out` holds a run and `resume` wasn't asked, its checkpoint is of other layers, or the time was
            over before the first step.
        HiResMedSynthError: the loss stayed NaN or infinite, or the processes' weights drifted apart.
    """
    check_precision(settings.precision)
    ranks = ranks or Ranks(device=device)
    device = ranks.device
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise SettingsError("This folder holds a run", where=out, remedy="Give --resume, or another folder.")
    placed: Any = network.to(device)
    if all(parameter.ndim <= 4 for parameter in network.parameters()):
        placed.to(memory_format=torch.channels_last)  # its overload is not in torch's types
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    optimiser = adamw(network, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay, device=device)
    progress = Progress()
    if checkpoint.exists():
        check_same_run(checkpoint, description)
        progress = load_checkpoint(checkpoint, network, average, optimiser)
    network.train()
    step = _Step(network, lesson, optimiser, settings, ranks=ranks)
    step.prepare(progress, average)

    def measured() -> dict[str, float]:
        return measure(network, average, lesson, device=device, precision=progress.precision)

    if ranks.first and not checkpoint.exists():
        begin_log(out, measured())
    clock = Clock(limit_s=time_limit_s, before_s=progress.seconds, first_step=progress.step, counted=settings.counted)
    last_saved = clock.seconds
    described = {**description, **lesson.constants()}

    def save() -> None:
        step.read(progress)
        progress.seconds = clock.seconds
        if ranks.first:
            save_checkpoint(checkpoint, network, average, optimiser, progress=progress, description=described)

    came: float = False
    with HeldInterrupts() as interrupts:
        while progress.step < settings.steps:
            used, came = ranks.largest(clock.used, interrupts.came)
            if used >= 1 or came:
                break
            rate = settings.learning_rate * rate_share(progress.step, settings, used=used)
            decay = min(settings.average, (1 + progress.step) / (10 + progress.step))
            step.take(progress.step, rate=rate, share=1 - decay)
            progress.step += 1
            report = progress.step % settings.report_every == 0 or progress.step == settings.steps
            if (report or progress.step % step.read_every == 0) and step.read(progress) >= BAD_STEPS_ALLOWED:
                save()
                raise HiResMedSynthError(
                    f"The loss wasn't finite in {BAD_STEPS_ALLOWED} steps running",
                    where=out,
                    remedy="Lower learning_rate, resume.",
                )
            if report:
                ranks.check_equal(network)
            if report and ranks.first:
                found = measured()
                entry = {
                    "step": progress.step,
                    "loss": round(float(np.mean(progress.losses)), 5) if progress.losses else None,
                    **{name: round(value, 5) for name, value in found.items()},
                    "rate": rate,
                    **clock.told(progress.step, settings.steps),
                    "skipped": progress.skipped,
                    "processes": ranks.world,
                }
                log_entry(out, entry)
                held_out = found["measured_held_out"]
                if math.isfinite(held_out) and held_out < (progress.lowest_held_out or math.inf):
                    progress.lowest_held_out = held_out
                    best = {"step": progress.step, "description": described}
                    save_state(out / BEST, {f"average.{n}": value for n, value in average.items()}, best)
            if report:
                progress.losses.clear()
            if progress.step % settings.sheet_every == 0 and ranks.first:
                write_sheet(network, average, lesson, out / f"sheet-{progress.step:06d}.png")
            if ranks.any(clock.seconds - last_saved > settings.checkpoint_minutes * 60):
                save()
                last_saved = clock.seconds
        save()  # so that --resume goes on from here
    if came or interrupts.came:
        raise KeyboardInterrupt
    if not progress.step and settings.steps:
        raise SettingsError("No step was done", where=out, remedy="Give a longer --time-limit, and --resume.")
    if ranks.first:
        write_sheet(network, average, lesson, out / "sheet-last.png")
    network.load_state_dict(average)
    return network


def measure(
    network: nn.Module, average: dict[str, Tensor], lesson: Lesson, *, device: str, precision: str = "float32"
) -> dict[str, float]:
    """Loss of the averaged weights on unchanged examples of both sides, and what else the lesson notes of them."""
    results = {}
    with averaged(network, average), torch.no_grad():
        for held_out in (False, True):
            losses = lesson.measured(network, held_out=held_out, device=device, precision=precision)
            results["measured_held_out" if held_out else "measured_train"] = float(np.mean(losses))
        results |= lesson.noted(network)
    return results


def write_sheet(network: nn.Module, average: dict[str, Tensor], lesson: Lesson, path: Path) -> None:
    """Writes the lesson's picture as the averaged weights make it."""
    with averaged(network, average):
        Image.fromarray(lesson.sheet(network, seed=1)).save(path)


class _Step:
    """Updates of the network and of its average, in the precision chosen; on a GPU as one CUDA graph where it can be.

    Attributes:
        read_every: after how many steps their losses are read; a GPU's host mustn't wait for each.
    """

    def __init__(
        self,
        network: nn.Module,
        lesson: Lesson,
        optimiser: torch.optim.Optimizer,
        settings: LoopSettings,
        *,
        ranks: Ranks,
    ) -> None:
        self.network, self.lesson, self.optimiser = network, lesson, optimiser
        self.settings, self.ranks, self.device, self.precision = settings, ranks, ranks.device, "float32"
        self.whole: CapturedStep | None = None
        self.losses: list[float] = []
        self.bad, self.skipped = 0, 0
        self.read_every = 1

    def prepare(self, progress: Progress, average: dict[str, Tensor]) -> None:
        """Chooses the precision (a resumed run keeps its own) and captures what the lesson can capture."""
        self.average = average
        if progress.precision == "auto":
            progress.precision = self.settings.precision
        if progress.precision == "auto":
            faster, seconds = faster_precision(self._timed, self.device)
            progress.precision = "bfloat16" if self.ranks.any(faster == "bfloat16") else "float32"
            if self.ranks.first:
                click.echo("seconds a step: " + ", ".join(f"{name} {value:.4f}" for name, value in seconds.items()))
        self.precision = progress.precision
        if torch.device(self.device).type != "cuda" or self.ranks.world > 1:  # a graph can't wait for other processes
            return
        loss = self.lesson.drawn_loss(self.network, precision=self.precision, device=self.device)
        if loss is not None:
            self.whole = CapturedStep(
                self.network, average, self.optimiser, loss, clip=self.settings.clip, parts=self.settings.accumulate
            )
            self.read_every = READ_EVERY

    def take(self, step: int, *, rate: float, share: float) -> None:
        """One update at this learning rate; the average moves by `share`, unless the loss wasn't finite."""
        parts = self.settings.accumulate
        if self.whole is not None:
            self.whole.take(seed=self._seed(step), rate=rate, share=share)
            return
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.device)
        for part in range(parts):
            drawn = self._drawn((step * parts + part) * self.ranks.world + self.ranks.rank)
            error = self.lesson.loss(self.network, drawn, precision=self.precision, device=self.device) / parts
            error.backward()  # type: ignore[no-untyped-call]
            loss = loss + error.detach()
        self.ranks.average_gradients(self.network)
        loss = self.ranks.mean(loss)  # not finite in one process: in none
        length = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        if torch.isfinite(loss) and torch.isfinite(length):
            self.optimiser.step()
            self.bad = 0
            self.losses.append(float(loss))
            follow(self.average, self.network.state_dict(), share)
        else:
            self.bad += 1
            self.skipped += 1

    def read(self, progress: Progress) -> int:
        """Adds what came since the last reading to `progress`; how many steps running weren't finite."""
        if self.whole is not None:
            mean, self.skipped, count = self.whole.read()
            self.bad = self.bad + self.skipped if self.skipped == count else 0
            self.losses = [mean] if math.isfinite(mean) else []
        progress.losses += self.losses
        progress.skipped += self.skipped
        self.losses, self.skipped = [], 0
        return self.bad

    def _drawn(self, number: int) -> Any:
        """What the part of that number learns from, counted over all steps and processes: seed and number decide it."""
        seed = self._seed(number)
        torch.manual_seed(seed)  # dropout
        return self.lesson.draw(np.random.default_rng((self.settings.seed, number)), seed=seed, device=self.device)

    def _seed(self, number: int) -> int:
        return self.settings.seed * 1_000_003 + number

    def _timed(self, precision: str) -> None:
        kept = {name: value.clone() for name, value in self.network.named_buffers()}
        self.lesson.loss(self.network, self._drawn(0), precision=precision, device=self.device).backward()
        self.optimiser.zero_grad(set_to_none=True)
        for name, value in self.network.named_buffers():  # batch normalisation counts what it sees
            value.copy_(kept[name])
