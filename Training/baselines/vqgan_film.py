"""VQGAN with plain residual blocks (Esser et al. 2021), and a prior that draws its codes.

Both are the house's: `Training/vqgan_loop` with the block of the preset `vqgan`, then a masked transformer over the
codes (`Training/token_loop`), trained until its held-out surprise rises. The paper doesn't say how it draws codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from HiResMedSynthLib.background.token_layers import PriorShape, to_digits
from HiResMedSynthLib.background.token_prior import build_prior, load_prior
from HiResMedSynthLib.background.vqgan import Vqgan, VqganShape
from HiResMedSynthLib.background.vqgan_file import codebook_fingerprint
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.evaluation.st_lpips import st_lpips
from Training.film_tokens import CodedFilms, FilmTokens
from Training.loop import LoopSettings
from Training.ranks import Ranks
from Training.token_loop import PRIOR, PriorSettings, PriorTraining, train_prior
from Training.vqgan_data import FilmTensors
from Training.vqgan_loop import train
from Training.vqgan_losses import Perceptual
from Training.vqgan_step import VqganSettings, VqganTraining, make_settings

VQGAN_SHARE = 0.6  # of the time; the rest is the prior's
AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class VqganFilmSettings:
    """A preset's tables [vqgan.network], [vqgan.loop], [vqgan.prior], [vqgan.prior_loop], [vqgan.prior_training]."""

    network: VqganShape
    loop: VqganSettings
    prior: PriorShape
    prior_loop: LoopSettings
    prior_training: PriorSettings

    @classmethod
    def of(cls, table: dict[str, Any], *, size: int, seed: int) -> VqganFilmSettings:
        """The settings of a preset's tables."""
        network = VqganShape.from_json({**table["network"], "block": "residual", "size": size})
        return cls(
            network=network,
            loop=make_settings(table["loop"], seed=seed),
            prior=PriorShape(
                **table["prior"], kind="masked", levels=(network.codes,), grid=size // prod(network.strides), classes=0
            ),
            prior_loop=LoopSettings(**{**table["prior_loop"], "seed": seed}),
            prior_training=PriorSettings(**table["prior_training"]),
        )


def make(
    films: FilmTensors,
    settings: VqganFilmSettings,
    seeds: Sequence[int],
    *,
    out: Path,
    data_sha256: str,
    resume: bool,
    time_limit_s: float,
    device: str,
) -> tuple[Tensor, dict[str, Any]]:
    """(films [n, 1, S, S] in about -1..1, one a seed; facts of the run)."""
    torch.manual_seed(settings.loop.seed)
    ranks = Ranks(device=device)
    described = {"data_sha256": data_sha256, "seed": settings.loop.seed}
    perceptual = perceptual_of(device) if settings.loop.perceptual else None
    training = VqganTraining(Vqgan(settings.network), films, settings.loop, ranks=ranks, perceptual=perceptual)
    facts: dict[str, Any] = {"weights": weights_of(training.network), "perceptual": perceptual is not None}
    network = train(
        training, out=out / "vqgan", description={**described, "network": settings.network.to_json()}, resume=resume,
        time_limit_s=VQGAN_SHARE * time_limit_s,
    )  # fmt: skip
    steps = training.state.progress.step
    facts |= {"steps": steps, "films_seen": steps * settings.loop.batch}
    prior = PriorTraining(
        build_prior(settings.prior), tokens_of(network, training.films, settings), settings.prior_training,
        settings.prior_loop, ranks=ranks,
    )  # fmt: skip
    encoder = codebook_fingerprint(network)
    prior_run = out / f"prior-{encoder}"  # a network that was trained further has other codes
    train_prior(
        prior, out=prior_run, description={**described, "stage": "prior", "encoder": encoder}, resume=resume,
        time_limit_s=(1 - VQGAN_SHARE) * time_limit_s,
    )  # fmt: skip
    drawer = load_prior(prior_run / PRIOR, encoder_fingerprint=encoder)
    drawer.network.to(device)
    facts |= {
        "prior_weights": weights_of(prior.network),
        "prior_steps": prior.progress.step,
        "prior_held_out_nats": round(float(drawer.facts["measured_held_out"]), 3),
        "training_s": round(training.state.progress.seconds + prior.progress.seconds, 1),
    }
    drawn = []
    for start in range(0, len(seeds), AT_ONCE):
        codes = [drawer.sample(1, seed=seed, encoder_fingerprint=encoder) for seed in seeds[start : start + AT_ONCE]]
        indices = to_digits(torch.cat(codes), settings.prior.levels)[:, 0]
        drawn.append(network.decode(indices.to(device)).cpu())
    return torch.cat(drawn), facts


@torch.no_grad()
def tokens_of(network: Vqgan, films: FilmTensors, settings: VqganFilmSettings) -> FilmTokens:
    """Codes of the training films in many changed copies, and of both sides as they are."""

    def coded(pairs: Sequence[tuple[Tensor, Tensor]]) -> CodedFilms:
        digits = torch.cat([network.encode(image)[:, None].to("cpu", torch.int16) for image, _ in pairs])
        grid = settings.prior.grid
        field = torch.cat([nn.functional.adaptive_avg_pool2d(mask, grid)[:, 0].cpu() for _, mask in pairs])
        return CodedFilms(digits=digits, field=field, labels=torch.zeros(len(digits), dtype=torch.long))

    sides = [films.side(held_out=held_out) for held_out in (False, True)]
    batches = -(-len(sides[0]) * settings.prior_training.copies // AT_ONCE)
    changed = [
        films.train_batch(step=number, batch=AT_ONCE, seed=settings.loop.seed, change=True) for number in range(batches)
    ]
    train, held_out = ([films.chosen(part) for part in side.split(AT_ONCE)] for side in sides)
    return FilmTokens(changed=coded(changed), train=coded(train), held_out=coded(held_out))


def perceptual_of(device: str) -> Perceptual | None:
    """ST-LPIPS on AlexNet, frozen: small, and not the backbone that the films are measured by; None where absent."""
    try:
        distance: Perceptual = deepcopy(st_lpips("alex")).to(device)  # the loaded one stays on the CPU
    except HiResMedSynthError as problem:
        click.echo(f"no perceptual loss: {problem.what}")
        return None
    return distance


def weights_of(network: nn.Module) -> int:
    """How many numbers it learns."""
    return sum(parameter.numel() for parameter in network.parameters())
