"""Measures location priors on patients that they never saw: `python -m Testing.benchmarks.location_prior --help`.

Every backend gives a map of log-likeness for a crop whose true site and some shams are erased. RUNS/erased-K,
RUNS/visible-K, RUNS/yolo-erased-K, RUNS/yolo-visible-K are runs that left out fold K; what is missing is skipped.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from HiResMedSynthLib.patient_split import FOLDS, fold_of
from HiResMedSynthLib.placement.location_network import PIXEL_MM, log_likeness
from HiResMedSynthLib.placement.network import NetworkPlan, PlacementNetwork, build
from HiResMedSynthLib.placement.yolo import YoloDetector
from Training.build_location_prior import CT_BINS, CT_BLUR_BINS, density, nodule_places, population_box
from Training.checkpoint import best_weights, load_average
from Training.distance_rule import Scene, at_sites, crop_distances_mm, distance_table, scenes_of
from Training.erased_store import load_erased
from Training.location_crops import SIDE_PX, Crop

Maps = Callable[[list[Crop]], NDArray[np.float32]]  # [crop, row, column] log-likeness

TOP = (1, 5, 10)
HIT_MM = 10.0
APART_MM = 5.0  # between candidates
BLUR_MM = 10.0
FLOOR = 0.05  # as in placement/location.py
BOOTSTRAPS = 2000
EXAMPLES = 10
DRAWN = ("distance from border and vessel", "U-Net, erased", "U-Net, visible", "YOLOv11n, visible", "YOLOv11n, erased")


def measure(crops: list[Crop], maps: NDArray[np.float32]) -> dict[str, float]:
    """Figures of one patient: rank and hits within each crop, `nats` against all shams of the patient.

    `nats_map` is against all places of the crop where the shape fits, erased or not.
    """
    scores = [at_sites(plane, crop.sites) for plane, crop in zip(maps, crops, strict=True)]
    pairs = np.concatenate([np.sign(values[0] - values[1:]) / 2 + 0.5 for values in scores])
    true = float(np.mean([values[0] for values in scores]))
    shams = np.concatenate([values[1:] for values in scores])
    whole, hits = [], []
    for plane, crop, values in zip(maps.astype(np.float64), crops, scores, strict=True):
        where = crop.fits > 0
        if not where.any():
            continue
        top = plane[where].max()
        level = np.log((np.exp(plane - top) * crop.fits)[where].sum() / crop.fits.sum()) + top
        whole.append(values[0] - level)
        distances = candidates(np.where(where, plane, -np.inf), crop.sites[0])
        hits.append([(distances[:k] <= HIT_MM).any() for k in TOP])
    shares = np.mean(hits, axis=0)
    return {
        "nats": true - _log_mean(shams) if len(shams) else float("nan"),
        "nats_map": float(np.mean(whole)),
        "rank": float(pairs.mean()) if len(pairs) else float("nan"),
        **{f"hit_{k}": float(share) for k, share in zip(TOP, shares, strict=True)},
    }


def _log_mean(values: NDArray[np.float64]) -> float:
    return float(np.log(np.exp(values - values.max()).mean()) + values.max())


def candidates(plane: NDArray[np.float64], site: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distances in mm from the site of the best places, `APART_MM` from one another; ties at random."""
    plane = plane + np.random.default_rng(5).uniform(0, 1e-6, plane.shape)
    rows, columns = np.indices(plane.shape)
    distances = []
    for _ in range(max(TOP)):
        row, column = np.unravel_index(int(np.argmax(plane)), plane.shape)
        if not np.isfinite(plane[row, column]):
            break
        distances.append(np.hypot(row - site[0], column - site[1]) * PIXEL_MM)
        plane = np.where(np.hypot(rows - row, columns - column) * PIXEL_MM < APART_MM, -np.inf, plane)
    return np.array(distances)


def even(crops: list[Crop]) -> NDArray[np.float32]:
    """Even in the lung."""
    return np.zeros((len(crops), SIDE_PX, SIDE_PX), dtype=np.float32)


def blurred(crops: list[Crop]) -> NDArray[np.float32]:
    """The lung mask, blurred."""
    sigma = BLUR_MM / PIXEL_MM
    return np.stack(
        [np.log(gaussian_filter(crop.lung.astype(np.float32), sigma, mode="nearest") + 1e-3) for crop in crops]
    )


def middle(crops: list[Crop]) -> NDArray[np.float32]:
    """Nearness to the crop's middle, without a look at the picture: does the place in the crop tell anything?"""
    away = np.abs(np.indices((SIDE_PX, SIDE_PX)) - (SIDE_PX - 1) / 2).max(axis=0) / SIDE_PX
    return np.repeat(-away[np.newaxis].astype(np.float32), len(crops), axis=0)


