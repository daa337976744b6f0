"""What both priors over codes are made of: their shape, the transformer's block, and one drawn choice.

Shapes: B batch, D digits of a code, g side of the code grid, N = g x g positions in raster order, W width.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from HiResMedSynthLib.errors import SettingsError

KINDS = ("masked", "gpt")


@dataclass(frozen=True, kw_only=True)
class PriorShape:
    """What fixes a prior's layers.

    Attributes:
        kind: "masked" (any order, several positions at once) or "gpt" (raster order, one index a position).
        levels: of each digit of a code (FSQ).
        grid: side of the code grid.
        width, depth, heads: of the transformer.
        dropout: of embeddings and residual branches.
        classes: known classes (sexes); class 0 is "unknown" beside them.
    """

    kind: str = "masked"
    levels: tuple[int, ...] = (8, 5, 5, 5)
    grid: int = 16
    width: int = 192
    depth: int = 6
    heads: int = 6
    dropout: float = 0.25
    classes: int = 2

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.width % self.heads:
            raise SettingsError(
                f"A prior of kind {self.kind} with {self.heads} heads of width {self.width} can't be",
                remedy="Use kind masked or gpt, and a width that is a multiple of the heads.",
            )

    @property
    def positions(self) -> int:
        """N, the number of codes of an image."""
        return self.grid**2

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> PriorShape:
        """The shape that `to_json` or a preset wrote."""
        return cls(**{**fields, "levels": tuple(fields["levels"])})


@dataclass
class Memory:
    """Keys and values [B, heads, n, W / heads] of the n tokens that a block has seen."""

    keys: Tensor
    values: Tensor


class Block(nn.Module):
    """Pre-norm transformer block: self-attention, then two layers of four times the width, each beside a shortcut."""

    def __init__(self, shape: PriorShape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.from_heads = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, *, bias: Tensor, memory: Memory | None = None) -> Tensor:
        """Same shape as `x` [B, n, W]; with `memory` (which grows) `x` is the one token after those seen.

        `bias` [heads, n, tokens seen] is added to the attention's logits; it learns nothing.
        """
        q, k, v = self.to_qkv(self.attention_norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if memory is not None:
            memory.keys, memory.values = torch.cat([memory.keys, k], dim=2), torch.cat([memory.values, v], dim=2)
            k, v = memory.keys, memory.values
        # no dropout of the attention itself: on a CPU it doubles the time of a step
        seen = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)[None])
        x = x + self.drop(self.from_heads(seen.transpose(1, 2).flatten(2)))
        summed: Tensor = x + self.drop(self.mlp(self.mlp_norm(x)))
        return summed

    def empty_memory(self, count: int) -> Memory:
        """The memory of `count` sequences before their first token."""
        none = self.to_qkv.weight.new_zeros(count, self.heads, 0, self.to_qkv.in_features // self.heads)
        return Memory(keys=none, values=none)


def nearness(shape: PriorShape) -> Tensor:
    """[heads, N, N]: minus each head's slope times the distance of two places on the grid.

    Slopes are 1, 1/2, 1/4, ... and 0 for the last head: with so few films, what neighbours tell can't be learned anew
    for each place.
    """
    places = torch.arange(shape.positions)
    at = torch.stack([places // shape.grid, places % shape.grid], dim=1).float()
    slopes = torch.tensor([2.0**-head for head in range(shape.heads - 1)] + [0.0])
    return -slopes[:, None, None] * torch.cdist(at, at)


def start_weights(network: nn.Module) -> None:
    """N(0, 0.5) for embeddings, so that the blocks' first outputs don't drown them; N(0, 0.02) for layers."""
    for part in network.modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.5)
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)


def to_digits(values: Tensor, levels: tuple[int, ...]) -> Tensor:
    """[B, D, g, g] int64: the digits whose values in -1..1 these are."""
    largest = torch.tensor(levels, device=values.device)[:, None, None] - 1
    return ((values.float() + 1) / 2 * largest).round().long().clamp(min=0).minimum(largest)


def mixed(logits: Tensor, guidance: float) -> Tensor:
    """[n, L]: classifier-free guidance where `logits` [2, n, L] are told and untold; the only ones where [1, n, L]."""
    return logits[0] if len(logits) == 1 else logits[1] + guidance * (logits[0] - logits[1])


def pick(logits: Tensor, rng: np.random.Generator, temperature: float) -> Tensor:
    """[n] int64: a choice by softmax(logits [n, L] / temperature), by Gumbel noise; the likeliest at temperature 0."""
    if temperature == 0:
        return logits.argmax(-1)
    noise = torch.from_numpy(rng.gumbel(size=tuple(logits.shape))).to(logits.device)
    return (logits.double() / temperature + noise).argmax(-1)


def choice_error(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """[B, N]: cross-entropy in nats of `target` [B, N] under `logits` [B, N, L], in float32."""
    error = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), target.flatten(), label_smoothing=smoothing, reduction="none"
    )
    return error.view(target.shape)
