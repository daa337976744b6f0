"""How long a film takes, rebuilt and new, part by part, beside a product of two matrices in the same run.

`python -m Testing.benchmarks.film_speed [--threads 2] [--repeats 7]` prints a table of medians, after one run that
loads what is needed (a part of `make bench`: whole films alone). The film rebuilt is one that the model made, which
fills its canvas; others take as long.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import click
import numpy as np
import torch

from HiResMedSynthLib.background import make
from HiResMedSynthLib.background.find_model import BackgroundModel, find_background, load_background
from HiResMedSynthLib.image import MedicalImage
from Testing.benchmarks.lesion_speed import Row

MATRIX = 2048  # side of the matrices whose product is the reference
REFERENCE = f"reference, {MATRIX} x {MATRIX} float32 product"
BOUND_S = {"rebuilt": 1.5, "new": 3.0}  # by the clock on two quiet cores
THREADS, REPEATS = 2, 7
Work = Callable[[make.OnStep], object]
Seconds = tuple[float, float]
"""By the clock, and of the processor."""


def now() -> Seconds:
    """Where both clocks stand."""
    return time.perf_counter(), time.process_time()


def timed(work: Work) -> dict[str, Seconds]:
    """Seconds of the whole, of what comes before the first step that the work tells, and of each step."""
    start = now()
    starts = {"whole": start, "preparation": start}
    work(lambda name: starts.update({name: now()}))
    end = now()
    ends = [end, *list(starts.values())[2:], end]
    return {
        name: (stop[0] - start[0], stop[1] - start[1]) for (name, start), stop in zip(starts.items(), ends, strict=True)
    }


def seconds(model: BackgroundModel, image: MedicalImage, repeats: int = 3) -> dict[str, Seconds]:
    """Medians by way and step; before the first step the image is encoded, after the last one laid on its own grid."""
    square = torch.rand(MATRIX, MATRIX)
    ways: dict[str, Work] = {
        "rebuilt": lambda told: make.reconstruct(model, image, on_step=told),
        "new": lambda told: make.generate(model, seed=1, on_step=told),
        REFERENCE: lambda _: square @ square,
    }
    found: dict[str, Seconds] = {}
    for way, work in ways.items():
        runs = [timed(work) for _ in range(repeats + 1)][1:]  # the first one sets up
        for step in runs[0]:
            if len(runs[0]) > 2 or step == "whole":  # the reference has no steps
                wall, busy = np.median([run[step] for run in runs], axis=0).tolist()
                found[way if step == "whole" else f"{way}: {step}"] = (wall, busy)
    return found


def shipped(domain: str) -> tuple[BackgroundModel, MedicalImage]:
    """The model that comes with the release, and an image that it made."""
    model = load_background(find_background(domain=domain))
    return model, make.generate(model, seed=1).image


def rows() -> list[Row]:
    """A film encoded and drawn again, and a new one, by the clock."""
    torch.set_num_threads(THREADS)
    model, image = shipped("cxr")
    taken = {name: wall for name, (wall, _) in seconds(model, image, REPEATS).items()}
    what = {"rebuilt": "encoded and drawn again", "new": "made anew"}
    reference = f"one {MATRIX} x {MATRIX} float32 product: {1000 * taken[REFERENCE]:.0f} ms"
    return [
        (
            f"film of {image.rows} x {image.columns} {told}, loaded",
            f"{taken[way]:.2f} s",
            f"{BOUND_S[way]} s",
            reference,
        )
        for way, told in what.items()
    ]


@click.command(help=__doc__)
@click.option("--domain", default="cxr", show_default=True, help="Of the shipped model.")
@click.option("--threads", default=THREADS, show_default=True)
@click.option("--repeats", default=REPEATS, show_default=True)
def main(domain: str, threads: int, repeats: int) -> None:
    torch.set_num_threads(threads)
    model, image = shipped(domain)
    click.echo(f"{threads} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the start\n")
    click.echo("| what | by the clock | of the processor | bound |\n| --- | --- | --- | --- |")
    for name, (wall, busy) in seconds(model, image, repeats).items():
        click.echo(f"| {name} | {wall:.2f} s | {busy:.2f} s | {f'{BOUND_S[name]} s' if name in BOUND_S else ''} |")


if __name__ == "__main__":
    main()
