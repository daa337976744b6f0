"""An image rebuilt by a VQGAN of the user's own (`Training/train_vqgan.py`): from the codes of its codebook alone.

It is laid on the network's canvas as the training films were, padding at zero, and laid back on its own grid and grey
range. Nothing is drawn at random. Without a prior over its codes such a model makes no new image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from HiResMedSynthLib import weights
from HiResMedSynthLib.background.canvas import filled, laid_back, place
from HiResMedSynthLib.background.domain_values import FILM
from HiResMedSynthLib.background.find_model import loading
from HiResMedSynthLib.background.make import MadeImage
from HiResMedSynthLib.background.memory import require_memory_to_rebuild
from HiResMedSynthLib.background.vqgan import Vqgan
from HiResMedSynthLib.background.vqgan_file import load_vqgan
from HiResMedSynthLib.image import MedicalImage


@dataclass(frozen=True, kw_only=True)
class Rebuilder:
    """A VQGAN under its name; `spacing_mm` of its canvas (None: unknown), `sha256` of its file."""

    name: str
    network: Vqgan
    spacing_mm: float | None = None
    sha256: str = ""

    @property
    def identity(self) -> str:
        """The name and the beginning of the hash, for records."""
        return weights.identity(self.name, self.sha256)


def load_rebuilder(found: weights.Model, device: str = "cpu") -> Rebuilder:
    """The VQGAN of a model file, on that device.

    Raises:
        ReadError, SettingsError, MemoryError: as `find_model.load_background`.
    """
    with loading(found, device):
        network, header = load_vqgan(found.path)
        network.to(device)
    training = header.get("training")
    told = training.get("spacing_mm") if isinstance(training, dict) else None
    spacing_mm = float(told) if isinstance(told, int | float) and 0 < told < math.inf else None
    return Rebuilder(name=found.card.name, network=network, spacing_mm=spacing_mm, sha256=found.card.sha256)


@torch.no_grad()
def rebuild(model: Rebuilder, image: MedicalImage) -> MadeImage:
    """The image encoded and decoded, on its own grid and grey range, one slice of any size.

    Raises:
        SettingsError: several slices, too small, blank, or too little memory.
    """
    shape, device = model.network.shape, next(model.network.parameters()).device
    require_memory_to_rebuild(shape, device)
    values = FILM if model.spacing_mm is not None else replace(FILM, by_size=False)
    placed = place(image, values=values, side=shape.size, spacing_mm=model.spacing_mm or 1.0)
    told = torch.from_numpy(placed.film * placed.inside)[None, None]
    result = model.network(told.to(device))
    made = filled(result.image.float().mean(1)[0].clamp(-1, 1).cpu().numpy(), placed.inside)
    count = result.indices.numel()
    return MadeImage(
        image=laid_back(made, placed, replace(image, window=image.display_window())),
        coarse=made,
        finished=made,
        how=f"an image of the user rebuilt from its {count} codes by the model {model.identity}",
        seed=0,
        sex=None,
        notes=placed.notes,
    )
