"""The gate against near copies: planted copies caught by kind, false alarms on real films of other patients.

`python -m Testing.benchmarks.privacy_gate --films FOLDER --cache DIR [--others FOLDER ...] [--made MODEL ...] --out
FILE.json`; for CT `--films SLICES.npz --preset lung_ct --descriptors FILE`. Planted: `Testing/planted_copies.py`, on
films of 256 px. False alarms: the films that were held out, each training film against those of other patients
(limits anew without it: no film has a say in its own verdict), and films of other hospitals (folders with index.csv:
file, patient_id, view). Intervals: exact (Clopper-Pearson), 95 %, two-sided. `--release` writes the figures on the card
of the descriptors.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from HiResMedSynthLib.privacy import (
    PARTS,
    Pixels,
    TrainingDescriptors,
    limits_of,
    read_descriptors,
    write_descriptors,
)
from HiResMedSynthLib.weights import read_card
from Testing.planted_copies import CHANGES, mixed, part_in
from Training.film_data import FilmSet
from Training.film_sets import load_set
from Training.preset_files import read_preset
from Training.release_model import list_in_release

SHIPPED = Path(__file__).resolve().parents[2] / "HiResMedSynthLib/background/weights/cxr_descriptors.safetensors"
SIDE = 256
EACH = 60  # planted copies of each kind
PARTIAL = 54  # of each size of part
MADE = 24  # films by each model
Groups = dict[str, Pixels]


def share(flags: Iterable[bool]) -> dict[str, Any]:
    """Count, number and share of True, with its exact interval."""
    from scipy.stats import binomtest

    found = list(flags)
    interval = binomtest(sum(found), len(found)).proportion_ci(method="exact")
    return {
        "of": len(found),
        "found": sum(found),
        "share": round(sum(found) / len(found), 4),
        "interval": [round(interval.low, 4), round(interval.high, 4)],
    }


def planted(training: Pixels, held_out: Pixels) -> dict[str, list[Pixels]]:
    """Changed copies of training films by kind, and held-out films with a part of a training film in them."""
    copies: dict[str, list[Pixels]] = defaultdict(list)
    for number, (name, change) in enumerate(CHANGES.items()):
        rng = np.random.default_rng(number)
        copies[name] = [change(training[i], rng) for i in np.arange(EACH) * len(training) // EACH]
    rng = np.random.default_rng(99)
    copies["mixed of two"] = [mixed(film, rng) for film in training]
    for part in ("half", "quarter", "ninth"):
        for number in range(PARTIAL):
            film, other = training[number * len(training) // PARTIAL], held_out[number % len(held_out)]
            copies[f"{part} in another film"].append(part_in(film, other, rng, part=part))
    return copies


def reduced(films: FilmSet, *, held_out: bool) -> Pixels:
    """[film, 256, 256]: means of the whole films' areas."""
    chosen = [films.pixels[i] for i in films.side(held_out=held_out) if films.films[i].whole]
    factor = len(chosen[0]) // SIDE
    return np.stack([film.reshape(SIDE, factor, SIDE, factor).mean(axis=(1, 3)) for film in chosen])


