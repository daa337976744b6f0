"""The training of a prior over codes, from its start or its checkpoint to the minimum of its held-out surprise.

A run's folder holds `checkpoint.safetensors` (all a run needs to go on), `prior.safetensors` (averaged weights where
the held-out surprise was lowest: the file that `load_prior` takes), `log.jsonl`, `sheet-*.png`. The measured number is
the surprise of a code in nats: exact for GPT; for the masked prior its bound over random orders, the mean over hidden
codes with 0, 1, ... N - 1 codes told equally often. Padding is in no loss.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from HiResMedSynthLib.background.token_gpt import GptPrior
from HiResMedSynthLib.background.token_masked import MaskedPrior
from HiResMedSynthLib.background.token_prior import save_prior
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.whole_tensors import header_entry
from Training.checkpoint import CHECKPOINT, Progress, check_same_run, load_checkpoint, save_checkpoint
from Training.clock import Clock
from Training.film_tokens import CodedFilms, FilmTokens
from Training.interrupts import HeldInterrupts
from Training.loop import BAD_STEPS_ALLOWED, LoopSettings
from Training.precision import autocast, check_precision, faster_precision
from Training.ranks import Ranks
from Training.report import begin_log, log_entry
from Training.schedule import rate_share

PRIOR = "prior.safetensors"
MEASURED = 28  # films of each side
REPEATS = 3  # random orders of each that the masked prior is measured with
Sheet = Callable[[Path], NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class PriorSettings:
    """What is done against learning by heart; a preset's [training] table.

    Attributes:
        batch: films a step, over all processes.
        copies: changed copies of each training film whose codes are learned from.
        label_drop: share of films whose class is withheld.
        corruption: share of told codes that are replaced by random ones.
        smoothing: of the targets.
        patience: steps without a lower held-out surprise after which the run ends.
    """

    batch: int = 16
    copies: int = 16
    label_drop: float = 0.1
    corruption: float = 0.08
    smoothing: float = 0.1
    patience: int = 1500


@dataclass(frozen=True, kw_only=True)
class PriorBatch:
    """Films of one step or measurement; shapes as in `MaskedPrior`; `counted` [B, N] is 1 where the loss counts."""

    digits: Tensor
    seen: Tensor
    told: Tensor
    field: Tensor
    label: Tensor
    counted: Tensor

    def error(self, network: MaskedPrior | GptPrior, *, smoothing: float = 0.0) -> Tensor:
        """[B, N] surprise."""
        return network.surprise(
            self.digits, seen=self.seen, told=self.told, field=self.field, label=self.label, smoothing=smoothing
        )


class PriorTraining:
    """A prior, what it learns from, and one update after another; seed, step and rank decide all randomness."""

    def __init__(
        self,
        network: MaskedPrior | GptPrior,
        tokens: FilmTokens,
        settings: PriorSettings,
        loop: LoopSettings,
        *,
        ranks: Ranks | None = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        self.count = loop.part_of(settings.batch, world=self.ranks.world)
        self.settings, self.loop, self.device = settings, loop, self.ranks.device
        self.network = network.to(self.device)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.changed = tokens.changed.to(self.device)
        sides = {"measured_train": tokens.train, "measured_held_out": tokens.held_out}
        self.measured = {name: self.measured_batch(films) for name, films in sides.items()}
        matrices = [parameter for parameter in self.network.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in self.network.parameters() if parameter.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": loop.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=loop.learning_rate, betas=(0.9, 0.99))
        self.progress = Progress()

    def batch(self, step: int, part: int) -> PriorBatch:
        """One part of a step's batch."""
        rng, count = np.random.default_rng((self.loop.seed, step, part)), self.count
        chosen = torch.from_numpy(rng.integers(0, len(self.changed), count)).to(self.device)
        digits, field = self.changed.digits[chosen].long(), self.changed.field[chosen].float()
        kept = torch.from_numpy(rng.random(count) >= self.settings.label_drop).to(self.device)
        share = 1 - np.arccos(rng.random(count)) / (np.pi / 2)  # of codes told: MaskGIT's arccos law
        batch = self._hidden(digits, field, self.changed.labels[chosen] * kept, share=share, rng=rng)
        wrong = rng.random((count, *self.changed.digits.shape[2:])) < self.settings.corruption
        noise = np.stack([rng.integers(0, level, wrong.shape) for level in self.network.shape.levels], axis=1)
        placed = torch.from_numpy(wrong).to(self.device)[:, None]
        seen = torch.where(placed, torch.from_numpy(noise).to(self.device), digits)
        return PriorBatch(**{**vars(batch), "seen": seen})

    def measured_batch(self, films: CodedFilms) -> PriorBatch:
        """The first films of one side, several times each with other codes told: the same ones each time."""
        films = films.to(self.device)
        count = min(MEASURED, len(films))
        repeats = REPEATS if isinstance(self.network, MaskedPrior) else 1
        rng = np.random.default_rng(7)
        share = rng.permutation((np.arange(count * repeats) + 0.5) / (count * repeats))
        chosen = torch.arange(count, device=self.device).repeat(repeats)
        return self._hidden(
            films.digits[chosen].long(), films.field[chosen].float(), films.labels[chosen], share=share, rng=rng
        )

    def _hidden(
        self, digits: Tensor, field: Tensor, label: Tensor, *, share: NDArray[np.float64], rng: np.random.Generator
    ) -> PriorBatch:
        """A batch with that share [B] of each film's codes told; cells of padding never are, nor counted."""
        inside = field.flatten(1) > 0.5
        told = torch.zeros_like(inside)
        if isinstance(self.network, MaskedPrior):
            order = torch.from_numpy(rng.random(tuple(inside.shape))).to(self.device)
            rank = torch.where(inside, order, 2.0).argsort(1).argsort(1)  # inside first
            told = rank < (torch.from_numpy(share).to(self.device)[:, None] * inside.sum(1, keepdim=True)).floor()
        counted = (inside & ~told).float()
        return PriorBatch(
            digits=digits, seen=digits, told=told.view_as(field), field=field, label=label, counted=counted
        )

    def loss(self, step: int, precision: str, *, part: int = 0) -> Tensor:
        """Mean surprise of the counted codes of this process's part of a step's batch, targets smoothed."""
        part += self.ranks.rank * self.loop.accumulate
        torch.manual_seed(self.loop.seed * 1_000_003 + step * self.ranks.world * self.loop.accumulate + part)  # dropout
        batch = self.batch(step, part)
        with autocast(precision, self.device):
            error = batch.error(self.network, smoothing=self.settings.smoothing)
        return (error * batch.counted).sum() / batch.counted.sum().clamp(min=1)

    def choose_precision(self) -> dict[str, float]:
        """Sets the precision: the run's own, the asked one, or the faster; seconds a step of each, where timed."""
        check_precision(self.loop.precision)
        seconds: dict[str, float] = {}
        if self.progress.precision == "auto":
            self.progress.precision = self.loop.precision
        if self.progress.precision == "auto":
            faster, seconds = faster_precision(lambda name: self.loss(0, name).backward(), self.device)
            self.progress.precision = "bfloat16" if self.ranks.any(faster == "bfloat16") else "float32"
            self.optimiser.zero_grad(set_to_none=True)
        return seconds

    def step(self, rate: float) -> float:
        """The loss of one update; NaN where it was skipped."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        losses = []
        for part in range(self.loop.accumulate):
            share = self.loss(self.progress.step, self.progress.precision, part=part) / self.loop.accumulate
            share.backward()
            losses.append(share.detach())
        loss = torch.stack(losses).sum()
        self.ranks.average_gradients(self.network)
        length = nn.utils.clip_grad_norm_(self.network.parameters(), self.loop.clip)
        if self.ranks.any(not (torch.isfinite(loss) and torch.isfinite(length))):
            return math.nan
        self.optimiser.step()
        decay = min(self.loop.average, (1 + self.progress.step) / (10 + self.progress.step))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        return float(loss)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Surprise a code of the averaged weights, nats, on unchanged training and held-out films."""
        results = {}
        for name, batch in self.measured.items():
            with autocast(self.progress.precision, self.device):
                error = batch.error(self.average)
            each = (error * batch.counted).sum(1) / batch.counted.sum(1).clamp(min=1)
            results[name] = float(each.mean())
        return results