def distance_rule(scenes: list[Scene]) -> Maps:
    """The shipped rule of distances (`placement/surroundings.py`), its table learned on those scenes."""
    table = distance_table(scenes)
    return lambda crops: np.stack([table.of(*crop_distances_mm(crop)) for crop in crops])


def network_maps(run: Path) -> Maps:
    """The answer of a trained U-Net."""
    state, told = load_average(best_weights(run))
    plan = NetworkPlan.from_json(told["plan"])
    module = build(plan)
    module.load_state_dict(state)
    network = PlacementNetwork.of(plan, module)
    return lambda crops: log_likeness(np.stack([crop.hu for crop in crops]), network)


def backends(runs: Path, fold: int, train: list[Scene]) -> dict[str, Maps]:
    """Every backend whose run is there; the baselines where there are scenes to learn the rule from."""
    found: dict[str, Maps] = {}
    if train:
        rule = distance_rule(train)
        found |= {"even in the lung": even, "blurred lung mask": blurred, "distance from border and vessel": rule}
    found["place in the crop alone (a check)"] = middle
    for name in ("erased", "visible"):
        if (runs / f"{name}-{fold}" / "best.safetensors").is_file():
            found[f"U-Net, {name}"] = network_maps(runs / f"{name}-{fold}")
        if (runs / f"yolo-{name}-{fold}" / "best.safetensors").is_file():
            detector = YoloDetector.load(runs / f"yolo-{name}-{fold}" / "best.safetensors")
            found[f"YOLOv11n, {name}"] = lambda crops, d=detector: d.log_likeness(np.stack([crop.hu for crop in crops]))
    return found


def density_maps(tables: Path, places: dict[str, tuple[float, float, float]], fold: int) -> Callable[[Scene], Any]:
    """log density of the nodules of patients outside the fold over a scene's crops; None where its place is unknown."""
    seen = nodule_places(tables, keep=lambda patient: fold_of(patient) != fold)
    box = population_box(seen)
    grid = density((seen - box[0]) / (box[1] - box[0]), CT_BINS, CT_BLUR_BINS).astype(np.float64)

    def plane(scene: Scene) -> NDArray[np.float32] | None:
        place = places.get(scene.item.patch.patient_id)
        if place is None:
            return None
        column0, row0, height = place
        spacing = scene.item.patch.spacing_mm
        index = np.arange(SIDE_PX) + 0.5
        planes = []
        for window in scene.windows:
            rows = window.corner_mm[0] + index * PIXEL_MM + (row0 - 256) * spacing
            columns = window.corner_mm[1] + index * PIXEL_MM + (column0 - 256) * spacing
            points = np.stack(np.broadcast_arrays(height, rows[:, np.newaxis], columns[np.newaxis]), axis=-1)
            at = np.clip((points - box[0]) / (box[1] - box[0]) * CT_BINS - 0.5, 0, CT_BINS - 1)
            planes.append(np.log(map_coordinates(grid, np.moveaxis(at, -1, 0), order=1) + FLOOR))
        return np.stack(planes).astype(np.float32)

    return plane


