"""Scores of the film network on radiographs with drawn lungs, with intervals by patient."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.network import NetworkPlan, PlacementNetwork, build
from HiResMedSynthLib.placement.regions_film import (
    chest_lungs,
    find_film_regions,
)
from Testing.benchmarks.placement_rules import dice
from Training.build_cxr_lung_template import IGNORED, MaskedFilm
from Training.checkpoint import load_average
from Training.loop import CHECKPOINT

RESAMPLES = 2000
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A network with what it did not see."""

    network: PlacementNetwork
    held_out: tuple[str, ...]
    data: str


def load_run(run: Path) -> Trained:
    """The last averaged weights of a run."""
    state, described = load_average(run / CHECKPOINT)
    plan = NetworkPlan.from_json(described["plan"])
    module: Any = build(plan)
    module.load_state_dict(state)
    module.to(memory_format=torch.channels_last)
    with safe_open(run / CHECKPOINT, framework="pt") as file:
        step = json.loads(file.metadata()["state"])["progress"]["step"]
    return Trained(
        network=PlacementNetwork.of(plan, module, name=run.name),
        held_out=tuple(described["held_out"]),
        data=f"{step} steps",
    )


def as_image(film: NDArray[Any], pixel_mm: tuple[float, float] = (1.0, 1.0)) -> MedicalImage:
    """A film whose spacing is taken as square where nobody knows it."""
    return MedicalImage(pixels=film[np.newaxis], modality="DX", pixel_spacing_mm=pixel_mm, spacing_source="assumed")


def network_lungs(film: NDArray[Any], network: PlacementNetwork) -> Mask:
    """The lungs that the network finds; none where it refuses the film."""
    try:
        image = as_image(film)
        return chest_lungs(image, find_film_regions(image, network))
    except PlacementError:
        return np.zeros(film.shape, dtype=bool)


def scores(found: Mask, truth: Mask, counted: Mask) -> tuple[float, float, float]:
    """(Dice, share of the outside called lung, share of the lung called outside)."""
    outside = ~truth & counted
    return (
        dice(found, truth, counted),
        float((found & outside).sum() / max(outside.sum(), 1)),
        float((~found & truth & counted).sum() / (truth & counted).sum()),
    )


def interval(values: Sequence[float], groups: Sequence[str], of: Callable[..., Any] = np.mean) -> list[float]:
    """[value, lower, upper]: 95 % by resampling of patients."""
    rng = np.random.default_rng(0)
    names = sorted(set(groups))
    by = {name: [v for v, g in zip(values, groups, strict=True) if g == name] for name in names}
    drawn = [
        float(of(np.concatenate([by[names[k]] for k in rng.integers(0, len(names), len(names))])))
        for _ in range(RESAMPLES)
    ]
    return [float(of(np.asarray(values))), *(float(v) for v in np.percentile(drawn, [2.5, 97.5]))]


def lung_table(films: Sequence[MaskedFilm], found: Sequence[Mask]) -> dict[str, Any]:
    """Dice and both error rates of these films."""
    each = [
        scores(mask, np.isin(film.mask, (1, 2)), film.mask != IGNORED) for film, mask in zip(films, found, strict=True)
    ]
    patients = [film.patient_id for film in films]
    table: dict[str, Any] = {"films, patients": [len(films), len(set(patients))]}
    for name, column, of in (
        ("Dice, mean", 0, np.mean),
        ("Dice, median", 0, np.median),
        ("forbidden called permitted, median", 1, np.median),
        ("permitted called forbidden, median", 2, np.median),
    ):
        table[name] = interval([row[column] for row in each], patients, of)
    table["Dice, 10th percentile, worst"] = [float(np.percentile([r[0] for r in each], 10)), min(r[0] for r in each)]
    table["refused"] = sum(not mask.any() for mask in found)
    return table
