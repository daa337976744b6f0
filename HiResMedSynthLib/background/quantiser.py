"""Codes for the encoder's map: the paper's codebook with cosine look-up, and FSQ, which needs none.

Shapes: B batch, D code dimension, h and w rows and columns of the code grid. What leaves a quantiser depends on the
indices alone: the straight-through gradient is added as an exact zero, so no rounding error carries the map past it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from HiResMedSynthLib.errors import SettingsError

ALPHA, GAMMA = 1.0, 0.33  # weights of Eq. 1's commitment and codebook terms, in the paper's order


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """A map in codes.

    Attributes:
        values: [B, D, h, w], exactly the codes' vectors; its gradient goes straight to the encoder's map.
        indices: [B, h, w], int64.
        commitment: scalar, ||sg(M^t) - M|| of Eq. 1, without its weight.
        codebook: scalar, ||sg(M) - M^t|| of Eq. 1, without its weight.
    """

    values: Tensor
    indices: Tensor
    commitment: Tensor
    codebook: Tensor


class Codebook(nn.Module):
    """N vectors of D numbers; the one with the largest cosine to the encoder's vector is chosen, and returned as it is.

    Args:
        entries: N; the paper has 1,024.
        dimension: D; the paper has 256.
        squared: the two terms of Eq. 1 as mean squares; else un-squared as printed (mean length over sqrt(D)).
    """

    def __init__(self, entries: int = 1024, dimension: int = 256, *, squared: bool = True) -> None:
        super().__init__()
        self.entries, self.dimension, self.squared = entries, dimension, squared
        self.vectors = nn.Parameter(torch.randn(entries, dimension))  # the paper: random

    def forward(self, encoded: Tensor, weight: Tensor | None = None) -> Quantised:
        """The codes of `encoded` [B, D, h, w]; `weight` [B, 1, h, w] leaves positions of weight 0 out of the terms."""
        indices = self.nearest(encoded)
        chosen = self.look_up(indices)
        return Quantised(
            values=straight_through(encoded, chosen),
            indices=indices,
            commitment=self._distance(encoded, chosen.detach(), weight),
            codebook=self._distance(encoded.detach(), chosen, weight),
        )

    @torch.no_grad()
    def nearest(self, encoded: Tensor) -> Tensor:
        """[B, h, w]: the index with the largest cosine to each vector of `encoded` [B, D, h, w]."""
        directions = nn.functional.normalize(self.vectors, dim=1)  # [N, D]
        flat = encoded.permute(0, 2, 3, 1).reshape(-1, self.dimension)  # its length doesn't change which is largest
        found: Tensor = (flat @ directions.T).argmax(1).reshape(encoded.shape[0], *encoded.shape[2:])
        return found

    def look_up(self, indices: Tensor) -> Tensor:
        """[B, D, h, w]: the vectors of `indices` [B, h, w]."""
        return nn.functional.embedding(indices, self.vectors).permute(0, 3, 1, 2)

    @torch.no_grad()
    def revive(self, encoded: Tensor, counts: Tensor, generator: torch.Generator) -> int:
        """Sets entries with a count of 0 to vectors drawn from `encoded` [B, D, h, w]; how many were set.

        The paper has no such step: without it a code that no vector is near to is never used again.
        """
        dead = torch.nonzero(counts == 0).flatten()
        flat = encoded.permute(0, 2, 3, 1).reshape(-1, self.dimension)
        drawn = torch.randint(len(flat), (len(dead),), generator=generator).to(flat.device)
        self.vectors[dead] = flat[drawn].to(self.vectors.dtype)
        return len(dead)

    def _distance(self, one: Tensor, other: Tensor, weight: Tensor | None) -> Tensor:
        error = (one - other).square().mean(1, keepdim=True)  # [B, 1, h, w]
        if not self.squared:
            error = (error + 1e-12).sqrt()  # finite gradient at 0
        return weighted_mean(error, weight)


class FSQ(nn.Module):
    """Finite scalar quantisation (Mentzer et al., 2023): each of D channels is rounded to one of its levels.

    The map goes through tanh, which is cut into equal parts; a part's value is its place from -1 to 1. There is no
    codebook, hence no loss and no dead code. Index = digit 0 + levels[0] x (digit 1 + levels[1] x (...)).

    Raises:
        SettingsError: a level below 2.
    """

    scale: Tensor
    place: Tensor

    def __init__(self, levels: tuple[int, ...] = (8, 5, 5, 5)) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise SettingsError(f"FSQ levels {levels} can't be", remedy="Give two or more levels for each channel.")
        self.levels, self.entries, self.dimension = levels, prod(levels), len(levels)
        places = [1]
        for level in levels[:-1]:
            places.append(places[-1] * level)
        self.register_buffer("scale", torch.tensor(levels, dtype=torch.float32), persistent=False)
        self.register_buffer("place", torch.tensor(places), persistent=False)

    def forward(self, encoded: Tensor, weight: Tensor | None = None) -> Quantised:
        """The codes of `encoded` [B, D, h, w]; both loss terms are zero, so `weight` changes nothing."""
        del weight
        bounded = torch.tanh(encoded)
        scale = self.scale[:, None, None]
        # Part k of L reaches from 2 k / L - 1 to 2 (k + 1) / L - 1.
        digits = torch.floor((bounded.detach() + 1) / 2 * scale).minimum(scale - 1).long()
        none = encoded.new_zeros(())
        return Quantised(
            values=straight_through(bounded, self.to_values(digits)),
            indices=self.to_index(digits),
            commitment=none,
            codebook=none,
        )

    def look_up(self, indices: Tensor) -> Tensor:
        """[B, D, h, w]: the values of `indices` [B, h, w]."""
        return self.to_values(self.to_digits(indices))

    def to_digits(self, indices: Tensor) -> Tensor:
        """[B, D, h, w] from [B, h, w]: the level chosen in each channel."""
        wide = torch.div(indices[:, None], self.place[:, None, None], rounding_mode="floor")
        return wide % self.scale.long()[:, None, None]

    def to_index(self, digits: Tensor) -> Tensor:
        """[B, h, w] from [B, D, h, w]."""
        return (digits * self.place[:, None, None]).sum(1)

    def to_values(self, digits: Tensor) -> Tensor:
        """[B, D, h, w] in -1..1 from digits of the same shape."""
        return digits / (self.scale[:, None, None] - 1) * 2 - 1


def straight_through(encoded: Tensor, chosen: Tensor) -> Tensor:
    """Exactly `chosen`, with the gradient of `encoded`: what is added is x - x = 0."""
    return chosen.detach() + (encoded - encoded.detach())


def weighted_mean(error: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of `error`, or its weighted mean: a scalar; `weight` is broadcast over `error`."""
    if weight is None:
        return error.mean()
    spread = weight.expand_as(error)
    return (error * spread).sum() / spread.sum().clamp(min=1e-8)


def count_codes(indices: Tensor, entries: int) -> Tensor:
    """[N]: how often each code occurs in `indices`, int64."""
    flat = indices.flatten()
    counts = torch.zeros(entries, dtype=torch.int64, device=flat.device)
    return counts.scatter_add_(0, flat, torch.ones_like(flat))  # bincount would wait for the device


def usage(counts: Tensor) -> float:
    """Share of the codes that occur at all, 0..1."""
    return float((counts > 0).float().mean())


def perplexity(counts: Tensor) -> float:
    """exp(entropy) of the codes' frequencies: 1 for one code only, N for all equally often."""
    share = counts.double() / counts.sum().clamp(min=1)
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))
