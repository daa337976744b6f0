"""SinGAN on a GPU: `paper` in full on three lesions at once, and the time of one lesion against eight.

Run `python -m Testing.benchmarks.singan_gpu --data singan.npz --out DIR`; it needs torch, numpy, scipy, safetensors
and click. The npz holds `grids_2d` [3, 2, 64, 64] and `grids_3d` [8, 2, 32, 32, 32] (lesion_grid.crop_2d and to_grid).
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from HiResMedSynthLib.lesion.singan_settings import preset
from HiResMedSynthLib.lesion.singan_train import train_singan

SAMPLES = 50
TIMED_ITERATIONS = 60


@click.command(help=__doc__)
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--seconds", type=float, default=math.inf, help="Limit of the whole run.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--graph/--no-graph", default=True, show_default=True, help="Replay iterations as a CUDA graph.")
@click.option("--iterations", type=int, default=None, help="A scale, instead of the preset's (to try the script).")
@click.option("--timed-iterations", type=click.IntRange(12), default=TIMED_ITERATIONS, show_default=True)
def main(
    data: Path,
    out: Path,
    seconds: float,
    device: str,
    graph: bool,
    iterations: int | None,
    timed_iterations: int,
) -> None:
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with np.load(data, allow_pickle=False) as stored:
        flat, solid = stored["grids_2d"].astype(np.float32), stored["grids_3d"].astype(np.float32)
    results: dict[str, Any] = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
    }

    def keep() -> None:
        (out / "singan_gpu.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        click.echo(json.dumps(results))

    # first the short part, so that a cut run has it
    for precision in ("fp32", "bf16"):
        results[f"better_3d_{precision}"] = one_against_many(
            solid, out / precision, device=device, bf16=precision == "bf16", graph=graph, iterations=timed_iterations
        )
        keep()
    results["paper_2d"] = paper_in_full(
        flat,
        out / "paper",
        device=device,
        graph=graph,
        iterations=iterations,
        seconds=seconds - (time.monotonic() - began) - 15,
    )
    keep()


def one_against_many(
    grids: np.ndarray, out: Path, *, device: str, bf16: bool, graph: bool, iterations: int
) -> dict[str, float]:
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

        train_singan(chosen, timed, out=out / name, device=device, bf16=bf16, graph=graph, report=report)
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


def paper_in_full(
    grids: np.ndarray, out: Path, *, device: str, graph: bool, iterations: int | None, seconds: float
) -> dict[str, Any]:
    """Trains `paper` on all lesions at once; writes models, log, reconstructions and samples."""
    settings = preset("paper", 2)
    if iterations is not None:
        settings = dataclasses.replace(settings, iterations=(iterations,))
    settings = dataclasses.replace(settings, report_every=50)
    shown = [time.monotonic()]

    def report(entry: dict[str, Any]) -> None:
        if time.monotonic() - shown[0] > 15:
            shown[0] = time.monotonic()
            click.echo(json.dumps(entry))

    began = time.monotonic()
    models = train_singan(
        grids,
        settings,
        out=out,
        resume=(out / "checkpoint.safetensors").exists(),
        time_limit_s=seconds,
        device=device,
        graph=graph,
        report=report,
    )
    taken = time.monotonic() - began
    np.savez_compressed(
        out / "samples.npz",
        real=grids,
        reconstruction=np.stack([m.reconstruct() for m in models]),
        samples=np.stack([[m.sample(np.random.default_rng(s)) for s in range(SAMPLES)] for m in models]).astype(
            np.float16
        ),
    )
    if models[0].finished:
        (out / "checkpoint.safetensors").unlink()  # else the run can go on from it
    return {
        "finished": models[0].finished,
        "seconds": round(taken, 1),
        "sizes": [list(s) for s in models[0].sizes],
        "amplitudes": [m.amplitudes for m in models],
        "rmse_hu": [round(m.rmse_hu(), 1) for m in models],
    }


if __name__ == "__main__":
    main()
