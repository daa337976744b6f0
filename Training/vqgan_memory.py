"""The memory that training a VQGAN needs at least, told before it starts: 69 GB for `paper` with 8 films of 1024 px."""

from __future__ import annotations

import torch
from torch import Tensor

from HiResMedSynthLib.background.vqgan import Vqgan, VqganShape
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.free_memory import free_bytes
from Training.ranks import Ranks
from Training.vqgan_step import VqganSettings

COPIES = 4  # of the weights: themselves, slopes, Adam's two moments


def held_bytes(shape: VqganShape) -> tuple[int, int]:
    """Bytes in float32 of the weights, and of what a film's pass keeps for the way back; a network without memory runs.

    Measured on a CPU (growth of the process, a further film, `paper`): 0.17 GB at 128 px, 0.72 at 256; told are 0.13
    and 0.54.
    """
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.device("meta"):
        network = Vqgan(shape)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network.decoder(network.encoder(torch.empty(1, shape.channels, shape.size, shape.size)))
    weights = {parameter.untyped_storage()._cdata: parameter.nbytes for parameter in network.parameters()}
    return sum(weights.values()), sum(storage.nbytes() for at, storage in kept.items() if at not in weights)


def check_memory(shape: VqganShape, settings: VqganSettings, ranks: Ranks) -> None:
    """Refuses a training that can't fit; says nothing where the free memory isn't known.

    The adversary and the perceptual network come on top. In bfloat16 half is kept; float32 is tried by "auto", too.

    Raises:
        SettingsError: too little is free.
    """
    free = free_bytes(ranks.device)
    weights, film = held_bytes(shape)
    films = max(1, settings.batch // (ranks.world * max(1, settings.accumulate)))
    needed = COPIES * weights + films * film // (2 if settings.precision == "bfloat16" else 1)
    if free is not None and needed > free:
        raise SettingsError(
            f"Too little memory: {films} film(s) of {shape.size} px at a time need {needed / 1e9:.1f} GB or more, "
            f"{free / 1e9:.1f} GB are free",
            remedy="Give a smaller --size or --batch, --loop accumulate=2 or more (a batch in so many parts), or "
            "--precision bfloat16.",
        )
