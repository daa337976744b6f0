"""Anatomy of chest films counted by machine: is it a chest, as real films show it?

`python -m Testing.benchmarks.film_structure MODEL.safetensors ... --films FOLDER --cache DIR` compares models by films
of 256 px. Lungs, heart and trachea are what the shipped danger network sees (`placement/regions_film.py`). It was
trained on real films and finds lungs in poor ones too: a film that fails is bad, one that passes need not be good. The
ribs are not asked of the network but measured in the grey values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.background.domain_values import CHEST_FILM
from HiResMedSynthLib.errors import HiResMedSynthError, PlacementError, SettingsError
from HiResMedSynthLib.evaluation.feature_cache import FeatureCache
from HiResMedSynthLib.placement.lungs_cxr import fit_chest
from HiResMedSynthLib.placement.network import PlacementNetwork, load_network
from HiResMedSynthLib.placement.regions_film import SMALLEST_LUNG, STRUCTURES, TASK, find_film_regions
from Testing.benchmarks.film_quality_rows import kept
from Testing.benchmarks.film_quality_sets import (
    Pictures,
    Unit,
    as_image,
    model_of,
    real_pictures,
    sampled_pictures,
)
from Training.film_data import load_films
from Training.preset_files import read_preset

VERSION = 1
Mask = NDArray[np.bool_]
Table = dict[str, NDArray[np.float64]]
"""Each measure of `NAMES`, a number for each film."""
RANGE = (5, 95)  # percentiles of real films
SIDES = ("right", "left")  # the patient's; right is on the picture's left
WORK_MM = 1.68  # pixels in which ribs are measured
INSET_MM = 5.0  # of a lung's border, left out of its ribs
ORDERS_MM = {"ribs": (2.0, 10.0, 8.0), "lines": (1.5, 5.0, 3.0)}  # two blurs that hold it between them; how far around
NAMES = (
    "lung fields",
    *(f"{side} lung, cm2" for side in SIDES),
    "left over right lung",
    "heart to the left, share of the lungs' width",
    "heart's width over the lungs'",
    *(f"{side} dome's height over the lung's" for side in SIDES),
    "trachea's length over the lungs'",
    *(f"grey outside less in the {side} lung" for side in SIDES),
    "likeness to the mean chest",
    *(f"{side} {what}, order" for what in ORDERS_MM for side in SIDES),
)


def structure(unit: Unit, spacing_mm: float, network: PlacementNetwork) -> dict[str, float]:
    """Measures of a chest film [row, column] in 0..1, by `NAMES`; NaN where there is nothing to measure.

    Order: coherence of directions in a lung, 0 (none) to 1 (stripes), at the size of ribs and of their edges and
    vessels ("lines"). Between real films and those of the first release the latter tells most.
    """
    regions = find_film_regions(as_image(unit, CHEST_FILM, spacing_mm), network)
    seen = {name: regions.logits[k] > 0 for k, name in enumerate(STRUCTURES)}
    pixel_mm = spacing_mm * min(unit.shape) / min(regions.logits.shape[1:])
    found = dict.fromkeys(NAMES, math.nan)
    found["likeness to the mean chest"] = _likeness(unit)
    fields = _fields(seen["lungs"])
    found["lung fields"] = float(len(fields))
    if len(fields) < len(SIDES):
        return found
    lungs = sorted(fields[:2], key=lambda field: np.nonzero(field)[1].mean())
    both = lungs[0] | lungs[1]
    columns, rows = np.flatnonzero(both.any(axis=0)), np.flatnonzero(both.any(axis=1))
    width, middle = columns[-1] - columns[0] + 1, (columns[0] + columns[-1]) / 2
    heart, trachea = seen["mediastinum and heart"], seen["trachea and main bronchi"]
    found["left over right lung"] = float(lungs[1].sum() / lungs[0].sum())
    if heart.any():
        across = np.flatnonzero(heart.any(axis=0))
        found["heart to the left, share of the lungs' width"] = float((np.nonzero(heart)[1].mean() - middle) / width)
        found["heart's width over the lungs'"] = float(len(across) / width)
    found["trachea's length over the lungs'"] = float(trachea.any(axis=1).sum() / (rows[-1] - rows[0] + 1))
    grey = _resized(unit, seen["body"].shape)
    outside = float(grey[seen["body"] & ~both].mean()) if (seen["body"] & ~both).any() else math.nan
    ribs = _resized(unit, tuple(max(32, round(n * spacing_mm / WORK_MM)) for n in unit.shape))
    for side, lung in zip(SIDES, lungs, strict=True):
        found[f"{side} lung, cm2"] = float(lung.sum() * pixel_mm**2 / 100)
        found[f"{side} dome's height over the lung's"] = _dome(lung)
        found[f"grey outside less in the {side} lung"] = outside - float(grey[lung].mean())
        for what, scales in ORDERS_MM.items():
            inside = _resized(lung.astype(np.float32), ribs.shape) > 0.5
            found[f"{side} {what}, order"] = _order(ribs, inside, *scales)
    return found


def sound(found: Mapping[str, float]) -> bool:
    """Whether there are two lungs, both with a dome below, and the heart lies to the left."""
    domes = [found[f"{side} dome's height over the lung's"] > 0 for side in SIDES]
    return (
        found["lung fields"] == len(SIDES) and found["heart to the left, share of the lungs' width"] > 0 and all(domes)
    )


def table_of(pictures: Pictures, network: PlacementNetwork, cache: FeatureCache) -> Table:
    """Each measure of `NAMES` for all pictures."""

    def measure(unit: Unit) -> NDArray[np.float64]:
        found = structure(unit, pictures.spacing_mm, network)
        return np.array([found[name] for name in NAMES])

    table = kept(cache, pictures, f"structure {VERSION}", measure)
    return dict(zip(NAMES, table.T, strict=True))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Of films tested with the films trained on.

    Args:
        ranges: of each measure, 5 and 95 % of the films trained on.
        medians, shares: by set and measure: its median, and the share of its films within the range. Of further real
            films nine in ten lie in the range of each measure.
        sound: by set the share of films that pass `sound`.
    """

    ranges: dict[str, tuple[float, float]]
    medians: dict[str, dict[str, float]]
    shares: dict[str, dict[str, float]]
    sound: dict[str, float]


