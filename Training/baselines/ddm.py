"""DDM: a denoising diffusion model (Ho et al. 2020) drawn by DDIM (Song et al. 2021), as the paper's baseline.

The paper trains it at 128 px and enlarges its films. 1,000 times with a linear schedule from 1e-4 to .02, the noise is
what is predicted, the squared error counts inside the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from HiResMedSynthLib.background.flow_unet import SelfAttention
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.layers import group_norm, waves
from Training.baselines.loop import LearningPart, adam, move, noise_of
from Training.precision import autocast

TIMES = 1000
AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class DdmShape:
    """A preset's [ddm.network] table.

    Attributes:
        widths: channels at each level, finest first.
        blocks: residual blocks at each level, on the way down and again on the way up.
        attention: whether each level has self-attention.
        dropout: in the blocks.
        learning_rate: of Adam (.9, .999).
        draw_steps: evaluations of DDIM.
    """

    widths: tuple[int, ...] = (64, 128, 128, 256)
    blocks: int = 2
    attention: tuple[bool, ...] = (False, False, False, True)
    dropout: float = 0.1
    learning_rate: float = 2e-4
    draw_steps: int = 50


class Ddm:
    """The diffusion model in training; see `loop.Baseline`.

    Raises:
        SettingsError: a size that it doesn't make.
    """

    metrics: tuple[str, ...] = ("loss",)

    def __init__(self, shape: DdmShape, *, size: int, device: str, precision: str) -> None:
        step = 2 ** (len(shape.widths) - 1)
        if size % step:
            raise SettingsError(f"DDM makes no films of {size} px", remedy=f"Use a multiple of {step}.")
        self.shape, self.size, self.device, self.precision = shape, size, device, precision
        network = NoiseUNet(shape).to(device)
        self.kept = kept_signal().to(device)
        self.parts: Mapping[str, LearningPart] = {
            "generator": LearningPart(network=network, optimiser=adam(network, shape.learning_rate, (0.9, 0.999)))
        }

    def update(self, film: Tensor, mask: Tensor) -> Tensor:
        """[1]: the squared error of the noise, mean over the field."""
        part = self.parts["generator"]
        time = torch.randint(TIMES, (len(film),), device=film.device)
        kept = self.kept[time][:, None, None, None]
        noise = torch.randn_like(film)
        with autocast(self.precision, self.device):
            found = part.network(kept.sqrt() * film + (1 - kept).sqrt() * noise, time)
        loss = ((found.float() - noise).square() * mask).sum() / mask.sum().clamp(min=1)
        move(part, loss)
        told: Tensor = loss.detach()[None]
        return told

    @torch.no_grad()
    def draw(self, network: nn.Module, seeds: Sequence[int]) -> Tensor:
        """[n, 1, S, S]: DDIM without added noise, the estimate of the film cut to -1..1 at each time."""
        films = []
        for start in range(0, len(seeds), AT_ONCE):
            x = noise_of(seeds[start : start + AT_ONCE], 1, self.size, self.size).to(self.device)
            times = torch.linspace(TIMES - 1, 0, self.shape.draw_steps).round().long().tolist()
            for time, after in zip(times, [*times[1:], -1], strict=True):
                kept = self.kept[time]
                then = self.kept[after] if after >= 0 else torch.ones_like(kept)
                with autocast(self.precision, self.device):
                    noise = network(x, torch.full((len(x),), time, device=self.device)).float()
                film = ((x - (1 - kept).sqrt() * noise) / kept.sqrt()).clamp(-1, 1)
                noise = (x - kept.sqrt() * film) / (1 - kept).sqrt()
                x = then.sqrt() * film + (1 - then).sqrt() * noise
            films.append(x.cpu())
        return torch.cat(films)


def kept_signal() -> Tensor:
    """[1000]: the share of the film's variance left at each time, from nearly 1 to nearly 0."""
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, TIMES, dtype=torch.float64), 0).float()


class NoiseUNet(nn.Module):
    """The noise in a noisy film: a U-Net of residual blocks told the time."""

    def __init__(self, shape: DdmShape) -> None:
        super().__init__()
        told = 4 * shape.widths[0]
        self.embed = nn.Sequential(nn.Linear(64, told), nn.SiLU(), nn.Linear(told, told), nn.SiLU())
        self.stem = nn.Conv2d(1, shape.widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.halve, self.grow = nn.ModuleList(), nn.ModuleList()
        before = shape.widths[0]
        kept = []
        for level, width in enumerate(shape.widths):
            blocks = nn.ModuleList()
            for _ in range(shape.blocks):
                blocks.append(Block(before, width, told, shape.dropout, attention=shape.attention[level]))
                before = width
                kept.append(width)
            self.down.append(blocks)
            last = level + 1 == len(shape.widths)
            self.halve.append(nn.Identity() if last else nn.Conv2d(width, width, 3, stride=2, padding=1))
        self.middle = nn.ModuleList(Block(before, before, told, shape.dropout, attention=a) for a in (True, False))
        for level, width in reversed(list(enumerate(shape.widths))):
            last = level + 1 == len(shape.widths)
            self.grow.append(nn.Identity() if last else doubling(before))
            blocks = nn.ModuleList()
            for _ in range(shape.blocks):
                blocks.append(Block(before + kept.pop(), width, told, shape.dropout, attention=shape.attention[level]))
                before = width
            self.up.append(blocks)
        self.last = nn.Sequential(group_norm(before), nn.SiLU(), nn.Conv2d(before, 1, 3, padding=1))

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        """[B, 1, S, S] from a film with noise and its time [B], 0 to 999."""
        told = self.embed(waves(time / TIMES))
        x = self.stem(noisy)
        kept = []
        for blocks, halve in zip(self.down, self.halve, strict=True):
            for block in blocks.children():
                x = block(x, told)
                kept.append(x)
            x = halve(x)
        for block in self.middle:
            x = block(x, told)
        for blocks, grow in zip(self.up, self.grow, strict=True):
            x = grow(x)
            for block in blocks.children():
                x = block(torch.cat([x, kept.pop()], dim=1), told)
        noise: Tensor = self.last(x)
        return noise


def doubling(channels: int) -> nn.Sequential:
    """Twice the side."""
    return nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(channels, channels, 3, padding=1))


class Block(nn.Module):
    """GroupNorm, SiLU, convolution; the time added; the same again with dropout; beside a skip."""

    def __init__(self, before: int, width: int, told: int, dropout: float, *, attention: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(group_norm(before), nn.SiLU(), nn.Conv2d(before, width, 3, padding=1))
        self.time = nn.Linear(told, width)
        self.second = nn.Sequential(
            group_norm(width), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(width, width, 3, padding=1)
        )
        self.skip = nn.Conv2d(before, width, 1) if before != width else nn.Identity()
        self.attention = SelfAttention(width) if attention else nn.Identity()

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """[B, width, H, W]."""
        hidden = self.first(x) + self.time(told)[:, :, None, None]
        mixed: Tensor = self.attention(self.skip(x) + self.second(hidden))
        return mixed
