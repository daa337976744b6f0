"""Trains a prior over a film cascade's codes: with it the anatomy is drawn first, and the flow draws the film from it.

`python -m Training.train_token_prior --cascade cascade.safetensors --data FOLDER --out runs/prior`
`torchrun --nproc-per-node 4 -m Training.train_token_prior ... --device cuda` on several devices.
Input format as for Training/train_background.py. Presets: token_prior (masked transformer), token_gpt (GPT in raster
order, one index a position), token_prior_tiny.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from HiResMedSynthLib.background.cascade import FilmCascade, SamplingSettings, load_cascade
from HiResMedSynthLib.background.quantiser import FSQ
from HiResMedSynthLib.background.token_layers import PriorShape
from HiResMedSynthLib.background.token_prior import build_prior, encoder_fingerprint, load_prior
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.whole_tensors import header_entry
from Training.film_sets import load_set
from Training.film_tokens import CodedFilms, FilmEncoder
from Training.loop import LoopSettings
from Training.options import cache_option, loop_option, run_options, told_plainly
from Training.pictures import grey8
from Training.preset_files import read_preset
from Training.ranks import joined_ranks
from Training.report import write_report
from Training.token_loop import PriorSettings, PriorTraining, train_prior

ACROSS = 8


def make_settings(table: dict[str, Any], *, batch: int | None, copies: int | None) -> PriorSettings:
    """A preset's [training] table with the options that were given.

    Raises:
        SettingsError: a name that there is none of, or a number below 1.
    """
    given = {name: value for name, value in (("batch", batch), ("copies", copies)) if value is not None}
    try:
        settings = PriorSettings(**{**table, **given})
    except TypeError as problem:
        raise SettingsError(
            f"The preset's [training] can't be: {problem}", remedy="See Training/presets/token_prior.toml."
        ) from None
    if min(settings.batch, settings.copies) < 1:
        raise SettingsError("Batch and copies are 1 or more", remedy="Leave them out for the preset's.")
    return settings


def draw_sheet(cascade: FilmCascade, held_out: CodedFilms, path: Path, *, steps: int) -> NDArray[np.uint8]:
    """Two rows: held-out films drawn from their own codes, films drawn from codes of the prior in `path`."""
    prior = load_prior(path)
    real = FSQ(prior.network.shape.levels).to_values(held_out.digits[:ACROSS].long())
    rows = []
    for made in (False, True):
        films = []
        for number in range(len(real)):
            sex = "FM"[number % 2] if prior.network.shape.classes else None
            codes = real[number : number + 1]
            if made:
                codes = prior.sample(1, seed=number, sex=sex, steps=16, encoder_fingerprint=prior.fingerprint)
            settings = SamplingSettings(film_steps=steps)
            films.append(cascade.generate(seed=number, sex=sex, codes=codes, until="film", settings=settings))
        rows.append(np.concatenate(films, axis=1))
    return grey8(np.concatenate(rows))


@click.command(epilog="Example: python -m Training.train_token_prior --cascade FILE --data films --out runs/prior")
@click.option("--cascade", "release", type=click.Path(path_type=Path), required=True, help="File of a film cascade.")
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Folder of films or CT, or a packed set (npz)."
)
@click.option("--preset", default="token_prior", show_default=True, help="token_prior, token_gpt, or a TOML file.")
@click.option("--copies", type=int, help="Changed copies of each film, in place of the preset's.")
@cache_option
@loop_option
@run_options
def main(
    release: Path,
    data: Path,
    preset: str,
    out: Path,
    cache: Path | None,
    resume: bool,
    time_limit: float,
    steps: int | None,
    batch: int | None,
    copies: int | None,
    loop_changes: tuple[str, ...],
    device: str,
    threads: int,
) -> None:
    """Trains a prior over the codes of a film cascade."""
    torch.set_num_threads(threads)
    with told_plainly("token_prior.toml"), joined_ranks(device) as ranks:
        tables = read_preset(preset)
        loop = LoopSettings.changed(tables["loop"], changes=loop_changes, steps=steps)
        settings = make_settings(tables["training"], batch=batch, copies=copies)
        cascade = load_cascade(release)
        shape = PriorShape.from_json(
            {**tables["network"], "levels": list(cascade.first.code_shape.levels), "grid": cascade.grid}
        )
        films, data_sha256 = load_set(data, cache or out.parent / "cache", **tables["data"])
        began = time.monotonic()
        encoder = FilmEncoder(films, cascade, device=ranks.device)
        tokens = encoder.tokens(copies=settings.copies, seed=loop.seed)
        cascade.first.to("cpu")
        torch.manual_seed(loop.seed)
        network = build_prior(shape)
        weights = sum(parameter.numel() for parameter in network.parameters())
        if ranks.first:
            click.echo(
                f"{shape.kind}: {weights / 1e6:.2f} M weights, {len(tokens.train)} films to train on in "
                f"{settings.copies} changed copies, {len(tokens.held_out)} held out, encoded in "
                f"{time.monotonic() - began:.0f} s; a code drawn evenly: {math.log(math.prod(shape.levels)):.3f} nats"
            )
        described = {
            "stage": f"prior-{shape.kind}",
            "domain": cascade.domain,
            "encoder": encoder_fingerprint(cascade.first),
            "model": (header_entry(release, "card") or {}).get("name"),
            "network": shape.to_json(),
            "data_sha256": data_sha256,
            "films": len(tokens.train),
            "copies": settings.copies,
            "seed": loop.seed,
            "batch": settings.batch,
        }
        drawn = 12 if cascade.film_side > 16 else 2
        train_prior(
            PriorTraining(network, tokens, settings, loop, ranks=ranks),
            out=out,
            description=described,
            sheet=lambda path: draw_sheet(cascade, tokens.held_out, path, steps=drawn),
            resume=resume,
            time_limit_s=time_limit * 60,
        )
        if ranks.first:
            write_report(out, described)


if __name__ == "__main__":
    main()
