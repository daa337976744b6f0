"""A FastGAN-like one (Liu et al. 2021): a light generator with skip-layer excitation, a critic that must also rebuild.

Kept from the publication: excitation of fine maps by coarse ones, gated linear units, the critic's decoders of the
whole film and of a quarter of it, hinge loss with soft ends, DiffAugment. Left out: its second critic of the small film
and its perceptual loss (the decoders' error is L1).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, leaky_relu
from torch.nn.utils.parametrizations import spectral_norm

from HiResMedSynthLib.errors import SettingsError
from Training.baselines.gan import Gan
from Training.precision import autocast


@dataclass(frozen=True, kw_only=True)
class FastGanShape:
    """A preset's [fastgan.network] table.

    Attributes:
        latent: numbers that a film is made from.
        width: channels of the generator at 128 px; 16 times as many at 4 px.
        critic_width: channels of the critic after its first halving; 8 times as many at the end.
        learning_rate: of Adam (.5, .999), for both.
    """

    latent: int = 256
    width: int = 64
    critic_width: int = 64
    learning_rate: float = 2e-4


SIDES = (32, 64, 128, 256)


class FastGan(Gan):
    """The pair in training.

    Raises:
        SettingsError: a size that it doesn't make.
    """

    def __init__(self, shape: FastGanShape, *, size: int, device: str, precision: str) -> None:
        if size not in SIDES:
            raise SettingsError(f"FastGAN makes no films of {size} px", remedy=f"Use {', '.join(map(str, SIDES))}.")
        super().__init__(
            Generator(shape, size),
            Critic(shape, size),
            latent=shape.latent,
            rates=(shape.learning_rate, shape.learning_rate),
            betas=(0.5, 0.999),
            device=device,
            precision=precision,
        )

    def critic_loss(self, real: Tensor, fake: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Hinge with ends drawn from .8 to 1, and how badly the decoders rebuild the real films."""
        del mask  # both sides are 0 outside
        assert isinstance(self.critic, Critic)
        quarter = torch.randint(4, (1,), device=real.device)
        with autocast(self.precision, self.device):
            verdict, whole, part = self.critic.rebuild(real, quarter)
        on_real, on_fake = verdict.float(), self.judge(fake)
        soft_real, soft_fake = (0.8 + 0.2 * torch.rand_like(v) for v in (on_real, on_fake))
        hinge = (soft_real - on_real).relu().mean() + (soft_fake + on_fake).relu().mean()
        wanted = [adaptive_avg_pool2d(x, y.shape[-1]) for x, y in ((real, whole), (quarter_of(real, quarter), part))]
        errors = [(x - y.float()).abs().mean() for x, y in zip(wanted, (whole, part), strict=True)]
        return hinge + errors[0] + errors[1], on_real, on_fake

    def generator_loss(self, verdict: Tensor) -> Tensor:
        """-D(made)."""
        return -verdict.mean()


def quarter_of(x: Tensor, quarter: Tensor) -> Tensor:
    """[B, C, H / 2, W / 2]: one of the four quarters, by a number [1] on the device."""
    rows = [half for part in x.chunk(2, dim=2) for half in part.chunk(2, dim=3)]
    return torch.stack(rows)[quarter][0]


