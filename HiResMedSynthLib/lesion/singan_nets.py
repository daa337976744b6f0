"""Networks of the single-image GAN, for K lesions at once: grouped convolutions, so that none sees another's values.

Tensors are `[batch, K x channels, *space]` with two or three dimensions of space. Every parameter and buffer has K
times its rows, so one lesion's network is a slice of rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAK = 0.2
KERNEL = 3


class GroupedConv(nn.Module):
    """K independent convolutions of 3 voxels, `[B, K c_in, *space]` -> `[B, K c_out, *space]`.

    Attributes:
        dense: compute with one block-diagonal weight instead of groups (the same values; faster on some GPUs).
    """

    u: Tensor
    v: Tensor

    def __init__(
        self, lesions: int, c_in: int, c_out: int, *, dims: int, padding: int, spectral: bool, bias: bool = True
    ) -> None:
        super().__init__()
        self.lesions, self.dims, self.padding, self.spectral, self.dense = lesions, dims, padding, spectral, False
        self.weight = nn.Parameter(torch.zeros(lesions * c_out, c_in, *(KERNEL,) * dims))
        self.bias = nn.Parameter(torch.zeros(lesions * c_out)) if bias else None
        if spectral:
            self.register_buffer("u", torch.ones(lesions, c_out) / math.sqrt(c_out))
            self.register_buffer("v", torch.zeros(lesions, c_in * KERNEL**dims))

    def _flat(self) -> Tensor:
        return self.weight.reshape(self.lesions, self.weight.shape[0] // self.lesions, -1)

    def power_iteration(self) -> None:
        """One step towards the largest singular value of each lesion's weight."""
        with torch.no_grad():
            flat = self._flat()
            self.v.copy_(functional.normalize(torch.einsum("koi,ko->ki", flat, self.u), dim=1))
            self.u.copy_(functional.normalize(torch.einsum("koi,ki->ko", flat, self.v), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """The convolution."""
        return self._convolved(x, self.bias)

    def linear(self, x: Tensor) -> Tensor:
        """The convolution without its bias."""
        return self._convolved(x, None)

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        flat = self._flat()
        if self.spectral:
            flat = flat / torch.einsum("ko,koi,ki->k", self.u, flat, self.v)[:, None, None]
        groups, columns = self.lesions, self.weight.shape[1]
        if self.dense and groups > 1:
            flat, groups, columns = torch.block_diag(*flat), 1, columns * groups
        weight = flat.reshape(-1, columns, *self.weight.shape[2:])
        conv = functional.conv2d if self.dims == 2 else functional.conv3d
        return conv(x, weight, bias, padding=self.padding, groups=groups)


class BatchNorm(nn.Module):
    """Batch normalisation of each channel, for two and three dimensions."""

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """By the batch's moments in training, by their running means after it."""
        return functional.batch_norm(x, self.mean, self.variance, self.weight, self.bias, self.training)


class ScaleNet(nn.Module):
    """Convolution (- batch norm) - LeakyReLU, `layers` times, the last one bare; generator and critic of a scale."""

    def __init__(
        self,
        lesions: int,
        c_in: int,
        c_out: int,
        *,
        width: int,
        layers: int,
        dims: int,
        batch_norm: bool,
        padding: int,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        ends = [c_in, *(width,) * (layers - 1), c_out]
        self.lesions, self.width = lesions, width
        self.convs = nn.ModuleList(
            # a hinge critic's last bias has no gradient while all verdicts lie inside the margins: left out
            GroupedConv(
                lesions, a, b, dims=dims, padding=padding, spectral=spectral, bias=not (spectral and n == layers - 1)
            )
            for n, (a, b) in enumerate(itertools.pairwise(ends))
        )
        self.norms = nn.ModuleList(
            BatchNorm(lesions * width) if batch_norm else nn.Identity() for _ in range(layers - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, K c_in, *space]` -> `[B, K c_out, *space]`."""
        for conv, norm in zip(self.convs, self.norms, strict=False):
            x = functional.leaky_relu(norm(conv(x)), LEAK)
        last: Tensor = self.convs[-1](x)
        return last

    def power_iteration(self) -> None:
        """One power iteration of every convolution."""
        for conv in self.convs:
            if isinstance(conv, GroupedConv) and conv.spectral:
                conv.power_iteration()

    def use_dense(self, dense: bool) -> None:
        """How the K convolutions are computed."""
        for conv in self.convs:
            if isinstance(conv, GroupedConv):
                conv.dense = dense

    def draw_weights(self, generators: Sequence[torch.Generator], *, official: bool, zero_tail: bool = False) -> None:
        """Each lesion's weights from its own generator.

        Args:
            generators: one a lesion, on the CPU.
            official: N(0, .02), batch norm N(1, .02), usual biases; else by the fan-in of a LeakyReLU network.
            zero_tail: the last convolution gives 0, so that a residual network starts as the identity.
        """
        with torch.no_grad():
            for number, conv in enumerate(self.convs):
                assert isinstance(conv, GroupedConv)
                fan_in = math.prod(conv.weight.shape[1:])
                rows = (conv.weight.shape[0] // self.lesions, *conv.weight.shape[1:])
                sd = 0.02 if official else math.sqrt(2 / (1 + LEAK**2) / fan_in)
                if zero_tail and number == len(self.convs) - 1:
                    sd = 0.0
                conv.weight.copy_(torch.cat([torch.randn(rows, generator=g) * sd for g in generators]))
                if official and conv.bias is not None:
                    bound = 1 / math.sqrt(fan_in)
                    drawn = [(torch.rand(rows[0], generator=g) * 2 - 1) * bound for g in generators]
                    conv.bias.copy_(torch.cat(drawn))
                if conv.spectral:
                    for _ in range(10):
                        conv.power_iteration()
            for norm in self.norms:
                if isinstance(norm, BatchNorm) and official:
                    channels = len(norm.weight) // self.lesions
                    drawn = [1 + 0.02 * torch.randn(channels, generator=g) for g in generators]
                    norm.weight.copy_(torch.cat(drawn))


def generate(net: ScaleNet, noise: Tensor, image: Tensor, *, pad: int, tanh: bool) -> Tensor:
    """G(z, x) = net(z + x) + x, the image of a scale (paper, Eq. 13).

    Args:
        net: the scale's generator.
        noise: z times its amplitude, shape of `image`.
        image: the scale below, enlarged.
        pad: zeros around noise and image; 0 where the convolutions pad themselves.
        tanh: bounds what is added.
    """
    entered = functional.pad(noise + image, (pad, pad) * (image.ndim - 2))
    added = net(entered).to(image.dtype)
    return (torch.tanh(added) if tanh else added) + image


def resize(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`x` resampled (cubic, antialiased where it shrinks) to another spatial shape."""
    for axis, size in enumerate(shape, 2):
        if x.shape[axis] != size:
            matrix = _resize_matrix(x.shape[axis], size, x.device, x.dtype)
            x = torch.tensordot(x, matrix, dims=([axis], [1])).movedim(-1, axis)
    return x.contiguous()


def blur(x: Tensor, sigma: float) -> Tensor:
    """`x` smoothed by a Gaussian of `sigma` voxels, zero outside."""
    for axis in range(2, x.ndim):
        matrix = _blur_matrix(x.shape[axis], sigma, x.device, x.dtype)
        x = torch.tensordot(x, matrix, dims=([axis], [1])).movedim(-1, axis)
    return x


@lru_cache(maxsize=64)
def _resize_matrix(size: int, new: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`[new, size]`, rows sum to 1: Keys' cubic kernel (a = -1/2), widened where `new` is smaller; edges repeated."""
    wide = max(size / new, 1.0)
    centres = (torch.arange(new, dtype=torch.float64) + 0.5) * size / new - 0.5
    reach = math.ceil(2 * wide)
    taps = centres.floor().long()[:, None] + torch.arange(-reach, reach + 1)[None]
    distance = ((centres[:, None] - taps) / wide).abs()
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
    matrix = torch.zeros(new, size, dtype=torch.float64)
    matrix.scatter_add_(1, taps.clamp(0, size - 1), weights / weights.sum(dim=1, keepdim=True))
    return matrix.to(device, dtype)


@lru_cache(maxsize=64)
def _blur_matrix(size: int, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    at = torch.arange(size, dtype=torch.float64)
    weights = torch.exp(-((at[:, None] - at[None]) ** 2) / (2 * sigma**2))
    return (weights / (sigma * math.sqrt(2 * math.pi))).to(device, dtype)
