"""A self-supervised embedding as gate against near copies, beside the signs that ship: what it catches, false alarms.

`python -m Testing.benchmarks.privacy_embedding --films FOLDER --cache DIR --out FILE.json [--minutes 8]`. A small
network learns, on the training films alone, to know a film again after two random changes (SimCLR; Chen et al., 2020:
NT-Xent over the batch). Its likeness of two films is the cosine of their embeddings; the limit is the 95 % point of
what films of other patients reach. Planted copies and false alarms as in `privacy_gate`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from HiResMedSynthLib.privacy import Pixels
from Testing.benchmarks.privacy_gate import planted, reduced, share
from Testing.planted_copies import mixed
from Training.film_sets import load_set
from Training.preset_files import read_preset

SIDE, BATCH, TEMPERATURE, WIDTHS, FEATURES = 128, 32, 0.2, (32, 64, 128, 256), 128
ALARMS = 0.95  # share of other patients' films that lie below the limit


class Encoder(nn.Module):
    """Films `[film, 1, row, column]` -> unit vectors `[film, FEATURES]`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((1, *WIDTHS[:-1]), WIDTHS, strict=True):
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * WIDTHS[-1], FEATURES))

    def forward(self, films: Tensor) -> Tensor:
        return functional.normalize(self.body(films), dim=1)


def small(film: Pixels) -> Pixels:
    """`[128, 128]` of `[256, 256]`."""
    return np.asarray(film.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3)), dtype=np.float32)


def batch_of(films: list[Pixels]) -> Tensor:
    return torch.from_numpy(np.stack(films))[:, None]


def trained(training: list[Pixels], minutes: float, seed: int) -> tuple[Encoder, int]:
    """(the network after that many minutes of CPU time, its steps)."""
    torch.manual_seed(seed)
    rng, network, end, steps = np.random.default_rng(seed), Encoder(), time.process_time() + 60 * minutes, 0
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    same = torch.arange(2 * BATCH).roll(BATCH)
    while time.process_time() < end:
        chosen = rng.choice(len(training), BATCH, replace=False)
        views = [mixed(training[i], rng) for _ in range(2) for i in chosen]
        vectors = network(batch_of(views))
        likeness = (vectors @ vectors.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        loss = functional.cross_entropy(likeness, same)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
        if steps % 50 == 0:
            click.echo(f"step {steps}, loss {loss.item():.3f}", err=True)
    return network.eval(), steps


@click.command(help=__doc__)
@click.option("--films", "data", type=click.Path(path_type=Path), required=True)
@click.option("--cache", type=click.Path(path_type=Path), required=True)
@click.option("--minutes", default=8.0, show_default=True, help="CPU time of the training.")
@click.option("--seed", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(data: Path, cache: Path, minutes: float, seed: int, out: Path) -> None:
    torch.set_num_threads(1)
    films, _ = load_set(data, cache, **read_preset("better")["data"])
    training, held_out = reduced(films, held_out=False), reduced(films, held_out=True)
    whose = np.array([films.films[i].patient for i in films.side(held_out=False) if films.films[i].whole])
    del films
    network, steps = trained([small(film) for film in training], minutes, seed)

    def vectors(group: list[Pixels] | Pixels) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(network(batch_of([small(film) for film in group])).numpy())

    known = vectors(training)
    among = known @ known.T
    among[whose[:, None] == whose] = -1
    others = np.concatenate([(vectors(held_out) @ known.T).max(axis=1), among.max(axis=1)])
    limit = float(np.quantile(others, ALARMS))
    caught = {
        kind: (vectors(group) @ known.T).max(axis=1) > limit for kind, group in planted(training, held_out).items()
    }
    whole = np.concatenate([flags for kind, flags in caught.items() if "another" not in kind])
    result: dict[str, Any] = {
        "steps": steps,
        "limit": round(limit, 4),
        "held_out_above": share((others[: len(held_out)] > limit).tolist()),
        "caught": {kind: share(flags.tolist()) for kind, flags in caught.items()},
        "caught_whole_copies": share(whole.tolist()),
    }
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
