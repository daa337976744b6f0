"""Fills the model store with small models; run by the backend's Python: `python -m Testing.slicer.make_models FOLDER`.

ours-lungs (danger mask) is the shipped network under another name; ours-likely (prior) is untrained; ours-films and
many say what they are and hold nothing; ours-places is an even density of films; nodule-a is a SinGAN of one bank
lesion; slices makes CT slices, untrained.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from HiResMedSynthLib import weights
from HiResMedSynthLib.placement.location_network import location_plan
from HiResMedSynthLib.placement.network import ENTRY, KIND, NetworkPlan, build
from Testing.background.tiny_cascade import write_tiny
from Testing.lesion.small_models import add_singan


def add_placement(folder: Path, name: str, plan: NetworkPlan) -> None:
    """A network as it begins."""
    torch.manual_seed(0)
    network = build(plan)
    arrays = {
        key: value.half().numpy()
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    add(folder, name, KIND, arrays, {ENTRY: json.dumps(plan.to_json())})


def add(folder: Path, name: str, kind: str, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    card = weights.Card(name=name, kind=kind, data="nothing", licence="CC0-1.0", attribution="nobody")
    weights.write_model(folder / f"{name}.safetensors", arrays, card, metadata=metadata)
    weights.add(folder / f"{name}.safetensors")


def main(folder: Path) -> None:
    """Makes them all; `folder` takes the files that are added."""
    weights.add(weights.find("danger-ct").path, "ours-lungs")
    add_placement(folder, "ours-likely", location_plan(decoder=(16, 8, 8, 8)))
    add(folder, "ours-films", KIND, {"x": np.zeros(1, np.float16)}, {ENTRY: json.dumps({"task": "danger-film"})})
    even = {"density": np.ones((32, 32), np.float32)}
    add(folder, "ours-places", KIND, even, {ENTRY: json.dumps({"task": "location-film"})})
    add(folder, "many", "lesion-flow", {"x": np.zeros(1, np.float16)}, {})
    add_singan(folder, "nodule-a")
    weights.add(write_tiny(folder, name="slices", domain="lung-ct"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
