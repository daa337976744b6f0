"""The network of every flow stage: a U-Net of HDFBs over pixel-unshuffled input, told the time, class and condition.

Pixel-unshuffle (a patch of 2x2 or 4x4 pixels becomes channels) keeps the widest maps small: on a CPU that is most of
the speed. Shapes: B batch, H and W pixels, p patch, c width of a level.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from HiResMedSynthLib.background.hdfb import HDFB
from HiResMedSynthLib.layers import group_norm, waves


@dataclass(frozen=True, kw_only=True)
class FlowUNetShape:
    """Everything that fixes the network's layers; stored beside the weights as JSON.

    Attributes:
        condition_channels: images given beside the noisy one (field mask, upsampled coarse film).
        patch: side of the pixel-unshuffle; sizes must be multiples of patch x 2^(levels - 1).
        widths: channels at each level, finest first.
        blocks: HDFBs at each level, on the way down and again on the way up.
        attention: whether each level has self-attention after its blocks.
        classes: known classes; one more index, 0, means unknown. 0 for no class input.
        coordinates: adds the pixel's row and column as two channels, for films that are all laid out alike.
        dropout: in the blocks.
        precondition: the velocity starts as the best linear guess from the noisy image (for data of unit SD and no
            correlation), the network learns the rest at unit scale; so noise needn't pass through the layers.
    """

    condition_channels: int
    patch: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    attention: tuple[bool, ...]
    classes: int = 0
    coordinates: bool = False
    dropout: float = 0.0
    precondition: bool = False

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> FlowUNetShape:
        """The shape that `to_json` or a preset wrote; lists become tuples."""
        plain: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in fields.items()}
        return cls(**plain)


class SelfAttention(nn.Module):
    """X + attention over all positions of a small map, heads of 32 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 32)
        self.norm = group_norm(channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.mix = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.mix.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x` [B, C, H, W]."""
        batch, channels, rows, columns = x.shape
        joint = self.query_key_value(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, rows * columns)
        query, key, value = joint.transpose(-1, -2).unbind(1)  # each [B, heads, HW, C / heads]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        attended: Tensor = x + self.mix(mixed.transpose(-1, -2).reshape(batch, channels, rows, columns))
        return attended


class FlowUNet(nn.Module):
    """Velocity of a flow at time t: [B, 1, H, W] from a noisy image, its condition, its class and the time."""

    def __init__(self, shape: FlowUNetShape) -> None:
        super().__init__()
        self.shape = shape
        self.features = 4 * shape.widths[0]
        area = shape.patch**2
        inputs = (1 + shape.condition_channels + (2 if shape.coordinates else 0)) * area
        self.embed = nn.Sequential(nn.Linear(128, self.features), nn.SiLU(), nn.Linear(self.features, self.features))
        self.label = nn.Embedding(shape.classes + 1, self.features) if shape.classes else None
        self.stem = nn.Conv2d(inputs, shape.widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        self.down = nn.ModuleList()
        self.join = nn.ModuleList()
        self.up_blocks = nn.ModuleList()
        self.up = nn.ModuleList()
        for level, width in enumerate(shape.widths):
            self.down_blocks.append(self._level(level))
            self.join.append(nn.Conv2d(2 * width, width, 1))
            self.up_blocks.append(self._level(level))
            if level + 1 < len(shape.widths):
                deeper = shape.widths[level + 1]
                self.down.append(nn.Conv2d(width, deeper, 3, stride=2, padding=1))
                self.up.append(nn.Sequential(nn.Conv2d(deeper, 4 * width, 1), nn.PixelShuffle(2)))
        self.last_norm = group_norm(shape.widths[0])
        self.last = nn.Conv2d(shape.widths[0], area, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        *,
        condition: Tensor | None = None,
        seen: Tensor | None = None,
        label: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Tensor:
        """Velocity [B, 1, H, W].

        `time` is [B] in 0..1 (1 = data); `condition` [B, condition_channels, H, W], or `seen`, what `see` made of it;
        `label` [B] class indices, 0 for unknown; `level` [B], how much the condition was noised (0 where absent).
        """
        shape = self.shape
        level = torch.zeros_like(time) if level is None else level
        told = self.embed(torch.cat([waves(time), waves(level)], dim=1))  # [B, features]
        if self.label is not None:
            told = told + self.label(torch.zeros_like(time, dtype=torch.long) if label is None else label)
        told = nn.functional.silu(told)
        if seen is not None:
            own = nn.functional.pixel_unshuffle(noisy, shape.patch)
            x = seen + nn.functional.conv2d(own, self.stem.weight[:, : shape.patch**2], padding=1)
        else:
            assert condition is not None, "a condition, or what was seen of it"
            whole = torch.cat([noisy, self._told(condition)], dim=1)
            x = self.stem(nn.functional.pixel_unshuffle(whole, shape.patch))  # [B, c0, H/p, W/p]
        kept = []
        for index, blocks in enumerate(self.down_blocks):
            x = _through(blocks, x, told)
            kept.append(x)
            if index < len(self.down):
                x = self.down[index](x)  # [B, c(i+1), H/p/2^(i+1), ...]
        for index in reversed(range(len(shape.widths))):
            if index < len(self.up):
                x = self.up[index](x)  # [B, ci, H/p/2^i, ...]
            x = _through(self.up_blocks[index], self.join[index](torch.cat([x, kept[index]], dim=1)), told)
        x = self.last(nn.functional.silu(self.last_norm(x)))  # [B, p*p, H/p, W/p]
        velocity: Tensor = nn.functional.pixel_shuffle(x, shape.patch)  # [B, 1, H, W]
        if shape.precondition:
            t = time[:, None, None, None]
            spread = t.square() + (1 - t).square()  # variance of x_t; the guess leaves a variance of 1 / spread
            velocity = ((2 * t - 1) * noisy + spread.sqrt() * velocity) / spread
        return velocity

    def see(self, condition: Tensor) -> Tensor:
        """[B, c0, H/p, W/p]: the stem's share of a condition, which a walk through many times needs only once."""
        told = nn.functional.pixel_unshuffle(self._told(condition), self.shape.patch)
        weight = self.stem.weight[:, self.shape.patch**2 :]
        return nn.functional.conv2d(told, weight, self.stem.bias, padding=1)

    def _told(self, condition: Tensor) -> Tensor:
        return torch.cat([condition, _coordinates(condition)], dim=1) if self.shape.coordinates else condition

    def _level(self, level: int) -> nn.ModuleList:
        shape = self.shape
        width = shape.widths[level]
        blocks: list[nn.Module] = [
            HDFB(width, modulation=self.features, dropout=shape.dropout) for _ in range(shape.blocks[level])
        ]
        return nn.ModuleList([*blocks, SelfAttention(width)] if shape.attention[level] else blocks)


def _through(blocks: nn.Module, x: Tensor, told: Tensor) -> Tensor:
    for block in blocks.children():
        x = block(x, told) if isinstance(block, HDFB) else block(x)
    return x


def _coordinates(x: Tensor) -> Tensor:
    """[B, 2, H, W]: row and column of each pixel, -1..1."""
    batch, _, rows, columns = x.shape
    row = torch.linspace(-1, 1, rows, device=x.device)[None, None, :, None].expand(batch, 1, rows, columns)
    column = torch.linspace(-1, 1, columns, device=x.device)[None, None, None, :].expand(batch, 1, rows, columns)
    return torch.cat([row, column], dim=1)