def read_others(folder: Path) -> dict[str, list[Pixels]]:
    """Films of another hospital by view, the longer side filling the canvas, as those of unknown spacing do."""
    films: dict[str, list[Pixels]] = defaultdict(list)
    with (folder / "index.csv").open(newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            with Image.open(folder / row["file"]) as picture:
                grey = np.asarray(picture.convert("F"), dtype=np.float32)
            low, high = np.percentile(grey, (0.5, 99.5))
            grey = np.clip(2 * (grey - low) / (high - low) - 1, -1, 1)
            missing = [max(grey.shape) - length for length in grey.shape]
            square = np.pad(grey, [(gap // 2, gap - gap // 2) for gap in missing], mode="edge")
            small = Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BOX)
            films[f"{folder.name}, {row['view']}"].append(np.asarray(small, dtype=np.float32))
    return films


def make_films(model: Path) -> list[Pixels]:
    """Coarse films of seeds 1 to 24, none drawn again."""
    import torch

    from HiResMedSynthLib.background.cascade import load_cascade
    from HiResMedSynthLib.background.make import TRIES, _stream

    torch.set_num_threads(1)
    cascade = load_cascade(model)
    streams = [_stream(seed, TRIES, 0) for seed in range(1, MADE + 1)]  # those of `generate`
    films = [cascade.coarse(torch.Generator().manual_seed(stream)) for stream in streams]
    return [film.clamp(-1, 1)[0, 0].numpy() for film in films]


def false_alarms(largest: Pixels) -> list[bool]:
    """Of films' largest likenesses [film, size of part]: each judged by limits from all the others."""
    alarms = []
    for number, row in enumerate(largest):
        alarms.append(bool((row > limits_of(np.delete(largest, number, axis=0))).any()))
    return alarms


def summary(copies: Groups, unlearned: Groups, strangers: Groups, made: Groups, limits: Pixels) -> dict[str, Any]:
    """The shares of the report; groups hold the largest likenesses [film, size of part] by kind."""

    def above(group: Pixels) -> list[bool]:
        return [bool((film > limits).any()) for film in group]

    whole = np.concatenate([group for kind, group in copies.items() if "another" not in kind])
    alarms = false_alarms(np.concatenate(list(unlearned.values())))
    ends = np.cumsum([0, *map(len, unlearned.values())])
    by_kind = {kind: alarms[ends[k] : ends[k + 1]] for k, kind in enumerate(unlearned)}
    by_kind |= {kind: above(group) for kind, group in strangers.items()}
    return {
        "limits": dict(zip(PARTS, limits.tolist(), strict=True)),
        "caught": {kind: share(above(group)) for kind, group in copies.items()},
        "caught_whole_copies": share(above(whole)),
        "lowest_whole_copy_over_limit": round(float((whole / limits).max(axis=1).min()), 3),
        "highest_unlearned_over_limit": round(float((np.concatenate(list(unlearned.values())) / limits).max()), 3),
        "false_alarms": {kind: share(group) for kind, group in by_kind.items()},
        "false_alarms_of_all": share([alarm for group in by_kind.values() for alarm in group]),
        "films_made": {kind: share(above(group)) for kind, group in made.items()},
    }


def tell_on_card(file: Path, result: dict[str, Any]) -> None:
    """Writes the gate's shares into the card of the descriptors in `file`, its new hash into the release's list."""

    def told(share: dict[str, Any]) -> str:
        low, high = share["interval"]
        return f"{share['found']} of {share['of']} ({low:.4f} to {high:.4f})"

    card = read_card(file)
    figures = {
        "planted_copies_caught": told(result["caught_whole_copies"]),
        "other_patients_taken_for_copies": told(result["false_alarms_of_all"]),
        "intervals": "exact, 95 %",
    }
    card = dataclasses.replace(card, metrics={**card.metrics, **figures})
    write_descriptors(file, read_descriptors(file), card)
    file.chmod(0o644)  # a file written aside is its owner's alone
    list_in_release(file)


def _likeness(descriptors: TrainingDescriptors, film: Pixels) -> Pixels:
    return descriptors.likeness(film)


@click.command()
@click.option("--films", "data", type=click.Path(path_type=Path), required=True, help="Those that the model learned.")
@click.option("--preset", default="better", show_default=True, help="Its [data] table says how they are prepared.")
@click.option("--cache", type=click.Path(path_type=Path), required=True)
@click.option("--others", type=click.Path(path_type=Path), multiple=True)
@click.option("--made", type=click.Path(path_type=Path), multiple=True, help="Models whose films are judged.")
@click.option("--descriptors", type=click.Path(path_type=Path), default=SHIPPED)
@click.option("--workers", default=1, show_default=True)
@click.option("--release", is_flag=True, help="Write the figures on the card of the descriptors.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(data: Path, preset: str, cache: Path, others: tuple[Path, ...], made: tuple[Path, ...], descriptors: Path,
         workers: int, release: bool, out: Path) -> None:  # fmt: skip
    """Measures the gate."""
    films, _ = load_set(data, cache, **read_preset(preset)["data"])
    training, held_out = reduced(films, held_out=False), reduced(films, held_out=True)
    whose = np.array([films.films[i].patient for i in films.side(held_out=False) if films.films[i].whole])
    del films
    gate = read_descriptors(descriptors)
    start = time.process_time()
    gate.likeness(training[0])
    seconds = time.process_time() - start
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:

        def largest(group: Iterable[Pixels], *, themselves: bool = False) -> Pixels:
            found = np.stack(list(pool.map(partial(_likeness, gate), group, chunksize=4)))
            if themselves:
                found[(whose[:, None] == whose)[:, None].repeat(len(PARTS), axis=1)] = 0
            return np.asarray(found.max(axis=2))

        result = summary(
            {kind: largest(group) for kind, group in planted(training, held_out).items()},
            {
                "held out": largest(held_out),
                "each training film against other patients'": largest(training, themselves=True),
            },
            {kind: largest(group) for folder in others for kind, group in read_others(folder).items()},
            {model.stem: largest(make_films(model)) for model in made},
            np.array(gate.limits, dtype=np.float32),
        )
    result["cpu_seconds_a_film"] = round(seconds, 3)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if release:
        tell_on_card(descriptors, result)
    click.echo(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
