"""What a VQGAN costs, and the widths at which two of them cost the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from HiResMedSynthLib.background.vqgan import Vqgan, VqganShape
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.layers import group_norm


@dataclass(frozen=True, kw_only=True)
class Described:
    """Cost of a shape: weights, and multiply-adds (in 1e9) of one image's reconstruction at a size."""

    parameters: int
    gmac: float
    size: int


def describe(shape: VqganShape, *, size: int | None = None) -> Described:
    """Parameters and GMAC of all convolutions and linear layers at `size`, counted on a network without memory."""
    side = size or shape.size
    with torch.device("meta"):
        network = Vqgan(shape).eval()
        total = 0

        def count(layer: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            nonlocal total
            if isinstance(layer, nn.ConvTranspose2d):  # each input value meets the whole kernel
                total += given[0].numel() * layer.weight[0].numel()
            elif isinstance(layer, (nn.Conv2d, nn.Linear)):  # each output value is a sum over the kernel
                total += result.numel() * layer.weight[0].numel()

        for layer in network.modules():
            layer.register_forward_hook(count)
        network.decoder(network.encoder(torch.empty(1, shape.channels, side, side)))
    weights = sum(parameter.numel() for parameter in network.parameters())
    return Described(parameters=weights, gmac=total / 1e9, size=side)


def describe_side_by_side(shapes: dict[str, VqganShape], *, size: int | None = None) -> str:
    """A Markdown table of the cost of each shape."""
    lines = ["| preset | block | parameters | GMAC | at |", "| --- | --- | --- | --- | --- |"]
    for name, shape in shapes.items():
        cost = describe(shape, size=size)
        lines.append(f"| {name} | {shape.block} | {cost.parameters:,} | {cost.gmac:.1f} | {cost.size} px |")
    return "\n".join(lines)


def match_parameters(shape: VqganShape, parameters: int, *, tolerance: float = 0.02) -> VqganShape:
    """`shape` with widths so changed that it has `parameters` weights within `tolerance`: step by step the one width
    that brings it nearest, by its own number of norm groups, so that the norms stay alike.

    Raises:
        SettingsError: no such step helps.
    """
    best, gap = shape, _gap(shape, parameters)
    while gap > tolerance:
        near = [(_gap(candidate, parameters), index, candidate) for index, candidate in enumerate(_neighbours(best))]
        next_gap, _, candidate = min(near, key=lambda entry: entry[:2])
        if next_gap >= gap:
            raise SettingsError(
                f"No widths near {shape.encoder_widths} give {parameters:,} weights", remedy="Use wider networks."
            )
        best, gap = candidate, next_gap
    return best


def _gap(shape: VqganShape, parameters: int) -> float:
    with torch.device("meta"):
        return abs(sum(parameter.numel() for parameter in Vqgan(shape).parameters()) / parameters - 1)


def _neighbours(shape: VqganShape) -> Iterator[VqganShape]:
    for name, widths in (("encoder_widths", shape.encoder_widths), ("decoder_widths", shape.decoder_widths)):
        for place, width in enumerate(widths):
            groups = group_norm(width).num_groups
            for changed in (width + groups, width - groups):
                if changed > 0 and group_norm(changed).num_groups == groups:
                    one: dict[str, Any] = {name: (*widths[:place], changed, *widths[place + 1 :])}
                    yield replace(shape, **one)
