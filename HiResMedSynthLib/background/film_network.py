"""The first stage of a cascade: an encoder of a background into a grid of codes, and a flow told any part of them.

One network both generates (no code known), rebuilds (all known) and varies an image (some known): the codes are the
global anatomy, the flow draws what they leave open. The encoder learns from the flow's loss alone, so the codes hold
what helps to draw the image; nothing of the image reaches the flow but through the quantiser.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from HiResMedSynthLib.background.flow_unet import FlowUNet, FlowUNetShape
from HiResMedSynthLib.background.hdfb import HDFB
from HiResMedSynthLib.background.quantiser import FSQ
from HiResMedSynthLib.layers import group_norm

STEM = 4  # pixel-unshuffle of the encoder's input
PICTURE = 4  # the encoder sees a picture of four times the film's side


@dataclass(frozen=True, kw_only=True)
class CodeShape:
    """What fixes the encoder: channels at each level (finest first), HDFBs at each, levels of each code digit (FSQ)."""

    widths: tuple[int, ...] = (40, 64, 96)
    blocks: tuple[int, ...] = (1, 1, 2)
    levels: tuple[int, ...] = (8, 5, 5, 5)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> CodeShape:
        """The shape that `to_json` or a preset wrote."""
        return cls(**{name: tuple(value) for name, value in fields.items()})


class Down(nn.Module):
    """Half the side: unshuffled pixels through a 1x1 convolution, plus their mean over channel groups (DC-AE)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.groups = after
        self.mix = nn.Conv2d(4 * before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, before, H, W] -> [B, after, H / 2, W / 2]."""
        parts = nn.functional.pixel_unshuffle(x, 2)
        shortcut = nn.functional.adaptive_avg_pool1d(parts.flatten(2).transpose(1, 2), self.groups)
        halved: Tensor = self.mix(parts) + shortcut.transpose(1, 2).reshape(len(x), self.groups, *parts.shape[2:])
        return halved


class Encoder(nn.Module):
    """[B, 2, H, W] (picture, its field) -> codes in -1..1, [B, digits, H / s, W / s] with s = 4 x 2^(levels - 1)."""

    def __init__(self, shape: CodeShape) -> None:
        super().__init__()
        self.quantise = FSQ(shape.levels)
        layers: list[nn.Module] = [nn.Conv2d(2 * STEM**2, shape.widths[0], 3, padding=1)]
        for level, (width, count) in enumerate(zip(shape.widths, shape.blocks, strict=True)):
            if level:
                layers.append(Down(shape.widths[level - 1], width))
            layers += [HDFB(width) for _ in range(count)]
        layers += [group_norm(shape.widths[-1]), nn.SiLU(), nn.Conv2d(shape.widths[-1], len(shape.levels), 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, picture: Tensor) -> Tensor:
        """The codes, gradients straight through the rounding."""
        latent = self.layers(nn.functional.pixel_unshuffle(picture, STEM))
        codes: Tensor = self.quantise(latent.float()).values
        return codes


class FilmNetwork(nn.Module):
    """Velocity of the film's flow, told the field, the class, and the codes where they are known."""

    def __init__(self, shape: FlowUNetShape, code: CodeShape) -> None:
        super().__init__()
        digits = len(code.levels)
        self.code_shape = code
        self.encoder = Encoder(code)
        self.flow = FlowUNet(
            FlowUNetShape.from_json({**shape.to_json(), "condition_channels": shape.condition_channels + digits + 1})
        )

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        *,
        condition: Tensor,
        known: Tensor,
        label: Tensor | None = None,
        picture: Tensor | None = None,
        codes: Tensor | None = None,
    ) -> Tensor:
        """Velocity [B, 1, H, W].

        `known` [B, 1, h, w] is 1 where the code may be used; the codes [B, digits, h, w] are given, or made from
        `picture` [B, 2, 4 H, 4 W]; without either none is known. Others as in `FlowUNet`.
        """
        if codes is None:
            if picture is None:
                codes = known.new_zeros(len(known), len(self.code_shape.levels), *known.shape[2:])
            else:
                codes = self.encoder(picture)
        told = torch.cat([codes * known, known], dim=1)
        told = nn.functional.interpolate(told, size=noisy.shape[2:], mode="nearest")
        velocity: Tensor = self.flow(noisy, time, condition=torch.cat([condition, told], dim=1), label=label)
        return velocity
