"""How well a nodule is taken apart: recomposed in its own place, error inside and in the rim.

python -m Testing.benchmarks.matte FOLDER_OF_lidc_nodule_voi_hu
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

import click
import numpy as np
from scipy.ndimage import distance_transform_edt

from HiResMedSynthLib.lesion.matte import pull_matte
from Training.build_bank import judge
from Training.nodule_source import SourceNodule, nodules

RIM_MM = 1.5


def rmse(nodule: SourceNodule, recomposed: np.ndarray) -> tuple[float, float]:
    """(inside the majority outline, within 1.5 mm of it), HU."""
    inside = nodule.majority
    away = distance_transform_edt(~inside, sampling=nodule.spacing_mm)
    depth = distance_transform_edt(inside, sampling=nodule.spacing_mm)
    rim = ((away > 0) & (away <= RIM_MM)) | ((depth > 0) & (depth <= RIM_MM))
    error = recomposed - nodule.hu
    return float(np.sqrt((error[inside] ** 2).mean())), float(np.sqrt((error[rim] ** 2).mean()))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def main(folder: Path) -> None:
    """Prints a table by type, of the nodules in FOLDER."""
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for nodule in nodules(folder):
        if judge(nodule) is None:
            continue
        start = time.perf_counter()
        soft = nodule.type in ("part-solid", "ground-glass")
        matte = pull_matte(nodule.hu, nodule.readers, spacing_mm=nodule.spacing_mm, soft=soft)
        seconds = time.perf_counter() - start
        for kind in (nodule.type, "all"):
            found[kind].append((*rmse(nodule, matte.recomposed()), seconds))
    lines = ["| type | n | inside, HU | rim, HU | s (median, worst) |", "| --- | --- | --- | --- | --- |"]
    for kind, rows in found.items():
        inside, rim, seconds = np.median(rows, axis=0)
        worst = max(row[2] for row in rows)
        lines.append(f"| {kind} | {len(rows)} | {inside:.1f} | {rim:.1f} | {seconds:.2f}, {worst:.2f} |")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
