"""HiResMed-VQGAN (paper, section 2): an image to a grid of codes, and back from the codes alone.

Two presets of one topology: `paper` has HDFBs (Eqs. 2-8), `vqgan` VQGAN's plain residual blocks; all else is equal, so
that their difference is the block's. Shapes: B batch, C image channels, S side, s product of the strides (64), D code
dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from HiResMedSynthLib.background.hdfb import HDFB, PAPER, BlockReading, initialise_as_paper
from HiResMedSynthLib.background.quantiser import FSQ, Codebook
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.layers import group_norm


@dataclass(frozen=True, kw_only=True)
class VqganShape:
    """Everything that fixes the network's layers; stored beside the weights as JSON.

    Attributes:
        size: side of the square images it is meant for, a multiple of the strides' product.
        channels: 1, or 3 as the paper's (a grey image is repeated).
        encoder_widths: channels before each downsampling and, last, at the code grid.
        decoder_widths: channels at the code grid and after each upsampling.
        encoder_blocks, decoder_blocks: blocks at each of these places.
        strides: of the downsamplings; the paper's three are 4 each.
        block: "hdfb" or "residual".
        reading: of the equations, for HDFBs; its drop_path is the last block's, the first has 0, linear between.
        residual_path: of second stage and detail stage, "convolution" (section 2 of the paper) or "depthwise"
            (its introduction: depth-wise convolution and channel scaling).
        codes, dimension, squared: of the codebook.
        levels: of FSQ in place of the codebook; empty for the codebook.
    """

    size: int = 1024
    channels: int = 1
    encoder_widths: tuple[int, ...] = (64, 128, 256, 512)
    decoder_widths: tuple[int, ...] = (256, 256, 128, 64)
    encoder_blocks: tuple[int, ...] = (1, 1, 1, 2)
    decoder_blocks: tuple[int, ...] = (2, 1, 1, 1)
    strides: tuple[int, ...] = (4, 4, 4)
    block: str = "hdfb"
    reading: BlockReading = PAPER
    residual_path: str = "convolution"
    codes: int = 1024
    dimension: int = 256
    squared: bool = True
    levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        places = len(self.strides) + 1
        listed = (self.encoder_widths, self.decoder_widths, self.encoder_blocks, self.decoder_blocks)
        if any(len(entry) != places for entry in listed):
            raise SettingsError("Widths and blocks don't fit the strides", remedy=f"Give {places} of each.")
        if self.size % prod(self.strides) or self.size <= 0:
            raise SettingsError(
                f"A side of {self.size} px is impossible", remedy=f"Use a multiple of {prod(self.strides)}."
            )
        if self.channels not in (1, 3) or self.block not in BLOCKS or self.residual_path not in RESIDUAL_PATHS:
            raise SettingsError(
                f"No network of {self.channels} channels, block {self.block}, residual path {self.residual_path}",
                remedy=f"Choose channels 1 or 3; blocks {', '.join(BLOCKS)}; paths {', '.join(RESIDUAL_PATHS)}.",
            )

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> VqganShape:
        """The shape that `to_json` or a preset wrote; lists become tuples.

        Raises:
            SettingsError: an unknown field or an impossible value.
        """
        unknown = set(stored) - {entry.name for entry in fields(cls)}
        if unknown:
            raise SettingsError(f"Unknown fields of a VQGAN: {', '.join(sorted(unknown))}", remedy="Remove them.")
        plain: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in stored.items()}
        if isinstance(plain.get("reading"), dict):
            try:
                plain["reading"] = BlockReading(**plain["reading"])
            except TypeError as problem:
                raise SettingsError(
                    f"The block's reading can't be: {problem}", remedy="Correct the settings of the block."
                ) from None
        return cls(**plain)


BLOCKS = ("hdfb", "residual")
RESIDUAL_PATHS = ("convolution", "depthwise")


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """What `Vqgan.forward` gives: the image [B, C, S, S], its indices [B, S/s, S/s], Eq. 1's unweighted terms."""

    image: Tensor
    indices: Tensor
    commitment: Tensor
    codebook: Tensor


