"""Descriptors of a model's training films for the check for copies, and an attempt to rebuild films from them.

`python -m Training.pack_descriptors FILE --data FOLDER --cache DIR [--preset better] [--show PICTURE.png]`: FILE is
NAME_descriptors.safetensors, and stands beside NAME.safetensors. Of each film it holds 128 bytes of signs; of patients,
names or pixels nothing.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw

from HiResMedSynthLib import privacy
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.privacy import (
    Pixels,
    TrainingDescriptors,
    describe,
    evened,
    signs_of,
    small_film,
    write_descriptors,
)
from HiResMedSynthLib.weights import Card
from Training.film_data import GIVE_SPACING, NO_WHOLE_FILM, FilmSet
from Training.film_sets import load_set
from Training.options import told_plainly
from Training.pictures import grey8, resized, tiled
from Training.preset_files import domain_of, read_preset
from Training.release_model import list_in_release

SHOWN = 5
CHANGED = 12  # changed copies of each film that the attacker learns from
RIDGE = 0.01


def descriptors_from(films: FilmSet) -> tuple[TrainingDescriptors, Pixels, Pixels]:
    """The descriptors, and the small training and held-out films [film, 64, 64] that they come from.

    Only whole films count: of one whose spacing is unknown the model learned detail alone.

    Raises:
        SettingsError: there is none on one side of the split.
    """
    chosen = {
        held_out: [i for i in films.side(held_out=held_out) if films.films[i].whole] for held_out in (False, True)
    }
    if not (chosen[False] and chosen[True]):
        raise SettingsError(NO_WHOLE_FILM, remedy=GIVE_SPACING)
    small = {side: np.stack([small_film(films.pixels[i]) for i in numbers]) for side, numbers in chosen.items()}
    patients = [films.films[i].patient for i in chosen[False]]
    return describe(list(small[False]), list(small[True]), patients), small[False], small[True]


def attack(training: Pixels, others: Pixels, chosen: list[int], scale: Pixels) -> Pixels:
    """Films [chosen, 64, 64] rebuilt from their signs by someone who holds all other films of the kind.

    Ridge regression from signs to pixels, learned on the other films, moved, turned and enlarged a little.
    """
    known = np.concatenate([np.delete(training, chosen, axis=0), others])
    learned = np.concatenate([known, _changed(known)])
    flat = learned.reshape(len(learned), -1)
    rebuilt = _ridge(_numbers(learned, scale), flat, _numbers(training[chosen], scale))
    return rebuilt.reshape(-1, privacy.SIDE, privacy.SIDE)


def _mean_correlation(films: Pixels, originals: Pixels) -> float:
    """Mean correlation of films with their originals, [film, row, column]."""
    each = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(films, originals, strict=True)]
    return round(float(np.mean(each)), 3)


def _numbers(films: Pixels, scale: Pixels) -> Pixels:
    """[film, 1024]: the signs that are stored of small films, as +-1."""
    packed = signs_of(np.stack([evened(film) for film in films]), scale)
    return np.unpackbits(packed.reshape(len(films), -1), axis=-1).astype(np.float32) * 2 - 1


def _ridge(inputs: Pixels, targets: Pixels, asked: Pixels) -> Pixels:
    middle, level = inputs.mean(axis=0), targets.mean(axis=0)
    centred = inputs - middle
    square = centred.T @ centred
    square += RIDGE * np.trace(square) / len(square) * np.eye(len(square), dtype=np.float32)
    return np.asarray((asked - middle) @ np.linalg.solve(square, centred.T @ (targets - level)) + level)


def _changed(films: Pixels) -> Pixels:
    from scipy.ndimage import affine_transform

    rng, middle, made = np.random.default_rng(1), (privacy.SIDE - 1) / 2, []
    for film in np.repeat(films, CHANGED, axis=0):
        angle, scale = np.deg2rad(rng.uniform(-4, 4)), rng.uniform(0.94, 1.08)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
        offset = middle - turn @ [middle, middle] + rng.uniform(-3, 3, 2)
        made.append(affine_transform(film, turn, offset=offset, order=1, mode="nearest"))
    return np.stack(made).astype(np.float32)


def _picture(rows: dict[str, Pixels]) -> Image.Image:
    """Rows of equally many films, named at the left."""
    tiles = [resized(grey8(film), 256) for films in rows.values() for film in films]
    picture = Image.fromarray(tiled(tiles, across=len(tiles) // len(rows)))
    for number, name in enumerate(rows):
        ImageDraw.Draw(picture).text((6, 256 * number + 6), name, fill=255, stroke_width=2, stroke_fill=0)
    return picture


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--cache", type=click.Path(path_type=Path), required=True)
@click.option("--preset", default="better", show_default=True)
@click.option("--domain", help="cxr or lung-ct [default: what the preset is for].")
@click.option("--licence", required=True, help="Of the films' descriptors.")
@click.option("--attribution", required=True, help="Whose films they are.")
@click.option("--what", required=True, help="The films, in words.")
@click.option("--release", is_flag=True, help="Also write the file's hash into release.json beside it.")
@click.option("--show", type=click.Path(path_type=Path), help="Picture of films rebuilt from their descriptors.")
def main(target: Path, data: Path, cache: Path, preset: str, domain: str | None, release: bool, show: Path | None,
         **told: str) -> None:  # fmt: skip
    """Writes the descriptors of a folder's training films to TARGET (NAME_descriptors.safetensors)."""
    with told_plainly(f"{preset}.toml"):
        tables = read_preset(preset)
        films, _ = load_set(data, cache, **tables["data"])
        descriptors, training, held_out = descriptors_from(films)
    chosen = np.linspace(0, len(training) - 1, SHOWN + 1).astype(int)[:SHOWN].tolist()
    rebuilt = attack(training, held_out, chosen, descriptors.scale)
    mean, originals = training.mean(axis=0), training[chosen]
    rebuilding = {
        "correlation": _mean_correlation(rebuilt, originals),
        "less_mean_film": _mean_correlation(rebuilt - mean, originals - mean),
        "evened": _mean_correlation(*(np.stack([evened(film) for film in films]) for films in (rebuilt, originals))),
    }
    alone = _mean_correlation(np.repeat(mean[None], SHOWN, axis=0), originals)
    rate = descriptors.copy_rate(held_out)
    card = Card(
        name=target.stem,
        kind=privacy.KIND,
        data=f"{len(training)} training and {len(held_out)} held-out films: {told['what']}",
        licence=told["licence"],
        attribution=told["attribution"],
        metrics={
            "limits_by_size_of_part": " ".join(f"{limit:.3f}" for limit in descriptors.limits),
            "held_out_near_copies": round(rate, 3),
            "rebuilt_correlation": rebuilding["correlation"],
            "mean_film_correlation": alone,
        },
        limits="Finds near copies of training films, whole or in part, at 64 px; no proof of privacy.",
        created=datetime.now(UTC).date().isoformat(),
        details={"domain": domain or domain_of(tables), "films": len(training)},
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_descriptors(target, descriptors, card)
    if release:
        list_in_release(target)
    if show is not None:
        rows = {"original": originals, "rebuilt": rebuilt, "mean film": np.repeat(mean[None], SHOWN, axis=0)}
        _picture(rows).save(show)
    click.echo(
        json.dumps(
            {
                "bytes": target.stat().st_size,
                "rebuilt": rebuilding,
                "mean_film_correlation": alone,
                "metrics": card.metrics,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
