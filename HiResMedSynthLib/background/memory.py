"""Memory that a cascade needs to make an image."""

from __future__ import annotations

import torch

from HiResMedSynthLib.background.cascade import REDUCTION, FilmCascade
from HiResMedSynthLib.background.film_network import FilmNetwork
from HiResMedSynthLib.background.flow_unet import FlowUNet
from HiResMedSynthLib.background.vqgan import VqganShape
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.free_memory import available_bytes

MAPS = 16  # of the widest level that stand in memory at once, measured at 1024 px
VQGAN_MAPS = 10  # of a VQGAN's, measured at 256 px: 9 with HDFBs, 6 with plain blocks
IMAGES = 8  # of the finished size: noise, condition, slopes, film
KEPT_FREE = 200 * 2**20  # for the rest of the machine


def stage_sides(cascade: FilmCascade) -> dict[str, int]:
    """Side of the film that each stage makes, first to last."""
    return {name: cascade.film_side * REDUCTION**number for number, name in enumerate(cascade.stages)}


def needed_bytes(cascade: FilmCascade, last: str) -> int:
    """Bytes that sampling up to the stage `last` needs beside the loaded weights."""
    most = 0
    for name, side in stage_sides(cascade).items():
        network = cascade.stages[name].network
        flow = network.flow if isinstance(network, FilmNetwork) else network
        assert isinstance(flow, FlowUNet)
        widest = flow.shape.widths[0] * (side // flow.shape.patch) ** 2
        most = max(most, 4 * (MAPS * widest + IMAGES * side * side))
        if name == last:
            break
    return most


def require_memory(cascade: FilmCascade, last: str) -> None:
    """Refuses before any work is done, where sampling up to the stage `last` would need more than is left on the CPU.

    Raises:
        SettingsError: too little is left; says what size would fit.
    """
    sides = stage_sides(cascade)
    _require({sides[name]: needed_bytes(cascade, name) for name in sides}, sides[last], cascade.device)


def require_memory_to_rebuild(shape: VqganShape, device: torch.device) -> None:
    """Refuses before any work is done, where a VQGAN on the CPU would need more than is left.

    Raises:
        SettingsError: too little is left.
    """
    widest = max(shape.encoder_widths[0], shape.decoder_widths[-1]) * shape.size**2
    _require({shape.size: 4 * (VQGAN_MAPS * widest + IMAGES * shape.size**2)}, shape.size, device)


def _require(needed: dict[int, int], side: int, device: torch.device) -> None:
    """Refuses that side where too little is left; `needed`: bytes for each side that could be made."""
    if device.type != "cpu":  # a GPU refuses by itself, harmlessly, and the backend then goes on on the CPU
        return
    free = available_bytes()
    if free is None or needed[side] + KEPT_FREE <= free:
        return
    fitting = [smaller for smaller, most in needed.items() if most + KEPT_FREE <= free]
    smaller = f"Make {fitting[-1]} x {fitting[-1]} pixels (--size {fitting[-1]}), which would fit. " if fitting else ""
    raise SettingsError(
        f"an image of {side} x {side} pixels needs about {needed[side] / 2**20:.0f} MiB, with "
        f"{KEPT_FREE / 2**20:.0f} MiB kept for the system, but {free / 2**20:.0f} MiB are free",
        remedy=f"{smaller}Close other programs.",
    )
