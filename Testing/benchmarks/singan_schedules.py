"""SinGAN `better` against `paper` on the same slices: seconds, reconstruction, and `sifid_vgg` of 50 samples each.

Run `python -m Testing.benchmarks.singan_schedules --out runs/schedules`; `paper` needs an hour and a half of one core
for a lesion, and goes on where it was cut when the command is given again. `--gpu` measures what `singan_gpu paper`
left.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.evaluation.lesion_diversity import dice_of
from HiResMedSynthLib.evaluation.texture_distance import HU_PER_UNIT, PARENCHYMA_HU, frechet, vgg_features
from HiResMedSynthLib.lesion.bank import load_bank
from HiResMedSynthLib.lesion.lesion_grid import crop_2d
from HiResMedSynthLib.lesion.singan import SinGan
from HiResMedSynthLib.lesion.singan_settings import preset
from HiResMedSynthLib.lesion.singan_train import train_singan

LESIONS = ("solid-17mm-a", "calcified-11mm-b", "part-solid-11mm-a")
SAMPLES = 50
SCHEDULES = ("better", "paper")
DIVERSITIES = {"better": (1.0, 0.5), "paper": (1.0,)}  # `paper` varies little: at .5 `better` still varies more


@click.command(help=__doc__)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--lesion", "lesions", multiple=True, default=LESIONS, show_default=True)
@click.option("--minutes", type=float, default=float("inf"), help="Limit of each training.")
@click.option("--gpu", type=click.Path(file_okay=False, exists=True, path_type=Path), help="Folder of trained models.")
def main(out: Path, lesions: tuple[str, ...], minutes: float, gpu: Path | None) -> None:
    torch.set_num_threads(1)
    bank, kept = load_bank(), out / "singan_schedules.json"
    out.mkdir(parents=True, exist_ok=True)
    measured_before = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else []
    rows = {key_of(row): row for row in measured_before}
    for number, name in enumerate(lesions):
        grid = crop_2d(bank.lesion(name))
        for schedule in SCHEDULES:
            if gpu is None:
                model, spent = trained(grid, schedule, out / name / schedule, minutes)
            else:
                model, spent = fetched(gpu, schedule, number)
            if model is None:
                click.echo(f"{name} {schedule}: not finished; the same command goes on")
                continue
            for diversity in DIVERSITIES[schedule]:
                row = {"lesion": name, "schedule": schedule, **spent, **measured(model, grid, diversity)}
                rows[key_of(row)] = row
                click.echo(json.dumps(row))
                with written_aside(kept) as aside:
                    aside.write_text(json.dumps(list(rows.values()), indent=1), encoding="utf-8")


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What is measured in a row."""
    return row["lesion"], row["schedule"], row.get("diversity", 1.0), "gpu_s_of_all" in row


def trained(
    grid: NDArray[np.float32], schedule: str, out: Path, minutes: float
) -> tuple[SinGan | None, dict[str, float]]:
    """(the model, None where it isn't finished; its seconds in all)."""
    finished, clock = out / "singan-0.safetensors", out / "seconds.json"
    spent = json.loads(clock.read_text()) if clock.is_file() else {"cpu_s": 0.0, "wall_s": 0.0}
    if not finished.is_file() or not SinGan.load(finished).finished:
        before, began, wall = spent, time.process_time(), time.monotonic()

        def count(_report: object = None) -> None:
            """Keeps the seconds at each report, so that a sitting that is killed counts."""
            nonlocal spent
            cpu_s, wall_s = time.process_time() - began, time.monotonic() - wall
            spent = {"cpu_s": round(before["cpu_s"] + cpu_s, 1), "wall_s": round(before["wall_s"] + wall_s, 1)}
            with written_aside(clock) as aside:
                aside.write_text(json.dumps(spent), encoding="utf-8")

        train_singan(
            [grid], dataclasses.replace(preset(schedule, 2), report_every=50), out=out,
            resume=(out / "checkpoint.safetensors").exists(), time_limit_s=60 * minutes, report=count,
        )  # fmt: skip
        count()
    model = SinGan.load(finished)
    return (model if model.finished else None), spent


def fetched(folder: Path, schedule: str, number: int) -> tuple[SinGan | None, dict[str, float]]:
    """(the model of a lesion that was trained with others, None where it isn't finished; seconds of them all)."""
    file = folder / schedule / f"singan-{number}.safetensors"
    if not file.is_file():
        return None, {}
    model = SinGan.load(file)
    spent = json.loads((folder / "paper.json").read_text(encoding="utf-8"))[schedule]["seconds"]
    return (model if model.finished else None), {"gpu_s_of_all": spent}


def measured(model: SinGan, grid: NDArray[np.float32], diversity: float) -> dict[str, Any]:
    """`sifid_vgg` (mean over samples, x 1000), Dice to the source, pairwise Dice, reconstruction."""
    samples = [model.sample(np.random.default_rng(seed), diversity=diversity) for seed in range(SAMPLES)]
    real = vgg_features(in_hu(grid)[np.newaxis])
    distances = [frechet(real, vgg_features(in_hu(sample)[np.newaxis])) for sample in samples]
    pairs = [dice_of(one, other) for one, other in zip(samples[::2], samples[1::2], strict=True)]
    return {
        "diversity": diversity,
        "sifid_vgg_x1000": round(1000 * float(np.mean(distances)), 3),
        "sifid_vgg_sem": round(1000 * float(np.std(distances) / np.sqrt(SAMPLES)), 3),
        "dice_to_source": round(float(np.median([dice_of(sample, grid) for sample in samples])), 3),
        "pairwise_dice": round(float(np.median(pairs)), 3),
        "rmse_hu": round(model.rmse_hu(), 1),
    }


def in_hu(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """A slice `[2, row, column]` on parenchyma, in HU."""
    return np.asarray(HU_PER_UNIT * values[0].astype(np.float64) + PARENCHYMA_HU)


if __name__ == "__main__":
    main()
