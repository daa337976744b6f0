"""Trains a film cascade, one stage a call.

`python -m Training.train_background --stage film --data FOLDER --out runs/film`
`torchrun --nproc-per-node 4 -m Training.train_background ... --device cuda` on several devices.
Input format: Training/film_data.py (radiographs), Training/ct_data.py (CT), or a set that `write_slices` packed. Stages
learn from real films alone, so they may be trained in any order. `--teacher RUN` distils a trained detail stage into
one that needs a few steps only; `--start-from RUN` goes on from its weights with other data or settings.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from safetensors import safe_open
from torch import nn

from HiResMedSynthLib.background.cascade import build_network
from HiResMedSynthLib.background.film_network import PICTURE, STEM
from HiResMedSynthLib.errors import SettingsError
from Training.checkpoint import best_weights, stored_unit
from Training.ct_data import load_slices, read_slices
from Training.film_data import FilmSet, load_films
from Training.film_stages import CoarseFilm, Detail
from Training.flow_loop import Stage, train
from Training.folder_of_images import identity
from Training.loop import LoopSettings
from Training.objective import Shortcut
from Training.options import cache_option, loop_option, run_options, told_plainly
from Training.ranks import join_ranks, leave_ranks
from Training.report import write_report

PRESETS = Path(__file__).resolve().parent / "presets"


def read_preset(name: str) -> dict[str, Any]:
    """The tables of a preset by name, or of a TOML file by path.

    Raises:
        SettingsError: there is none.
    """
    path = Path(name) if name.endswith(".toml") else PRESETS / f"{name}.toml"
    if not path.is_file():
        there = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.toml")))
        raise SettingsError(f"There is no preset {name}", where=path, remedy=f"Use a TOML file, or one of: {there}.")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def stages_of(preset: dict[str, Any]) -> list[str]:
    """Names of the stages that a preset has tables for, first to last."""
    return [name for name, table in preset.items() if "network" in table]


def make_stage(
    name: str,
    preset: dict[str, Any],
    films: FilmSet,
    *,
    batch: int | None = None,
    unit: float | None = None,
    device: str = "cpu",
) -> Stage:
    """The stage of that name, over these films, `batch` at a time (None: the preset's).

    `unit`: what its values are scaled by, None: measured; a resumed run keeps the unit it began with.
    """
    table = preset[name]
    batch = table["batch"] if batch is None else batch
    if "code" not in table:
        return Detail(films, batch=batch, crop=table["crop"], step=table["step"], unit=unit, device=device)
    reduction = table["reduction"]
    picture = films.pixels.shape[-1] // reduction * PICTURE
    grid = picture // (STEM * 2 ** (len(table["code"]["widths"]) - 1))
    return CoarseFilm(
        films,
        batch=batch,
        label_drop=table["label_drop"],
        reduction=reduction,
        grid=grid,
        wide=table.get("wide", False),
        unit=unit,
        device=device,
    )


def load_set(data: Path, cache: Path, *, canvas_px: int, spacing_mm: float | None = None) -> tuple[FilmSet, str]:
    """The films (or, where the preset states no spacing, the CT slices) in `data`, and a hash of what was there."""
    if data.suffix == ".npz":
        return read_slices(data), hashlib.sha256(data.read_bytes()).hexdigest()
    if spacing_mm is None:
        return load_slices([data], cache, canvas_px=canvas_px), identity(data, index=None)
    return load_films(data, cache, canvas_px=canvas_px, spacing_mm=spacing_mm), identity(data)


def load_teacher(
    run: Path, build: Callable[[dict[str, Any]], nn.Module] = build_network
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a finished run with its best averaged weights, and the run's description, which `build` takes.

    Raises:
        SettingsError: there is no such run.
    """
    try:
        with safe_open(best_weights(run), framework="pt") as file:
            described: dict[str, Any] = json.loads(file.metadata()["state"])["description"]
            network = build(described)
            network.load_state_dict({name: file.get_tensor(f"average.{name}") for name in network.state_dict()})
    except (OSError, KeyError, RuntimeError, ValueError) as problem:
        raise SettingsError(f"No finished run ({str(problem)[:120]})", where=run, remedy="Train it first.") from None
    return network, described


def _begin_with(network: nn.Module, other: nn.Module, run: Path) -> None:
    """Raises SettingsError where the other network has other layers."""
    try:
        network.load_state_dict(other.state_dict())
    except RuntimeError:
        raise SettingsError("That run has another network", where=run, remedy="Name a run of this stage.") from None


@click.command(epilog="Example: python -m Training.train_background --stage film --data films --out runs/film")
@click.option("--stage", required=True, help="A stage of the preset: film, detail-256, detail-1024.")
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Folder of films or CT, or a packed set (npz)."
)
@click.option("--preset", default="better", show_default=True, help="better, lung_ct, tiny, or a TOML file.")
@click.option("--teacher", type=click.Path(path_type=Path), help="Run to distil: detail in a few steps.")
@click.option("--start-from", type=click.Path(path_type=Path), help="Run whose weights to begin with (fine-tuning).")
@cache_option
@loop_option
@run_options
def main(
    stage: str,
    data: Path,
    preset: str,
    out: Path,
    cache: Path | None,
    teacher: Path | None,
    start_from: Path | None,
    resume: bool,
    time_limit: float,
    steps: int | None,
    batch: int | None,
    loop_changes: tuple[str, ...],
    device: str,
    threads: int,
) -> None:
    """Trains one stage of a film cascade."""
    torch.set_num_threads(threads)
    with told_plainly(f"{preset}.toml"):
        _train(
            stage, data, preset, out, cache, teacher, start_from, resume=resume, time_limit=time_limit, steps=steps,
            batch=batch, loop_changes=loop_changes, device=device,
        )  # fmt: skip


