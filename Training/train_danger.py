"""Trains the danger mask: a network that names the anatomy a lesion must keep off, for chest CT or chest films.

`python -m Training.train_danger --domain lung-ct --data CT_FOLDER --out runs/danger-ct`
Input format: Training/danger_ct_sources.py (CT) and Training/danger_film_data.py (films). Patients are split before
anything is learned; `Training.pack_placement` turns the run into a model file.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.placement.network import NetworkPlan, build
from Training.checkpoint import CHECKPOINT, load_average
from Training.folder_of_images import identity
from Training.loop import LoopSettings, run
from Training.options import loop_option, run_options, told_plainly
from Training.picture_loop import PictureLesson
from Training.preset_files import read_preset
from Training.report import write_report

TASKS = {"lung-ct": "Training.danger_ct_data", "film": "Training.danger_film_data"}
PRESETS = {"lung-ct": "danger_ct", "film": "danger_film"}


def names_of(hold_out: Sequence[str]) -> list[str]:
    """Names of patients and folders; a text file among them stands for its lines."""
    names: list[str] = []
    for name in hold_out:
        path = Path(name)
        names += path.read_text(encoding="utf-8").split() if name.endswith(".txt") and path.is_file() else [name]
    return names


def planned(plan: NetworkPlan, table: dict[str, Any]) -> NetworkPlan:
    """The task's plan with the preset's encoder and decoder.

    Raises:
        SettingsError: the preset's table has another entry.
    """
    told = {**plan.to_json(), **table}
    if set(table) - {"encoder", "decoder"}:
        raise SettingsError("The preset's [network] has an unknown entry", remedy="Give encoder and decoder.")
    return NetworkPlan.from_json(told)


def begin(network: nn.Module, run: Path, plan: NetworkPlan) -> str:
    """Gives the network the averaged weights of a run; the hash of that run's data.

    Raises:
        SettingsError: the run is missing, for another task, or of other layers.
    """
    state, told = load_average(run / CHECKPOINT)
    begun = NetworkPlan.from_json(told["plan"]) if "plan" in told else None
    if begun is None or (begun.task, begun.classes) != (plan.task, plan.classes):
        raise SettingsError("That run is for another task", where=run, remedy="Begin with a run of this domain.")
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise SettingsError("That run has other layers", where=run, remedy="Use its preset.") from None
    return str(told["data_sha256"])


@click.command(
    epilog="Example: python -m Training.train_danger --domain lung-ct --data ct --data more_ct --out runs/danger-ct"
)
@click.option("--domain", type=click.Choice(list(TASKS)), required=True, help="What the pictures show.")
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True, file_okay=False), multiple=True, required=True,
    help="Folder of labelled pictures, repeatable.",
)  # fmt: skip
@click.option(
    "--hold-out", multiple=True,
    help="Patient or folder to measure on, a .txt file of such names, or 'nobody'; repeatable. Default: by hash.",
)  # fmt: skip
@click.option("--start-from", type=click.Path(path_type=Path), help="Run whose weights to begin with (fine-tuning).")
@click.option("--preset", help="danger_ct, danger_film, danger_tiny, or a TOML file. Default: the domain's.")
@loop_option
@run_options
def main(
    domain: str,
    data: tuple[Path, ...],
    hold_out: tuple[str, ...],
    start_from: Path | None,
    preset: str | None,
    out: Path,
    resume: bool,
    time_limit: float,
    steps: int | None,
    batch: int | None,
    loop_changes: tuple[str, ...],
    device: str,
    threads: int,
) -> None:
    """Trains the danger mask of a domain."""
    torch.set_num_threads(threads)
    with told_plainly("danger_ct.toml"):
        table = read_preset(preset or PRESETS[domain])
        count = batch or table["batch"]
        settings = LoopSettings.changed(table["loop"], changes=loop_changes, steps=steps)
        held_out = names_of(hold_out)
        module = importlib.import_module(TASKS[domain])  # only the domain's own readers are loaded
        task = module.load_task(data, batch=settings.part_of(count), hold_out=held_out, seed=settings.seed)
        plan = planned(task.plan, table.get("network", {}))
        torch.manual_seed(settings.seed)
        network = build(plan)
        began_with: dict[str, str] = {}
        if start_from is not None:
            began_with = {"began_with": begin(network, start_from, plan)}
        weights = sum(parameter.numel() for parameter in network.parameters())
        told = ", ".join(f"{name}: {value}" for name, value in task.counts.items())
        click.echo(f"{weights / 1e6:.2f} M weights; {told}")
        described = {
            "stage": plan.task,
            "plan": plan.to_json(),
            "counts": task.counts,
            **began_with,
            "held_out": held_out or ["by the hash of the patient"],
            "data_sha256": hashlib.sha256(
                " ".join(identity(folder, index=None) for folder in data).encode()
            ).hexdigest(),
            "seed": settings.seed,
            "batch": count,
        }
        run(
            network, PictureLesson(task), settings, out=out, description=described, resume=resume,
            time_limit_s=time_limit * 60, device=device,
        )  # fmt: skip
        write_report(out, described)


if __name__ == "__main__":
    main()
