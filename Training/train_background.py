"""Trains a film cascade, one stage a call.

`python -m Training.train_background --stage film --data FOLDER --out runs/film`
`torchrun --nproc-per-node 4 -m Training.train_background ... --device cuda` on several devices.
Input format: Training/film_data.py (radiographs), Training/ct_data.py (CT), or a set that `write_slices` packed. Stages
learn from real films alone, so they may be trained in any order. `--teacher RUN` distils a trained detail stage into
one that needs a few steps only; `--start-from RUN` goes on from its weights with other data or settings.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import nn

from HiResMedSynthLib.background.cascade import build_network
from HiResMedSynthLib.errors import SettingsError
from Training.checkpoint import load_teacher, stored_unit
from Training.film_sets import load_set
from Training.film_stages import make_stage
from Training.flow_loop import train
from Training.loop import LoopSettings
from Training.objective import Shortcut
from Training.options import cache_option, loop_option, run_options, told_plainly
from Training.preset_files import read_preset, stages_of
from Training.ranks import joined_ranks
from Training.report import write_report


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
    with told_plainly(f"{preset}.toml"), joined_ranks(device) as ranks:
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
            taught, told = load_teacher(teacher, build_network)
            unit, shortcut = float(told["unit"]), table["shortcut"]["times"]
            _begin_with(network, taught, teacher)
            objective = Shortcut(taught.to(ranks.device), shortcut, substeps=table["shortcut"]["substeps"])
        elif start_from is not None:
            begun, told = load_teacher(start_from, build_network)
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


if __name__ == "__main__":
    main()
