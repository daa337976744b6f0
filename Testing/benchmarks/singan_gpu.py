"""SinGAN on a GPU: `paper` in full on three lesions at once, `better` on the whole bank, one lesion against eight.

It needs torch, numpy, scipy, safetensors and click. `pack FILE` writes what the others read: `flats` [3, 2, 64, 64] and
`solids` [n, 2, 32, 32, 32] (lesion_grid.crop_2d and to_grid) with their `flat_names` and `solid_names`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.lesion.singan import SinGan
from HiResMedSynthLib.lesion.singan_settings import SinGanSettings, preset
from HiResMedSynthLib.lesion.singan_train import train_singan

TIMED_ITERATIONS = 60
TIMED_LESIONS = 8
GROUPS = 3
SHOWN_S = 30.0
SAVING_S = 10.0


@click.group(help=__doc__)
def main() -> None:
    pass


def job(command: Callable[..., dict[str, Any]]) -> click.Command:
    """A command over packed lesions that keeps its results in OUT/NAME.json."""

    @click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
    @click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
    @click.option("--time-limit", type=float, default=math.inf, help="Seconds.")
    @click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
    @click.option("--iterations", type=click.IntRange(12), help="A scale, instead of the preset's (to try the script).")
    def run(data: Path, out: Path, time_limit: float, device: str, iterations: int | None) -> None:
        began = time.monotonic()
        out.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(1)
        with np.load(data, allow_pickle=False) as stored:
            packed = {name: stored[name] for name in stored.files}
        found = command(packed, out, began + time_limit - SAVING_S, device, iterations)
        found |= {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
            "seconds": round(time.monotonic() - began, 1),
        }
        (out / f"{command.__name__}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        click.echo(json.dumps(found))

    return main.command(command.__name__, help=command.__doc__)(run)


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def pack(file: Path) -> None:
    """Writes the bank's lesions and three slices for the other commands to FILE."""
    from HiResMedSynthLib.lesion.bank import load_bank
    from HiResMedSynthLib.lesion.lesion_grid import crop_2d, to_grid
    from Testing.benchmarks.singan_schedules import LESIONS

    bank = load_bank()
    names = [name for name in bank.cards if name not in LESIONS]
    solids = [to_grid(bank.lesion(name)).values for name in [*LESIONS, *names]]
    np.savez_compressed(
        file,
        flats=np.stack([crop_2d(bank.lesion(name)) for name in LESIONS]).astype(np.float16),
        flat_names=np.array(LESIONS),
        solids=np.stack(solids).astype(np.float16),
        solid_names=np.array([*LESIONS, *names]),
    )
    click.echo(f"{file}: {len(solids)} lesions, {file.stat().st_size / 1e6:.1f} MB")


@job
def speed(
    packed: dict[str, np.ndarray], out: Path, until: float, device: str, iterations: int | None
) -> dict[str, Any]:
    """The time of eight lesions' `better` against one's, each in float32 and bfloat16."""
    del until
    grids = list(packed["solids"][:TIMED_LESIONS].astype(np.float32))
    return {
        precision: one_against_many(
            grids, out / precision, device=device, bf16=precision == "bf16", iterations=iterations or TIMED_ITERATIONS
        )
        for precision in ("fp32", "bf16")
    }


