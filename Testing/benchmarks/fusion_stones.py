"""Are stones on an abdominal film as bright and as sharp as the real ones of the same film?

python -m Testing.benchmarks.fusion_stones FOLDER_OF_ct_abdomen_kub_totalseg

The film is projected from a CT with three known stones: a stand-in, not a radiograph. Each real stone is erased from
the CT and one of the same volume drawn in its place on the film of what is left, with the film's scale known
(attenuation) and unknown (by the spine). One patient, three stones: leads, no statistics.
"""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label

from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.choices import FusionName
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.inpaint import inpaint
from HiResMedSynthLib.joining.film_shadow import ShadowMeasures, shadow_measures
from HiResMedSynthLib.project import project
from HiResMedSynthLib.read import read_image

FILM_MM = (0.6, 0.6)
ROOM = 8  # voxels around a stone
SEEDS = range(5)


def without_stone(ct: MedicalImage, at: list[int]) -> tuple[MedicalImage, float]:
    """(the CT with the stone there filled from its surroundings, the stone's diameter in mm)."""
    hu = ct.pixels.copy()
    crop = hu[tuple(slice(max(c - ROOM, 0), c + ROOM + 1) for c in at)]
    middle = tuple(min(c, ROOM) for c in at)
    pieces, _ = label(crop > (np.median(crop) + crop[middle]) / 2, np.ones((3, 3, 3)))
    stone = pieces == pieces[middle]
    gone = binary_dilation(stone, iterations=2)
    np.copyto(crop, np.round(inpaint(crop.astype(np.float32), gone)).astype(hu.dtype), where=gone)
    return ct.with_pixels(hu), float((6 * stone.sum() * math.prod(ct.spacing_mm) / math.pi) ** (1 / 3))


def measured(film: MedicalImage, empty: MedicalImage) -> tuple[ShadowMeasures, NDArray[np.float64]]:
    """(the measures of what the first has and the second lacks, that difference)."""
    shadow = film.pixels[0].astype(np.float64) - empty.pixels[0]
    return shadow_measures(np.maximum(shadow, 0), spacing_mm=film.spacing_mm[1:], around=1.0), shadow


def drawn(ground: Ground, place: tuple[int, int], diameter_mm: float, fusion: FusionName) -> tuple[float, float]:
    """(median contrast, median edge width) of stones of that size there, over some seeds."""
    found = []
    for seed in SEEDS:
        request = LesionRequest(
            place=(0.0, float(place[0]), float(place[1])), size_mm=(diameter_mm, diameter_mm), type="stone", seed=seed
        )
        case = draw_case(ground.image, CaseSettings(requests=(request,), domain="kub", fusion=fusion), 1, ground=ground)
        measures, _ = measured(compose(ground.image, case).image, ground.image)
        found.append((measures.contrast, measures.edge_width_mm))
    contrast, width = np.median(found, axis=0)
    return float(contrast), float(width)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def main(folder: Path) -> None:
    """Prints a table."""
    ct = read_image(folder / "ct_3mm.nrrd")
    film = project(ct, pixel_spacing_mm=FILM_MM)
    click.echo(
        "| stone | scale | way | contrast over real | edge width over real, mm |\n| --- | --- | --- | --- | --- |"
    )
    with (folder / "stones.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        without, diameter = without_stone(ct, [round(float(row[name])) for name in ("slice", "row", "col")])
        empty = project(without, pixel_spacing_mm=FILM_MM)
        real, shadow = measured(film, empty)
        at = np.unravel_index(int(shadow.argmax()), shadow.shape)
        for words, ground in (
            ("known", prepare_ground(empty, domain="kub")),
            ("by the spine", prepare_ground(replace(empty, oddities=()), domain="kub")),
        ):
            for way in ("better", "alpha"):
                contrast, width = drawn(ground, (int(at[0]), int(at[1])), diameter, way)
                click.echo(
                    f"| {diameter:.1f} mm | {words} | {way} | {contrast / real.contrast:.2f} "
                    f"| {width:.1f} / {real.edge_width_mm:.1f} |"
                )


if __name__ == "__main__":
    main()
