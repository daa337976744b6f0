r"""Nodules as standard grids, the input of the lesion generators and of the machine reader.

python -m Training.nodule_grids FOLDER_OF_lidc_nodule_voi_hu --out nodules.npz

Output format (a site can make the same file from its own nodules; read without pickle), n nodules:

    values        float16 [n, 2, 32, 32, 32]: channel 0 alpha * (F + 860) / 1000, F the lesion's own tissue in HU,
                  channel 1 alpha, 0..1; axes slice, row, column; the longest side of alpha > .05 spans 28 voxels
    voxel_mm      float32 [n]: edge of the cubic voxels
    diameter_mm   float32 [n]: of the sphere of equal volume, by the readers' outlines
    type          int64 [n]: index in HiResMedSynthLib.lesion.lesion.LESION_TYPES
    spiculation, lobulation, texture  float32 [n]: readers' mean ratings, 1..5
    noise_hu      float32 [n]: robust noise of the parenchyma nearby
    patient_id    str [n]: one patient's nodules never stand on both sides of the split
    strict        bool [n]: bank-worthy by Training.build_bank.judge
    held_out      bool [n]: of a patient held out (one of three parts by the SHA-256 of the id)

The laxer nodules (strict False) have slices at most 2.5 mm apart, 4-30 mm, noise at most 25 HU, an outline in one piece
and 4 voxels of margin.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label

from HiResMedSynthLib import measure
from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.choices import LESION_TYPES
from HiResMedSynthLib.errors import BankError, ReadError
from HiResMedSynthLib.lesion.lesion_grid import to_grid
from HiResMedSynthLib.patient_split import fold_of
from Training.build_bank import Judged, entry, judge
from Training.nodule_source import SourceNodule, nodules
from Training.options import told_plainly

LAX_SPACING_MM, LAX_NOISE_HU, LAX_MARGIN = 2.5, 25.0, 4
SIZES_MM = (4.0, 30.0)
NUMBERS = ("voxel_mm", "diameter_mm", "spiculation", "lobulation", "texture", "noise_hu")


def judge_laxly(nodule: SourceNodule) -> Judged | None:
    """The nodule if a generator may learn from it, else None; its share of dense shell is not measured (NaN)."""
    mask, spacing = nodule.majority, nodule.spacing_mm
    low_mm, high_mm = SIZES_MM
    if spacing[0] > LAX_SPACING_MM or not low_mm <= nodule.rating("diam_equiv_mm") <= high_mm:
        return None
    if label(mask, np.ones((3, 3, 3)))[1] != 1:
        return None
    rows, columns = np.flatnonzero(mask.any(axis=(0, 2))), np.flatnonzero(mask.any(axis=(0, 1)))
    margin = min(rows[0], columns[0], mask.shape[1] - 1 - rows[-1], mask.shape[2] - 1 - columns[-1])
    outside = distance_transform_edt(nodule.readers == 0, sampling=spacing)
    parenchyma = (outside > 4) & (nodule.hu < -700) & (nodule.hu > -1000)
    if margin < LAX_MARGIN or parenchyma.sum() < 100:
        return None
    noise = measure.noise(nodule.hu, parenchyma)
    return Judged(nodule, noise, np.nan, float(np.median(nodule.hu[parenchyma]))) if noise <= LAX_NOISE_HU else None


def nodule_grids(folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays of the output format, in the order of the folder's table.

    Raises:
        ReadError: the folder can't be read, or no nodule is usable.
    """
    rows: list[dict[str, Any]] = []
    for nodule in nodules(folder):
        strict = judge(nodule)
        judged = strict or judge_laxly(nodule)
        if judged is None:
            continue
        try:
            lesion = entry(judged, nodule.row["key"])
            grid = to_grid(lesion)
        except BankError:
            continue
        card = lesion.card
        rows.append(
            {
                "values": grid.values.astype(np.float16), "voxel_mm": grid.voxel_mm, "diameter_mm": card.diameter_mm,
                "type": LESION_TYPES.index(card.type), "spiculation": card.spiculation, "lobulation": card.lobulation,
                "texture": card.texture, "noise_hu": card.noise_hu, "patient_id": card.patient_id,
                "strict": strict is not None, "held_out": fold_of(nodule.patient_id) == 0,
            }
        )  # fmt: skip
    if not rows:
        raise ReadError("no nodule here can be used", where=folder, remedy="Give the folder lidc_nodule_voi_hu.")
    return {
        name: np.array([row[name] for row in rows], np.float32 if name in NUMBERS else None)
        if name != "values"
        else np.stack([row[name] for row in rows])
        for name in rows[0]
    }


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The npz file to write.")
@told_plainly()
def main(folder: Path, out: Path) -> None:
    """Writes the nodules of FOLDER (voi.npz and voi.csv) as grids, with the split by patient."""
    arrays = nodule_grids(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(out) as aside, aside.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    types = Counter(LESION_TYPES[index] for index in arrays["type"][arrays["strict"]])
    click.echo(
        f"{out}: {len(arrays['strict'])} nodules, {int(arrays['strict'].sum())} of them strict "
        f"({', '.join(f'{count} {kind}' for kind, count in types.items())}), {int(arrays['held_out'].sum())} held out"
    )


if __name__ == "__main__":
    main()