class Vqgan(nn.Module):
    """Encoder, quantiser, decoder. The decoder is given the codes' vectors and nothing else."""

    def __init__(self, shape: VqganShape) -> None:
        super().__init__()
        self.shape = shape
        self.quantiser: Codebook | FSQ = (
            FSQ(shape.levels) if shape.levels else Codebook(shape.codes, shape.dimension, squared=shape.squared)
        )
        rates = _drop_rates(shape)
        self.encoder = Encoder(shape, self.quantiser.dimension, rates)
        self.decoder = Decoder(shape, self.quantiser.dimension, rates)
        initialise_as_paper(self)
        if shape.reading.zero_tail:
            for layer in self.modules():
                if isinstance(layer, HDFB):
                    nn.init.zeros_(layer.fuse.mix.weight)

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Reconstruction:
        """Reconstruction of `image` [B, C or 1, S, S] in -1..1; codes wholly outside `mask` [B, 1, S, S] cost nothing.

        Raises:
            SettingsError: the side is no multiple of the strides' product.
        """
        encoded = self._encoded(image)
        weight = None if mask is None else nn.functional.adaptive_max_pool2d(mask.float(), encoded.shape[-2:])
        with torch.autocast(image.device.type, enabled=False):
            quantised = self.quantiser(encoded.float(), weight)
        return Reconstruction(
            image=self.decoder(quantised.values).float(),
            indices=quantised.indices,
            commitment=quantised.commitment,
            codebook=quantised.codebook,
        )

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """[B, S/s, S/s] indices of `image` [B, C or 1, S, S]; errors as `forward`."""
        encoded = self._encoded(image)
        with torch.autocast(image.device.type, enabled=False):
            indices: Tensor = self.quantiser(encoded.float()).indices
        return indices

    @torch.no_grad()
    def decode(self, indices: Tensor) -> Tensor:
        """[B, C, S, S] in about -1..1 from indices [B, S/s, S/s]."""
        image: Tensor = self.decoder(self.quantiser.look_up(indices)).float()
        return image

    def _encoded(self, image: Tensor) -> Tensor:
        step = prod(self.shape.strides)
        if image.shape[-1] % step or image.shape[-2] % step:
            raise SettingsError(
                f"An image of {image.shape[-2]}x{image.shape[-1]} px doesn't fit this VQGAN",
                remedy=f"Pad or resample it to a multiple of {step}.",
            )
        if image.shape[1] == 1 and self.shape.channels == 3:
            image = image.expand(-1, 3, -1, -1)
        encoded: Tensor = self.encoder(image)
        return encoded


class Encoder(nn.Module):
    """Blocks and strided convolutions down to the code grid, the second stage, 1x1 to the code dimension."""

    def __init__(self, shape: VqganShape, dimension: int, rates: Iterator[float]) -> None:
        super().__init__()
        widths = shape.encoder_widths
        layers: list[nn.Module] = [nn.Conv2d(shape.channels, widths[0], 3, padding=1)]
        for level, width in enumerate(widths):
            layers += [_block(shape, width, rates) for _ in range(shape.encoder_blocks[level])]
            if level < len(shape.strides):
                stride = shape.strides[level]
                layers.append(nn.Conv2d(width, widths[level + 1], stride + 2, stride=stride, padding=1))
        self.layers = nn.Sequential(*layers)
        self.second_stage = DualPath(widths[-1], shape.residual_path)
        self.to_code = nn.Conv2d(widths[-1], dimension, 1)

    def forward(self, image: Tensor) -> Tensor:
        """[B, D, S/s, S/s] from [B, C, S, S]."""
        encoded: Tensor = self.to_code(self.second_stage(self.layers(image)))
        return encoded


