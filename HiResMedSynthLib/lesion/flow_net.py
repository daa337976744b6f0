"""The network of the learned lesion generator: a small 3-D U-Net over unshuffled voxels, told time and properties.

Shapes: B batch, n side of the grid, c width of a level. Input and output are [B, 2, n, n, n].
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from HiResMedSynthLib.layers import group_norm, waves

PATCH = 2  # side of the unshuffled blocks of voxels
CHANNELS = 2
SMALLEST_SPREAD = 0.05
MIRRORED = [(2,), (3,), (4,), (2, 3), (2, 4), (3, 4), (2, 3, 4)]


@dataclass(frozen=True, kw_only=True)
class LesionNetShape:
    """What fixes the layers: channels and blocks at each level (finest first), length of the properties, dropout.

    `side` is the grid's.
    """

    widths: tuple[int, ...] = (48, 64)
    blocks: tuple[int, ...] = (2, 1)
    properties: int = 10
    dropout: float = 0.1
    side: int = 32

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> LesionNetShape:
        """The shape that `to_json` or a preset wrote."""
        plain: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in fields.items()}
        return cls(**plain)


class Block(nn.Module):
    """X + Conv(SiLU(GN(Conv(SiLU(GN(X)))))), the second norm scaled and shifted by what the network is told."""

    def __init__(self, channels: int, told: int, dropout: float) -> None:
        super().__init__()
        self.first_norm, self.second_norm = group_norm(channels), group_norm(channels)
        self.first = nn.Conv3d(channels, channels, 3, padding=1)
        self.second = nn.Conv3d(channels, channels, 3, padding=1)
        self.modulate = nn.Linear(told, 2 * channels)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Same shape as `x` [B, c, d, d, d]."""
        scale, shift = self.modulate(told)[:, :, None, None, None].chunk(2, dim=1)
        branch = self.first(nn.functional.silu(self.first_norm(x)))
        branch = nn.functional.silu(self.second_norm(branch) * (1 + scale) + shift)
        added: Tensor = x + self.second(self.dropout(branch))
        return added


class Attention(nn.Module):
    """X + attention over all positions of the coarsest map, heads of 32 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 32)
        self.norm = group_norm(channels)
        self.query_key_value = nn.Conv3d(channels, 3 * channels, 1)
        self.mix = nn.Conv3d(channels, channels, 1)
        nn.init.zeros_(self.mix.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x` [B, c, d, d, d]."""
        batch, channels = x.shape[:2]
        joint = self.query_key_value(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, -1)
        query, key, value = joint.transpose(-1, -2).unbind(1)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        attended: Tensor = x + self.mix(mixed.transpose(-1, -2).reshape(x.shape))
        return attended


