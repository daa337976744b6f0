r"""Measures real nodules as films would show them and writes the table that `joining/film_contrasts.py` reads.

python -m Training.build_film_contrasts FOLDER_OF_lidc_nodule_voi_hu --chest CHEST_CT --abdomen ABDOMEN_CT \
    --out HiResMedSynthLib/joining/range_data/film_contrasts.json

A nodule is erased from its CT (`inpaint`); what it adds to rays along the slices, in mm of water, is its shadow. Rays
run along the slices because the crops are wide in plane and tight across. Every fifth patient is left out, for tests.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from HiResMedSynthLib.inpaint import inpaint
from HiResMedSynthLib.joining.film_anatomy import FilmAnatomy, film_anatomy
from HiResMedSynthLib.joining.film_contrasts import SHARES, FilmReference
from HiResMedSynthLib.joining.film_scale import region_ranges, spine_contrast
from HiResMedSynthLib.joining.film_shadow import ShadowMeasures, shadow_measures
from HiResMedSynthLib.lesion.matte import pull_matte
from HiResMedSynthLib.measure import lesion_region
from HiResMedSynthLib.placement.danger_map import SPINE
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.method import PlacementMethod
from HiResMedSynthLib.placement.regions_film import find_film_regions
from HiResMedSynthLib.placement.rule_kub import danger_kub
from HiResMedSynthLib.project import MU_WATER_PER_MM, STORED_PER_LINE_INTEGRAL, project
from HiResMedSynthLib.read import read_image
from Training.nodule_source import ATTRIBUTION, LICENCE, SourceNodule, nodules

ERASED_MM = 2.0  # outside the readers' union
SIZES_MM = {
    "solid": (3.5, 6, 8, 11, 16, 40),
    "calcified": (3.5, 7, 40),
    "part-solid": (3.5, 40),
    "ground-glass": (3.5, 40),
}
EVERY_TEST = 5
PLACES = 200  # of the projected chest, for each cell
FILM_MM = 0.8


@dataclass(frozen=True, kw_only=True, eq=False)
class Shadow:
    """A real nodule's shadow: mm of water `[row, column]`, pixel spacing, diameter of its matte's volume as a ball."""

    depth_mm: NDArray[np.float32]
    spacing_mm: tuple[float, float]
    diameter_mm: float


def is_test_patient(patient_id: str) -> bool:
    """Every fifth LIDC patient by number."""
    return int(patient_id.rsplit("-", 1)[1]) % EVERY_TEST == 0


def shadow_of(nodule: SourceNodule) -> Shadow | None:
    """What the nodule adds to rays along the slices; None where its readers or its surroundings say too little."""
    region, parenchyma = lesion_region(nodule.hu, nodule.majority, spacing_mm=nodule.spacing_mm)
    if nodule.readers.max() < 3 or not region.any() or parenchyma.sum() < 100:
        return None
    gone = distance_transform_edt(nodule.readers == 0, sampling=nodule.spacing_mm) <= ERASED_MM
    filled = inpaint(nodule.hu.astype(np.float32), gone, spacing_mm=nodule.spacing_mm)
    depth = (nodule.hu - filled).sum(axis=0) / 1000.0 * nodule.spacing_mm[0]
    soft = nodule.type in ("part-solid", "ground-glass")
    matte = pull_matte(nodule.hu, nodule.readers, spacing_mm=nodule.spacing_mm, soft=soft)
    # as lesions are measured that are put onto films
    diameter = (6 * float(matte.alpha.sum()) * math.prod(nodule.spacing_mm) / math.pi) ** (1 / 3)
    return Shadow(
        depth_mm=np.maximum(depth, 0).astype(np.float32), spacing_mm=nodule.spacing_mm[1:], diameter_mm=diameter
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Chest:
    """A projected chest in mm of water: its anatomy, and the ranges of lungs and mediastinum."""

    anatomy: FilmAnatomy
    step: float
    lung_range: float
    mediastinum_range: float


def projected_chest(path: Path) -> Chest:
    """A chest CT as a film, measured as films are: with the lungs that the network sees on it."""
    film = project(read_image(path), pixel_spacing_mm=(FILM_MM, FILM_MM))
    network = PlacementMethod().danger_network("cxr")
    assert network is not None
    regions = find_film_regions(film, network)
    heart = regions.seen("mediastinum and heart", above=0.2)
    lungs = regions.lungs(above=0.5) & ~heart
    water = film.pixels[0] / (MU_WATER_PER_MM * STORED_PER_LINE_INTEGRAL)
    (lung, lung_range), (dense, dense_range) = region_ranges(water, lungs, heart)
    return Chest(
        anatomy=film_anatomy(water, lungs, spacing_mm=film.spacing_mm[1:]),
        step=dense - lung, lung_range=lung_range, mediastinum_range=dense_range,
    )  # fmt: skip


def spine_of(path: Path) -> float:
    """Spine against flank of a projected abdomen, mm of water."""
    film = project(read_image(path), pixel_spacing_mm=(FILM_MM, FILM_MM))
    danger = danger_kub(film, margins=Margins())
    water = film.pixels[0] / (MU_WATER_PER_MM * STORED_PER_LINE_INTEGRAL)
    free = danger.region(())
    spine = danger.region((SPINE,)) & ~free
    return spine_contrast(water, spine[0], free[0], column_mm=film.spacing_mm[2])


def anatomy_samples(anatomy: FilmAnatomy, diameter_mm: float) -> NDArray[np.float64]:
    """Standard deviations of the anatomy around places of a nodule of that size, drawn over the lungs."""
    rng = np.random.default_rng(0)
    at = np.argwhere(anatomy.inside)
    size = max(1, round(diameter_mm / FILM_MM))
    found = []
    for row, column in at[rng.integers(len(at), size=PLACES)]:
        corner = round(row / anatomy.per_pixel[0]) - size // 2, round(column / anatomy.per_pixel[1]) - size // 2
        found.append(anatomy.around(corner, (size, size)))
    return np.array(found)


def cells(
    found: dict[str, list[tuple[float, ShadowMeasures]]], anatomy: FilmAnatomy
) -> dict[str, list[dict[str, object]]]:
    """The cells of the table by type; of (diameter, measures)."""
    table: dict[str, list[dict[str, object]]] = {}
    for kind, limits in SIZES_MM.items():
        for low, high in pairwise(limits):
            group = [(d, m) for d, m in found.get(kind, []) if low <= d < high and m.contrast > 0]
            diameters = np.array([d for d, _ in group])
            contrasts = np.array([m.contrast for _, m in group])
            widths = np.array([m.edge_width_mm for _, m in group])
            around = anatomy_samples(anatomy, float(np.median(diameters)))
            cnr = (contrasts[:, None] / around).ravel()
            table.setdefault(kind, []).append({
                "n": len(group), "diameter_mm": _short(np.median(diameters)),
                "depth_per_mm": [_short(x) for x in np.quantile(contrasts / diameters, SHARES)],
                "edge_width_mm": _range(widths), "anatomic_cnr": _range(cnr, len(group)),
            })  # fmt: skip
    return table


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _range(values: NDArray[np.float64], n: int | None = None) -> dict[str, float]:
    values = values[np.isfinite(values)]
    low, median, high = (_short(x) for x in np.percentile(values, [5, 50, 95]))
    return {"n": len(values) if n is None else n, "low": low, "median": median, "high": high}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--chest", "chest_file", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--abdomen", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The JSON file to write.")
def main(folder: Path, chest_file: Path, abdomen: Path, out: Path) -> None:
    """Measures the nodules of FOLDER (one a patient) and writes the table."""
    chest = projected_chest(chest_file)
    found: dict[str, list[tuple[float, ShadowMeasures]]] = {}
    for nodule in nodules(folder):
        if is_test_patient(nodule.patient_id) or (shadow := shadow_of(nodule)) is None:
            continue
        measures = shadow_measures(shadow.depth_mm, spacing_mm=shadow.spacing_mm, around=1.0)
        found.setdefault(nodule.type, []).append((shadow.diameter_mm, measures))
    reference = FilmReference(
        detail=_short(chest.anatomy.spread),
        step=_short(chest.step),
        lung_range=_short(chest.lung_range),
        mediastinum_range=_short(chest.mediastinum_range),
        spine=_short(spine_of(abdomen)),
    )
    document = {
        "what": "depth of real lung nodules in mm of water along rays, over their diameter, at shares of nodules; 5th, "
        "50th and 95th percentile of rim width and of depth over the anatomy of a projected chest",
        "collection": "LIDC-IDRI; spine: TotalSegmentator example CT (Apache-2.0)",
        "licence": LICENCE, "attribution": ATTRIBUTION, "made_by": "Training/build_film_contrasts.py",
        "nodules": sum(map(len, found.values())), "shares": SHARES, "reference": vars(reference),
        "cells": cells(found, chest.anatomy),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    part.replace(out)
    click.echo(f"{out}: {document['nodules']} nodules, {out.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