class Decoder(nn.Module):
    """Blocks at the code grid; each upsampling with blocks and channel attention; the detail stage; the image."""

    def __init__(self, shape: VqganShape, dimension: int, rates: Iterator[float]) -> None:
        super().__init__()
        widths = shape.decoder_widths
        layers: list[nn.Module] = [nn.Conv2d(dimension, widths[0], 1)]
        for level, width in enumerate(widths):
            if level:
                stride = shape.strides[-level]  # kernel = stride: no uneven overlap
                layers.append(nn.ConvTranspose2d(widths[level - 1], width, stride, stride=stride))
            layers += [_block(shape, width, rates) for _ in range(shape.decoder_blocks[level])]
            if level:
                layers.append(ChannelAttention(width))
        self.layers = nn.Sequential(*layers)
        self.detail = DualPath(widths[-1], shape.residual_path)
        self.last_norm = group_norm(widths[-1])
        self.to_image = nn.Conv2d(widths[-1], shape.channels, 3, padding=1)

    def forward(self, values: Tensor) -> Tensor:
        """[B, C, S, S] from the codes' vectors [B, D, S/s, S/s]."""
        image: Tensor = self.to_image(nn.functional.silu(self.last_norm(self.detail(self.layers(values)))))
        return image


class ResidualBlock(nn.Module):
    """VQGAN's block: X + Conv3x3(SiLU(GN(Conv3x3(SiLU(GN(X))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            group_norm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            group_norm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x` [B, C, H, W]."""
        summed: Tensor = x + self.branch(x)
        return summed


class DualPath(nn.Module):
    """A depthwise-separable path and a residual path side by side, summed element by element."""

    def __init__(self, channels: int, residual_path: str) -> None:
        super().__init__()
        self.separable = nn.Sequential(
            group_norm(channels), nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.Conv2d(channels, channels, 1),
        )  # fmt: skip
        depthwise = residual_path == "depthwise"
        groups = channels if depthwise else 1
        self.residual = nn.Sequential(
            group_norm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
        )
        self.scale = nn.Parameter(torch.ones(channels, 1, 1)) if depthwise else None

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x` [B, C, H, W]."""
        residual = self.residual(x)
        if self.scale is not None:
            residual = residual * self.scale
        summed: Tensor = self.separable(x) + (x + residual)
        return summed


class ChannelAttention(nn.Module):
    """Squeeze and excite: channels weighted by a gate of their own means; a sixteenth of them between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        between = max(channels // 16, 4)
        self.gate = nn.Sequential(
            nn.Conv2d(channels, between, 1), nn.ReLU(), nn.Conv2d(between, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x` [B, C, H, W]."""
        weighted: Tensor = x * self.gate(x.mean((2, 3), keepdim=True))
        return weighted


PRESETS = ("paper", "vqgan")


def preset_shape(name: str, *, size: int = 1024, widths: tuple[int, ...] = (64, 128, 256, 512)) -> VqganShape:
    """The shape of a preset; `widths` are the encoder's, the decoder has the paper's share of them.

    Raises:
        SettingsError: there is no such preset, or it can't have this size.
    """
    if name not in PRESETS:
        raise SettingsError(f"There is no VQGAN {name}", remedy=f"Use {' or '.join(PRESETS)}.")
    if len(widths) < 2:
        raise SettingsError(f"Widths {widths} are too few", remedy="Give four, as 64,128,256,512.")
    return VqganShape(
        size=size,
        encoder_widths=widths,
        decoder_widths=(widths[-2], *reversed(widths[:-1])),
        block="hdfb" if name == "paper" else "residual",
    )


def _block(shape: VqganShape, width: int, rates: Iterator[float]) -> nn.Module:
    rate = next(rates)
    if shape.block == "residual":
        return ResidualBlock(width)
    return HDFB(width, reading=replace(shape.reading, drop_path=rate))


def _drop_rates(shape: VqganShape) -> Iterator[float]:
    """A rate for each block, first to last: 0 up to the reading's, linear."""
    count = sum(shape.encoder_blocks) + sum(shape.decoder_blocks)
    return iter([shape.reading.drop_path * index / max(count - 1, 1) for index in range(count)])