class LesionFlowNet(nn.Module):
    """Velocity of the lesion's flow: the best linear guess at each voxel, and what the layers add to it.

    Attributes:
        mean, spread: [2, n / 2, n / 2, n / 2], mean and standard deviation of the data at each voxel of an octant (the
            others mirror it), from `know`; so the empty corners and the full middle needn't be learned.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, shape: LesionNetShape) -> None:
        super().__init__()
        self.shape = shape
        octant = (CHANNELS, *(shape.side // 2,) * 3)
        self.register_buffer("mean", torch.zeros(octant))
        self.register_buffer("spread", torch.ones(octant))
        told = 4 * shape.widths[0]
        self.embed = nn.Sequential(nn.Linear(64 + shape.properties + 1, told), nn.SiLU(), nn.Linear(told, told))
        self.stem = nn.Conv3d(CHANNELS * PATCH**3 + 3, shape.widths[0], 3, padding=1)
        self.down_blocks, self.up_blocks, self.join = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, (width, count) in enumerate(zip(shape.widths, shape.blocks, strict=True)):
            self.down_blocks.append(nn.ModuleList(Block(width, told, shape.dropout) for _ in range(count)))
            self.up_blocks.append(nn.ModuleList(Block(width, told, shape.dropout) for _ in range(count)))
            self.join.append(nn.Conv3d(2 * width, width, 1))
            if level + 1 < len(shape.widths):
                deeper = shape.widths[level + 1]
                self.down.append(nn.Conv3d(width, deeper, 2, stride=2))
                self.up.append(nn.ConvTranspose3d(deeper, width, 2, stride=2))
        self.attention = Attention(shape.widths[-1])
        self.last_norm = group_norm(shape.widths[0])
        self.last = nn.Conv3d(shape.widths[0], CHANNELS * PATCH**3, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def know(self, data: Tensor) -> None:
        """Takes mean and spread at each voxel from data [N, 2, n, n, n], mirrored and with rows and columns swapped."""
        middle = self.shape.side // 2
        mirrored = [data, *(data.flip(axes) for axes in MIRRORED)]
        octants = torch.cat([part[:, :, middle:, middle:, middle:] for part in mirrored])
        octants = torch.cat([octants, octants.transpose(3, 4)])
        self.mean.copy_(octants.mean(dim=0))
        self.spread.copy_(octants.std(dim=0).clamp(min=SMALLEST_SPREAD))

    def forward(self, noisy: Tensor, time: Tensor, *, properties: Tensor, level: Tensor) -> Tensor:
        """Velocity like `noisy` [B, 2, n, n, n].

        `time` [B] in 0..1 (1 = data); `properties` [B, P] as `lesion.properties` encodes them, `level` [B] is 1 for an
        interpolated training example (which looks smoother), 0 for a plain one.
        """
        told = self.embed(torch.cat([waves(time), properties, level[:, None]], dim=1))
        told = nn.functional.silu(told)
        x = unshuffle(noisy)
        x = self.stem(torch.cat([x, _coordinates(x)], dim=1))
        kept = []
        for index, blocks in enumerate(self.down_blocks):
            for block in blocks.children():
                x = block(x, told)
            kept.append(x)
            if index < len(self.down):
                x = self.down[index](x)
        x = self.attention(x)
        for index in reversed(range(len(kept))):
            if index < len(self.up):
                x = self.up[index](x)
            x = self.join[index](torch.cat([x, kept[index]], dim=1))
            for block in self.up_blocks[index].children():
                x = block(x, told)
        added = shuffle(self.last(nn.functional.silu(self.last_norm(x))))
        return self._guessed(noisy, time, added.float())

    def _guessed(self, noisy: Tensor, time: Tensor, added: Tensor) -> Tensor:
        """Velocity of independent normal voxels, plus `added` in units of what that leaves open."""
        mean, spread = _whole(self.mean), _whole(self.spread)
        t = time.float()[:, None, None, None, None]
        variance = (t * spread).square() + (1 - t).square()  # of x_t at each voxel
        linear = (mean * (1 - t) + (t * spread.square() - (1 - t)) * noisy) / variance
        return linear + spread / variance.sqrt() * added


def unshuffle(x: Tensor) -> Tensor:
    """[B, C, n, n, n] -> [B, 8 C, n / 2, n / 2, n / 2]."""
    batch, channels, side = x.shape[:3]
    half = side // PATCH
    parts = x.reshape(batch, channels, half, PATCH, half, PATCH, half, PATCH)
    return parts.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, channels * PATCH**3, half, half, half)


def shuffle(x: Tensor) -> Tensor:
    """The inverse of `unshuffle`."""
    batch, channels, half = x.shape[:3]
    parts = x.reshape(batch, channels // PATCH**3, PATCH, PATCH, PATCH, half, half, half)
    side = half * PATCH
    return parts.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, channels // PATCH**3, side, side, side)


def _whole(octant: Tensor) -> Tensor:
    """[C, n, n, n] from one octant and its mirror images."""
    for axis in (1, 2, 3):
        octant = torch.cat([octant.flip(axis), octant], dim=axis)
    return octant


def _coordinates(x: Tensor) -> Tensor:
    """[B, 3, d, d, d]: slice, row and column of each position, -1..1."""
    line = torch.linspace(-1, 1, x.shape[2], device=x.device, dtype=x.dtype)
    axes = torch.stack(torch.meshgrid(line, line, line, indexing="ij"))
    return axes[None].expand(len(x), *axes.shape)
