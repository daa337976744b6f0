"""The paper's Table 2 made anew: every baseline and the cascade against real films, with intervals and floors.

python -m Testing.benchmarks.baselines table FILMS --runs RUNS --better MADE --cache CACHE --out OUT
python -m Testing.benchmarks.baselines ablation MADE --out OUT

FILMS: the folder that all were trained on (Training/film_data.py). RUNS: NAME/samples.npz of `python -m
Training.baselines NAME`, seeds 1, 2, ..., none left out. MADE: 64 films of `hiresmedsynth generate --count 64 --seed 1
--format png --domain cxr`. Writes OUT/table.json, OUT/ablation.json, OUT/tables.md and OUT/sheet.jpg.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.evaluation.band_power import BANDS_CYCLES_PER_PIXEL
from HiResMedSynthLib.evaluation.feature_cache import FeatureCache
from HiResMedSynthLib.privacy import descriptors_of
from Testing.benchmarks.baselines_ablation import ablation
from Testing.benchmarks.baselines_measures import (
    CROP,
    LEARNED_FILMS,
    LEARNED_PAIRS,
    SIDE,
    Film,
    FilmSet,
    copy_share,
    distances,
    fingerprint,
    measured,
    paired,
    power_ratios,
)
from Training.baselines.samples import Samples
from Training.film_data import FilmSet as TrainingFilms
from Training.film_data import load_films
from Training.preset_files import read_preset

ORDER = ("ddm", "fastgan", "styleswin", "singan_film", "vqgan")
BETTER, HELD_OUT = "cascade (better)", "real, held out"
SHARES = ("precision", "recall", "density", "coverage")
TILE, ACROSS, QUALITY = 128, 8, 55


def real_films(films: TrainingFilms, *, held_out: bool) -> Iterator[tuple[str, Film]]:
    """(patient, film in 0..1) of one side, those whose field holds the central square."""
    edge = (SIDE - CROP) // 2
    for index in films.side(held_out=held_out):
        film = films.films[index]
        top, left, rows, columns = film.field
        if film.whole and max(top, left) <= edge and min(top + rows, left + columns) >= edge + CROP:
            yield film.patient, np.asarray((films.pixels[index] + 1) / 2, dtype=np.float32)


def made_films(folder: Path) -> Iterator[tuple[str, Film]]:
    """(name, film in 0..1) of a folder of 16-bit PNG."""
    for path in sorted(folder.glob("*-[0-9][0-9][0-9][0-9].png")):
        with Image.open(path) as picture:
            film: Film = np.asarray(picture, dtype=np.float32)
        yield path.stem, film / np.float32(65535)


def facts_of(folder: Path) -> dict[str, Any]:
    """The model and how many near copies it drew again, where `generated.json` tells."""
    if not (folder / "generated.json").is_file():
        return {"folder": folder.name}
    told = json.loads((folder / "generated.json").read_text(encoding="utf-8"))
    return {"model": told["model"], "redrawn": sum(len(film["redrawn"]) for film in told["images"])}


def baseline_films(samples: Samples) -> Iterator[tuple[str, Film]]:
    """(seed, film in 0..1), enlarged."""
    for seed, film in zip(samples.seeds, samples.films, strict=True):
        one = Samples(films=film[None], seeds=samples.seeds[:1], facts={})
        yield str(seed), one.enlarged(SIDE)[0]


def sheet(rows: list[list[Film]], path: Path, *, across: int = ACROSS, tile: int = TILE) -> None:
    """Writes one row of eight films a method, as JPEG."""
    tiles = [[_tile(film, tile) for film in row[:across]] for row in rows]
    picture = np.concatenate([np.concatenate(row, axis=1) for row in tiles])
    Image.fromarray(picture).save(path, quality=QUALITY, optimize=True)


def _tile(film: Film, side: int) -> NDArray[np.uint8]:
    grey = Image.fromarray(np.rint(film * 255).clip(0, 255).astype(np.uint8))
    return np.asarray(grey.resize((side, side), Image.Resampling.LANCZOS))


@click.group(help=__doc__)
def main() -> None:
    """Commands."""


@main.command("table")
@click.argument("films", type=click.Path(exists=True, path_type=Path))
@click.option("--runs", type=click.Path(path_type=Path), required=True)
@click.option("--better", type=click.Path(path_type=Path), required=True)
@click.option("--cache", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def table_command(films: Path, runs: Path, better: Path, cache: Path, out: Path) -> None:
    """Measures every set that is there."""
    out.mkdir(parents=True, exist_ok=True)
    kept, descriptors = FeatureCache(out), descriptors_of("cxr")
    real = load_films(films, cache, **read_preset("better")["data"])
    training = measured("training", real_films(real, held_out=False), kept)
    sets = {HELD_OUT: measured(HELD_OUT, real_films(real, held_out=True), kept, descriptors=descriptors)}
    facts: dict[str, Any] = {}
    rows = {HELD_OUT: [film for _, film in real_films(real, held_out=True)]}
    del real
    for name in ORDER:
        if (runs / name / "samples.npz").is_file():
            samples = Samples.load(runs / name / "samples.npz")
            facts[name] = samples.facts
            rows[name] = [film for _, film in baseline_films(samples)][:ACROSS]
            sets[name] = measured(name, baseline_films(samples), kept, learned=LEARNED_FILMS, descriptors=descriptors)
            click.echo(f"{name} measured", err=True)
    if better.is_dir():
        facts[BETTER] = facts_of(better)
        rows[BETTER] = [film for _, film in made_films(better)][:ACROSS]
        sets[BETTER] = measured(BETTER, made_films(better), kept, learned=LEARNED_FILMS, descriptors=descriptors)
    sheet(list(rows.values()), out / "sheet.jpg")
    found: dict[str, Any] = {"training_films": len(training.groups), "facts": facts, "sets": {}}
    held_out = sets[HELD_OUT]
    for name, one in sets.items():
        known = training if name == HELD_OUT else joined(training, held_out)
        found["sets"][name] = compared(one, known, training, held_out, out / f"{slug(name)}.json")
        click.echo(f"{name} compared", err=True)
    (out / "table.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (out / "tables.md").write_text(markdown(found), encoding="utf-8")
    click.echo(markdown(found))


def compared(one: FilmSet, real: FilmSet, training: FilmSet, held_out: FilmSet, kept: Path) -> dict[str, Any]:
    """Every figure of a set; kept in a file, so that only what isn't there, or is of other films, is measured."""
    found: dict[str, Any] = {}
    if kept.is_file():
        found = json.loads(kept.read_text(encoding="utf-8"))
    if found.get("fingerprint") != fingerprint(one, real):
        found = {"fingerprint": fingerprint(one, real), "films": len(one.groups)}
    parts: dict[str, Callable[[], Any]] = {
        "distances": lambda: distances(real, one),
        "power": lambda: power_ratios(training, one),
        "copies": lambda: copy_share(one),
        "random held-out film": lambda: paired(one, held_out, nearest=False),
        "nearest training film": lambda: paired(one, training, nearest=True),
    }
    found |= {name: measure() for name, measure in parts.items() if name not in found}
    with written_aside(kept) as aside:
        aside.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def slug(name: str) -> str:
    """The name as a file's."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def joined(one: FilmSet, other: FilmSet) -> FilmSet:
    """Both sets of real films as one."""
    return FilmSet(
        name="real",
        groups=one.groups + other.groups,
        features={space: np.concatenate([one.features[space], other.features[space]]) for space in one.features},
        power=np.concatenate([one.power, other.power]),
        small=np.concatenate([one.small, other.small]),
        likeness=np.concatenate([one.likeness, other.likeness]),
        copies=np.concatenate([one.copies, other.copies]),
    )


def markdown(found: dict[str, Any]) -> str:
    """The tables: distances, precision and its like, power, near copies and pairs; x marks what is beyond the floor."""
    sets = found["sets"]
    spaces = list(next(iter(sets.values()))["distances"])
    columns = [(space, name) for space in spaces for name in ("frechet", "kid")]
    lines = _table(
        ["set, films a side", *(f"{name}, {space}" for space, name in columns)],
        sets,
        lambda one: [_a_side(one), *(_cell(one["distances"][space][name]) for space, name in columns)],
    )
    for space in spaces:
        lines += _table([f"set, {space}", *SHARES], sets, partial(_shares, space))
    lines += _table(
        ["power over training films', c/px", *(f"{low:g}-{high:g}" for low, high in BANDS_CYCLES_PER_PIXEL)],
        sets,
        lambda one: ["", *(_with(v) for v in one["power"])],
    )
    lines += _table(["set", "near copies of training films", "likeness, median and largest"], sets, _copies)
    for pairing in ("random held-out film", "nearest training film"):
        head = [f"against a {pairing}", "PSNR, dB", "SSIM", f"ST-LPIPS, {LEARNED_PAIRS} pairs"]
        lines += _table(head, sets, partial(_pairs, pairing))
    return "\n".join(lines)


def _table(head: list[str], sets: dict[str, Any], cells: Callable[[Any], list[str]]) -> list[str]:
    """Lines of a table with a row a set; the first of the cells stands behind the set's name."""
    rows = [[f"{name}{first}", *rest] for name, one in sets.items() for first, *rest in [cells(one)]]
    return [*(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)), ""]


