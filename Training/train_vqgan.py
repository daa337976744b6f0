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
from Training.options import cache_option, loop_option, run_options, told_plainly
from Training.preset_files import read_preset
from Training.ranks import joined_ranks
from Training.report import write_report
from Training.vqgan_data import load_data
from Training.vqgan_loop import train
from Training.vqgan_losses import load_perceptual
from Training.vqgan_memory import check_memory
from Training.vqgan_step import VqganTraining, make_settings


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


@click.command(epilog="Example: python -m Training.train_vqgan --preset paper --data films --out runs/vqgan")
@click.option("--preset", default="paper", show_default=True, help="paper, vqgan, unet, tiny, or a TOML file.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of films.")
@click.option("--films", type=click.Path(path_type=Path), help="Prepared films, .npz or .npy.")
@click.option("--size", type=int, help="Side in pixels, in place of the preset's.")
@click.option("--seed", type=int)
@click.option("--precision", help="auto, float32 or bfloat16.")
@cache_option
@loop_option
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
    loop_changes: tuple[str, ...],
    device: str,
    threads: int,
    **options: Any,
) -> None:
    """Trains a VQGAN on whole films."""
    torch.set_num_threads(threads)
    with told_plainly("vqgan_paper.toml"), joined_ranks(device) as ranks:
        tables = read_vqgan_preset(preset)
        settings = make_settings(tables["loop"], changes=loop_changes, **options)
        side = size or tables["data"]["size"]
        shape = make_shape(tables["network"], size=side)
        check_memory(shape, settings, ranks)
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
            "spacing_mm": None if data is None else canvas["spacing_mm"] * canvas["canvas_px"] / side,
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


if __name__ == "__main__":
    main()
