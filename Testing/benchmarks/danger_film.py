"""Measures the film network on people it never saw: `python -m Testing.benchmarks.danger_film --help`.

Runs come from `Training.train_danger --domain film`; their last averaged weights are taken, not the best on held-out
films, so nothing was chosen on what is measured. A run's own description says whom it did not see.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.placement.danger import danger
from HiResMedSynthLib.placement.lungs_cxr import fit_chest
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.network import PlacementNetwork
from HiResMedSynthLib.placement.regions_film import (
    STRUCTURES,
    chest_lungs,
    danger_network_film,
    find_film_regions,
)
from Testing.benchmarks.danger_film_projected import TILE, projected, spine_of_kub, structures_seen, without_tumour
from Testing.benchmarks.danger_film_scores import (
    Mask,
    Trained,
    as_image,
    interval,
    load_run,
    lung_table,
    network_lungs,
    scores,
)
from Testing.benchmarks.placement_rules import dice
from Training.build_cxr_lung_template import IGNORED, MaskedFilm, build_template, read_masked_films, read_shapes
from Training.danger_film_data import outlined
from Training.danger_film_sources import read_volumes

SHIFT, TURN_DEGREES = 0.08, 8.0


def hannover(data: Path, folds: Sequence[Trained]) -> tuple[dict[str, Any], list[tuple[MaskedFilm, Mask, Mask]]]:
    """(tables, films with the lungs of rule and network): each by network and template without its patient."""
    from scipy.stats import wilcoxon

    films, shapes = read_masked_films(data / "cxr_hannover"), read_shapes(data / "cxr_anatomy_masks")
    patients = sorted({film.patient_id for film in films})
    half = {patient: number % 2 for number, patient in enumerate(patients)}
    templates = [build_template([f for f in films if half[f.patient_id] != side], shapes) for side in (0, 1)]
    network, rule = [], []
    for film in films:
        trained = next(fold for fold in folds if film.patient_id in fold.held_out)
        network.append(network_lungs(film.film, trained.network))
        fit = fit_chest(
            film.film.astype(np.float32), pixel_spacing_mm=(1, 1), template=templates[half[film.patient_id]]
        )
        rule.append(fit.lungs > 0.5)
    tables: dict[str, Any] = {}
    for view in ("all", "PA", "AP"):
        chosen = [k for k, film in enumerate(films) if view in ("all", film.view)]
        for name, found in (("network", network), ("rule", rule)):
            tables[f"{view}, {name}"] = lung_table([films[k] for k in chosen], [found[k] for k in chosen])
    by = [
        [scores(mask, np.isin(f.mask, (1, 2)), f.mask != IGNORED) for f, mask in zip(films, found, strict=True)]
        for found in (network, rule)
    ]
    gain = [n[0] - r[0] for n, r in zip(*by, strict=True)]
    order = np.argsort([row[0] for row in by[1]])
    worst = [int(k) for k in order[: len(order) // 4]]
    tables["paired"] = {
        "Dice, network minus rule, mean": interval(gain, [film.patient_id for film in films]),
        "Wilcoxon p, Dice": float(wilcoxon(gain).pvalue),
        "films where the network is better, of all": [sum(g > 0 for g in gain), len(gain)],
        f"on the {len(worst)} films where the rule is worst: rule, network": [
            float(np.mean([by[1][k][0] for k in worst])), float(np.mean([by[0][k][0] for k in worst]))
        ],
        "Wilcoxon p on those": float(wilcoxon([gain[k] for k in worst]).pvalue),
    }  # fmt: skip
    return tables, [(films[k], rule[k], network[k]) for k in order]


def moved(film: NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[Any]:
    import cv2

    return np.asarray(
        cv2.warpAffine(film, matrix, film.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )


def moves_along(films: Sequence[MaskedFilm], folds: Sequence[Trained]) -> dict[str, Any]:
    """Dice between the mask of the moved film and the moved mask, where both lie in the picture."""
    import cv2

    results: dict[str, list[float]] = {"shifted by 8 %": [], "turned by 8 degrees": [], "mirrored": []}
    for film in films:
        network = next(fold for fold in folds if film.patient_id in fold.held_out).network
        size = film.film.shape[0]
        still = network_lungs(film.film, network)
        step = SHIFT * size
        for name, matrix in (
            ("shifted by 8 %", np.array([[1, 0, step], [0, 1, step / 2]])),
            ("turned by 8 degrees", cv2.getRotationMatrix2D((size / 2, size / 2), TURN_DEGREES, 1.0)),
        ):
            there = network_lungs(moved(film.film, matrix), network)
            inside = cv2.warpAffine(np.ones_like(film.film), matrix, film.film.shape[::-1]) > 0
            wanted = moved(still.astype(np.uint8), matrix) > 0
            results[name].append(dice(there, wanted, inside))
        mirrored = network_lungs(film.film[:, ::-1].copy(), network)[:, ::-1]
        results["mirrored"].append(dice(mirrored, still, np.ones_like(still)))
    return {name: [float(np.mean(v)), float(np.min(v))] for name, v in results.items()}


def whole_map(films: Sequence[MaskedFilm], folds: Sequence[Trained]) -> dict[str, Any]:
    """The whole danger map without pleura margin against the drawn lungs: the heart is taken off them on purpose.

    The rule's map is made with the shipped template, which has seen these very films.
    """
    results: dict[str, list[tuple[float, float, float]]] = {"network": [], "rule (its template saw them)": []}
    for film in films:
        network = next(fold for fold in folds if film.patient_id in fold.held_out).network
        image, margins = as_image(film.film), Margins(pleura_mm=0.0)
        truth, counted = np.isin(film.mask, (1, 2)), film.mask != IGNORED
        maps = (
            danger_network_film(image, domain="cxr", margins=margins, network=network),
            danger(image, domain="cxr", margins=margins),
        )
        for rows, found in zip(results.values(), maps, strict=True):
            rows.append(scores(~found.forbidden()[0], truth, counted))
    return {
        name: {
            "outside the lungs called permitted, median": float(np.median([row[1] for row in rows])),
            "lung called forbidden, median": float(np.median([row[2] for row in rows])),
        }
        for name, rows in results.items()
    }


def look(folder: Path, network: PlacementNetwork, target: Path) -> dict[str, Any]:
    """Contact sheets of unlabelled films (`index.csv` of Training/film_data.py) with outlines; how many are refused."""
    import csv

    import cv2
    from PIL import Image

    with (folder / "index.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    tiles, refused = [], []
    for row in rows:
        with Image.open(folder / "images" / row["image"]) as opened:
            film = np.asarray(opened)
        true_mm = [float(row[f"orig_{side}"]) / film.shape[k] for k, side in ((0, "height"), (1, "width"))]
        image = as_image(film, (true_mm[0], true_mm[1]))
        regions = find_film_regions(image, network)
        try:
            lungs = chest_lungs(image, regions)
        except PlacementError:
            lungs = np.zeros(film.shape, dtype=bool)
            refused.append(row["image"])
        low, high = np.percentile(film, [1, 99])
        grey = cv2.resize(
            (film.astype(np.float32) - low) / max(high - low, 1), (192, 192), interpolation=cv2.INTER_AREA
        )
        layers = np.stack([cv2.resize(layer, (192, 192)) > 0 for layer in regions.logits])
        layers[0] = cv2.resize(lungs.astype(np.uint8), (192, 192), interpolation=cv2.INTER_NEAREST) > 0
        layers[2] = False  # ribs would hide all else
        tiles.append(outlined(grey, layers))
    target.mkdir(parents=True, exist_ok=True)
    blank = [np.zeros_like(tiles[0])] * (-len(tiles) % 48)
    for sheet in range(0, len(tiles), 48):
        part = (tiles + blank)[sheet : sheet + 48]
        stacked = np.vstack([np.hstack(part[k : k + 8]) for k in range(0, 48, 8)])
        Image.fromarray(stacked).save(target / f"sheet-{sheet // 48}.png")
    return {"films": len(rows), "refused": refused}


def seconds(network: PlacementNetwork, film: NDArray[Any]) -> dict[str, float]:
    """Least time of a danger map of a 1024x1024 film in s, by the clock and of the processor, threads as they are."""
    taken = []
    for _ in range(8):
        start, used = time.perf_counter(), time.process_time()
        danger_network_film(as_image(film), domain="cxr", margins=Margins(), network=network)
        taken.append((time.perf_counter() - start, time.process_time() - used))
    return dict(zip(("clock s", "processor s"), np.min(taken, axis=0).tolist(), strict=True))


def picture(cases: Sequence[tuple[MaskedFilm, Mask, Mask]], below: Sequence[NDArray[np.uint8]], target: Path) -> None:
    """The films on which the rule is worst: its outline red, the network's blue, the drawn one green; then `below`."""
    import cv2
    from PIL import Image

    tiles = []
    for film, rule, network in cases:
        low, high = np.percentile(film.film, [1, 99])
        grey = cv2.resize((film.film.astype(np.float32) - low) / max(high - low, 1), (TILE, TILE), interpolation=3)
        layers = np.zeros((len(STRUCTURES), TILE, TILE), dtype=bool)
        for place, mask in ((0, network), (1, rule), (3, np.isin(film.mask, (1, 2)))):
            layers[place] = cv2.resize(mask.astype(np.uint8), (TILE, TILE), interpolation=cv2.INTER_NEAREST) > 0
        tiles.append(outlined(grey, layers))
    tiles += below
    sheet = np.vstack([np.hstack(tiles[k : k + 4]) for k in range(0, len(tiles) - 3, 4)])
    Image.fromarray(sheet).quantize(48).save(target, optimize=True)


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="The shared data's folder.")
@click.option("--fold", "folds", type=click.Path(path_type=Path), multiple=True, help="Run of a fold, repeatable.")
@click.option("--projected-only", type=click.Path(path_type=Path), help="Run that saw projected films only.")
@click.option("--final", type=click.Path(path_type=Path), help="Run on everything: children, time.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder of projected films.")
@click.option("--picture", "drawn", type=click.Path(path_type=Path), help="PNG to write.")
@click.option("--look", "looked", type=click.Path(path_type=Path), help="Folder for contact sheets of the NIH films.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON to write.")
def main(
    data: Path,
    folds: tuple[Path, ...],
    projected_only: Path | None,
    final: Path | None,
    cache: Path | None,
    drawn: Path | None,
    looked: Path | None,
    out: Path | None,
) -> None:
    """Prints the measured tables as JSON."""
    tables: dict[str, Any] = {}
    runs = [load_run(run) for run in folds]
    children = read_masked_films(data / "cxr_kermany_paediatric")
    tiles: list[NDArray[np.uint8]] = []
    cases: list[tuple[MaskedFilm, Mask, Mask]] = []
    if runs:
        tables["Hannover"], cases = hannover(data, runs)
        films = [film for film, _, _ in cases]
        tables["the whole map on Hannover"] = whole_map(films, runs)
        tables["the mask moves with the film: mean, least Dice"] = moves_along(films[::3], runs)
        only = [load_run(projected_only)] if projected_only is not None else []
        for run in only:
            found = [network_lungs(film.film, run.network) for film in films]
            tables["Hannover, network of projected films only"] = lung_table(films, found)
        for folder in ("dicom_ct_lung_dx_a0001", "lidc_0001_ct", "ct_abdomen_kub_totalseg"):
            for volume in read_volumes(data / folder):
                seen = without_tumour(volume, data / folder)
                for run in [run for run in runs + only if folder in run.held_out]:
                    tables[f"projected {folder}, {run.network.name}"] = projected(seen, run, cache)
                    if folder.startswith("ct_abdomen"):
                        tables[f"spine of the abdominal film, {run.network.name}"] = spine_of_kub(volume, run)
                    elif run in runs:
                        tiles += structures_seen(seen, run, cache)
    for run in [*runs, *([load_run(final)] if final is not None else [])]:
        tables[f"children, {run.network.name}, {run.data}"] = lung_table(
            children, [network_lungs(film.film, run.network) for film in children]
        )
    if final is not None:
        network = load_run(final).network
        tables["1024x1024, one map"] = seconds(network, children[0].film)
        if looked is not None:
            tables["NIH"] = look(data / "cxr_nih", network, looked)
    click.echo(json.dumps(tables, indent=1))
    if out is not None:
        out.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    if drawn is not None and cases:
        picture(cases[:8], tiles[:4], drawn)


if __name__ == "__main__":
    main()
