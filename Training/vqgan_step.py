"""One training step of the VQGAN: Eq. 1 and its adversary, on one device or on several processes.

Randomness depends on seed, step and rank alone. Networks run in the faster of float32 and bfloat16, quantiser and
losses in float32.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from HiResMedSynthLib.background.quantiser import ALPHA, GAMMA, Codebook, count_codes
from HiResMedSynthLib.background.vqgan import Vqgan
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from Training.average import follow
from Training.discriminators import MultiScaleDiscriminator, UNetDiscriminator
from Training.options import loop_values
from Training.precision import autocast, check_precision, faster_precision
from Training.ranks import Ranks
from Training.vqgan_data import FilmTensors
from Training.vqgan_losses import (
    Perceptual,
    adaptive_weight,
    apply_image_change,
    consistency,
    draw_boxes,
    draw_image_change,
    equation_1,
    head_weights,
    hinge_of_discriminator,
    hinge_of_generator,
    perceptual_on_crops,
    separation,
)  # fmt: skip
from Training.vqgan_state import RunState

BAD_STEPS_ALLOWED = 20
ADVERSARIES = ("multiscale", "unet")


@dataclass(frozen=True, kw_only=True)
class VqganSettings:
    """A preset's [loop] table; the defaults are the paper's.

    Attributes:
        learning_rate, betas: of Adam, for the network and its adversary.
        batch: films a step, over all processes; `accumulate` parts of it are computed one after the other.
        warm_up, anneal: steps up to the full rate, and share of all steps at the end in which it falls to zero.
        average: decay of the moving average of the weights.
        change: shift films and change their gamma.
        alpha, gamma: of Eq. 1.
        revive: steps between revivals of dead codes; 0 for none, as in the paper.
        perceptual: weight of ST-LPIPS on crops of `crop` pixels; 0 for none.
        adversary: "multiscale" (paper) or "unet"; its weight is `adversarial`, from step `adversarial_start` on.
        adaptive: scales that weight by the ratio of gradients.
        lecam: weight of LeCam's regulariser.
        diff_augment: DiffAugment before the adversary.
        consistency: weight of AttnMix (`vqgan_losses.consistency`), which needs the adversary "unet"; 0 for none.
        precision: "auto", "float32" or "bfloat16".
        counted: the seconds of a time limit, "wall" or "cpu" (see `clock.now_s`).
    """

    learning_rate: float = 2.25e-5
    betas: tuple[float, float] = (0.5, 0.9)
    steps: int = 100_000
    batch: int = 8
    accumulate: int = 1
    warm_up: int = 0
    anneal: float = 0.0
    average: float = 0.999
    clip: float = 1.0
    change: bool = True
    alpha: float = ALPHA
    gamma: float = GAMMA
    revive: int = 0
    perceptual: float = 1.0
    crop: int = 256
    adversary: str = "multiscale"
    adversarial: float = 1.0
    adversarial_start: int = 10_000
    adaptive: bool = False
    lecam: float = 0.0
    diff_augment: bool = False
    consistency: float = 0.0
    precision: str = "auto"
    report_every: int = 100
    sheet_every: int = 1000
    checkpoint_minutes: float = 3.0
    seed: int = 1
    counted: str = "wall"


def make_settings(table: dict[str, Any], *, changes: Sequence[str] = (), **options: Any) -> VqganSettings:
    """A preset's [loop] table with the options that were given, then `changes` by --loop.

    Raises:
        SettingsError: a name or precision that there is none of.
    """
    given = {name: value for name, value in options.items() if value is not None}
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
    try:
        settings = VqganSettings(**{**plain, **given, **loop_values(VqganSettings, changes)})
    except TypeError as problem:
        raise SettingsError(
            f"The preset's [loop] can't be: {problem}", remedy="See Training/presets/vqgan_unet.toml."
        ) from None
    check_precision(settings.precision)
    return settings


class VqganTraining:
    """One run: its networks, optimisers and films."""

    def __init__(
        self,
        network: Vqgan,
        films: FilmTensors,
        settings: VqganSettings,
        *,
        ranks: Ranks | None = None,
        perceptual: Perceptual | None = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        if settings.adversary not in ADVERSARIES:
            raise SettingsError(f"No adversary {settings.adversary}", remedy=f"Use {' or '.join(ADVERSARIES)}.")
        if settings.consistency and settings.adversary != "unet":
            raise SettingsError("consistency needs an answer for each pixel", remedy='Set adversary = "unet".')
        if min(settings.batch, settings.accumulate) < 1 or settings.batch % (self.ranks.world * settings.accumulate):
            raise SettingsError(
                f"A batch of {settings.batch} can't be split over {self.ranks.world} processes x {settings.accumulate}",
                remedy="Choose a multiple.",
            )
        self.settings, self.device, self.perceptual = settings, self.ranks.device, perceptual
        self.films = films.to(self.device)
        self.network = network.to(self.device)
        channels = network.shape.channels
        adversary = (
            MultiScaleDiscriminator(channels) if settings.adversary == "multiscale" else UNetDiscriminator(channels)
        )
        for part in (self.network, adversary.to(self.device)):
            placed: Any = part
            placed.to(memory_format=torch.channels_last)  # its overload is not in torch's types
        adam = [
            torch.optim.Adam(part.parameters(), lr=settings.learning_rate, betas=settings.betas, eps=1e-8)
            for part in (self.network, adversary)
        ]
        entries = network.quantiser.entries
        self.state = RunState(
            network=self.network,
            average={name: value.detach().clone() for name, value in self.network.state_dict().items()},
            optimiser=adam[0],
            adversary=adversary,
            adversary_optimiser=adam[1],
            counts=torch.zeros(entries, dtype=torch.int64, device=self.device),
        )
        self.window_counts = torch.zeros_like(self.state.counts)  # since the last report
        self.wrapped = self.ranks.spread(self.network)
        self.precision = "float32"
        self.logged: dict[str, list[float]] = defaultdict(list)
        self.bad = 0

    def choose_precision(self) -> dict[str, float]:
        """Takes the faster arithmetic, once a run; seconds a step of each, empty where the choice was made before."""
        known = self.settings.precision if self.settings.precision != "auto" else self.state.progress.precision
        seconds: dict[str, float] = {}
        if known == "auto":
            image, mask = self._batch(0)
            part = max(1, len(image) // self.settings.accumulate)

            def step(precision: str) -> None:
                with autocast(precision, self.device):
                    result = self.network(image[:part], mask[:part])
                equation_1(result, image[:part], mask[:part]).total().backward()
                self.network.zero_grad(set_to_none=True)

            self.network.train()
            known, seconds = faster_precision(step, self.device)
            known = "bfloat16" if self.ranks.any(known == "bfloat16") else "float32"
        self.precision = self.state.progress.precision = known
        return seconds

    def step(self) -> bool:
        """One update of the network and, from its start on, of the adversary; False where it was skipped."""
        settings, state = self.settings, self.state
        at = state.progress.step
        torch.manual_seed((settings.seed * 1_000_003 + at) * 1_009 + self.ranks.rank)  # DropPath
        generator = torch.Generator().manual_seed((settings.seed * 1_000_003 + at) * 1_009 + self.ranks.rank + 500)
        adversarial = at >= settings.adversarial_start and settings.adversarial > 0
        image, mask = self._batch(at)
        state.adversary.requires_grad_(False)
        state.optimiser.zero_grad(set_to_none=True)
        pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        values: dict[str, float] = defaultdict(float)
        for part, inside in zip(image.chunk(settings.accumulate), mask.chunk(settings.accumulate), strict=True):
            with autocast(self.precision, self.device):
                result = self.wrapped(part, inside)
            terms = equation_1(
                result, part, inside, alpha=settings.alpha, gamma=settings.gamma,
                perceptual=self._perceptual(result.image, part, inside, generator),
            )  # fmt: skip
            if adversarial:
                answers = self._answers(result.image * inside, generator)
                pushed = settings.adversarial * hinge_of_generator(answers, head_weights(inside, answers))
                if settings.adaptive:
                    wanted = terms.reconstruction + terms.perceptual
                    pushed = pushed * adaptive_weight(wanted, pushed, self.network.decoder.to_image.weight)
                terms = replace(terms, adversarial=pushed)
                pairs.append((part.expand_as(result.image), result.image.detach(), inside))
            (terms.total() / settings.accumulate).backward()
            counted = count_codes(result.indices, len(state.counts))
            state.counts += counted
            self.window_counts += counted
            named = {**vars(terms), "loss": terms.total()}
            read = torch.stack([term.detach() for term in named.values()]).tolist()  # one wait for the device
            for name, value in zip(named, read, strict=True):
                values[name] += value / settings.accumulate
        length = nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        state.adversary.requires_grad_(True)
        if self.ranks.any(not (math.isfinite(values["loss"]) and bool(torch.isfinite(length)))):
            self._skip()
            return False
        state.optimiser.step()
        if adversarial:
            values |= self._adversary_step(pairs, generator)
        decay = min(settings.average, (1 + at) / (10 + at))
        follow(state.average, self.network.state_dict(), 1 - decay)
        if settings.revive and (at + 1) % settings.revive == 0:
            self._revive(image, at)
        for name, value in values.items():
            self.logged[name].append(value)
        self.bad = 0
        state.progress.step += 1
        return True

    def _adversary_step(
        self, pairs: list[tuple[Tensor, Tensor, Tensor]], generator: torch.Generator
    ) -> dict[str, float]:
        settings, state = self.settings, self.state
        state.adversary_optimiser.zero_grad(set_to_none=True)
        values: dict[str, float] = {"discriminator": 0.0, "separation": 0.0}
        for image, made, inside in pairs:
            shown = [self._changed(x * inside, generator) for x in (image, made)]
            real, fake = (self._judged(x) for x in shown)
            weights = head_weights(inside, real)
            loss = hinge_of_discriminator(real, fake, weights)
            values["discriminator"] += float(loss.detach()) / len(pairs)
            values["separation"] += float(separation(real, fake, weights)) / len(pairs)
            if settings.lecam:
                loss = loss + settings.lecam * state.lecam.penalty(real, fake, weights)
                state.lecam.update(real, fake, weights)
            if settings.consistency:
                box = draw_boxes(len(image), image.shape[-1], generator).to(self.device)
                mixed = self._judged(torch.where(box > 0, *shown))
                loss = loss + settings.consistency * consistency(mixed, real, fake, box, inside)
            (loss / len(pairs)).backward()
        self.ranks.average_gradients(state.adversary)
        length = nn.utils.clip_grad_norm_(state.adversary.parameters(), settings.clip)
        if bool(torch.isfinite(length)):  # equal in all processes, since gradients were averaged
            state.adversary_optimiser.step()
        return values

    def _answers(self, image: Tensor, generator: torch.Generator) -> list[Tensor]:
        return self._judged(self._changed(image, generator))

    def _changed(self, image: Tensor, generator: torch.Generator) -> Tensor:
        if not self.settings.diff_augment:
            return image
        return apply_image_change(image, draw_image_change(len(image), image.shape[-1], generator))

    def _judged(self, image: Tensor) -> list[Tensor]:
        with autocast(self.precision, self.device):
            answers = self.state.adversary(image)
        return [answer.float() for answer in answers]

    def _perceptual(self, made: Tensor, image: Tensor, inside: Tensor, generator: torch.Generator) -> Tensor | None:
        if self.perceptual is None or not self.settings.perceptual:
            return None
        crop = self.settings.crop
        return self.settings.perceptual * perceptual_on_crops(
            self.perceptual, made, image, inside, crop=crop, generator=generator
        )

    def _revive(self, image: Tensor, at: int) -> None:
        """Dead codes become vectors of the first process's batch, in all processes."""
        quantiser = self.network.quantiser
        if not isinstance(quantiser, Codebook):
            return
        counts = self.ranks.sum(self.state.counts)
        with torch.no_grad(), autocast(self.precision, self.device):
            encoded = self.network.encoder(image).float()
        drawn = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + at)
        self.logged["revived"].append(quantiser.revive(encoded, counts, drawn))
        self.ranks.copy_first(quantiser.vectors.data)
        self.state.counts.zero_()

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        image, mask = self.films.train_batch(
            step=step, batch=self.settings.batch, seed=self.settings.seed, change=self.settings.change,
            rank=self.ranks.rank, world=self.ranks.world,
        )  # fmt: skip
        return image.to(memory_format=torch.channels_last), mask

    def _skip(self) -> None:
        self.bad += 1
        self.state.progress.skipped += 1
        self.state.progress.step += 1
        if self.bad >= BAD_STEPS_ALLOWED:
            raise HiResMedSynthError(
                f"The loss wasn't finite in {self.bad} steps running", remedy="Lower learning_rate, resume."
            )
