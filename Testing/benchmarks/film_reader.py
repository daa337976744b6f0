"""Can a small 2-D network tell nodules put onto films from real nodules' shadows there?

python -m Testing.benchmarks.film_reader FOLDER_OF_lidc_nodule_voi_hu FOLDER_OF_cxr_nih --out FOLDER

The pairs of fusion_film.py, each on two films. Beside the product's ways a ball of water of the same size and mass:
a reader that can't tell that sees nothing.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.evaluation.picture_reader import picture_reader
from Testing.benchmarks.fusion_film import SEED, WAYS, Pair, grounds, laid_on, matched, paired
from Testing.benchmarks.reader_rows import HEAD, TOLD, control, row, where_it_looked
from Training.build_film_contrasts import Shadow
from Training.nodule_source import nodules

FILMS_EACH = 2
PIXELS, ACROSS = 64, 3.0  # of the window, its edge in diameters
SIGMAS = 4.0  # a window's grey levels from its mean, from -1 to 1
EPOCHS = 20


def ball(shadow: Shadow) -> Shadow:
    """The shadow of a ball of the same diameter and mass."""
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in shadow.depth_mm.shape)
    away = np.hypot(rows[:, np.newaxis] * shadow.spacing_mm[0], columns * shadow.spacing_mm[1])
    depth = np.sqrt(np.maximum(1 - (2 * away / shadow.diameter_mm) ** 2, 0))
    depth *= shadow.depth_mm.sum() / max(float(depth.sum()), 1e-6)
    return Shadow(depth_mm=depth.astype(np.float32), spacing_mm=shadow.spacing_mm, diameter_mm=shadow.diameter_mm)


def window(film: NDArray[np.float32], pair: Pair) -> NDArray[np.float32]:
    """`[64, 64]`, about -1 to 1: the film around the lesion, pixels made square, its own mean and spread taken out."""
    edge = ACROSS * pair.diameter_mm
    offsets = (np.arange(PIXELS) + 0.5) / PIXELS * edge - edge / 2
    at = [center + offsets / step for center, step in zip(pair.center, pair.spacing_mm, strict=True)]
    seen = map_coordinates(film, np.stack(np.meshgrid(*at, indexing="ij")), order=1, mode="nearest")
    return np.asarray((seen - seen.mean()) / max(SIGMAS / 2 * float(seen.std()), 1.0), np.float32)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.argument("films", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for windows and sheets.")
@click.option("--limit", type=int, help="At most so many pairs.")
@click.option("--epochs", default=EPOCHS, show_default=True, help="Of the network.")
def main(folder: Path, films: Path, out: Path, limit: int | None, epochs: int) -> None:
    """Prints the table as Markdown; the windows are kept in OUT/windows.npz and used again."""
    import torch

    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "windows.npz"
    if not kept.is_file():
        aside = kept.with_suffix(".part.npz")
        np.savez_compressed(aside, **windows(folder, films, limit))
        aside.replace(kept)
    with np.load(kept, allow_pickle=False) as packed:
        seen = {name: packed[name] for name in packed.files}
    patients = seen.pop("patients")
    click.echo(f"{len(set(patients))} patients, {len(patients)} places\n\n{HEAD}")
    begun = time.process_time()
    for way in ("better", "alpha", "ball"):
        found = picture_reader(seen["real"], seen[way], patients, patients, 0, epochs=epochs)
        click.echo(row(f"real, {way}", found))
        if found.reading.auc > TOLD:
            where_it_looked(seen["real"], seen[way], found, out / f"saliency-{way}.png")
    click.echo(control(seen["real"], patients, epochs=epochs))
    click.echo(f"\n{time.process_time() - begun:.0f} CPU s for the four")


def windows(folder: Path, films: Path, limit: int | None) -> dict[str, NDArray[np.float32] | NDArray[np.str_]]:
    """Of each way `[n, 64, 64]`, and the host's patient."""
    prepared, rng = grounds(films), np.random.default_rng(SEED)
    seen: dict[str, list[NDArray[np.float32]]] = {way: [] for way in ("real", "ball", *WAYS)}
    patients: list[str] = []
    for k, (host, shadow, donor) in enumerate(itertools.islice(matched(list(nodules(folder))), limit)):
        for other in range(FILMS_EACH):
            ground = prepared[(FILMS_EACH * k + other) % len(prepared)]
            try:
                pair = paired(ground, host, shadow, donor, rng)
            except HiResMedSynthError as error:
                click.echo(f"{host.row['key']}: {error.what}", err=True)
                continue
            at = (round(pair.center[0]), round(pair.center[1]))
            made = {**pair.made, "ball": laid_on(ground, ball(shadow), at)}
            for way, film in made.items():
                seen[way].append(window(film, pair))
            patients.append(host.patient_id)
    return {**{way: np.stack(found) for way, found in seen.items()}, "patients": np.array(patients)}


if __name__ == "__main__":
    main()
