r"""Measures real nodules in their scans and writes the ranges that `joining/acceptance.py` tests lesions by.

python -m Training.build_nodule_ranges FOLDER_OF_lidc_nodule_voi_hu \
    --out HiResMedSynthLib/joining/range_data/nodule_ranges.json
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from HiResMedSynthLib.joining.acceptance import TESTED, THICK_SLICES_MM
from HiResMedSynthLib.measure import LesionMeasures, lesion_measures
from Training.nodule_source import ATTRIBUTION, LICENCE, SourceNodule, nodules

MEASURES = (*TESTED, "noise_hu", "texture_hu", "contrast_hu")
FEWEST = 20  # nodules of a cell; a type with fewer in thick or thin slices gets one for both
PERCENTILES = (5, 50, 95)


def measured(nodule: SourceNodule) -> LesionMeasures:
    """The nodule in its own scan."""
    return lesion_measures(nodule.hu, nodule.majority, spacing_mm=nodule.spacing_mm)


def ranges(found: list[tuple[str, float, LesionMeasures]]) -> list[dict[str, object]]:
    """The cells of the table; of (type, slice spacing, measures)."""
    cells: list[dict[str, object]] = []
    for kind in sorted({row[0] for row in found}):
        rows = [(spacing, asdict(measures)) for type_, spacing, measures in found if type_ == kind]
        groups = {
            "thin": [values for spacing, values in rows if spacing < THICK_SLICES_MM],
            "thick": [values for spacing, values in rows if spacing >= THICK_SLICES_MM],
        }
        if min(len(group) for group in groups.values()) < FEWEST:
            groups = {}
        for scans, group in {**groups, "any": [values for _, values in rows]}.items():
            cells.append({"type": kind, "scans": scans, "n": len(group), "measures": _percentiles(group)})
    return cells


def _percentiles(group: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    table = {}
    for name in MEASURES:
        values = np.array([row[name] for row in group])
        values = values[np.isfinite(values)]
        low, median, high = (float(f"{x:.4g}") for x in np.percentile(values, PERCENTILES))
        table[name] = {"n": len(values), "low": low, "median": median, "high": high}
    return table


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The JSON file to write.")
def main(folder: Path, out: Path) -> None:
    """Measures all nodules of FOLDER (one a patient) and writes the percentiles by type and slice spacing."""
    found = [(nodule.type, nodule.spacing_mm[0], measured(nodule)) for nodule in nodules(folder)]
    document = {
        "what": "5th, 50th and 95th percentile of measures of real lung nodules in their own CT, one a patient",
        "collection": "LIDC-IDRI", "licence": LICENCE, "attribution": ATTRIBUTION,
        "made_by": "Training/build_nodule_ranges.py", "nodules": len(found),
        "thick_means_mm_from": THICK_SLICES_MM, "cells": ranges(found),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    click.echo(f"{out}: {len(found)} nodules, {out.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
