"""Builds prior_data/lung_distances.json: how likely a nodule is by its distance from the lung's border and vessels.

`python -m Training.distance_rule --data FOLDER_OF_lidc_nodule_patches --out lung_distances.json`. Counts the erased
true sites and the shams of the same crops, a patient as one, smooths both tables, and writes the log of their ratio.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from HiResMedSynthLib.placement.location_network import PIXEL_MM
from HiResMedSynthLib.placement.surroundings import DistanceTable, distances_mm
from Training.erased_pairs import ErasedPatch
from Training.erased_store import load_erased
from Training.location_crops import Crop, Window, draw_shams, draw_window, render
from Training.options import told_plainly

WINDOWS, TRIED = 20, 800  # a patient, drawn blindly
LEAST_SHAMS = 20  # of a patient, over its windows
EDGES_MM = np.array([0, 2, 4, 6, 9, 13, 18, 25], dtype=np.float64)
BLUR_BINS = 0.7
SOURCE = (
    "241 patients of LIDC-IDRI (CC BY 3.0; attribution as for location_prior.npz), nodules up to 20 mm in the lung; "
    "true sites against sham sites of the same crops of 45 mm; docs/results/location_prior.md"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A patient: windows with a crop each, the true site and some shams erased, and with the lesion left in."""

    item: ErasedPatch
    windows: list[Window]
    crops: list[Crop]
    visible: list[Crop]


def scenes_of(items: list[ErasedPatch], *, seed: int = 12) -> list[Scene]:
    """The patients with at least `LEAST_SHAMS` shams over their windows, the same each time."""
    scenes = []
    for index, item in enumerate(items):
        rng = np.random.default_rng((seed, index))
        scene = Scene(item=item, windows=[], crops=[], visible=[])
        for _ in range(TRIED):
            if len(scene.crops) == WINDOWS:
                break
            window = draw_window(item, rng)
            chosen = draw_shams(item, window, rng) if window is not None else []
            if window is not None and chosen:
                scene.windows.append(window)
                scene.crops.append(render(item, window, chosen))
                scene.visible.append(render(item, window, [], visible=True))
        if sum(len(crop.sites) - 1 for crop in scene.crops) >= LEAST_SHAMS:
            scenes.append(scene)
    return scenes


def at_sites(plane: NDArray[np.float32], sites: NDArray[np.float32]) -> NDArray[np.float64]:
    """The map at points (row, column)."""
    return np.asarray(map_coordinates(plane.astype(np.float64), sites.T, order=1, mode="nearest"))


def crop_distances_mm(crop: Crop) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of each pixel of a crop, from the lung's border and from the nearest vessel."""
    return distances_mm(crop.hu, crop.lung, PIXEL_MM, most_mm=float(EDGES_MM[-1]))


def distance_table(scenes: list[Scene]) -> DistanceTable:
    """Log ratio of true sites to shams, learned on those scenes."""
    counts = np.zeros((2, len(EDGES_MM), len(EDGES_MM)))
    for scene in scenes:
        shams = sum(len(crop.sites) - 1 for crop in scene.crops)
        for crop in scene.crops:
            cells = [np.digitize(at_sites(mm, crop.sites), EDGES_MM) - 1 for mm in crop_distances_mm(crop)]
            counts[0, cells[0][0], cells[1][0]] += 1 / len(scene.crops)
            np.add.at(counts[1], (cells[0][1:], cells[1][1:]), 1 / shams)
    smooth = [gaussian_filter(table, BLUR_BINS, mode="nearest") + 1.0 / table.size for table in counts]
    return DistanceTable(edges_mm=EDGES_MM, log_ratio=np.log(smooth[0] / smooth[1]))


@click.command(epilog="Example: python -m Training.distance_rule --data lidc_nodule_patches --out lung_distances.json")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder lidc_nodule_patches.")
@click.option("--cache", type=click.Path(path_type=Path), required=True, help="Erased pictures (.npz).")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON to write.")
@told_plainly()
def main(data: Path, cache: Path, out: Path) -> None:
    """Learns the table on every patient and writes it."""
    items, _ = load_erased(data, cache)
    scenes = scenes_of(items)
    table = distance_table(scenes)
    told = {
        "edges_mm": table.edges_mm.tolist(),
        "log_ratio": table.log_ratio.round(3).tolist(),
        "patients": len(scenes),
        "source": SOURCE,
    }
    out.write_text(json.dumps(told) + "\n", encoding="utf-8")
    click.echo(f"{out}: {len(scenes)} patients")


if __name__ == "__main__":
    main()
