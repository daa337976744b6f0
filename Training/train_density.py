"""Learns a prior of chest films from a site's own labelled films: where its lesions lie in the box around the lungs.

`python -m Training.train_density --data FILMS --out runs/density`, then `hiresmedsynth models add` and `--prior NAME`.
No picture is learned from, only places: the lungs are found by the shipped danger network, lesions that lie outside
their box count nothing. A seventh of the patients is held out and says what the density is worth.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.errors import PlacementError, ReadError, SettingsError
from HiResMedSynthLib.placement.danger import danger
from HiResMedSynthLib.placement.danger_map import LUNG_CLASSES
from HiResMedSynthLib.placement.film_density import BINS, TASK, TENSOR, box_shares, lung_bins
from HiResMedSynthLib.placement.location import shipped_prior
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.method import PlacementMethod
from HiResMedSynthLib.placement.network import ENTRY, KIND, VERSION
from HiResMedSynthLib.weights import Card, check_name, write_model
from Training.film_density import FilmSites, Learned, interval, learn, nats_over_even
from Training.options import told_plainly
from Training.site_data import site_films
from Training.site_labels import lesion_sites

LEAST_PATIENTS = 5  # to learn from
SHEET_PX = 384
DOT = (0, 255, 120)


def read_films(folder: Path) -> tuple[list[FilmSites], list[FilmSites], dict[str, int]]:
    """(films to learn from, held-out films, what was left out and how often); only films with lesions.

    Raises:
        ReadError, SettingsError: as Training/site_data.py says.
    """
    sides: tuple[list[FilmSites], list[FilmSites]] = ([], [])
    left_out = {"films without recognised lungs": 0, "lesions outside the lungs' box": 0}
    for film, held_out in _films(folder, left_out):
        sides[int(held_out)].append(film)
    return *sides, left_out


def _films(folder: Path, left_out: dict[str, int]) -> Iterator[tuple[FilmSites, bool]]:
    network = PlacementMethod().danger_network("cxr")
    for one, patient, held_out in site_films(folder, progress=_progress):
        places = np.array([site[:2] for site in lesion_sites(one).get(0, [])]).reshape(-1, 2)
        if len(places) == 0:
            continue
        try:
            found = danger(one.image, domain="cxr", margins=Margins(), network=network)
        except PlacementError:
            left_out["films without recognised lungs"] += 1
            continue
        lungs = found.region(LUNG_CLASSES)[0]
        shares = box_shares(one.image, lungs, places)
        inside = ((shares >= 0) & (shares < 1)).all(axis=1)
        left_out["lesions outside the lungs' box"] += int((~inside).sum())
        if inside.any():
            yield FilmSites(patient=patient, shares=shares[inside], lung=lung_bins(one.image, lungs)), held_out


def _progress(done: int, total: int, name: str) -> None:
    if done == total or done % 50 == 0:
        click.echo(f"{done} of {total} films read: {name}")


def sheet(learned: NDArray[np.float64], shipped: NDArray[np.float64], films: list[FilmSites]) -> NDArray[np.uint8]:
    """RGB `[384, 772, 3]`: the shipped and the learned density over the mean lungs, the films' lesions as dots."""
    lungs = np.mean([film.lung / film.lung.max() for film in films], axis=0)
    panels = []
    for density in (shipped, learned):
        warm = density / max(float(shipped.max()), float(learned.max()))
        picture = np.stack([warm, 0.25 * lungs + 0.5 * warm, 0.5 * lungs * (1 - warm)], axis=-1)
        large = np.kron(
            (255 * np.clip(picture, 0, 1)).astype(np.uint8), np.ones((SHEET_PX // BINS,) * 2 + (1,), np.uint8)
        )
        for share in np.concatenate([film.shares for film in films]):
            row, column = (share * (SHEET_PX - 3)).astype(int)
            large[row : row + 3, column : column + 3] = DOT
        panels.append(large)
    return np.concatenate([panels[0], np.full((SHEET_PX, 4, 3), 255, np.uint8), panels[1]], axis=1)


@click.command(epilog="Example: python -m Training.train_density --data films --out runs/density --name our-films")
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Labelled chest films (docs/annotations.md)."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--name", default="film-density", show_default=True, help="Of the model, for --prior.")
@told_plainly()
def main(data: Path, out: Path, name: str) -> None:
    """Learns where lesions lie on chest films, from boxes, points, segments or masks of them.

    It takes a second a film and needs no GPU: there is nothing to resume.
    """
    check_name(name)
    training, held_out, left_out = read_films(data)
    patients = {film.patient for film in training}
    if len(patients) < LEAST_PATIENTS:
        raise SettingsError(
            f"{len(patients)} patient(s) with lesions in recognised lungs are too few to learn a density from",
            where=data.name,
            remedy=f"Label lesions of {LEAST_PATIENTS} patients or more, besides those that are held out.",
        )
    if not held_out:
        raise ReadError(
            "no held-out patient has a lesion in recognised lungs", where=data.name,
            remedy="Label films of more patients.",
        )  # fmt: skip
    shipped = shipped_prior().cxr.astype(np.float64)
    found = learn(training, shipped / shipped.mean())
    told = measures(found, shipped, held_out)
    count = sum(len(film.shares) for film in training)
    card = Card(
        name=name, kind=KIND, licence="as the films allow", attribution="see the data",
        data=f"places of {count} lesions on {len(training)} chest films of {len(patients)} patients; "
        f"{found.own_share:.0%} of it, the rest the shipped density",
        metrics=told, limits="chest films; knows no picture, only the box around the lungs", details={"task": TASK},
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    target = out / "best.safetensors"
    density = {TENSOR: found.density.astype(np.float32)}
    write_model(target, density, card, metadata={ENTRY: json.dumps({"version": VERSION, "task": TASK})})
    _save_picture(sheet(found.density, shipped / shipped.mean(), training), out / "density.png")
    for what, number in left_out.items():
        if number:
            click.echo(f"left out: {number} {what}")
    click.echo(
        f"{count} lesions of {len(patients)} patients: {found.own_share:.0%} own, smoothed by {found.blur_bins:g} bins "
        f"of {BINS}"
    )
    for what, value in told.items():
        click.echo(f"{what}: {value}")
    click.echo(f"{target}, {out / 'density.png'}: --prior {name} once added (hiresmedsynth models add {target})")


def measures(found: Learned, shipped: NDArray[np.float64], held_out: list[FilmSites]) -> dict[str, float | str]:
    """What the density is worth on held-out patients, in nats a lesion over a place drawn evenly in the lungs."""
    people = [film.patient for film in held_out for _ in film.shares]
    own, before = (nats_over_even(density, held_out) for density in (found.density, shipped))
    gained = interval(own - before, people)
    return {
        "held-out patients": len(set(people)),
        "nats over even": round(interval(own, people)[0], 3),
        "nats over even, shipped density": round(interval(before, people)[0], 3),
        "gained over shipped, 95 % interval": "{:+.3f} ({:+.3f} to {:+.3f})".format(*gained),
        "verdict": "better than the shipped density"
        if gained[1] > 0
        else "not shown to be better than the shipped one",
    }


def _save_picture(picture: NDArray[np.uint8], target: Path) -> None:
    from PIL import Image

    with written_aside(target) as aside:
        Image.fromarray(picture).save(aside, format="PNG")


if __name__ == "__main__":
    main()
