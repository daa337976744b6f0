"""Learns a prior of chest films from a site's own labelled films: where its lesions lie in the box around the lungs.

`python -m Training.train_density --data FILMS --out runs/density`, then `hiresmedsynth models add` and `--prior NAME`.
No picture is learned from, only places: the lungs are found by the shipped danger network; a lesion that doesn't lie in
them counts nothing, for none can be placed there. What the density is worth is measured on patients left out in turn.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from HiResMedSynthLib.annotated_image import AnnotatedImage
from HiResMedSynthLib.annotation_classes import is_anatomy, is_nodule
from HiResMedSynthLib.annotation_needs import LEAST_PATIENTS
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
from Training.film_density import FilmSites, Grid, Learned, cross_fitted, interval, learn
from Training.options import told_plainly
from Training.site_data import site_films
from Training.site_labels import lesion_sites

if TYPE_CHECKING:
    from PIL.Image import Image

LEAST_TO_TELL = 20  # patients: of fewer an interval over patients says nothing
SHEET_PX = 384
NAMED = 5  # films of which something was left out


def read_films(folder: Path, classes: Collection[str] = ()) -> tuple[list[FilmSites], dict[str, list[str]]]:
    """(films with lesions in recognised lungs, films by why they or lesions of theirs were left out).

    Args:
        folder: in any format of docs/annotations.md.
        classes: lesions that count; none: all that are called nodule, mass, tumour ... (`is_nodule`).

    Raises:
        ReadError, SettingsError: as Training/site_data.py says, or no film has lesions of these classes.
    """
    films: list[FilmSites] = []
    seen: set[str] = set()
    left_out: dict[str, list[str]] = {"lungs not recognised": [], "lesions outside the recognised lungs": []}
    network = PlacementMethod().danger_network("cxr")
    for one, patient in site_films(folder, progress=_progress):
        seen |= _names(one)
        places = np.array([site[:2] for site in lesion_sites(_of_classes(one, classes)).get(0, [])]).reshape(-1, 2)
        if len(places) == 0:
            continue
        try:
            lungs = danger(one.image, domain="cxr", margins=Margins(), network=network).region(LUNG_CLASSES)[0]
        except PlacementError:
            left_out["lungs not recognised"].append(one.name)
            continue
        inside = lungs[tuple(np.rint(places).astype(int).T)]
        left_out["lesions outside the recognised lungs"] += [one.name] * int((~inside).sum())
        if inside.any():
            shares = box_shares(one.image, lungs, places[inside])
            films.append(FilmSites(patient=patient, shares=shares, lung=lung_bins(one.image, lungs)))
    told = ", ".join(sorted(name for name in seen if not is_anatomy(name)))
    unknown = sorted(set(classes) - seen)
    if unknown:
        raise SettingsError(f"no film has a '{unknown[0]}'", where=folder.name, remedy=f"Give some of: {told}.")
    if not classes and not any(map(is_nodule, seen)):
        raise SettingsError(f"no nodule or mass is labelled on these films, but: {told}", where=folder.name,
                            remedy="Say by --class which of them to learn from.")  # fmt: skip
    return films, left_out


def _names(one: AnnotatedImage) -> set[str]:
    painted = set() if one.class_map is None else set(one.class_map.names.values())
    return painted | {mark.class_name for mark in one.marks}


def _of_classes(one: AnnotatedImage, classes: Collection[str]) -> AnnotatedImage:
    """The image with the lesions of these classes alone."""

    def counts(name: str) -> bool:
        return name in classes if classes else is_nodule(name)

    painted = one.class_map
    if painted is not None:
        kept = {number: name for number, name in painted.names.items() if counts(name)}
        painted = replace(painted, labels=np.where(np.isin(painted.labels, list(kept)), painted.labels, 0), names=kept)
    return replace(one, marks=tuple(mark for mark in one.marks if counts(mark.class_name)), class_map=painted)


def _progress(done: int, total: int, _name: str) -> None:
    if done == total or done % 50 == 0:
        click.echo(f"{done} of {total} films read")


def sheet(learned: Grid, shipped: Grid, films: list[FilmSites]) -> Image:
    """RGB, 772 x 404: the shipped and the learned density over the mean lungs of the films (blue)."""
    from PIL import Image, ImageDraw, ImageFont

    lungs = np.mean([film.lung / film.lung.max() for film in films], axis=0)
    panels = []
    for density in (shipped, learned):
        warm = density / max(float(shipped.max()), float(learned.max()))
        picture = np.stack([warm, 0.25 * lungs + 0.5 * warm, 0.5 * lungs * (1 - warm)], axis=-1)
        cell = np.ones((SHEET_PX // BINS, SHEET_PX // BINS, 1), np.uint8)
        panels.append(np.kron((255 * np.clip(picture, 0, 1)).astype(np.uint8), cell))
    drawn = Image.new("RGB", (2 * SHEET_PX + 4, SHEET_PX + 20), "white")
    for left, panel, caption in zip((0, SHEET_PX + 4), panels, ("shipped prior", "with these films"), strict=True):
        drawn.paste(Image.fromarray(panel), (left, 20))
        words = f"{caption}: yellow where lesions are likely, lungs blue; R at the left"
        ImageDraw.Draw(drawn).text((left + 4, 4), words, fill="black", font=ImageFont.load_default(11))
    return drawn


@click.command(epilog="Example: python -m Training.train_density --data films --out runs/density --name our-films")
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Labelled chest films (docs/annotations.md)."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--name", default="film-density", show_default=True, help="Of the model, for --prior.")
@click.option("--class", "classes", multiple=True, help="Lesions that count; repeatable [default: nodules and masses].")
@click.option("--licence", default="as the films allow", show_default=True, help="For the model's card.")
@click.option("--attribution", default="see the data", show_default=True, help="For the model's card: whom to name.")
@told_plainly()
def main(data: Path, out: Path, name: str, classes: tuple[str, ...], licence: str, attribution: str) -> None:
    """Learns where lesions lie on chest films, from boxes, points, segments or masks of them.

    It takes a second a film and needs no GPU: there is nothing to resume.
    """
    check_name(name)
    target = out / "best.safetensors"
    if target.exists():
        raise SettingsError("This folder holds a run", where=out, remedy="Give another folder.")
    films, left_out = read_films(data, classes)
    patients = {film.patient for film in films}
    if len(patients) < LEAST_PATIENTS:
        raise ReadError(
            f"{len(patients)} patient(s) with such lesions in recognised lungs are too few to learn a density from",
            where=data.name,
            remedy=f"Label lesions of {LEAST_PATIENTS} patients or more; other kinds of lesions are named by --class.",
        )
    shipped = shipped_prior().cxr.astype(np.float64)
    shipped /= shipped.mean()
    found = learn(films, shipped)
    told = measures(films, shipped)
    card = _card(name, films, found, told, licence=licence, attribution=attribution)
    out.mkdir(parents=True, exist_ok=True)
    density = {TENSOR: found.density.astype(np.float32)}
    header = json.dumps({"version": VERSION, "task": TASK})
    write_model(target, density, card, metadata={ENTRY: header})
    with written_aside(out / "density.png") as aside:
        sheet(found.density, shipped, films).save(aside, format="PNG")
    for why, names in left_out.items():
        if names:
            some = ", ".join(list(dict.fromkeys(names))[:NAMED]) + (" ..." if len(set(names)) > NAMED else "")
            click.echo(f"left out, {why}: {len(names)} ({some})")
    click.echo(f"{card.data}; smoothed by {found.blur_bins:g} of {BINS} bins")
    for what, value in told.items():
        click.echo(f"{what}: {value}")
    click.echo(f"{target}, {out / 'density.png'}: --prior {name} once added (hiresmedsynth models add {target})")


def measures(films: list[FilmSites], shipped: Grid) -> dict[str, float | str]:
    """What such a density is worth on patients that it wasn't learned from, in nats (log-likelihood) a lesion."""
    before, learned = cross_fitted(films, shipped)
    if len(before) < LEAST_TO_TELL:
        return {"verdict": f"not measurable with fewer than {LEAST_TO_TELL} patients", "patients": len(before)}
    gained = interval(learned - before)
    return {
        "verdict": "better than the shipped prior"
        if gained[1] > 0
        else "not shown to be better than the shipped prior; keep that one unless your lesions lie elsewhere",
        "gained over the shipped prior (above 0 is better; 95 %)": _told(gained),
        "likelihood over a place drawn evenly": _told(interval(learned)),
        "the shipped prior's": _told(interval(before)),
        "patients, left out in turn": len(before),
    }


def _told(found: tuple[float, float, float]) -> str:
    return "{:+.3f} nats a lesion ({:+.3f} to {:+.3f})".format(*found)


def _card(
    name: str, films: list[FilmSites], found: Learned, told: dict[str, float | str], *, licence: str, attribution: str
) -> Card:
    lesions, patients = sum(len(film.shares) for film in films), len({film.patient for film in films})
    return Card(
        name=name, kind=KIND, licence=licence, attribution=attribution, metrics=told,
        data=f"places of {lesions} lesions on {len(films)} chest films of {patients} patients; {found.own_share:.0%} "
        "of the density is theirs, the rest the shipped one's",
        limits="chest films; knows no picture, only the box around the lungs", details={"task": TASK},
    )  # fmt: skip


if __name__ == "__main__":
    main()