def compare(known: Table, tested: Mapping[str, Table]) -> Comparison:
    """The tested sets in the ranges of known real films."""
    ranges = {name: tuple(np.nanpercentile(known[name], RANGE).tolist()) for name in NAMES}
    inside = {
        label: {name: (table[name] >= ranges[name][0]) & (table[name] <= ranges[name][1]) for name in NAMES}
        for label, table in tested.items()
    }
    rows = {label: np.stack([table[name] for name in NAMES], axis=1) for label, table in tested.items()}
    passed = {label: [sound(dict(zip(NAMES, row, strict=True))) for row in found] for label, found in rows.items()}
    return Comparison(
        ranges=ranges,
        medians={label: {name: float(np.nanmedian(table[name])) for name in NAMES} for label, table in tested.items()},
        shares={label: {name: float(part.mean()) for name, part in of.items()} for label, of in inside.items()},
        sound={label: float(np.mean(found)) for label, found in passed.items()},
    )


def markdown(found: Comparison) -> str:
    """The comparison as a table: median (share within the range of the films trained on)."""
    labels = list(found.sound)
    lines = [f"| | real, {RANGE[0]} to {RANGE[1]} % | {' | '.join(labels)} |", "| --- " * (len(labels) + 2) + "|"]
    for name in NAMES:
        low, high = found.ranges[name]
        cells = [f"{found.medians[label][name]:.2f} ({found.shares[label][name]:.0%})" for label in labels]
        lines.append(f"| {name} | {low:.2f} to {high:.2f} | {' | '.join(cells)} |")
    means = [f"{np.mean(list(found.shares[label].values())):.0%}" for label in labels]
    lines.append(f"| mean share within the ranges | | {' | '.join(means)} |")
    passed = [f"{found.sound[label]:.0%}" for label in labels]
    lines.append(f"| two lungs with domes, heart on the left | | {' | '.join(passed)} |")
    return "\n".join(lines)


