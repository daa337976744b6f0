"""How long the learned placement takes, each figure beside the rule's in the same run.

`python -m Testing.benchmarks.placement_speed`: a film of 1024 x 1024, a CT of 300 x 512 x 512, 20 candidates (these are
a part of `make bench`), and `compose` of that CT with its DICOM written, all by the shipped networks and by the rules.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import numpy as np

from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.method import PlacementMethod
from HiResMedSynthLib.propose import propose
from HiResMedSynthLib.read import read_image
from Testing.benchmarks.lesion_speed import Row
from Testing.benchmarks.process import run
from Testing.benchmarks.series import SLICES, thin_series

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


def prepared(image: MedicalImage, placement: PlacementMethod, device: str = "cpu") -> Ground:
    """Danger mask and heatmap, the latter thrown away."""
    ground = prepare_ground(image, placement=placement, device=device)
    ground.heat()
    return ground


def rows(series: Path) -> list[Row]:
    """Danger mask and heatmap, and candidates; the CT in `series`."""
    film = read_image(ROOT / "Testing" / "data" / "cxr" / "nih_cxr_dx.dcm", spacing_mm=(0.342, 0.4175))
    volume = read_image(series)

    def row(what: str, bound: str, work: Callable[[str], object], repeats: int = REPEATS) -> Row:
        learned, rule = (median_seconds(partial(work, name), repeats) for name in WAYS)
        return what, f"{learned:.3f} s", bound, f"by rule: {rule:.3f} s"

    def both(image: MedicalImage) -> Callable[[str], object]:
        return lambda name: prepared(image, WAYS[name])

    grounds = {name: prepare_ground(film, placement=way) for name, way in WAYS.items()}
    ways = "danger mask and heatmap"
    return [
        row(f"{ways}, film of {film.rows} x {film.columns}", "1.5 s", both(film)),
        row(f"{ways}, one slice of 512 x 512", "", both(volume.single_slice(SLICES // 2))),
        row(f"{ways}, {' x '.join(map(str, volume.shape))}", "60 s", both(volume), 1),
        row("20 candidates on the film", "50 ms", lambda name: propose(grounds[name], count=20, seed=1)),
        asked_place(volume),
    ]


def asked_place(volume: MedicalImage) -> Row:
    """A case of one lesion whose place is given, in a CT that nobody looked at yet: only the slices around it are."""
    heights = volume.positions_lps_mm[:1] + np.arange(volume.slices)[:, np.newaxis] * volume.normal_lps
    image = replace(volume, positions_lps_mm=heights, slice_thickness_mm=1.0)
    drawn = draw_case(image, CaseSettings(requests=(LesionRequest(size_mm=(8, 10)),)), 7)
    asked = drawn.pinned_settings()
    looked = prepare_ground(image, margins=asked.margins, placement=asked.placement)
    seconds = median_seconds(lambda: draw_case(image, asked, 7), 1)
    whole = median_seconds(lambda: draw_case(image, drawn.settings, 7), 1)
    again = median_seconds(lambda: draw_case(image, asked, 7, ground=looked), 1)
    told = f"place drawn, from all slices: {whole:.1f} s; looked at before: {again:.2f} s"
    return f"lesion at a given place, {image.slices} slices of 1 mm, mask and all", f"{seconds:.1f} s", "", told


def rows_on(device: str, series: Path) -> list[Row]:
    """Danger mask and heatmap with the networks on a GPU, beside ONNX Runtime on the CPU in the same run."""
    film = read_image(ROOT / "Testing" / "data" / "cxr" / "nih_cxr_dx.dcm", spacing_mm=(0.342, 0.4175))
    volume = read_image(series)
    found = []
    for image, bound, repeats in ((film, "30 ms", REPEATS), (volume, "", 1)):
        there, here = (
            median_seconds(lambda image=image, where=where: prepared(image, PlacementMethod(), where), repeats)  # type: ignore[misc]
            for where in (device, "cpu")
        )
        what = f"danger mask and heatmap on {device}, {' x '.join(map(str, image.shape))}"
        found.append((what, f"{1000 * there:.0f} ms", bound, f"on the CPU: {1000 * here:.0f} ms"))
    return found


def composed(series: Path) -> Row:
    """`compose` from the command line, all slices written."""
    taken = []
    for name, way in WAYS.items():
        out = SCRATCH / f"placed-{name}"
        told = ["--danger", way.danger, "--prior", way.prior]
        arguments = [COMMAND, "compose", str(series), "--lesions", "3", "--seed", "7", "--out", str(out), "--overwrite"]
        measured = run(*arguments, *told)
        taken.append(f"{measured.wall_s:.1f} s, {measured.peak_mib:.0f} MiB")
    return f"compose with {SLICES} slices written, from the command line", taken[0], "90 s", f"by rule: {taken[1]}"


@click.command(help=__doc__)
@click.option("--device", default="cpu", show_default=True, help="cuda: times the networks there instead.")
def main(device: str) -> None:
    series = thin_series(ROOT / "Testing" / "data" / "ct_series", SCRATCH / "ct300")
    click.echo("| what | measured | bound | reference, same run |\n| --- | --- | --- | --- |")
    for row in (*rows(series), composed(series)) if device == "cpu" else rows_on(device, series):
        click.echo(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
