"""The `better` prior: a masked transformer over the code grid (MaskGIT), drawn in Halton order.

A code's digits are predicted by one small head each (8 + 5 + 5 + 5 numbers, not 1,000); a head is told the digits
before its own, so that the digits of one position agree. Positions drawn in the same step are independent of one
another: the Halton order spreads them over the image, where they matter least to one another.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from HiResMedSynthLib.background.token_layers import (
    Block,
    PriorShape,
    choice_error,
    mixed,
    nearness,
    pick,
    start_weights,
)


class DigitHeads(nn.Module):
    """Logits of each digit of a code, from the position's features and the digits before it."""

    def __init__(self, levels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.before = nn.ModuleList(nn.Embedding(level, width) for level in levels[:-1])
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in levels)
        self.out = nn.ModuleList(nn.Linear(width, level) for level in levels)

    def forward(self, features: Tensor, chosen: list[Tensor]) -> Tensor:
        """[B, n, L] of digit `len(chosen)`; `features` [B, n, W], `chosen` the digits before it, each [B, n] or [n]."""
        hidden = self.hidden[len(chosen)](features)
        for embed, digit in zip(self.before, chosen, strict=False):
            hidden = hidden + embed(digit)
        logits: Tensor = self.out[len(chosen)](nn.functional.gelu(hidden))
        return logits


class MaskedPrior(nn.Module):
    """p(hidden codes | told codes, class, field)."""

    bias: Tensor

    def __init__(self, shape: PriorShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.digits = nn.ModuleList(nn.Embedding(level + 1, width) for level in shape.levels)  # the last: hidden
        self.place = nn.Parameter(torch.empty(shape.positions, width))
        self.field = nn.Linear(1, width)
        self.label = nn.Embedding(shape.classes + 1, width)
        self.drop = nn.Dropout(shape.dropout)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(width)
        self.heads = DigitHeads(shape.levels, width)
        start_weights(self)
        nn.init.normal_(self.place, std=0.5)
        # the class, before the places, is as near to all
        self.register_buffer("bias", nn.functional.pad(nearness(shape), (1, 0, 1, 0)), persistent=False)

    def forward(self, seen: Tensor, *, told: Tensor, field: Tensor, label: Tensor) -> Tensor:
        """Features [B, N, W].

        Args:
            seen: [B, D, g, g] int64, digits; where not told they are not looked at.
            told: [B, g, g] bool, which codes are known.
            field: [B, g, g] 0..1, the share of each cell that is film and not padding.
            label: [B] class, 0 for unknown.
        """
        hidden = (~told)[:, None].expand_as(seen)
        x = self.place + self.field(field.flatten(1)[:, :, None])
        for number, (embed, level) in enumerate(zip(self.digits, self.shape.levels, strict=True)):
            digit = torch.where(hidden[:, number], level, seen[:, number])
            x = x + embed(digit.flatten(1))
        x = self.drop(torch.cat([self.label(label)[:, None], x], dim=1))
        for block in self.blocks:
            x = block(x, bias=self.bias)
        features: Tensor = self.norm(x[:, 1:])
        return features

    def surprise(
        self, digits: Tensor, *, seen: Tensor, told: Tensor, field: Tensor, label: Tensor, smoothing: float = 0.0
    ) -> Tensor:
        """[B, N]: -log p of the true `digits` [B, D, g, g] at each position, nats; for hidden ones."""
        features = self(seen, told=told, field=field, label=label)
        true = [digits[:, number].flatten(1) for number in range(len(self.shape.levels))]
        errors = [choice_error(self.heads(features, true[:n]), target, smoothing) for n, target in enumerate(true)]
        return torch.stack(errors).sum(0)

    @torch.no_grad()
    def draw(
        self,
        digits: Tensor,
        *,
        told: Tensor,
        field: Tensor,
        label: Tensor,
        rng: np.random.Generator,
        steps: int,
        temperature: float,
        guidance: float,
    ) -> Tensor:
        """[1, D, g, g]: `digits` with the codes drawn that aren't `told` [1, g, g].

        `field` is [1, g, g]; `label` [1], or [2] (told, untold) to be guided by it.
        """
        grid = self.shape.grid
        drawn, known = digits.clone().flatten(2), told.clone().flatten(1)
        order = halton_order(grid, shift=(int(rng.integers(grid)), int(rng.integers(grid)))).to(digits.device)
        order = order[~known[0, order]]
        start, count = 0, len(label)
        for end in revealed(len(order), steps):
            place, start = order[start:end], end
            features = self(
                drawn.view_as(digits).expand(count, -1, -1, -1),
                told=known.view_as(told).expand(count, -1, -1),
                field=field.expand(count, -1, -1),
                label=label,
            )[:, place]
            chosen: list[Tensor] = []
            for _ in self.shape.levels:
                chosen.append(pick(mixed(self.heads(features, chosen), guidance), rng, temperature))
            drawn[0, :, place], known[0, place] = torch.stack(chosen), True
        return drawn.view_as(digits)


def halton_order(grid: int, *, shift: tuple[int, int] = (0, 0)) -> Tensor:
    """[grid x grid] int64: raster places in the order of a Halton sequence (rows by base 2, columns by base 3).

    Each cell counts when first met; `shift` rolls the order over the grid.
    """
    order: dict[int, None] = {}
    point = 0
    while len(order) < grid**2:
        point += 1
        row, column = (int(_radical_inverse(point, base) * grid) for base in (2, 3))
        order[(row + shift[0]) % grid * grid + (column + shift[1]) % grid] = None
    return torch.tensor(list(order))


def revealed(total: int, steps: int) -> list[int]:
    """How many of `total` codes are known after each step: total x (1 - arccos(i / S) / (pi / 2)), but one a step."""
    steps = max(1, min(steps, total))
    return [max(i, round(total * (1 - math.acos(i / steps) / (math.pi / 2)))) for i in range(1, steps + 1)]


def _radical_inverse(number: int, base: int) -> float:
    value, place = 0.0, 1.0
    while number:
        number, digit = divmod(number, base)
        place /= base
        value += digit * place
    return value