def train_prior(
    training: PriorTraining,
    *,
    out: Path,
    description: dict[str, Any],
    sheet: Sheet | None = None,
    resume: bool = False,
    time_limit_s: float = math.inf,
) -> None:
    """Trains until the steps, the time or the patience ends; checkpoints, log, sheets and the best prior in `out`.

    Raises:
        SettingsError: `out` holds a run and `resume` wasn't asked, or its run is of other layers, data or codebook.
        HiResMedSynthError: the loss stayed NaN or infinite.
    """
    ranks, loop, settings = training.ranks, training.loop, training.settings
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, average = out / CHECKPOINT, training.average.state_dict()
    if checkpoint.exists():
        if not resume:
            raise SettingsError("This folder holds a run", where=out, remedy="Give --resume, or another folder.")
        _check_codebook(checkpoint, description)
        check_same_run(checkpoint, description)
        training.progress = load_checkpoint(checkpoint, training.network, average, training.optimiser)
    progress = training.progress
    timed = training.choose_precision()
    if ranks.first and timed:
        click.echo("seconds a step: " + ", ".join(f"{name} {value:.3f}" for name, value in timed.items()))
    if ranks.first and not checkpoint.exists():
        begin_log(out, training.measure())
    clock = Clock(limit_s=time_limit_s, before_s=progress.seconds, first_step=progress.step, counted=loop.counted)
    last_saved, bad = clock.seconds, 0
    best_step = _best_step(out)

    def save() -> None:
        progress.seconds = clock.seconds
        if ranks.first:
            save_checkpoint(
                checkpoint, training.network, average, training.optimiser, progress=progress, description=description
            )

    training.network.train()
    came: float = False
    with HeldInterrupts() as interrupts:
        while progress.step < loop.steps and progress.step - best_step < settings.patience:
            used, came = ranks.largest(clock.used, interrupts.came)
            if used >= 1 or came:
                break
            loss = training.step(loop.learning_rate * rate_share(progress.step, loop, used=used))
            bad = 0 if math.isfinite(loss) else bad + 1
            if bad:
                progress.skipped += 1
            else:
                progress.losses.append(loss)
            progress.step += 1
            if bad >= BAD_STEPS_ALLOWED:
                save()
                raise HiResMedSynthError(
                    f"The loss wasn't finite in {bad} steps running", where=out, remedy="Lower learning_rate, resume."
                )
            if progress.step % loop.report_every == 0 or progress.step == loop.steps:
                ranks.check_equal(training.network)
                measured = training.measure()
                entry = {
                    "step": progress.step,
                    "loss": round(float(np.mean(progress.losses)), 4) if progress.losses else None,
                    **{name: round(value, 4) for name, value in measured.items()},
                    **clock.told(progress.step, loop.steps),
                    "skipped": progress.skipped,
                    "processes": ranks.world,
                }
                progress.losses.clear()
                if measured["measured_held_out"] < (progress.lowest_held_out or math.inf):
                    progress.lowest_held_out, best_step = measured["measured_held_out"], progress.step
                    if ranks.first:
                        facts = {**description, **measured, "step": progress.step}
                        save_prior(training.average, out / PRIOR, fingerprint=description["encoder"], facts=facts)
                if ranks.first:
                    log_entry(out, entry)
            if sheet is not None and progress.step % loop.sheet_every == 0 and ranks.first and (out / PRIOR).is_file():
                Image.fromarray(sheet(out / PRIOR)).save(out / f"sheet-{progress.step:06d}.png")
            if ranks.any(clock.seconds - last_saved > loop.checkpoint_minutes * 60):
                save()
                last_saved = clock.seconds
        save()  # so that --resume goes on from here
    if came or interrupts.came:
        raise KeyboardInterrupt
    if sheet is not None and ranks.first and (out / PRIOR).is_file():
        Image.fromarray(sheet(out / PRIOR)).save(out / "sheet-last.png")


def _best_step(out: Path) -> int:
    return int((header_entry(out / PRIOR, "prior") or {}).get("facts", {}).get("step", 0))


def _check_codebook(checkpoint: Path, description: dict[str, Any]) -> None:
    own = (header_entry(checkpoint, "state") or {}).get("description", {}).get("encoder")
    if own not in (None, description["encoder"]):
        raise SettingsError(
            "The run learns the codes of another background model",
            where=checkpoint,
            remedy="Give the cascade it began with, or another folder.",
        )
