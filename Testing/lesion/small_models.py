"""Lesion models that need no training: networks as they begin, which bend their lesion and add little of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from HiResMedSynthLib import weights
from HiResMedSynthLib.lesion.bank import load_bank
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE, Lesion, LesionCard
from HiResMedSynthLib.lesion.singan import SinGan, make_generator
from HiResMedSynthLib.lesion.singan_settings import preset
from HiResMedSynthLib.lesion.trained import KIND, training_values, write_trained

CARD_TEXTS = {"data": "made for a test", "licence": "CC0-1.0", "attribution": "nobody"}


def small_singan(lesion: Lesion, *, flat: bool = False) -> SinGan:
    values = training_values(lesion, flat=flat)
    settings = preset("tiny", values.ndim - 1)
    nets = []
    for scale in range(len(settings.sizes(values.shape[1:]))):
        net = make_generator(settings, scale, lesions=1, dims=values.ndim - 1)
        net.draw_weights([torch.Generator().manual_seed(scale)], official=False, zero_tail=True)
        nets.append(net.state_dict())
    return SinGan(settings, values, nets, [settings.noise] * len(nets), None)


def model_card(name: str, lesion: Lesion, **fields: object) -> weights.Card:
    details = {"source": lesion.card.name, "type": lesion.card.type, "diameter_mm": lesion.card.diameter_mm}
    return weights.Card(**{"name": name, "kind": KIND, "details": details, "seed": 1, **CARD_TEXTS, **fields})  # type: ignore[arg-type]


def add_singan(folder: Path, name: str, entry: str = "solid-10mm-a", *, flat: bool = False) -> weights.Model:
    """A model of a bank entry, put into the store (`HIRESMEDSYNTH_MODELS`)."""
    lesion = load_bank().lesion(entry)
    file = folder / f"{name}-made.safetensors"
    write_trained(file, small_singan(lesion, flat=flat), lesion, model_card(name, lesion))
    model = weights.add(file)
    file.unlink()
    return model


def ball(diameter_mm: float = 10.0, *, hu: int = 30, voxel_mm: float = 0.7, squeeze: float = 1.0) -> Lesion:
    """A solid ellipsoid with a soft edge, `squeeze` times as high as it is wide."""
    half = int(np.ceil(diameter_mm / voxel_mm / 2)) + 3
    axes = np.mgrid[-half : half + 1, -half : half + 1, -half : half + 1] * voxel_mm
    away = np.sqrt((axes[0] / squeeze) ** 2 + axes[1] ** 2 + axes[2] ** 2)
    alpha = np.clip((diameter_mm / 2 - away) / (2 * voxel_mm) + 0.5, 0, 1)
    card = LesionCard(name="ball", origin="made", type="solid", diameter_mm=diameter_mm, licence="-", attribution="-")
    return Lesion(
        intensity_hu=np.full(alpha.shape, hu, np.int16),
        alpha=np.round(alpha * ALPHA_ONE).astype(np.uint16),
        voxel_mm=voxel_mm,
        card=card,
    )
