"""Measures a packed cascade's spectral calibration and writes it into the file's header.

`python -m Training.calibrate_cascade RELEASE.safetensors --data FOLDER --cache DIR --out CALIBRATED.safetensors`
Films are made with seeds from 100,001 on, so that those looked at later weren't used.
"""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import torch

from HiResMedSynthLib.background.calibration import gains_for
from HiResMedSynthLib.background.cascade import load_cascade
from HiResMedSynthLib.evaluation.band_power import power_in
from HiResMedSynthLib.whole_tensors import read_whole, save_tensors
from Training.film_sets import load_set
from Training.options import told_plainly
from Training.preset_files import read_preset

EDGES = (0.02, 0.035, 0.05, 0.07, 0.1, 0.14, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)  # cycles/pixel
FIRST_SEED = 100_001


@click.command()
@click.argument("release", type=click.Path(path_type=Path, exists=True))
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--preset", default="better", show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--count", default=12, show_default=True, help="Films to make.")
@click.option("--threads", default=1, show_default=True)
@told_plainly("better.toml")
def main(release: Path, data: Path, preset: str, cache: Path, out: Path, count: int, threads: int) -> None:
    """Makes films with RELEASE, compares their power with the training films', writes OUT."""
    torch.set_num_threads(threads)
    bands = list(pairwise(EDGES))
    films, _ = load_set(data, cache, **read_preset(preset)["data"])
    real = np.mean(
        [power_in(films.pixels[i], bands, field=films.films[i].field) for i in films.side(held_out=False)], axis=0
    )
    cascade = dataclasses.replace(load_cascade(release), calibration=None)
    made = []
    for number in range(count):
        made.append(power_in(cascade.generate(seed=FIRST_SEED + number, sex="FM"[number % 2]), bands))
        click.echo(f"{number + 1}/{count}: {np.round(made[-1] / real, 2).tolist()}")
    gains = gains_for(np.mean(made, axis=0), real)
    tensors, metadata = read_whole(release, "pt")
    described = json.loads(metadata["cascade"])
    frequencies = [round(float(np.sqrt(low * high)), 4) for low, high in bands]
    described["calibration"] = {"frequencies": frequencies, "gains": gains}
    save_tensors(out, tensors, {**metadata, "cascade": json.dumps(described)})
    click.echo(f"gains: {dict(zip(frequencies, gains, strict=True))}")


if __name__ == "__main__":
    main()
