"""How long the learned placement takes, each figure beside the rule's in the same run.

Run `python -m Testing.benchmarks.placement_speed`: a film of 1024 x 1024, a CT of 300 x 512 x 512, 20 candidates, and
`compose` of that CT with its DICOM written, all by the shipped networks and by the rules.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.method import PlacementMethod
from HiResMedSynthLib.propose import propose
from HiResMedSynthLib.read import read_image
from Testing.benchmarks.process import run
from Testing.benchmarks.series import thin_series

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = ROOT / "runs" / "bench"
COMMAND = str(Path(sys.executable).parent / "hiresmedsynth")
WAYS = {"learned": PlacementMethod(), "rule": PlacementMethod(danger="rule", prior="density")}
REPEATS = 5


def median_seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median of several runs after one that loads what is needed."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def prepared(image: MedicalImage, placement: PlacementMethod) -> Ground:
    """Danger mask and heatmap, the latter thrown away."""
    ground = prepare_ground(image, placement=placement)
    ground.heat()
    return ground


@click.command(help=__doc__)
def main() -> None:
    data = ROOT / "Testing" / "data"
    film = read_image(data / "cxr" / "nih_cxr_dx.dcm", spacing_mm=(0.342, 0.4175))
    series = thin_series(data / "ct_series", SCRATCH / "series")
    volume = read_image(series)
    one = volume.single_slice(150)
    click.echo("| what | learned | rule |\n| --- | --- | --- |")

    def row(what: str, work: Callable[[PlacementMethod], object], repeats: int = REPEATS) -> None:
        found = [f"{median_seconds(lambda way=way: work(way), repeats):.3f} s" for way in WAYS.values()]
        click.echo(f"| {what} | {' | '.join(found)} |")

    row(f"film {film.rows} x {film.columns}: danger mask and heatmap", lambda way: prepared(film, way))
    row("one slice 512 x 512: the same", lambda way: prepared(one, way))
    row("CT 300 x 512 x 512: the same", lambda way: prepared(volume, way), 1)
    grounds = {name: prepare_ground(film, placement=way) for name, way in WAYS.items()}
    found = [f"{median_seconds(lambda g=ground: propose(g, count=20, seed=1)):.3f} s" for ground in grounds.values()]
    click.echo(f"| 20 candidates on the film | {' | '.join(found)} |")
    taken = []
    for name, way in WAYS.items():
        out = SCRATCH / f"placed-{name}"
        told = ["--danger", way.danger, "--prior", way.prior]
        arguments = [COMMAND, "compose", str(series), "--lesions", "3", "--seed", "7", "--out", str(out), "--overwrite"]
        measured = run(*arguments, *told)
        taken.append(f"{measured.wall_s:.1f} s, {measured.peak_mib:.0f} MiB")
    click.echo(f"| compose with 300 slices written, from the command line | {' | '.join(taken)} |")


if __name__ == "__main__":
    main()
