"""How long `evaluate` takes: pairs of 512 x 512, features of both sides, distances, and all of it again cached.

Run `python -m Testing.benchmarks.evaluation_speed [--pairs 100]`: DICOM slices made from Testing/data/ct_series, each
turned, scaled and with grain of its own. CPU seconds of this process, all threads; 1,000 pairs are extrapolated.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from HiResMedSynthLib.evaluation.comparable import common_grid, survey
from HiResMedSynthLib.evaluation.evaluate_sets import EvaluationSettings, evaluate
from HiResMedSynthLib.evaluation.feature_cache import FOLDER_VARIABLE, FeatureCache
from HiResMedSynthLib.evaluation.image_sets import find_images
from HiResMedSynthLib.evaluation.measure_side import measure_side
from HiResMedSynthLib.evaluation.pairs import measure_pairs, plan_pairs
from HiResMedSynthLib.evaluation.resampling import DRAWS
from HiResMedSynthLib.evaluation.set_distances import Pool, set_distances
from HiResMedSynthLib.evaluation.texture_features import SPACE
from HiResMedSynthLib.read import read_image
from Testing.slices import write_slice

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = ROOT / "runs" / "bench" / "evaluation"
WANTED = 1000


def make_pairs(folder: Path, count: int) -> None:
    """real/ and made/ with one slice a patient, the made one with grain and a little softer contrast."""
    volume = read_image(ROOT / "Testing" / "data" / "ct_series").pixels.astype(np.float64)
    rng = np.random.default_rng(0)
    for number in range(count):
        hu = np.rot90(volume[number % len(volume)], number // len(volume) % 4) * rng.uniform(0.9, 1.1)
        for side, factor in (("real", 1.0), ("made", 0.98)):
            stored = np.clip(factor * hu + rng.normal(0, 15, hu.shape) + 1024, 0, 4095).astype(np.uint16)
            write_slice(
                folder / side / f"{number:04d}.dcm", stored, SeriesInstanceUID=f"1.2.8.{number}", WindowCenter=-600,
                WindowWidth=1500, PatientID=f"{side}{number}",
            )  # fmt: skip


def took(work: Callable[[], object]) -> tuple[float, float]:
    """(CPU, wall) seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def quiet(_done: int, _total: int, _what: str) -> None:
    """No progress."""


@click.command(help=__doc__)
@click.option("--pairs", "count", default=100, show_default=True)
def main(count: int) -> None:
    shutil.rmtree(SCRATCH, ignore_errors=True)
    make_pairs(SCRATCH, count)
    os.environ[FOLDER_VARIABLE] = str(SCRATCH / "cache")
    sources = [find_images(SCRATCH / side) for side in ("real", "made")]
    facts = [survey(side, most=1, progress=quiet, what="") for side in sources]
    grid, _ = common_grid(*facts, window=None, resample=False)
    plans = plan_pairs(*sources, by_name=True)

    def features() -> None:
        for side in facts:
            measure_side(side, grid, most=1, spaces=(SPACE,), cache=FeatureCache(None), progress=quiet, what="")

    def look() -> None:
        for side in sources:
            survey(side, most=1, progress=quiet, what="")

    rows = [
        ("looking at both sides (hash, thumbnail)", look),
        ("PSNR, NMSE, SSIM, MS-SSIM of the pairs, read",
         lambda: measure_pairs(plans, grid, most=1, learned_pairs=0, progress=quiet)),
        ("features and statistics of both sides, read", features),
    ]  # fmt: skip
    click.echo(f"{os.cpu_count()} CPUs, {count} pairs of {grid.size[0]} x {grid.size[1]}\n")
    click.echo(f"| what | {count} pairs, CPU s | wall s | {WANTED} pairs, CPU s (extrapolated) |")
    click.echo("| --- | --- | --- | --- |")
    for what, work in rows:
        cpu, wall = took(work)
        click.echo(f"| {what} | {cpu:.1f} | {wall:.1f} | {cpu * WANTED / count:.0f} |")
    rng = np.random.default_rng(0)
    pool, groups = Pool(*rng.normal(size=(2, WANTED, 125))), [f"{k}" for k in range(WANTED)]
    part = 10
    cpu, wall = took(lambda: set_distances(pool, groups, groups, seed=0, draws=part))
    click.echo(f"| distances of {WANTED} against {WANTED}, {part} of {DRAWS // 2} draws | {cpu:.1f} | {wall:.1f} | "
               f"{cpu * DRAWS / 2 / part:.0f} |")  # fmt: skip
    settings = EvaluationSettings(paired=True, allow_shared=True, slices=1, learned_pairs=0)
    for what in ("all of `evaluate --paired`, without the report", "the same again, from the cache"):
        cpu, wall = took(lambda: evaluate(SCRATCH / "real", SCRATCH / "made", settings))
        click.echo(f"| {what} | {cpu:.1f} | {wall:.1f} | |")


if __name__ == "__main__":
    main()
