"""How well a nodule is taken apart: recomposed in its own place, error inside and in the rim.

python -m Testing.benchmarks.matte FOLDER_OF_lidc_nodule_voi_hu
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from pathlib import Path

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


def main() -> None:
    """Prints a table by type."""
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for nodule in nodules(Path(sys.argv[1])):
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
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
