"""The paper's building block: HDFB (Eqs. 2-8) around MSConvFE (Eqs. 9-12), in two readings.

Where the equations and the text disagree there is a switch: `paper` prints the text's reading (inner and outer skip,
ReLU, all weights N(0, 0.02)); `better` is ours (GELU, one skip, last convolution starts at zero, so that each block
starts as the identity). Every tensor is [batch, channel, row, column].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from HiResMedSynthLib.layers import group_norm


@dataclass(frozen=True, kw_only=True)
class BlockReading:
    """One reading of the equations.

    Attributes:
        activation: "relu" as Eq. 12 prints, or "gelu" as the text argues (Eq. 10; its tanh form is Eq. 11).
        first_convolution: the 3x3 convolution between the two GroupNorm-SiLU pairs, in the text but in no equation.
        inner_skip: X is added inside MSConvFE (Eq. 12) besides outside (Eq. 8).
        zero_tail: the last 1x1 convolution starts at zero.
        drop_path: chance that a sample skips the branch in training (Eq. 12; the paper gives no rate).
    """

    activation: str = "gelu"
    first_convolution: bool = True
    inner_skip: bool = False
    zero_tail: bool = True
    drop_path: float = 0.0


PAPER = BlockReading(activation="relu", inner_skip=True, zero_tail=False, drop_path=0.1)
BETTER = BlockReading()


class DropPath(nn.Module):
    """The branch, or zero for some samples of a training batch; kept ones are scaled so that the mean stays."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """`branch` with whole samples set to zero, in training only."""
        if not self.training or self.rate == 0:
            return branch
        kept = torch.rand(branch.shape[0], 1, 1, 1, device=branch.device) >= self.rate
        scaled: Tensor = branch * kept / (1 - self.rate)
        return scaled


class MSConvFE(nn.Module):
    """DropPath(Conv1x1(DWConv5x5(activation(Conv3x3(GroupNorm(X)))))), plus X where the reading says so (Eq. 12)."""

    def __init__(self, channels: int, reading: BlockReading = BETTER) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.spread = nn.Conv2d(channels, channels, 3, padding=1)
        self.activation: nn.Module = nn.ReLU() if reading.activation == "relu" else nn.GELU(approximate="tanh")
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.drop_path = DropPath(reading.drop_path)
        self.inner_skip = reading.inner_skip
        if reading.zero_tail:
            nn.init.zeros_(self.mix.weight)
            if self.mix.bias is not None:
                nn.init.zeros_(self.mix.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The features of `x`, same shape [B, C, H, W]."""
        branch: Tensor = self.activation(self.spread(self.norm(x)))  # Eqs. 9-11
        branch = self.drop_path(self.mix(self.depthwise(branch)))  # Eq. 12, without its skip
        return x + branch if self.inner_skip else branch


class HDFB(nn.Module):
    """Hierarchical dual-path fusion block: X + MSConvFE(SiLU(GN(Conv3x3(SiLU(GN(X)))))) (Eqs. 2-8).

    Args:
        channels: channels in and out.
        reading: which reading of the equations.
        modulation: length of a vector (time, class) that scales and shifts the second norm; 0 for none.
        dropout: share of features set to zero before MSConvFE, in training.
    """

    def __init__(
        self, channels: int, *, reading: BlockReading = BETTER, modulation: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.first_norm = group_norm(channels)
        self.first: nn.Module = (
            nn.Conv2d(channels, channels, 3, padding=1) if reading.first_convolution else nn.Identity()
        )
        self.second_norm = group_norm(channels)
        self.modulate = nn.Linear(modulation, 2 * channels) if modulation else None
        self.dropout = nn.Dropout(dropout)
        self.fuse = MSConvFE(channels, reading)
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)  # an unmodulated block at the start
            nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, modulation: Tensor | None = None) -> Tensor:
        """`x` [B, C, H, W] through the block; `modulation` is [B, M] where the block was built for one."""
        drawing = not torch.is_grad_enabled()  # what autograd doesn't need is overwritten
        branch = self.first(nn.functional.silu(self.first_norm(x), inplace=drawing))  # Eqs. 2-4, then the text's
        branch = self._second(branch, modulation)  # Eq. 5
        branch = self.dropout(nn.functional.silu(branch, inplace=drawing))  # Eq. 6
        fused: Tensor = x + self.fuse(branch)  # Eqs. 7, 8
        return fused

    def _second(self, branch: Tensor, modulation: Tensor | None) -> Tensor:
        norm = self.second_norm
        normed: Tensor
        if self.modulate is None or modulation is None:
            normed = norm(branch)
            return normed
        scale, shift = self.modulate(modulation).chunk(2, dim=1)  # each [B, C]
        if len(branch) == 1 and not torch.is_grad_enabled():  # one pass over the map instead of three
            weight, bias = norm.weight * (1 + scale[0]), norm.bias * (1 + scale[0]) + shift[0]
            return nn.functional.group_norm(branch, norm.num_groups, weight, bias, norm.eps)
        normed = norm(branch) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        return normed


def initialise_as_paper(network: nn.Module) -> None:
    """Sets every convolution to N(0, 0.02) with zero bias, as the paper's training section says."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
