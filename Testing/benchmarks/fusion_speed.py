"""Seconds of joining in three dimensions, each beside a reference in the same run (a part of `make bench`).

`python -m Testing.benchmarks.fusion_speed`: a lesion of 20 mm into a CT of 300 x 512 x 512, and what is estimated of
that CT once. Seconds of the processor; medians.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import click
import numpy as np

from HiResMedSynthLib.case import BackgroundReference, Case, CaseSettings, LesionRequest, PlacedLesion
from HiResMedSynthLib.compose import compose, compose_patches
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.joining.noise_texture import noise_texture
from HiResMedSynthLib.joining.scan_resolution import scan_resolution
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE
from HiResMedSynthLib.read import read_image
from Testing.benchmarks.lesion_speed import Row, median_ms
from Testing.benchmarks.series import thin_series

ROOT = Path(__file__).resolve().parents[2]
DIAMETER_MM = 20.0


def ball_in(image: MedicalImage) -> Case:
    """A case of one solid ball in the middle of the image."""
    half = [math.ceil(DIAMETER_MM / 2 / step) + 1 for step in image.spacing_mm]
    axes = [np.arange(-n, n + 1) * mm for n, mm in zip(half, image.spacing_mm, strict=True)]
    away = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    alpha = np.clip(DIAMETER_MM / 2 + 0.5 - away, 0, 1)
    centre = tuple(size // 2 for size in image.shape)
    request = LesionRequest(seed=0)
    lesion = PlacedLesion(
        number=1, request=request, bank_entry="bench", origin="procedural", type="solid", center=centre,
        center_lps_mm=(0.0, 0.0, 0.0), diameter_mm=DIAMETER_MM, contrast=800.0, cnr=40.0, mode="blend",
        corner=tuple(c - n for c, n in zip(centre, half, strict=True)),
        intensity=np.full(alpha.shape, 40, np.int16), alpha=np.round(alpha * ALPHA_ONE).astype(np.uint16),
    )  # fmt: skip
    return Case(
        background=BackgroundReference.of(image, domain="lung-ct"),
        settings=CaseSettings(requests=(request,), domain="lung-ct"),
        seed=0,
        lesions=(lesion,),
    )


def rows(series: Path) -> list[Row]:
    """All of them, on the CT in `series`."""
    image = read_image(series)
    case, size = ball_in(image), " x ".join(map(str, image.shape))
    copied = f"one copy of the volume: {median_ms(image.pixels.copy):.0f} ms"

    def estimated() -> None:
        scan_resolution(image.pixels, spacing_mm=image.spacing_mm)
        noise_texture(image.pixels)

    what = f"one lesion of {DIAMETER_MM:g} mm into {size}"
    return [
        (f"{what}: its patch", f"{median_ms(partial(compose_patches, image, case)):.0f} ms", "150 ms", copied),
        (f"{what}: a new volume", f"{median_ms(partial(compose, image, case)):.0f} ms", "150 ms", copied),
        (f"resolution and noise of {size}, once", f"{median_ms(estimated) / 1000:.1f} s", "2 s", copied),
    ]


@click.command(help=__doc__)
def main() -> None:
    series = thin_series(ROOT / "Testing" / "data" / "ct_series", ROOT / "runs" / "bench" / "ct300")
    click.echo("| what | measured | bound | reference, same run |\n| --- | --- | --- | --- |")
    for row in rows(series):
        click.echo(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
