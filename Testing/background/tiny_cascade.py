"""An untrained cascade of the tiny preset as a model file: 16 px films, 4 x 4 codes, 256 px made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from HiResMedSynthLib import weights
from HiResMedSynthLib.background.cascade import build_network
from HiResMedSynthLib.background.find_model import KIND, BackgroundModel, find_background, load_background
from Training.preset_files import read_preset, stages_of

SIDES = {"film": 16, "detail-256": 64, "detail-1024": 256}


def write_tiny(folder: Path, *, name: str = "cxr", domain: str = "cxr") -> Path:
    """A model file with its card; what starts at zero (tails, modulation) is set at random."""
    torch.manual_seed(0)
    preset = read_preset("tiny")
    arrays: dict[str, Any] = {}
    stages = {}
    for stage in stages_of(preset):
        network = build_network(preset[stage])
        for parameter in network.parameters():
            if not parameter.detach().any():
                torch.nn.init.normal_(parameter, std=0.1)
        arrays |= {f"{stage}.{key}": value.numpy() for key, value in network.state_dict().items()}
        told = {key: preset[stage][key] for key in ("network", "code") if key in preset[stage]}
        stages[stage] = {**told, "unit": 0.5, "size": 16, "grid": 4, "spacing_mm": 1.68 * 256 / SIDES[stage]}
    card = weights.Card(name=name, kind=KIND, data="nothing: untrained", licence="CC0-1.0", attribution="nobody")
    path = folder / f"{name}.safetensors"
    weights.write_model(path, arrays, card, metadata={"cascade": json.dumps({"domain": domain, "stages": stages})})
    return path


def add_tiny(folder: Path, *, name: str = "cxr", domain: str = "cxr") -> BackgroundModel:
    """The same, in the model store and loaded; `folder` takes the file that is added."""
    weights.add(write_tiny(folder, name=name, domain=domain))
    return load_background(find_background(name))
