"""The `paper`'s prior as its sources build one (taming-style): a GPT over the codes' indices in raster order.

The paper itself has none. One softmax over all codes (1,000) a position; each token is drawn after those before it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from HiResMedSynthLib.background.quantiser import FSQ
from HiResMedSynthLib.background.token_layers import (
    Block,
    PriorShape,
    choice_error,
    mixed,
    nearness,
    pick,
    start_weights,
)

TOP = 250  # only so many of the likeliest codes are drawn from


class GptPrior(nn.Module):
    """p(code | codes before it in raster order, class, field)."""

    bias: Tensor

    def __init__(self, shape: PriorShape) -> None:
        super().__init__()
        self.shape, self.quantise = shape, FSQ(shape.levels)
        width = shape.width
        self.codes = nn.Embedding(self.quantise.entries, width)
        self.place = nn.Parameter(torch.empty(shape.positions, width))
        self.field = nn.Linear(1, width)
        self.label = nn.Embedding(shape.classes + 1, width)
        self.drop = nn.Dropout(shape.dropout)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, self.quantise.entries)
        start_weights(self)
        nn.init.normal_(self.place, std=0.5)
        # token m, from which place m is drawn, holds the class (m = 0) or the code of place m - 1
        near = nn.functional.pad(nearness(shape)[:, :, :-1], (1, 0))
        later = torch.ones(shape.positions, shape.positions, dtype=torch.bool).triu(1)
        self.register_buffer("bias", near.masked_fill(later, -torch.inf), persistent=False)

    def forward(self, indices: Tensor, *, field: Tensor, label: Tensor) -> Tensor:
        """Logits [B, N, entries] of each position from the `indices` [B, N] before it; others as in `MaskedPrior`."""
        x = torch.cat([self.label(label)[:, None], self.codes(indices[:, :-1])], dim=1)
        x = self.drop(x + self.place + self.field(field.flatten(1)[:, :, None]))
        for block in self.blocks:
            x = block(x, bias=self.bias)
        logits: Tensor = self.out(self.norm(x))
        return logits

    def surprise(
        self,
        digits: Tensor,
        *,
        seen: Tensor,
        told: Tensor,  # noqa: ARG002 (the masked prior's)
        field: Tensor,
        label: Tensor,
        smoothing: float = 0.0,
    ) -> Tensor:
        """[B, N]: -log p of the true `digits` [B, D, g, g], nats, each after the codes of `seen` before it."""
        logits = self(self.quantise.to_index(seen).flatten(1), field=field, label=label)
        return choice_error(logits, self.quantise.to_index(digits).flatten(1), smoothing)

    @torch.no_grad()
    def draw(
        self,
        digits: Tensor,
        *,
        told: Tensor,
        field: Tensor,
        label: Tensor,
        rng: np.random.Generator,
        steps: int,  # noqa: ARG002 (the masked prior's)
        temperature: float,
        guidance: float,
    ) -> Tensor:
        """[1, D, g, g]: `digits` with the codes drawn that aren't `told`, each told only what is before it."""
        indices, known = self.quantise.to_index(digits).flatten(), told.flatten()
        memories = [block.empty_memory(len(label)) for block in self.blocks if isinstance(block, Block)]
        places = self.place + self.field(field.flatten()[:, None])
        token = self.label(label)
        for place in range(self.shape.positions):
            x = (token + places[place])[:, None]
            for block, memory in zip(self.blocks, memories, strict=True):
                x = block(x, bias=self.bias[:, place : place + 1, : place + 1], memory=memory)
            if not known[place]:
                logits = mixed(self.out(self.norm(x)), guidance)
                least = logits.topk(min(TOP, logits.shape[-1])).values[:, -1:]
                indices[place] = pick(logits.masked_fill(logits < least, -torch.inf), rng, temperature)[0]
            token = self.codes(indices[place]).expand(len(label), -1)
        return self.quantise.to_digits(indices.view(1, self.shape.grid, self.shape.grid))