def _a_side(one: dict[str, Any]) -> str:
    counts = [space["kid"]["a_side"] for space in one["distances"].values()]
    return f", {counts[0]}" + (f" (VGG {counts[-1]})" if counts[-1] != counts[0] else "")


def _shares(space: str, one: dict[str, Any]) -> list[str]:
    return ["", *(_cell(one["distances"][space][name]) for name in SHARES)]


def _pairs(pairing: str, one: dict[str, Any]) -> list[str]:
    return ["", *(_with(one[pairing][key]) for key in ("psnr_db", "ssim", "st_lpips"))]


def _copies(one: dict[str, Any]) -> list[str]:
    near = one["copies"]
    share = f"{near['copies']} of {near['of']} ({_short(near['interval'][0])} to {_short(near['interval'][1])})"
    return ["", share, f"{near['likeness_median']:.2f}, {near['likeness_largest']:.2f}"]


def _cell(one: dict[str, Any]) -> str:
    """Value (interval; floor), marked x where it is beyond the floor."""
    beyond = "" if one["within_floor"] else " x"
    return f"{_short(one['value'])} ({_span(one['interval'])}; {_short(one['floor'])}){beyond}"


def _with(one: dict[str, Any]) -> str:
    return f"{_short(one['value'])} ({_span(one['interval'])})"


def _short(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"


def _span(interval: list[float | None]) -> str:
    if interval[0] is None or interval[1] is None:
        return "no spread"
    return f"{_short(interval[0])} to {_short(interval[1])}"


@main.command("ablation")
@click.argument("made", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--backgrounds", type=click.IntRange(2), default=10, show_default=True)
def ablation_command(made: Path, out: Path, backgrounds: int) -> None:
    """One lesion on ten backgrounds, five lesions on each."""
    out.mkdir(parents=True, exist_ok=True)
    found = ablation(made, count=backgrounds)
    (out / "ablation.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    click.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