def _train(
    stage: str, data: Path, preset: str, out: Path, cache: Path | None, teacher: Path | None, start_from: Path | None,
    *, resume: bool, time_limit: float, steps: int | None, batch: int | None, loop_changes: tuple[str, ...],
    device: str,
) -> None:  # fmt: skip
    try:
        ranks = join_ranks(device)
        tables = read_preset(preset)
        if stage not in stages_of(tables):
            raise SettingsError(f"There is no stage {stage}", remedy=f"Use one of: {', '.join(stages_of(tables))}.")
        table = tables[stage]
        table.update({} if batch is None else {"batch": batch})
        films, data_sha256 = load_set(data, cache or out.parent / "cache", **tables["data"])
        settings = LoopSettings.changed(
            table["loop"], table["shortcut"]["loop"] if teacher else {}, changes=loop_changes, steps=steps
        )
        drawn = settings.part_of(table["batch"], world=ranks.world)
        torch.manual_seed(settings.seed)
        network, objective, shortcut = build_network(table), None, None
        unit = stored_unit(out) if resume else None
        if teacher is not None:
            taught, told = load_teacher(teacher)
            unit, shortcut = float(told["unit"]), table["shortcut"]["times"]
            _begin_with(network, taught, teacher)
            objective = Shortcut(taught.to(ranks.device), shortcut, substeps=table["shortcut"]["substeps"])
        elif start_from is not None:
            begun, told = load_teacher(start_from)
            unit = float(told["unit"])
            _begin_with(network, begun, start_from)
        weights = sum(parameter.numel() for parameter in network.parameters())
        sides = [len(films.side(held_out=held_out)) for held_out in (False, True)]
        if ranks.first:
            click.echo(f"{stage}: {weights / 1e6:.2f} M weights, {sides[0]} films to train on, {sides[1]} held out")
        described = {
            "stage": stage,
            "network": table["network"],
            **({"code": table["code"]} if "code" in table else {}),
            **({"shortcut": shortcut} if shortcut else {}),
            **({"began_with": told["data_sha256"]} if teacher or start_from else {}),
            "data_sha256": data_sha256,
            "films": sides[0],
            "seed": settings.seed,
            "batch": table["batch"],
        }
        train(
            network,
            make_stage(stage, tables, films, batch=drawn, unit=unit, device=ranks.device),
            settings,
            out=out,
            description=described,
            resume=resume,
            time_limit_s=time_limit * 60,
            objective=objective,
            ranks=ranks,
        )
        if ranks.first:
            write_report(out, described)
    finally:
        leave_ranks()


if __name__ == "__main__":
    main()
