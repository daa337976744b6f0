"""Seconds of lesions, each beside a reference in the same run: a sample, a matte, SinGAN's schedules.

`python -m Testing.benchmarks.lesion_speed` (a part of `make bench`): seconds of the processor, on one thread. Whole
runs of SinGAN are reckoned from a few iterations of each scale; full ones: docs/results/lesion_generators.md.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates

from HiResMedSynthLib.lesion.bank import Bank, load_bank
from HiResMedSynthLib.lesion.deform import draw_deformation
from HiResMedSynthLib.lesion.generators import Deform, Wish
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE
from HiResMedSynthLib.lesion.lesion_grid import LUNG_HU, crop_2d, to_grid
from HiResMedSynthLib.lesion.matte import pull_matte
from HiResMedSynthLib.lesion.render import render
from HiResMedSynthLib.lesion.samples import draw_sample
from HiResMedSynthLib.lesion.singan_settings import preset
from HiResMedSynthLib.lesion.singan_train import train_singan

Row = tuple[str, str, str, str]
"""What, measured, bound, reference."""
SOLID, SOFT = "solid-13mm-b", "part-solid-11mm-a"
SLICE_MM = (5.0, 0.7, 0.7)
REPEATS, AROUND, ITERATIONS = 7, 12, 4  # voxels of lung around a lesion; iterations of each scale


def median_ms(work: Callable[[], object]) -> float:
    """Median of several runs after one that loads what is needed."""
    work()
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        taken.append(1000 * (time.process_time() - start))
    return float(np.median(taken))


def sample_rows(bank: Bank) -> list[Row]:
    """`deform`, the default generator: into a slice, and as a volume with its standard form."""
    card, rng = bank.cards[SOLID], np.random.default_rng(1)
    wish = Wish(type=card.type, diameter_mm=card.diameter_mm, entry=SOLID)
    size = (card.diameter_mm, card.diameter_mm)

    def flat() -> object:
        deformation = draw_deformation(rng)
        return render(bank.lesion(SOLID), deformation, diameter_mm=size[0], spacing_mm=SLICE_MM, centre=(0.0, 0.0, 0.0))

    grid = to_grid(bank.lesion(SOLID)).values
    places = np.indices(grid.shape[1:]).astype(np.float64) + 0.25
    resampled = median_ms(lambda: [map_coordinates(channel, places, order=3) for channel in grid])
    reference = f"one cubic resampling of 2 x 32^3: {resampled:.0f} ms"
    return [
        (f"sample in slices of {SLICE_MM[0]:g} mm", f"{median_ms(flat):.0f} ms", "50 ms", reference),
        (
            "sample in three dimensions, 32^3",
            f"{median_ms(lambda: draw_sample(Deform(), wish, bank, rng, size_mm=size)):.0f} ms",
            "250 ms",
            reference,
        ),
    ]


def matte_rows(bank: Bank) -> list[Row]:
    """A solid and a part-solid lesion of the bank in lung, taken apart again."""
    rows = []
    for name, soft in ((SOLID, False), (SOFT, True)):
        lesion = bank.lesion(name)
        alpha = np.pad(lesion.alpha / ALPHA_ONE, AROUND)
        tissue = np.pad(lesion.intensity_hu.astype(np.float64), AROUND, mode="edge")
        hu = np.round(alpha * tissue + (1 - alpha) * LUNG_HU).astype(np.int16)
        readers = (4 * (alpha > 0.5)).astype(np.uint8)
        spacing = (lesion.voxel_mm,) * 3
        taken = median_ms(partial(pull_matte, hu, readers, spacing_mm=spacing, soft=soft))
        distances = median_ms(partial(distance_transform_edt, readers == 0))
        size = " x ".join(map(str, hu.shape))
        reference = f"a distance transform of the same voxels: {distances:.0f} ms"
        rows.append((f"matte of {name}, {size} voxels", f"{taken:.0f} ms", "1000 ms", reference))
    return rows


def reckoned_seconds(grid: NDArray[np.floating], name: str) -> float:
    """Seconds of a preset's whole run, from a few iterations of each scale."""
    whole = preset(name, grid.ndim - 1)
    short = dataclasses.replace(whole, iterations=(ITERATIONS,), report_every=1)
    clocks: dict[int, list[float]] = {}

    def told(line: dict[str, Any]) -> None:
        clocks.setdefault(line["scale"], []).append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        train_singan([grid], short, out=Path(folder) / name, report=told)
    steps = {scale: float(np.median(np.diff(clock))) for scale, clock in clocks.items()}  # the first one sets up
    return sum(whole.iterations_at(scale) * step for scale, step in steps.items())


def singan_rows(bank: Bank) -> list[Row]:
    """`better` beside `paper` in two dimensions, and in three."""
    lesion = bank.lesion(SOLID)
    better, paper = (reckoned_seconds(crop_2d(lesion), name) for name in ("better", "paper"))
    solid = reckoned_seconds(to_grid(lesion).values, "better")
    what = f"reckoned from {ITERATIONS} iterations a scale"
    times = f"`paper`, the same: {paper:.0f} s, {paper / better:.0f} times"
    return [
        (f"SinGAN `better`, 64 px, {what}", f"{better:.0f} s", "a tenth of `paper`", times),
        (f"SinGAN `better`, 32^3, {what}", f"{solid:.0f} s", "300 s", f"64 px: {better:.0f} s"),
    ]


def rows() -> list[Row]:
    """All of them, networks on one thread."""
    torch.set_num_threads(1)
    bank = load_bank()
    return [*sample_rows(bank), *matte_rows(bank), *singan_rows(bank)]


@click.command(help=__doc__)
def main() -> None:
    click.echo("| what | measured | bound | reference, same run |\n| --- | --- | --- | --- |")
    for row in rows():
        click.echo(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
