"""Trains the film cascade, one stage a call.

`python -m Training.train_background --stage film --data FOLDER --out runs/film`
Input format: Training/film_data.py. Stages learn from real films alone, so they may be trained in any order.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from pathlib import Path
from typing import Any

import click
import torch

from HiResMedSynthLib.background.flow_unet import FlowUNet, FlowUNetShape
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from Training.film_data import FilmSet, load_films
from Training.film_stages import CoarseFilm, Detail
from Training.loop import LoopSettings, Stage, stored_unit, train
from Training.report import write_report

PRESETS = Path(__file__).resolve().parent / "presets"
STAGES = ("film", "detail-256", "detail-1024")


def read_preset(name: str) -> dict[str, Any]:
    """The tables of a preset by name, or of a TOML file by path.

    Raises:
        SettingsError: there is none.
    """
    path = Path(name) if name.endswith(".toml") else PRESETS / f"{name}.toml"
    if not path.is_file():
        raise SettingsError(f"There is no preset {name}", where=path, remedy="Use better, tiny or a TOML file.")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def make_stage(name: str, preset: dict[str, Any], films: FilmSet, *, unit: float | None = None) -> Stage:
    """The stage of that name, over these films; a resumed run keeps the unit it began with."""
    table = preset[name]
    if name == "film":
        return CoarseFilm(films, batch=table["batch"], label_drop=table["label_drop"], unit=unit)
    return Detail(films, batch=table["batch"], crop=table["crop"], finest=name == "detail-1024", unit=unit)


@click.command()
@click.option("--stage", type=click.Choice(STAGES), required=True)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder with index.csv.")
@click.option("--preset", default="better", show_default=True, help="better, tiny, or a TOML file.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder of prepared films; default: OUT/../cache.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in OUT.")
@click.option("--time-limit", type=float, default=math.inf, help="Minutes; the learning rate falls towards the end.")
@click.option("--steps", type=int, help="Steps in all, in place of the preset's.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", type=int, default=1, show_default=True)
def main(
    stage: str,
    data: Path,
    preset: str,
    out: Path,
    cache: Path | None,
    resume: bool,
    time_limit: float,
    steps: int | None,
    device: str,
    threads: int,
) -> None:
    """Trains one stage of the film cascade."""
    torch.set_num_threads(threads)
    try:
        tables = read_preset(preset)
        films = load_films(data, cache or out.parent / "cache", **tables["data"])
        settings = LoopSettings(**{**tables[stage]["loop"], **({} if steps is None else {"steps": steps})})
        shape = FlowUNetShape.from_json(tables[stage]["network"])
        torch.manual_seed(settings.seed)
        network = FlowUNet(shape)
        weights = sum(parameter.numel() for parameter in network.parameters())
        sides = [len(films.side(held_out=held_out)) for held_out in (False, True)]
        click.echo(f"{stage}: {weights / 1e6:.2f} M weights, {sides[0]} films to train on, {sides[1]} held out")
        described = {
            "stage": stage,
            "network": shape.to_json(),
            "index_sha256": hashlib.sha256((data / "index.csv").read_bytes()).hexdigest(),
            "films": sides[0],
        }
        train(
            network,
            make_stage(stage, tables, films, unit=stored_unit(out) if resume else None),
            settings,
            out=out,
            description=described,
            resume=resume,
            time_limit_s=time_limit * 60,
            device=device,
        )
        write_report(out, described)
    except HiResMedSynthError as problem:
        raise click.ClickException(str(problem)) from None


if __name__ == "__main__":
    main()
