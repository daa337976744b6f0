"""The picture of docs/results/danger_ct.md: the rule beside what ships where the rule fails, on patients never seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.placement.danger_map import (
    CENTRAL_AIRWAYS,
    CHEST_WALL,
    CONSOLIDATION,
    MEDIASTINUM,
    OUTSIDE_BODY,
    PLEURA_MARGIN,
    VESSELS,
    DangerMap,
)
from HiResMedSynthLib.placement.regions_ct import BONE, HEART, SOFT_WALL
from Testing.benchmarks.danger_ct import TESTED, load_run
from Testing.benchmarks.danger_ct_disease import SEED, diseased_slices, healthy_slices
from Testing.benchmarks.danger_ct_measures import Ways, as_image
from Training.danger_ct_disease import draw_disease

COLOURS = {
    "permitted": (0, 170, 0), OUTSIDE_BODY: (0, 0, 0), CHEST_WALL: (150, 100, 40), SOFT_WALL: (150, 100, 40),
    MEDIASTINUM: (170, 40, 170), HEART: (170, 40, 170), CENTRAL_AIRWAYS: (255, 255, 0), VESSELS: (220, 30, 30),
    PLEURA_MARGIN: (60, 120, 255), BONE: (245, 245, 245), CONSOLIDATION: (255, 140, 0),
}  # fmt: skip
SIMULATED = ("effusion", "lobe")
TILE = 166


def painted(hu: NDArray[Any], found: DangerMap | None) -> NDArray[np.uint8]:
    """RGB of one slice on a lung window, coloured by class."""
    grey = np.repeat((np.clip((hu + 1250.0) / 1600, 0, 1) * 255)[..., np.newaxis], 3, axis=2)
    if found is None:
        return grey.astype(np.uint8)
    colour = np.zeros_like(grey)
    strength = np.full(hu.shape, 0.45)
    for label in np.unique(found.labels[0]):
        name = found.names.get(int(label), "permitted")
        colour[found.labels[0] == label] = COLOURS[name]
        if name == OUTSIDE_BODY:
            strength[found.labels[0] == label] = 0
    return (grey * (1 - strength[..., None]) + colour * strength[..., None]).astype(np.uint8)


def column(hu: NDArray[Any], spacing: tuple[float, float, float], ways: Ways, title: str) -> NDArray[np.uint8]:
    """Slice, rule, and what ships (network and rule joined), one under another."""
    found = ways.maps(as_image(hu[np.newaxis], spacing))
    tiles = [painted(hu, None), painted(hu, found["rule"]), painted(hu, found["both"])]
    dense = np.argwhere(cv2.morphologyEx((hu > -300).astype(np.uint8), cv2.MORPH_OPEN, np.ones((9, 9))) > 0)
    top, left = dense.min(axis=0)
    bottom, right = dense.max(axis=0)
    side = max(bottom - top, right - left)
    cut = [tile[top : top + side, left : left + side] for tile in tiles]
    small = [cv2.resize(tile, (TILE, TILE), interpolation=cv2.INTER_AREA) for tile in cut]
    for tile, words in zip(small, (title, "rule", "ships"), strict=True):
        cv2.putText(tile, words, (4, TILE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate(small)


def legend(width: int) -> NDArray[np.uint8]:
    """The classes' colours with their names."""
    strip = np.zeros((42, width, 3), dtype=np.uint8)
    names = ("permitted", SOFT_WALL, HEART, BONE, CENTRAL_AIRWAYS, VESSELS, PLEURA_MARGIN, CONSOLIDATION)
    for number, name in enumerate(names):
        x, y = 6 + (number % 4) * (width // 4), 4 + (number // 4) * 19
        strip[y : y + 13, x : x + 13] = COLOURS[name]
        cv2.putText(strip, name, (x + 18, y + 11), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return strip


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="The shared data's folder.")
@click.option("--run", "run_folder", type=click.Path(path_type=Path, exists=True), required=True, help="foldA.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="PNG to write.")
def main(data: Path, run_folder: Path, out: Path) -> None:
    """Writes the picture."""
    ways = Ways(load_run(run_folder))
    columns = [
        column(hu, spacing, ways, f"{outline.patient.removeprefix('Lung_Dx-')}: {outline.what}"[:30])
        for outline, hu, spacing in diseased_slices(data)
        if outline.what != "consolidation, right"
    ]
    healthy = list(healthy_slices(data, TESTED["A"][:1]))
    rng = np.random.default_rng(SEED)
    for number, kind in enumerate(SIMULATED):
        _, _, hu, labels, spacing = healthy[len(healthy) // 2 + 3 * number]
        ill = draw_disease(hu.astype(np.float32), labels, rng, mm=spacing[1], kind=kind)
        columns.append(column(np.rint(ill).astype(np.int16), spacing, ways, f"A0001: simulated {kind}"))
    half = len(columns) // 2
    sheet = np.concatenate([np.concatenate(columns[:half], axis=1), np.concatenate(columns[half : 2 * half], axis=1)])
    sheet = np.concatenate([sheet, legend(sheet.shape[1])])
    from PIL import Image

    coarse = np.minimum(sheet // 8 * 8 + 4, 255).astype(np.uint8)  # fewer shades: a small file
    # the legend's colours are few pixels: repeat them, so that the palette keeps them
    palette = np.concatenate([coarse, *[coarse[-42:]] * 40])
    few = Image.fromarray(palette).quantize(192, method=Image.Quantize.MEDIANCUT)
    Image.fromarray(coarse).quantize(palette=few, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main()