def known_places(tables: Path, matched: Path | None) -> dict[str, tuple[float, float, float]]:
    """Of each patient: column and row of the picture's corner in the slice, share of the scan's height.

    `matched` is a JSON list of [patient, column, row, z, scan] made by `Testing.benchmarks.location_control`.
    """
    if matched is None or not matched.is_file():
        return {}
    with gzip.open(tables / "scans.csv.gz", "rt", encoding="utf-8") as handle:
        scans = {row["scan"]: row for row in csv.DictReader(handle)}
    found = {}
    for patient, column, row, z_mm, scan in json.loads(matched.read_text(encoding="utf-8")):
        told = scans.get(str(scan))
        if told is not None:
            low, high = sorted((float(told["z_first_mm"]), float(told["z_last_mm"])))
            step = float(told["slice_spacing_median_mm"])
            found[patient] = (float(column), float(row), (z_mm - low + step / 2) / (high - low + step))
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and 95 % intervals over patients (bootstrap of patients)."""
    patients = sorted({row["patient"] for row in rows})
    keys = [key for key in rows[0] if key not in ("patient", "diameter_mm")]
    values = np.array([[np.mean([r[key] for r in rows if r["patient"] == p]) for key in keys] for p in patients])
    draws = np.random.default_rng(1).integers(len(patients), size=(BOOTSTRAPS, len(patients)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5], axis=0)
    told = {
        key: [round(float(v), 3) for v in triple]
        for key, *triple in zip(keys, values.mean(axis=0), low, high, strict=True)
    }
    return {"patients": len(patients), "scenes": len(rows), **told}


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the shared data.")
@click.option("--runs", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the runs.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON to write.")
@click.option("--picture", type=click.Path(path_type=Path), help="PNG of examples of the first fold to write.")
@click.option("--more", is_flag=True, help="Add runs that OUT doesn't hold yet; nothing else is measured anew.")
@click.option("--fold", "folds", type=int, multiple=True, default=range(FOLDS), help="Folds to measure.")
def main(data: Path, runs: Path, out: Path, picture: Path | None, more: bool, folds: tuple[int, ...]) -> None:
    """Measures every backend on the patients of its left-out fold."""
    items, _ = load_erased(data / "lidc_nodule_patches", runs / "erased.npz")
    tables = data / "lidc_location_prior"
    places = known_places(tables, runs / "places.json")
    rows: dict[str, list[dict[str, Any]]] = json.loads(out.read_text(encoding="utf-8"))["rows"] if more else {}
    known = set(rows)
    for fold in folds:
        inside = [fold_of(item.patch.patient_id) == fold for item in items]
        learned_on = [] if more else [item for item, held in zip(items, inside, strict=True) if not held]
        scenes = {True: scenes_of([item for item, held in zip(items, inside, strict=True) if held])}
        named = backends(runs, fold, scenes_of(learned_on))
        named = {name: maps for name, maps in named.items() if name not in known}
        dense = density_maps(tables, places, fold)
        if picture is not None and fold == folds[0] and "U-Net, erased" in named:
            draw_examples(scenes[True][:: max(1, len(scenes[True]) // EXAMPLES)][:EXAMPLES], named, picture)
        for scene in scenes[True]:
            patch = scene.item.patch
            label = {
                "patient": patch.patient_id,
                "diameter_mm": 2 * float(np.sqrt(patch.lesion.sum() / np.pi)) * patch.spacing_mm,
            }
            global_part = dense(scene)
            for name, backend in named.items():
                maps = backend(scene.crops)
                found = label | measure(scene.crops, maps)
                rows.setdefault(name, []).append(found)
                if "isible" in name:
                    seen = measure(scene.visible, backend(scene.visible)) | {"nats": float("nan"), "rank": float("nan")}
                    rows.setdefault(f"{name}; lesion left in", []).append(label | seen)
                if global_part is not None:
                    rows.setdefault(f"[placed] {name}", []).append(found)
                    joined = measure(scene.crops, maps + global_part)
                    rows.setdefault(f"[placed] density x {name}", []).append(label | joined)
    told = {name: summary(found) for name, found in rows.items()}
    out.write_text(json.dumps({"summary": told, "rows": rows}, indent=1), encoding="utf-8")
    for name, found in told.items():
        click.echo(f"{name}: {found}")


def draw_examples(scenes: list[Scene], named: dict[str, Maps], path: Path) -> None:
    """Columns: a patient each; rows: lesion, erased with shams (true site red, shams green), maps within the lung."""
    columns = []
    for scene in scenes:
        crop = scene.crops[0]
        tiles = []
        for seen, sites in ((scene.visible[0], []), (crop, crop.sites)):
            grey = np.clip((seen.hu + 1100) / 1200 * 255, 0, 255).astype(np.uint8)
            tile = np.repeat(grey[..., np.newaxis], 3, axis=2)
            for number, (row, column) in enumerate(np.rint(sites).astype(int)):
                tile[row - 1 : row + 2, column - 1 : column + 2] = (255, 40, 40) if number == 0 else (40, 220, 40)
            tiles.append(tile)
        for name in DRAWN:
            if name in named:
                plane = named[name](scene.crops[:1])[0]
                inside = crop.lung
                share = np.clip((plane - plane[inside].mean()) / 2 + 0.5, 0, 1) * inside
                tile = np.stack([255 * share, 160 * share**2, 255 * (0.4 * inside - 0.4 * share)], axis=-1)
                tile = np.clip(tile, 0, 255).astype(np.uint8)
                row, column = np.rint(crop.sites[0]).astype(int)
                tile[row - 1 : row + 2, column - 1 : column + 2] = 255
                tiles.append(tile)
        columns.append(np.concatenate(tiles, axis=0))
    sheet = Image.fromarray(np.concatenate(columns, axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * 3 // 2, sheet.height * 3 // 2), Image.Resampling.NEAREST).quantize(64).save(path)


if __name__ == "__main__":
    main()