def _fields(lungs: Mask) -> list[Mask]:
    """The connected lungs that are large enough, the largest first."""
    from scipy.ndimage import label

    parts, count = label(lungs)
    fields = [parts == k + 1 for k in range(count)]
    return sorted((field for field in fields if field.mean() > SMALLEST_LUNG), key=np.sum, reverse=True)


def _dome(lung: Mask) -> float:
    """How far the lung's lower border rises above its lowest point, inside the middle two thirds, over its height."""
    columns = np.flatnonzero(lung.any(axis=0))
    bottom = len(lung) - 1 - lung[::-1, columns].argmax(axis=0)
    height = bottom.max() - int(lung.any(axis=1).argmax()) + 1
    sixth = len(columns) // 6
    return float((bottom.max() - bottom[sixth : len(columns) - sixth].min()) / height)


def _likeness(unit: Unit) -> float:
    try:
        return fit_chest(unit, pixel_spacing_mm=(1, 1)).likeness
    except PlacementError:
        return math.nan


def _order(unit: Unit, lung: Mask, fine_mm: float, coarse_mm: float, around_mm: float) -> float:
    """Coherence of the structure tensor in the lung, weighted by its strength, of what lies between two blurs."""
    from scipy.ndimage import binary_erosion, gaussian_filter

    inner = binary_erosion(lung, iterations=round(INSET_MM / WORK_MM))
    if not inner.any():
        return math.nan
    down, right = np.gradient(gaussian_filter(unit, fine_mm / WORK_MM) - gaussian_filter(unit, coarse_mm / WORK_MM))
    yy, xx, xy = (gaussian_filter(part, around_mm / WORK_MM)[inner] for part in (down**2, right**2, down * right))
    return float(np.hypot(yy - xx, 2 * xy).sum() / max((yy + xx).sum(), 1e-12))


def _resized(unit: Unit, shape: tuple[int, ...]) -> Unit:
    import cv2

    return np.asarray(cv2.resize(unit, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), dtype=np.float32)


@click.command()
@click.argument("models", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True)
@click.option("--films", type=click.Path(path_type=Path), required=True, help="Folder as of Training/film_data.py.")
@click.option("--cache", type=click.Path(path_type=Path), default=Path("runs/cache"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/film_quality"), show_default=True)
@click.option("--samples", default=24, show_default=True, help="Films of each model, seeds 1, 2 ...")
@click.option("--threads", default=1, show_default=True)
def main(models: tuple[Path, ...], films: Path, cache: Path, out: Path, samples: int, threads: int) -> None:
    """Compares MODELS by the anatomy of films of 256 px: the range is that of the films trained on."""
    import torch

    torch.set_num_threads(threads)
    known = load_films(films, cache, **read_preset("better")["data"])
    network, store = load_network(TASK), FeatureCache(cache)
    ranges = table_of(real_pictures(known, held_out=False), network, store)
    tables = {"held out": table_of(real_pictures(known, held_out=True), network, store)}
    for path in models:
        try:
            model = model_of(path)
            if model.cascade.domain != "cxr":
                raise SettingsError(f"this model makes {model.cascade.domain}", where=path, remedy="Give one of films.")
        except HiResMedSynthError as problem:
            raise click.ClickException(str(problem)) from None
        made = sampled_pictures(model, range(1, samples + 1), out / model.sha256[:12], _quiet, size=256)
        tables[path.stem] = table_of(made, network, store)
    click.echo(markdown(compare(ranges, tables)))


def _quiet(_what: str) -> None:
    return


if __name__ == "__main__":
    main()
