r"""Measures what real nodules hang together with and writes the table that `joining/real_strands.py` draws from.

python -m Training.build_nodule_strands FOLDER_OF_lidc_nodule_voi_hu \
    --out HiResMedSynthLib/joining/range_data/nodule_strands.json
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from HiResMedSynthLib.joining.belonging import Attachment, belonging
from HiResMedSynthLib.joining.scan_resolution import DEFAULT_WIDTH_MM, WIDTH_TO_SIGMA
from HiResMedSynthLib.joining.tube import radius_of
from HiResMedSynthLib.measure import lesion_measures
from Training.nodule_source import ATTRIBUTION, LICENCE, SourceNodule, nodules

LEAST_SEEN = 0.5  # of the shell around a nodule: its box may be cut too tight along the slices


def row(nodule: SourceNodule) -> list[object] | None:
    """[type, diameter in mm, spiculation, share of the shell seen, [[radius in mm, reach in mm], ...]]."""
    found = belonging(nodule.hu, nodule.majority, spacing_mm=nodule.spacing_mm)
    if found is None or found.shell_seen < LEAST_SEEN:
        return None
    width = lesion_measures(nodule.hu, nodule.majority, spacing_mm=nodule.spacing_mm).edge_width_mm
    sigma = (width if math.isfinite(width) else DEFAULT_WIDTH_MM) / WIDTH_TO_SIGMA
    volume = float(found.region.sum()) * math.prod(nodule.spacing_mm)
    diameter = (6 * volume / math.pi) ** (1 / 3)

    def pair(one: Attachment) -> list[float]:
        radius = radius_of(one.excess_hu, level_hu=found.level_hu, sigma_mm=sigma)
        return [round(radius, 2), round(one.reach_mm, 1)]

    strands = sorted(map(pair, found.strands), reverse=True)
    rating = round(nodule.rating("spiculation"), 1)
    return [nodule.type, round(diameter, 1), rating, round(found.shell_seen, 2), strands]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The JSON file to write.")
def main(folder: Path, out: Path) -> None:
    """Measures all nodules of FOLDER (one a patient) and writes what hangs together with each."""
    rows = [found for found in map(row, nodules(folder)) if found is not None]
    head = {
        "what": "what real lung nodules hang together with in their own CT, one a patient: "
        "[type, diameter mm, spiculation, share of the surroundings seen, [[radius mm, reach mm], ...]]",
        "collection": "LIDC-IDRI", "licence": LICENCE, "attribution": ATTRIBUTION,
        "made_by": "Training/build_nodule_strands.py",
    }  # fmt: skip
    lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in rows)
    text = json.dumps(head, indent=1).removesuffix("\n}") + f',\n "nodules": [\n{lines}\n ]\n}}\n'
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    click.echo(f"{out}: {len(rows)} nodules, {out.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