@job
def paper(
    packed: dict[str, np.ndarray], out: Path, until: float, device: str, iterations: int | None
) -> dict[str, Any]:
    """Trains `paper` on three slices at once, which goes on where it was cut, then `better` in the time left.

    A schedule whose models are finished is left as it is. Seconds are those of all sittings together.
    """
    found: dict[str, Any] = {"lesions": packed["flat_names"].tolist()}
    for schedule in ("paper", "better"):
        folder = out / schedule
        settings = dataclasses.replace(preset(schedule, 2), report_every=50)
        if iterations is not None:
            settings = dataclasses.replace(settings, iterations=(iterations,))
        models = finished(folder, settings, len(packed["flats"]))
        left_s = until - time.monotonic()
        if not models and left_s < 0:
            break
        models = models or train_singan(
            list(packed["flats"].astype(np.float32)), settings, out=folder,
            resume=(folder / "checkpoint.safetensors").exists(), time_limit_s=left_s, device=device, graph=True,
            report=seldom(),
        )  # fmt: skip
        found[schedule] = {
            "finished": models[0].finished,
            "seconds": logged_seconds(folder),
            "rmse_hu": [round(m.rmse_hu(), 1) for m in models if m.nets],
        }
        if models[0].finished:
            (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return found


def finished(folder: Path, settings: SinGanSettings, count: int) -> list[SinGan]:
    """The models that a run of these settings left in its folder; none where one is missing or was cut short."""
    files = [folder / f"singan-{number}.safetensors" for number in range(count)]
    models = [SinGan.load(file) for file in files if file.is_file()]
    whole = len(models) == count and all(model.finished and model.settings == settings for model in models)
    return models if whole else []


def logged_seconds(folder: Path) -> float:
    """Of a run's iterations in all its sittings: what the last report in its log says."""
    log = folder / "log.jsonl"  # none where the time was up before a report
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return round(max((json.loads(line).get("seconds", 0.0) for line in lines), default=0.0), 1)


@job
def bank(packed: dict[str, np.ndarray], out: Path, until: float, device: str, iterations: int | None) -> dict[str, Any]:
    """Trains `better` on every lesion, some twenty at once; leaves their models in models.zip, by name."""
    settings = dataclasses.replace(preset("better", 3), report_every=20)
    if iterations is not None:
        settings = dataclasses.replace(settings, iterations=(iterations,), reals=4, cache=4)
    models_file = out / "models.zip"
    models_file.unlink(missing_ok=True)
    left, failed, seconds, done = np.array_split(np.arange(len(packed["solids"])), GROUPS), list[str](), [], 0
    while left and time.monotonic() < until:
        group, began = left.pop(0), time.monotonic()
        grids = list(packed["solids"][group].astype(np.float32))
        with tempfile.TemporaryDirectory() as folder:
            try:
                models = train_singan(
                    grids, settings, seed=1 + int(group[0]), out=Path(folder), time_limit_s=until - time.monotonic(),
                    device=device, graph=True, report=seldom(),
                )  # fmt: skip
            except HiResMedSynthError as problem:  # one dead critic ends them all: apart, then
                click.echo(str(problem))
                left += np.array_split(group, 2) if len(group) > 1 else []
                failed += packed["solid_names"][group].tolist() if len(group) == 1 else []
                continue
            if not models[0].finished:
                break
            with zipfile.ZipFile(models_file, "a", zipfile.ZIP_DEFLATED) as kept:
                for number, name in enumerate(packed["solid_names"][group]):
                    kept.write(Path(folder) / f"singan-{number}.safetensors", f"{name}.safetensors")
        seconds.append(round(time.monotonic() - began, 1))
        done += len(group)
    return {"lesions": done, "of": len(packed["solids"]), "failed": failed, "seconds_of_groups": seconds}


def seldom() -> Callable[[dict[str, Any]], None]:
    """A report that shows a line of the log now and then."""
    shown = [time.monotonic()]

    def report(entry: dict[str, Any]) -> None:
        if time.monotonic() - shown[0] > SHOWN_S:
            shown[0] = time.monotonic()
            told = {n: entry[n] for n in ("scale", "iteration", "iterations", "gap", "rec_rmse", "seconds", "left_s")}
            click.echo(json.dumps(told))

    return report


def one_against_many(grids: np.ndarray, out: Path, *, device: str, bf16: bool, iterations: int) -> dict[str, float]:
    """Milliseconds an iteration at each scale of one lesion and of all, and the ratio over a whole `better` run."""
    settings = preset("better", 3)
    timed = dataclasses.replace(
        settings, iterations=(iterations,), flat=0.0, report_every=iterations // 6, reals=4, cache=4
    )
    found: dict[str, float] = {}
    for name, chosen in (("one", grids[:1]), (f"{len(grids)}", grids)):
        stamps: list[tuple[int, float]] = []

        def report(entry: dict[str, Any], stamps: list[tuple[int, float]] = stamps) -> None:
            stamps.append((entry["scale"], time.perf_counter()))  # its numbers were fetched: the device is done

        train_singan(chosen, timed, out=out / name, device=device, bf16=bf16, graph=True, report=report)
        total = 0.0
        for scale in range(timed.scales):
            at = [seconds for s, seconds in stamps if s == scale]
            at = at[len(at) // 2 - 1 :]  # warm-up and the graph's capture lie before
            each = (at[-1] - at[0]) / (len(at) - 1) / timed.report_every
            found[f"{name}.scale{scale}_ms"] = round(each * 1000, 2)
            total += each * settings.iterations_at(scale)
        found[f"{name}.run_s"] = round(total, 2)
    found["ratio"] = round(found[f"{len(grids)}.run_s"] / found["one.run_s"], 2)
    return found


if __name__ == "__main__":
    main()
