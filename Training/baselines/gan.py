"""What the two adversarial baselines share: a generator and a critic that move in turn, both behind DiffAugment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from Training.baselines.films import diff_augmented
from Training.baselines.loop import LearningPart, adam, move, noise_of
from Training.precision import autocast

AT_ONCE = 16


class Gan:
    """A generator of latents [B, Z] and its critic; see `loop.Baseline`.

    The critic sees films that are 0 outside a real film's field, on both sides.
    """

    metrics: tuple[str, ...] = ("critic_loss", "generator_loss", "on_real", "on_fake")

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        *,
        latent: int,
        rates: tuple[float, float],
        betas: tuple[float, float],
        device: str,
        precision: str,
    ) -> None:
        self.latent, self.device, self.precision = latent, device, precision
        parts = {}
        for name, network, rate in (("generator", generator, rates[0]), ("critic", critic, rates[1])):
            placed: Any = network.to(device)
            placed.to(memory_format=torch.channels_last)  # its overload is not in torch's types
            parts[name] = LearningPart(network=network, optimiser=adam(network, rate, betas))
        self.parts: Mapping[str, LearningPart] = parts
        self.generator, self.critic = generator, critic

    def critic_loss(self, real: Tensor, fake: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(loss, verdicts on real, on fake) of changed films that are 0 outside their field."""
        raise NotImplementedError

    def generator_loss(self, verdict: Tensor) -> Tensor:
        """Of the critic's verdict on made films."""
        raise NotImplementedError

    def update(self, film: Tensor, mask: Tensor) -> Tensor:
        """[4]: the critic's step, then the generator's, on the same made films."""
        with autocast(self.precision, self.device):
            made = self.generator(torch.randn(len(film), self.latent, device=film.device))
        made = made.float() * mask
        self.critic.requires_grad_(True)
        real, fake = diff_augmented(film * mask), diff_augmented(made.detach())
        critic_loss, on_real, on_fake = self.critic_loss(real, fake, mask)
        move(self.parts["critic"], critic_loss)
        self.critic.requires_grad_(False)
        loss = self.generator_loss(self.judge(diff_augmented(made)))
        move(self.parts["generator"], loss)
        return torch.stack([part.detach().mean() for part in (critic_loss, loss, on_real, on_fake)])

    def judge(self, films: Tensor) -> Tensor:
        """The critic's verdict, float32."""
        with autocast(self.precision, self.device):
            verdict: Tensor = self.critic(films)
        return verdict.float()

    @torch.no_grad()
    def draw(self, network: nn.Module, seeds: Sequence[int]) -> Tensor:
        """[n, 1, S, S] in -1..1."""
        films = []
        for start in range(0, len(seeds), AT_ONCE):
            latent = noise_of(seeds[start : start + AT_ONCE], self.latent).to(self.device)
            with autocast(self.precision, self.device):
                films.append(network(latent).float().cpu())
        return torch.cat(films)
