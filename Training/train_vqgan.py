"""Trains a VQGAN, on one device or by torchrun on several.

`python -m Training.train_vqgan --preset paper --data FOLDER --out runs/vqgan`
`torchrun --nproc-per-node 4 -m Training.train_vqgan --preset paper --data FOLDER --out runs/vqgan --device cuda`
`--data` is a folder as Training/film_data.py describes it, `--films` a file as Training/vqgan_data.py does.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import torch

from HiResMedSynthLib.background.vqgan import Vqgan, VqganShape, preset_shape
from HiResMedSynthLib.background.vqgan_cost import describe, match_parameters
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from Training.options import cache_option, run_options
from Training.precision import check_precision
from Training.ranks import join_ranks, leave_ranks
from Training.report import write_report
from Training.train_background import read_preset
from Training.vqgan_data import FilmTensors, from_film_set, load_film_tensors
from Training.vqgan_loop import train
from Training.vqgan_losses import load_perceptual
from Training.vqgan_step import VqganSettings, VqganTraining


def read_vqgan_preset(name: str) -> dict[str, Any]:
    """The tables of `vqgan_NAME.toml`, with or without the first word, or of a TOML file by path.

    Raises:
        SettingsError: there is none.
    """
    return read_preset(name if name.endswith(".toml") else f"vqgan_{name.removeprefix('vqgan_')}")


def make_shape(table: dict[str, Any], *, size: int) -> VqganShape:
    """The shape of a preset's [network] table: `base` paper or vqgan, `match` for paper's weights, any other field."""
    fields = dict(table)
    base, match = fields.pop("base"), fields.pop("match", False)
    widths = tuple(fields.pop("widths", (64, 128, 256, 512)))
    shape = preset_shape(base, widths=widths)
    shape = VqganShape.from_json({**shape.to_json(), **fields, "size": size})
    if not match:
        return shape
    paper = replace(shape, block="hdfb")
    return match_parameters(shape, describe(paper).parameters)


def make_settings(table: dict[str, Any], **options: Any) -> VqganSettings:
    """A preset's [loop] table with the options that were given.

    Raises:
        SettingsError: a name or precision that there is none of.
    """
    given = {name: value for name, value in options.items() if value is not None}
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
    try:
        settings = VqganSettings(**{**plain, **given})
    except TypeError as problem:
        raise SettingsError(f"The preset's [loop] can't be: {problem}", remedy="See VqganSettings.") from None
    check_precision(settings.precision)
    return settings


def load_data(data: Path | None, films: Path | None, cache: Path, *, size: int, canvas: dict[str, Any]) -> FilmTensors:
    """The films of a folder or of a file.

    Raises:
        SettingsError: not exactly one of both was given.
    """
    if (data is None) == (films is None):
        raise SettingsError("Films come from one place", remedy="Give --data FOLDER or --films FILE.")
    if films is not None:
        return load_film_tensors(films, size=size)
    from Training.film_data import load_films

    assert data is not None
    return from_film_set(load_films(data, cache, **canvas), size=size)


@click.command(epilog="Example: python -m Training.train_vqgan --preset paper --data films --out runs/vqgan")
@click.option("--preset", default="paper", show_default=True, help="paper, vqgan, tiny, or a TOML file.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of films.")
@click.option("--films", type=click.Path(path_type=Path), help="Prepared films, .npz or .npy.")
@click.option("--size", type=int, help="Side in pixels, in place of the preset's.")
@click.option("--seed", type=int)
@click.option("--precision", help="auto, float32 or bfloat16.")
@cache_option
@run_options
def main(
    preset: str,
    data: Path | None,
    films: Path | None,
    size: int | None,
    out: Path,
    cache: Path | None,
    resume: bool,
    time_limit: float,
    device: str,
    threads: int,
    **options: Any,
) -> None:
    """Trains a VQGAN on whole films."""
    torch.set_num_threads(threads)
    try:
        ranks = join_ranks(device)
        tables = read_vqgan_preset(preset)
        settings = make_settings(tables["loop"], **options)
        side = size or tables["data"]["size"]
        shape = make_shape(tables["network"], size=side)
        canvas = {name: tables["data"][name] for name in ("canvas_px", "spacing_mm")}
        tensors = load_data(data, films, cache or out.parent / "cache", size=side, canvas=canvas)
        torch.manual_seed(settings.seed)
        perceptual = load_perceptual(ranks.device) if settings.perceptual else None
        training = VqganTraining(Vqgan(shape), tensors, settings, ranks=ranks, perceptual=perceptual)
        sides = [len(tensors.side(held_out=held_out)) for held_out in (False, True)]
        description = {
            "network": shape.to_json(),
            "settings": asdict(settings),
            "perceptual": perceptual is not None,
            "data_sha256": tensors.sha256,
            "films": sides[0],
            "seed": settings.seed,
            "batch": settings.batch,
        }
        if ranks.first:
            cost = describe(shape)
            click.echo(
                f"{preset}: {cost.parameters / 1e6:.2f} M weights, {cost.gmac:.1f} GMAC a film of {side} px; "
                f"{sides[0]} films to train on, {sides[1]} held out"
            )
            if settings.perceptual and perceptual is None:
                click.echo("stlpips-pytorch is not installed: no perceptual loss", err=True)
        train(training, out=out, description=description, resume=resume, time_limit_s=time_limit * 60)
        if ranks.first:
            write_report(out, description, measured=("train_l1", "held_out_l1"), loss="reconstruction")
    except HiResMedSynthError as problem:
        raise click.ClickException(str(problem)) from None
    finally:
        leave_ranks()


if __name__ == "__main__":
    main()
