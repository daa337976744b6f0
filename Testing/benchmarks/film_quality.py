"""How good a background model is: on patients it never saw, and by what it makes from nothing.

`python -m Testing.benchmarks.film_quality --films FOLDER [--model FILE] [--domain lung-ct --preset lung_ct]`

Reconstructions of held-out films beside those of films trained on; power in bands; use of the codes; distances of
samples (seeds 1, 2 ...) to real films, each beside its floor; nearness to films trained on; anatomy (chest films);
seconds. Written to OUT/HASH: film_quality.json, film_quality.md, sheet.jpg, sheet-full.png, nearest.png and every film
made as a 16-bit PNG, which a second run takes up again.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from HiResMedSynthLib.background.domain_values import values_of
from HiResMedSynthLib.background.find_model import BackgroundModel, find_background
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.evaluation.feature_cache import FeatureCache
from HiResMedSynthLib.placement.network import load_network
from HiResMedSynthLib.placement.regions_film import TASK
from HiResMedSynthLib.privacy import descriptors_of
from Testing.benchmarks import film_quality_rows, film_structure
from Testing.benchmarks.film_quality_sets import (
    Pictures,
    Unit,
    as_image,
    model_of,
    real_pictures,
    rebuilt_pictures,
    sampled_pictures,
)
from Testing.benchmarks.film_quality_table import markdown
from Testing.benchmarks.film_speed import seconds
from Training.film_data import FilmSet
from Training.film_sets import load_set
from Training.preset_files import read_preset

ACROSS, TILE, LARGEST_SHEET = 8, 192, 200_000  # films in a row of the sheet; px; bytes


def sheet(rows: list[list[Unit]], side: int) -> Image.Image:
    """Rows of pictures as grey tiles of `side` pixels, each in the middle of its tile."""
    grid = Image.new("L", (max(map(len, rows)) * side, len(rows) * side))
    for down, row in enumerate(rows):
        for across, unit in enumerate(row):
            grey = Image.fromarray(np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8))
            grey.thumbnail((side, side), Image.Resampling.LANCZOS)
            grid.paste(grey, (across * side + (side - grey.width) // 2, down * side + (side - grey.height) // 2))
    return grid


def save_small(picture: Image.Image, file: Path) -> None:
    """Writes a JPEG of at most 200 KB, at the highest quality that allows it."""
    for quality in range(92, 30, -4):
        picture.save(file, quality=quality)
        if file.stat().st_size <= LARGEST_SHEET:
            return


def _nearest_sheet(films: FilmSet, made: Pictures, names: list[str]) -> Image.Image:
    by_name = {film.name: pixels for film, pixels in zip(films.films, films.pixels, strict=True)}
    return sheet([list(made.units[:ACROSS]), [(by_name[name] + 1) / 2 for name in names[:ACROSS]]], 512)


@click.command()
@click.option("--model", "file", type=click.Path(path_type=Path, exists=True), help="Default: the shipped one.")
@click.option("--domain", default="cxr", show_default=True, help="Of the shipped model, where no FILE is given.")
@click.option("--preset", default="better", show_default=True, help="Its [data] table says how films are prepared.")
@click.option("--films", "data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path("runs/cache"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/film_quality"), show_default=True)
@click.option("--samples", default=24, show_default=True)
@click.option("--rebuilt", default=27, show_default=True, help="Films of each side to rebuild, at most.")
@click.option("--most", default=64, show_default=True, help="Real films of each side to compare with, at most.")
@click.option("--seed", default=1, show_default=True, help="Of draws of patients.")
@click.option("--speed/--no-speed", default=True, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(file: Path | None, domain: str, preset: str, data: Path, cache: Path, out: Path, samples: int, rebuilt: int,
         most: int, seed: int, speed: bool, threads: int) -> None:  # fmt: skip
    """Measures a background model."""
    torch.set_num_threads(threads)
    try:
        model = model_of(file or find_background(domain=domain).path)
        _measure(model, data, preset, cache, out / model.sha256[:12], samples, rebuilt, most, seed, speed)
    except HiResMedSynthError as problem:
        raise click.ClickException(str(problem)) from None


def _measure(model: BackgroundModel, data: Path, preset: str, cache: Path, out: Path, samples: int, rebuilt: int,
             most: int, seed: int, speed: bool) -> None:  # fmt: skip
    def say(what: str) -> None:
        click.echo(what, err=True)

    films, data_sha256 = load_set(data, cache, **read_preset(preset)["data"])
    if films.pixels.shape[-1] != model.cascade.side:
        raise SettingsError(
            f"the model makes {model.cascade.side} px, preset '{preset}' prepares {films.pixels.shape[-1]}",
            remedy="Give the preset that it was trained with.",
        )
    store = FeatureCache(cache)
    held_out, trained = (real_pictures(films, held_out=side, most=most) for side in (True, False))
    some = [real_pictures(films, held_out=side, most=rebuilt) for side in (True, False)]
    made = sampled_pictures(model, range(1, samples + 1), out, say)
    again = [rebuilt_pictures(model, real, out, say) for real in some]
    say("pairs, power, codes, distances")
    result: dict[str, Any] = {
        "model": model.identity,
        "data_sha256": data_sha256,
        "films": {"held out": len(held_out.units), "trained on": len(trained.units), "sampled": samples},
        "machine": {"torch": torch.__version__, "threads": torch.get_num_threads(), "load": os.getloadavg()[0]},
        "pairs": {
            real.name: film_quality_rows.pairs(real, new, seed=seed) for real, new in zip(some, again, strict=True)
        },
        "power": {
            "samples": film_quality_rows.powers([trained, held_out, made], seed=seed),
            "rebuilt": [film_quality_rows.powers(list(two), seed=seed) for two in zip(some, again, strict=True)],
        },
        "codes": film_quality_rows.codes(model.cascade, [held_out, trained]),
        "distances": {
            "trained on": film_quality_rows.distances(trained, [made, held_out], store, seed=seed, say=say),
            "held out": film_quality_rows.distances(held_out, [made, again[0]], store, seed=seed, say=say),
        },
        "copies": film_quality_rows.copies(films, made, held_out, descriptors_of(model.cascade.domain)),
    }
    if model.cascade.domain == "cxr":
        say("anatomy")
        network = load_network(TASK)
        ranges, *tables = (film_structure.table_of(one, network, store) for one in (trained, held_out, again[0], made))
        names = (held_out.name, again[0].name, made.name)
        compared = film_structure.compare(ranges, dict(zip(names, tables, strict=True)))
        result["anatomy"] = asdict(compared)
    if speed:
        image = as_image(held_out.units[0], values_of(model.cascade.domain), held_out.spacing_mm)
        result["seconds, wall and CPU"] = seconds(model, image)
    rows = [list(one.units[:ACROSS]) for one in (some[0], again[0], made)]
    sheet(rows, model.cascade.side).save(out / "sheet-full.png")
    save_small(sheet(rows, TILE), out / "sheet.jpg")
    if "sampled" in result["copies"]:
        _nearest_sheet(films, made, result["copies"]["sampled"]["nearest"]).save(out / "nearest.png")
    (out / "film_quality.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    table = markdown(result)
    (out / "film_quality.md").write_text(table, encoding="utf-8")
    click.echo(table)


if __name__ == "__main__":
    main()
