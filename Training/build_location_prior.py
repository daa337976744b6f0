"""Builds prior_data/location_prior.npz: densities of real nodules in the coordinates of the box around both lungs.

CT: the LIDC tables have no lung boxes. Field-of-view millimetres (from the picture's centre) and the share of the
scan's slices are mapped through one population box: the span that holds 95 % of all nodules on each axis, widened by
the distance that nodules keep from the lung's edge. Films: box centres on NIH films through the mean fitted lung box.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

CT_BINS, CXR_BINS = 24, 32
CT_BLUR_BINS, CXR_BLUR_BINS = 1.2, 1.5
TAILS = (2.5, 97.5)  # percent; 99 % would span the largest people and squeeze the density of all others
WIDENED = 0.03  # share of the span: the outermost nodules lie about 5 mm inside the lung
FITTED_FILMS = 184


def nodule_places(folder: Path) -> NDArray[np.float64]:
    """`[nodule, 3]` z (share of the scan, upwards), y and x in mm from the centre of the field of view."""
    with gzip.open(folder / "nodules.csv.gz", "rt", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    return np.array(
        [
            (
                (float(row["slice_index"]) + 0.5) / float(row["n_slices_scan"]),
                (float(row["row"]) - 255.5) * float(row["pixel_spacing_mm"]),
                (float(row["col"]) - 255.5) * float(row["pixel_spacing_mm"]),
            )
            for row in rows
        ]
    )


def population_box(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[2, axis]` low and high edge of the population's lung box."""
    low, high = np.percentile(places, TAILS, axis=0)
    margin = WIDENED * (high - low)
    return np.stack([low - margin, high + margin])


def film_nodules(folder: Path) -> NDArray[np.float64]:
    """`[nodule, 2]` (down, across) centres of nodule boxes on NIH films, shares of the picture."""
    places = []
    for name in ("chestx_det_boxes.csv", "nih_bbox_2017.csv"):
        with (folder / name).open(encoding="utf-8") as handle:
            places += [
                (float(row["cy_rel"]), float(row["cx_rel"]))
                for row in csv.DictReader(handle)
                if row["label"] == "Nodule"
            ]
    return np.array(places)


def film_boxes(folder: Path) -> NDArray[np.float64]:
    """`[film, 4]` top, bottom, left, right of the fitted lung boxes of the NIH films, shares of the picture."""
    from PIL import Image

    from HiResMedSynthLib.placement.lungs_cxr import fit_chest

    boxes = []
    with (folder / "index.csv").open(encoding="utf-8") as handle:
        for row in list(csv.DictReader(handle))[:FITTED_FILMS]:
            film = np.asarray(Image.open(folder / "images" / row["image"]), dtype=np.float32)
            spacing = (float(row["orig_height"]) / film.shape[0], float(row["orig_width"]) / film.shape[1])
            top, bottom, left, right = fit_chest(film, pixel_spacing_mm=spacing).box_px
            boxes.append((top / film.shape[0], bottom / film.shape[0], left / film.shape[1], right / film.shape[1]))
    return np.array(boxes)


def density(shares: NDArray[np.float64], bins: int, blur_bins: float) -> NDArray[np.float16]:
    """Smoothed histogram of box coordinates `[n, axes]`, mean 1; float16."""
    from scipy.ndimage import gaussian_filter

    axes = shares.shape[1]
    counts, _ = np.histogramdd(shares, bins=bins, range=[(0, 1)] * axes)
    smooth = gaussian_filter(counts, blur_bins, mode="nearest")
    return np.asarray((smooth / smooth.mean()).astype(np.float16))


@click.command()
@click.argument("shared_data", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .npz to write.")
def main(shared_data: Path, out: Path) -> None:
    """Builds the prior from lidc_location_prior, label_tables and cxr_nih in SHARED_DATA."""
    places = nodule_places(shared_data / "lidc_location_prior")
    box = population_box(places)
    boxes = film_boxes(shared_data / "cxr_nih")
    top, bottom, left, right = boxes.mean(axis=0)
    films = film_nodules(shared_data / "label_tables")
    np.savez_compressed(
        out,
        ct=density((places - box[0]) / (box[1] - box[0]), CT_BINS, CT_BLUR_BINS),
        cxr=density((films - (top, left)) / (bottom - top, right - left), CXR_BINS, CXR_BLUR_BINS),
        ct_population_box=box,
        cxr_population_box=np.array([top, bottom, left, right]),
    )
    click.echo(f"CT: {len(places)} nodules, box z, y, x {np.round(box, 2).tolist()}")
    spread = np.round(boxes.std(axis=0), 3).tolist()
    click.echo(f"films: {len(films)} nodules, mean box {np.round(boxes.mean(axis=0), 3).tolist()}, spread {spread}")


if __name__ == "__main__":
    main()
