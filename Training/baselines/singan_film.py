"""SinGAN on the whole film (paper, table 2): the official schedule of `lesion/singan_settings`, one GAN a film.

A SinGAN knows one film and makes variations of it. Several are trained at once, on films that fill their canvas; a
film is the first channel of what the lesions' implementation takes, its matte is 1 throughout.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from HiResMedSynthLib.lesion.singan_settings import PAPER, official_sizes
from HiResMedSynthLib.lesion.singan_train import train_singan
from Training.clock import now_s
from Training.vqgan_data import FilmTensors

FULL = 0.97  # share of the canvas that a film fills


@dataclass(frozen=True, kw_only=True)
class SinganFilmShape:
    """A preset's [singan_film.network] table.

    Attributes:
        films: how many films get a GAN.
        iterations: at each scale; official are 2,000.
        channels: at the first scale; official are 32.
        counted: the seconds of the time limit, "wall" or "cpu" (see `clock.now_s`).
    """

    films: int = 8
    iterations: int = 2000
    channels: int = 32
    counted: str = "wall"


def make(
    films: FilmTensors,
    shape: SinganFilmShape,
    seeds: list[int],
    *,
    out: Path,
    seed: int,
    resume: bool,
    time_limit_s: float,
    device: str,
    graph: bool,
) -> tuple[Tensor, dict[str, Any]]:
    """(films [n, 1, S, S] in -1..1, one a seed, the GANs in turn; facts of the run)."""
    grids = [grid_of(films.films[index, 0].float().numpy()) for index in chosen_films(films, shape.films, seed)]
    settings = replace(PAPER, iterations=(shape.iterations,), channels=shape.channels, report_every=50)
    reports: list[dict[str, Any]] = []
    began = now_s(shape.counted)

    def report(entry: dict[str, Any]) -> None:
        if not reports or entry["scale"] != reports[-1]["scale"]:
            click.echo(json.dumps({name: value for name, value in entry.items() if name not in ("gaps", "rec_rmses")}))
        reports.append(entry)

    models = train_singan(
        grids, settings, seed=seed, out=out, resume=resume, device=device, bf16=device != "cpu", graph=graph,
        report=report, cancelled=lambda: now_s(shape.counted) - began > time_limit_s, largest_side=films.size,
    )  # fmt: skip
    training_s = now_s(shape.counted) - began
    drawn = [models[number % len(models)].sample(np.random.default_rng(s))[0] for number, s in enumerate(seeds)]
    facts = {
        "films_learned": len(models),
        "scales": [list(size) for size in official_sizes((films.size, films.size))],
        "iterations_a_scale": shape.iterations,
        "finished": models[0].finished,
        "training_s": round(training_s, 1),
    }
    return torch.from_numpy(2 * np.stack(drawn).clip(0, 1) - 1)[:, None], facts


def chosen_films(films: FilmTensors, count: int, seed: int) -> list[int]:
    """Indices of training films in a random order, those that fill their canvas first."""
    order = np.random.default_rng(seed).permutation(films.side(held_out=False).numpy())
    filled = films.masks.float().mean((1, 2, 3)).numpy()
    return sorted((int(index) for index in order), key=lambda index: -min(float(filled[index]), FULL))[:count]


def grid_of(film: NDArray[np.float32]) -> NDArray[np.float32]:
    """[2, S, S]: a film in 0..1, and ones."""
    return np.stack([(film + 1) / 2, np.ones_like(film)])
