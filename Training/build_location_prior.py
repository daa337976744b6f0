"""Builds prior_data/location_prior.npz: densities of real nodules in the coordinates of the box around both lungs.

CT: the LIDC tables have no lung boxes. Field-of-view millimetres (from the picture's centre) and the share of the
scan's slices are mapped through one population box: the span that holds 95 % of all nodules on each axis, widened by
the distance that nodules keep from the lung's edge. Films: box centres on NIH films through the mean fitted lung box.
Stones: boxes on coronal CT slices of unknown scale, made left-right symmetric, in millimetres from the spine's line and
above the iliac crests; scale and height were set by one patient (docs/results/location_prior.md). Sizes: diameters of
the nodules, in all and in three zones from the midplane outwards.
"""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

CT_BINS, CXR_BINS = 24, 32
CT_BLUR_BINS, CXR_BLUR_BINS = 1.2, 1.5
TAILS = (2.5, 97.5)  # percent; 99 % would span the largest people and squeeze the density of all others
WIDENED = 0.03  # share of the span: the outermost nodules lie about 5 mm inside the lung
FITTED_FILMS = 184
FILM_TABLES = ("chestx_det_boxes.csv", "nih_bbox_2017.csv")
KUB_BINS, KUB_BLUR_BINS = (44, 56), 1.5  # 5 mm
KUB_BOX_MM = ((160.0, -140.0), (-60.0, 140.0))  # above the crests, aside: of the first and the last bin's outer edges
KIDNEY_ASIDE_MM = 70.0  # kidneys of the one CT with labels: 70 and 71 mm from the spine's middle
STONES_ABOVE_CREST_MM = 60.0  # median of its five renal stones
PICTURE_PX = (320, 391)  # rows, columns of the stone table's pictures
SIZE_LEVELS = np.linspace(0, 1, 21)
SIZE_ZONES = 3


def nodule_rows(folder: Path, keep: Callable[[str], bool] | None = None) -> list[dict[str, str]]:
    """Rows of the table of nodules, of the patients that `keep` wants (None: all)."""
    with gzip.open(folder / "nodules.csv.gz", "rt", encoding="utf-8") as handle:
        return [row for row in csv.DictReader(handle) if keep is None or keep(row["patient_id"])]


def nodule_places(folder: Path, keep: Callable[[str], bool] | None = None) -> NDArray[np.float64]:
    """`[nodule, 3]` z (share of the scan, upwards), y and x in mm from the centre of the field of view."""
    rows = nodule_rows(folder, keep)
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


def film_rows(folder: Path) -> list[dict[str, str]]:
    """Rows of the nodule boxes on NIH films, with their `table`; those of `nih_bbox_2017.csv` tell the patient."""
    rows = []
    for name in FILM_TABLES:
        with (folder / name).open(encoding="utf-8") as handle:
            rows += [{**row, "table": name} for row in csv.DictReader(handle) if row["label"] == "Nodule"]
    return rows


def film_nodules(folder: Path) -> NDArray[np.float64]:
    """`[nodule, 2]` (down, across) centres of nodule boxes on NIH films, shares of the picture."""
    return np.array([(float(row["cy_rel"]), float(row["cx_rel"])) for row in film_rows(folder)])


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


