"""Looks at a cascade: a sheet of held-out and sampled films, power in six bands, distance to the training films.

`python -m Training.sample_film RELEASE.safetensors --data FOLDER --cache DIR --out DIR`; seeds count up from --seed.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from HiResMedSynthLib.background.cascade import REDUCTION, FilmCascade, SamplingSettings, load_cascade
from HiResMedSynthLib.evaluation.band_power import BANDS_CYCLES_PER_PIXEL, band_power
from Training import augment
from Training.film_data import FilmSet
from Training.film_sets import load_set
from Training.options import told_plainly
from Training.pictures import grey8, resized, tiled
from Training.preset_files import read_preset

Pixels = NDArray[np.float32]


def reduce(film: Pixels, factor: int) -> Pixels:
    """[row / factor, column / factor]: the mean of each factor x factor block."""
    mean: Pixels = augment.reduce(torch.from_numpy(film)[None, None], factor)[0, 0].numpy()
    return mean


def nearest_correlation(film: Pixels, others: NDArray[np.float32]) -> float:
    """Largest normalised correlation of a small film [row, column] with any of `others` [film, row, column]."""
    flat = others.reshape(len(others), -1)
    flat = flat - flat.mean(1, keepdims=True)
    own = film.ravel() - film.mean()
    return float((flat @ own / (np.linalg.norm(flat, axis=1) * np.linalg.norm(own))).max())


def mean_power(films: FilmSet, *, held_out: bool) -> NDArray[np.float64]:
    """[6] power in bands, averaged over the films of one side, inside their fields."""
    chosen = films.side(held_out=held_out)
    powers = np.stack([band_power(films.pixels[i], field=films.films[i].field) for i in chosen])
    mean: NDArray[np.float64] = powers.mean(axis=0)
    return mean


def measure_samples(made: list[Pixels], films: FilmSet) -> dict[str, object]:
    """Power ratios and nearest correlations of samples, each beside the held-out films' own."""
    real, own = mean_power(films, held_out=False), mean_power(films, held_out=True)
    factor = REDUCTION**2
    training = np.stack([reduce(films.pixels[i], factor) for i in films.side(held_out=False)])
    held_out = [nearest_correlation(reduce(films.pixels[i], factor), training) for i in films.side(held_out=True)]
    samples = [nearest_correlation(reduce(film, factor), training) for film in made]
    power = np.mean([band_power(film) for film in made], axis=0)
    return {
        "bands_cycles_per_pixel": BANDS_CYCLES_PER_PIXEL,
        "power_sample_over_train": [round(float(v), 3) for v in power / real],
        "power_held_out_over_train": [round(float(v), 3) for v in own / real],
        "nearest_training_film_samples_5_50_95_max": _quantiles(samples),
        "nearest_training_film_held_out_5_50_95_max": _quantiles(held_out),
    }


def rebuilt(cascade: FilmCascade, films: FilmSet, *, noise: tuple[float, float]) -> dict[str, list[float]]:
    """Power ratios of held-out films rebuilt from their own reduced versions, stage by stage: what each stage does."""
    results: dict[str, list[float]] = {}
    for stage, factor, level in (("detail-256", REDUCTION, noise[0]), ("detail-1024", 1, noise[1])):
        if stage not in cascade.stages:
            continue
        ratios = []
        for index in films.side(held_out=True)[:4]:
            goal = films.pixels[index] if factor == 1 else reduce(films.pixels[index], factor)
            coarse = torch.from_numpy(reduce(goal, REDUCTION))[None, None]
            generator = torch.Generator().manual_seed(index)
            made = cascade.add_detail(
                stage, coarse, generator, steps=SamplingSettings().detail_steps, condition_noise=level
            )[0, 0].numpy()
            top, left, rows, columns = (value // factor for value in films.films[index].field)
            field = (top, left, rows, columns)
            ratios.append(band_power(made, field=field) / band_power(goal, field=field))
        results[stage] = [round(float(value), 3) for value in np.mean(ratios, axis=0)]
    return results


def _quantiles(values: list[float]) -> list[float]:
    return [round(float(v), 3) for v in (*np.quantile(values, (0.05, 0.5, 0.95)), max(values))]


@click.command()
@click.argument("release", type=click.Path(path_type=Path, exists=True))
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--preset", default="better", show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--count", type=int, default=8, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True)
@told_plainly("better.toml")
def main(release: Path, data: Path, preset: str, cache: Path, out: Path, count: int, seed: int, threads: int) -> None:
    """Samples films from RELEASE and measures them against the real ones."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    cascade = load_cascade(release)
    films, _ = load_set(data, cache, **read_preset(preset)["data"])
    made, began = [], time.monotonic()
    for number in range(count):
        film = cascade.generate(seed=seed + number, sex="FM"[number % 2])
        Image.fromarray(grey8(film)).save(out / f"film-{seed + number:04d}.png")
        made.append(film)
    real = [films.pixels[i] for i in films.side(held_out=True)[:count]]
    tiles = [resized(grey8(film), 384) for film in (*real, *made)]
    Image.fromarray(tiled(tiles, across=min(count, 8))).save(out / "sheet.png")
    result = {
        "seconds_per_film": round((time.monotonic() - began) / count, 2),
        **measure_samples(made, films),
        "rebuilt_over_held_out": rebuilt(cascade, films, noise=(0.3, 0.2)),
    }
    (out / "measured.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    click.echo(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