class Generator(nn.Module):
    """Films [B, 1, S, S] in -1..1 from latents [B, Z]."""

    def __init__(self, shape: FastGanShape, size: int) -> None:
        super().__init__()
        share = {4: 16.0, 8: 8.0, 16: 4.0, 32: 2.0, 64: 2.0, 128: 1.0, 256: 0.5}
        self.sides = [side for side in share if side <= size]
        widths = {side: max(4, int(share[side] * shape.width)) for side in self.sides}
        self.start = nn.Sequential(
            spectral_norm(nn.ConvTranspose2d(shape.latent, 2 * widths[4], 4, bias=False)),
            nn.BatchNorm2d(2 * widths[4]),
            nn.GLU(dim=1),
        )
        self.grow = nn.ModuleList(
            doubling(widths[side // 2], widths[side], noisy=number % 2 == 0)
            for number, side in enumerate(self.sides[1:])
        )
        self.excite = nn.ModuleDict(
            {str(side): excitation(widths[side // 16], widths[side]) for side in self.sides if side >= 64}
        )
        self.last = nn.Sequential(spectral_norm(nn.Conv2d(widths[size], 1, 3, padding=1, bias=False)), nn.Tanh())

    def forward(self, latent: Tensor) -> Tensor:
        """[B, 1, S, S]."""
        x = self.start(latent[:, :, None, None])
        kept = {4: x}
        for side, grow in zip(self.sides[1:], self.grow, strict=True):
            x = grow(x)
            if side >= 64:
                x = x * self.excite[str(side)](kept[side // 16])
            kept[side] = x
        film: Tensor = self.last(x)
        return film


class Noise(nn.Module):
    """Adds noise, as much as is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.amount = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`; none where films are drawn, so that a film depends on its seed alone."""
        if not self.training:
            return x
        return x + self.amount * torch.randn_like(x[:, :1])


def doubling(before: int, width: int, *, noisy: bool) -> nn.Sequential:
    """Twice the side: one convolution, or two with noise; each with a gate of its own."""
    layers: list[nn.Module] = [nn.Upsample(scale_factor=2.0)]
    for channels in (before, width) if noisy else (before,):
        layers += [spectral_norm(nn.Conv2d(channels, 2 * width, 3, padding=1, bias=False))]
        layers += [Noise()] if noisy else []
        layers += [nn.BatchNorm2d(2 * width), nn.GLU(dim=1)]
    return nn.Sequential(*layers)


def excitation(coarse: int, fine: int) -> nn.Sequential:
    """A gate [B, fine, 1, 1] of fine channels, by a coarse map."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(4), spectral_norm(nn.Conv2d(coarse, fine, 4)), nn.SiLU(),
        spectral_norm(nn.Conv2d(fine, fine, 1)), nn.Sigmoid(),
    )  # fmt: skip


class Critic(nn.Module):
    """A map of verdicts from an 8 x 8 map; two decoders rebuild the film and a quarter of it from its features."""

    def __init__(self, shape: FastGanShape, size: int) -> None:
        super().__init__()
        width = shape.critic_width
        self.stem = nn.Sequential(spectral_norm(nn.Conv2d(1, width, 4, stride=2, padding=1)), nn.LeakyReLU(0.2))
        self.down = nn.ModuleList()
        side, before = size // 2, width
        while side > 8:
            after = min(2 * before, 8 * width)
            self.down.append(Halving(before, after))
            side, before, earlier = side // 2, after, before
        self.verdict = nn.Sequential(
            spectral_norm(nn.Conv2d(before, before, 1)), nn.LeakyReLU(0.2), spectral_norm(nn.Conv2d(before, 1, 4))
        )
        self.whole, self.part = decoder(before), decoder(earlier)

    def features(self, film: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of 16 x 16 and of 8 x 8."""
        x = self.stem(film)
        finer = x
        for down in self.down:
            finer, x = x, down(x)
        return finer, x

    def forward(self, film: Tensor) -> Tensor:
        """[B, 1, 5, 5] from [B, 1, S, S]."""
        verdict: Tensor = self.verdict(self.features(film)[1])
        return verdict

    def rebuild(self, film: Tensor, quarter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(verdicts, the film of 64 px, that quarter of it of 64 px)."""
        finer, coarser = self.features(film)
        return self.verdict(coarser), self.whole(coarser), self.part(quarter_of(finer, quarter))


class Halving(nn.Module):
    """Half the side, by convolutions and by a mean beside them."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)), nn.BatchNorm2d(after),
            nn.LeakyReLU(0.2), spectral_norm(nn.Conv2d(after, after, 3, padding=1, bias=False)),
            nn.BatchNorm2d(after), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.direct = nn.Sequential(
            nn.AvgPool2d(2), spectral_norm(nn.Conv2d(before, after, 1, bias=False)), nn.BatchNorm2d(after)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, after, H / 2, W / 2]."""
        summed: Tensor = self.main(x) + leaky_relu(self.direct(x), 0.2)
        return summed / 2


def decoder(channels: int) -> nn.Sequential:
    """[B, 1, 64, 64] from a map [B, channels, 8, 8]."""
    widths = [channels, 64, 32, 16]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Upsample(scale_factor=2.0), nn.Conv2d(before, 2 * after, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(2 * after), nn.GLU(dim=1)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1), nn.Tanh())