def stone_rows(folder: Path) -> list[dict[str, str]]:
    """Rows of the table of stones."""
    with (folder / "kidney_stone_ct_coronal_boxes.csv").open(encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def stone_places(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`[stone, 2]` mm above the iliac crests and aside of the spine (right < 0), and weights of the stones.

    The table holds up to three copies of a slice (mirrored, turned up to 10 degrees): together they count once. The
    pictures' scale is the one that puts the two clusters of stones at `KIDNEY_ASIDE_MM`, their height the one that puts
    the median stone at `STONES_ABOVE_CREST_MM`.
    """
    rows = stone_rows(folder)
    copies = Counter(source for source, _ in {(row["source"], row["variant"]) for row in rows})
    weights = np.array([1 / copies[row["source"]] for row in rows])
    centres = np.array([(float(row["cy_rel"]), float(row["cx_rel"])) for row in rows]) * PICTURE_PX
    down, across = centres.T
    right, left = (np.median(across[side]) for side in (across < PICTURE_PX[1] / 2, across >= PICTURE_PX[1] / 2))
    pixel_mm = 2 * KIDNEY_ASIDE_MM / (left - right)
    above = STONES_ABOVE_CREST_MM - (down - np.median(down)) * pixel_mm
    return np.stack([above, (across - (left + right) / 2) * pixel_mm], axis=1), weights


def stone_density(places: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float16]:
    """`[row, column]` of `KUB_BOX_MM`, downwards and to the patient's left, symmetric, mean 1; float16."""
    from scipy.ndimage import gaussian_filter

    first, last = np.array(KUB_BOX_MM)
    shares = (places - first) / (last - first)
    counts, _, _ = np.histogram2d(*shares.T, bins=KUB_BINS, range=[(0, 1)] * 2, weights=weights)
    smooth = gaussian_filter(counts, KUB_BLUR_BINS, mode="nearest")
    smooth = smooth + smooth[:, ::-1]
    return np.asarray((smooth / smooth.mean()).astype(np.float16))


def sizes(
    folder: Path, places: NDArray[np.float64], box: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Quantiles of diameters in mm at `SIZE_LEVELS`: of all nodules, and `[zone, level]`; and the inner zones' edges.

    A zone is a third of the nodules by distance from the midplane, as a share of half the lung box's width.
    """
    diameters = np.array([float(row["diam_equiv_mm"]) for row in nodule_rows(folder)])
    aside = np.abs((places[:, 2] - box[0, 2]) / (box[1, 2] - box[0, 2]) - 0.5) * 2
    edges = np.quantile(aside, np.arange(1, SIZE_ZONES) / SIZE_ZONES)
    zone = np.digitize(aside, edges)
    by_zone = np.stack([np.quantile(diameters[zone == index], SIZE_LEVELS) for index in range(SIZE_ZONES)])
    every = np.quantile(diameters, SIZE_LEVELS)
    return every.astype(np.float32), by_zone.astype(np.float32), edges.astype(np.float32)


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
    stones, weights = stone_places(shared_data / "label_tables")
    every, by_zone, edges = sizes(shared_data / "lidc_location_prior", places, box)
    np.savez_compressed(
        out,
        ct=density((places - box[0]) / (box[1] - box[0]), CT_BINS, CT_BLUR_BINS),
        cxr=density((films - (top, left)) / (bottom - top, right - left), CXR_BINS, CXR_BLUR_BINS),
        ct_population_box=box,
        cxr_population_box=np.array([top, bottom, left, right]),
        kub=stone_density(stones, weights),
        kub_box_mm=np.array(KUB_BOX_MM),
        size_levels=SIZE_LEVELS,
        size_quantiles_mm=every,
        size_by_zone_mm=by_zone,
        size_zone_edges=edges,
    )
    click.echo(f"CT: {len(places)} nodules, box z, y, x {np.round(box, 2).tolist()}")
    middle = np.round(np.percentile(stones, [25, 75], axis=0)).tolist()
    click.echo(f"stones: {len(stones)} boxes, {weights.sum():.0f} without copies, middle half {middle} mm")
    quartiles = [5, 10, 15]
    click.echo(f"sizes: quartiles {every[quartiles].tolist()} mm, by zone {by_zone[:, quartiles].tolist()}")
    spread = np.round(boxes.std(axis=0), 3).tolist()
    click.echo(f"films: {len(films)} nodules, mean box {np.round(boxes.mean(axis=0), 3).tolist()}, spread {spread}")


if __name__ == "__main__":
    main()
