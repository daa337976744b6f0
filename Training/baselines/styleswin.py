"""StyleSwin-small (after Zhang et al. 2022): a generator of window attention under a style, a wavelet critic.

Kept from the publication: windows of 8, half of the heads on shifted windows (here they wrap around), a style that
scales and shifts the normalised channels, sinusoids of the place at each size, summed pictures of each size, a critic
that is told the Haar wavelets of each size, spectral norm, R1, two rates. A quarter of its widths; R1 on a quarter of
each batch in each step, where it has a whole batch each 16 steps; its bCR gives way to DiffAugment.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, leaky_relu, scaled_dot_product_attention, softplus
from torch.nn.utils.parametrizations import spectral_norm

from HiResMedSynthLib.errors import SettingsError
from Training.baselines.gan import Gan

WINDOW = 8
HEAD = 32  # channels


@dataclass(frozen=True, kw_only=True)
class StyleSwinShape:
    """A preset's [styleswin.network] table.

    Attributes:
        latent: numbers that a film is made from, and of its style.
        widths: channels at 4, 8, 16 ... px, multiples of 64.
        critic_widths: of the critic, coarsest first.
        rates: Adam's (0, .99) for generator and critic.
        r1: weight of the squared gradient at real films.
    """

    latent: int = 256
    widths: tuple[int, ...] = (256, 256, 256, 128, 128, 64)
    critic_widths: tuple[int, ...] = (256, 256, 256, 256, 128, 64)
    rates: tuple[float, float] = (5e-5, 2e-4)
    r1: float = 10.0


class StyleSwin(Gan):
    """The pair in training.

    Raises:
        SettingsError: a size that it doesn't make.
    """

    def __init__(self, shape: StyleSwinShape, *, size: int, device: str, precision: str) -> None:
        sides = [4 * 2**level for level in range(1, min(len(shape.widths), len(shape.critic_widths)))]
        if size not in sides:
            raise SettingsError(f"StyleSwin makes no films of {size} px", remedy=f"Use {', '.join(map(str, sides))}.")
        self.r1 = shape.r1
        super().__init__(
            Generator(shape, size),
            Critic(shape, size),
            latent=shape.latent,
            rates=shape.rates,
            betas=(0.0, 0.99),
            device=device,
            precision=precision,
        )

    def critic_loss(self, real: Tensor, fake: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logistic loss and R1 (in float32, on a quarter of the batch)."""
        del mask  # both sides are 0 outside
        on_real, on_fake = self.judge(real), self.judge(fake)
        loss = softplus(-on_real).mean() + softplus(on_fake).mean()
        some = real[: max(1, len(real) // 4)].detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(some).sum(), some, create_graph=True)
        return loss + self.r1 / 2 * slope.square().sum((1, 2, 3)).mean(), on_real, on_fake

    def generator_loss(self, verdict: Tensor) -> Tensor:
        """The logistic loss that doesn't saturate."""
        return softplus(-verdict).mean()


class Generator(nn.Module):
    """Films [B, 1, S, S], about -1..1, from latents [B, Z]."""

    def __init__(self, shape: StyleSwinShape, size: int) -> None:
        super().__init__()
        levels = int(math.log2(size)) - 1
        self.mapping = nn.Sequential(
            *(layer for _ in range(4) for layer in (nn.Linear(shape.latent, shape.latent), nn.LeakyReLU(0.2)))
        )
        self.start = nn.Parameter(torch.randn(1, 16, shape.widths[0]))
        self.place = nn.Parameter(torch.full((levels,), 0.1))  # how much of the sinusoids; 1 draws them into the film
        self.blocks, self.picture, self.widen = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = shape.widths[0]
        for width in shape.widths[:levels]:
            self.widen.append(nn.Linear(before, width) if width != before else nn.Identity())
            self.blocks.append(nn.ModuleList(StyledBlock(width, shape.latent) for _ in range(2)))
            self.picture.append(nn.Linear(width, 1))
            before = width
        for layer in self.mapping:
            if isinstance(layer, nn.Linear):  # the style keeps the latent's spread
                nn.init.kaiming_normal_(layer.weight, a=0.2)
                nn.init.zeros_(layer.bias)

    def forward(self, latent: Tensor) -> Tensor:
        """[B, 1, S, S]."""
        style = self.mapping(latent / latent.square().mean(dim=1, keepdim=True).add(1e-8).sqrt())
        x = self.start.expand(len(latent), -1, -1)
        film = latent.new_zeros(len(latent), 1, 2, 2)
        for level, (widen, blocks, picture) in enumerate(zip(self.widen, self.blocks, self.picture, strict=True)):
            side = 4 * 2**level
            if level:
                x = enlarged(x, side // 2)
            x = widen(x)
            x = x + self.place[level] * sinusoids(side, x)
            for block in blocks.children():
                x = block(x, style, side)
            drawn = picture(x).transpose(1, 2).unflatten(2, (side, side))
            film = drawn + interpolate(film, scale_factor=2.0, mode="bilinear")
        return film


class StyledBlock(nn.Module):
    """Attention in windows, then two dense layers; both under the style, each beside a skip."""

    offset: Tensor

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.heads = max(2, width // HEAD)
        self.style = nn.Linear(latent, 4 * width)
        nn.init.normal_(self.style.weight, std=latent**-0.5)
        nn.init.zeros_(self.style.bias)
        self.ask = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.near = nn.Parameter(torch.zeros(self.heads, (2 * WINDOW - 1) ** 2))
        self.register_buffer("offset", window_offsets(), persistent=False)

    def forward(self, x: Tensor, style: Tensor, side: int) -> Tensor:
        """Same shape as `x` [B, side x side, C]."""
        scale, shift, scale_dense, shift_dense = self.style(style)[:, None].chunk(4, dim=2)
        x = x + self.mix(self._attended(self.ask((1 + scale) * normal(x) + shift), side))
        dense: Tensor = self.narrow(gelu(self.wide((1 + scale_dense) * normal(x) + shift_dense)))
        return x + dense

    def _attended(self, asked: Tensor, side: int) -> Tensor:
        """[B, N, C] of [B, N, 3 C]; the second half of the heads looks through windows shifted by half of one."""
        window = min(WINDOW, side)
        near = self.offset.view(WINDOW, WINDOW, WINDOW, WINDOW)[:window, :window, :window, :window]
        bias = self.near[:, near.reshape(window**2, window**2)]  # [heads, w w, w w]
        parts = asked.unflatten(1, (side, side)).unflatten(3, (3, self.heads, -1))  # [B, H, W, 3, heads, d]
        half = self.heads // 2
        halves = []
        for number, chosen in enumerate((slice(0, half), slice(half, None))):
            step = window // 2 if number and side > window else 0
            own = parts[..., chosen, :].roll((-step, -step), (1, 2))
            count = side // window
            cut = own.unflatten(2, (count, window)).unflatten(1, (count, window))  # [B, n, w, n, w, 3, heads, d]
            query, key, value = cut.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(1, 3).flatten(3, 4).unbind(0)
            seen = scaled_dot_product_attention(query, key, value, attn_mask=bias[chosen].to(query.dtype))
            back = seen.unflatten(2, (window, window)).unflatten(0, (-1, count, count))  # [B, n, n, heads, w, w, d]
            joined = back.permute(0, 1, 4, 2, 5, 3, 6).flatten(3, 4).flatten(1, 2)  # [B, H, W, heads, d]
            halves.append(joined.roll((step, step), (1, 2)))
        return torch.cat(halves, dim=3).flatten(3, 4).flatten(1, 2)


def normal(x: Tensor) -> Tensor:
    """[B, N, C]: each channel of each film with mean 0 and SD 1 (AdaIN's first half)."""
    return (x - x.mean(1, keepdim=True)) * (x.var(1, keepdim=True, unbiased=False) + 1e-6).rsqrt()


def window_offsets() -> Tensor:
    """[64, 64]: which relative place each pair of a window's pixels has."""
    place = torch.arange(WINDOW)
    pairs = place[:, None] - place[None] + WINDOW - 1  # [w, w]
    rows, columns = pairs[:, None, :, None], pairs[None, :, None, :]
    return (rows * (2 * WINDOW - 1) + columns).reshape(WINDOW**2, WINDOW**2)


def sinusoids(side: int, x: Tensor) -> Tensor:
    """[1, side x side, C]: waves of row and column, for `x` [B, side x side, C]."""
    width, device = x.shape[-1], x.device
    place = torch.arange(side, device=device) / side
    frequency = torch.pow(2.0, torch.arange(width // 4, device=device) * (math.log2(4 * side) / (width // 4)))
    angle = math.pi * place[:, None] * frequency
    wave = torch.cat([angle.sin(), angle.cos()], dim=1)  # [side, width / 2]
    both = torch.cat([wave[:, None].expand(-1, side, -1), wave[None].expand(side, -1, -1)], dim=2)
    return both.flatten(0, 1)[None]


def enlarged(x: Tensor, side: int) -> Tensor:
    """[B, 4 side side, C] of [B, side side, C], bilinear."""
    film = x.transpose(1, 2).unflatten(2, (side, side))
    return interpolate(film, scale_factor=2.0, mode="bilinear").flatten(2).transpose(1, 2)


class Critic(nn.Module):
    """One verdict a film: halving residual blocks, told the Haar wavelets of the film at each size."""

    def __init__(self, shape: StyleSwinShape, size: int) -> None:
        super().__init__()
        levels = int(math.log2(size)) - 1
        widths = list(reversed(shape.critic_widths[:levels]))  # finest first
        self.told = nn.ModuleList(spectral_norm(nn.Conv2d(4, width, 1)) for width in widths[1:])
        self.stem = spectral_norm(nn.Conv2d(4, widths[0], 1))
        self.stages = nn.ModuleList(HalvingBlock(before, after) for before, after in itertools.pairwise(widths))
        self.last = nn.Sequential(
            spectral_norm(nn.Conv2d(widths[-1] + 1, widths[-1], 3, padding=1)),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            spectral_norm(nn.Linear(4 * widths[-1], 1)),
        )

    def forward(self, film: Tensor) -> Tensor:
        """[B, 1] from [B, 1, S, S]."""
        waves = haar(film)
        x = leaky_relu(self.stem(waves), 0.2)  # [B, c, S / 2, S / 2]
        for told, stage in zip(self.told, self.stages, strict=True):
            waves = haar(waves[:, :1])
            x = stage(x) + told(waves)
        spread = x.float().var(0, unbiased=False).add(1e-8).sqrt().mean()  # how unlike the batch's films are
        verdict: Tensor = self.last(torch.cat([x, spread.to(x.dtype).expand_as(x[:, :1])], dim=1))
        return verdict


class HalvingBlock(nn.Module):
    """Two convolutions and a halving beside a skip."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(before, before, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1))
        self.skip = spectral_norm(nn.Conv2d(before, after, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """[B, after, H / 2, W / 2]."""
        main = leaky_relu(self.second(leaky_relu(self.first(x), 0.2)), 0.2)
        joined: Tensor = (main + self.skip(nn.functional.avg_pool2d(x, 2))) / math.sqrt(2)
        return joined


def haar(film: Tensor) -> Tensor:
    """[B, 4, H / 2, W / 2] of [B, 1, H, W]: mean (first), and the differences of rows, columns and both."""
    parts = nn.functional.pixel_unshuffle(film, 2)
    a, b, c, d = parts.unbind(1)
    return torch.stack([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d], dim=1) / 4
