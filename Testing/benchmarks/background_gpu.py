"""Backgrounds on a GPU: seconds a film, and training throughput beside the card's own matrix product in the same run.

`python -m Testing.benchmarks.background_gpu --out DIR [--model FILE] [--device cuda]` prints and writes JSON.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from HiResMedSynthLib.background.cascade import build_network, load_cascade
from HiResMedSynthLib.flow import FlowBatch, noised, velocity_error
from Training.captured_step import CapturedStep, adamw
from Training.draws import Draws
from Training.precision import autocast
from Training.preset_files import read_preset

SHIPPED = Path(__file__).resolve().parents[2] / "HiResMedSynthLib/background/weights/cxr.safetensors"
SIDE = 8192  # of the matrix product that is the card's measured peak
CASES = {"film": (64, 64), "detail-256": (24, 192), "detail-1024": (24, 192)}  # batch, side


def seconds_of(work: Any, device: str, *, times: int) -> float:
    """Median seconds of one call, after three to warm up."""
    taken = []
    for number in range(3 + times):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        if number >= 3:
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def peak(device: str, side: int) -> float:
    """TFLOP/s of a bfloat16 matrix product."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: left @ right, device, times=10) / 1e12


def training(stage: str, device: str, *, batch: int, side: int, steps: int) -> dict[str, float]:
    """Examples a second and TFLOP/s of whole steps of a stage (random examples, the draw not counted)."""
    network = build_network(read_preset("better")[stage]).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    draws = Draws.seeded(1, device)
    data, mask = draws.normal(1, batch, 1, side, side), torch.ones(batch, 1, side, side, device=device)
    if stage == "film":
        grid = torch.ones(batch, 1, 16, 16, device=device)
        picture = draws.normal(1, batch, 2, 4 * side, 4 * side)
        inputs = {"condition": mask, "known": grid, "picture": picture}
    else:
        inputs = {"condition": torch.cat([data, mask], dim=1)}
    example = FlowBatch(data=data, mask=mask, inputs=inputs)

    def loss() -> torch.Tensor:
        noise, times = draws.normal(1, *data.shape), draws.times(batch, mean=0.8, sd=1.2)
        with autocast("bfloat16", device):
            made = network(noised(example, time=times, noise=noise), times, **inputs)
        return velocity_error(made, data - noise, mask)

    with FlopCounterMode(display=False) as counter:
        loss().backward()  # type: ignore[no-untyped-call]
    kept = {name: value.detach().clone() for name, value in network.state_dict().items()}
    optimiser = adamw(network, learning_rate=1e-4, weight_decay=0.01, device=device, captured=True)
    step = CapturedStep(network, kept, optimiser, loss, clip=1.0)
    number = iter(range(10**9))
    seconds = seconds_of(lambda: step.take(seed=next(number), rate=1e-4, share=0.001), device, times=steps)
    return {
        "batch": batch,
        "side_px": side,
        "ms_a_step": round(1e3 * seconds, 2),
        "examples_a_second": round(batch / seconds),
        "tflops": round(counter.get_total_flops() / seconds / 1e12, 1),
    }


@click.command()
@click.option("--model", type=click.Path(path_type=Path), default=SHIPPED, help="A cascade [default: the shipped one].")
@click.option("--device", default="cuda", show_default=True)
@click.option("--steps", default=100, show_default=True, help="Training steps timed of each stage.")
@click.option("--films", default=5, show_default=True)
@click.option("--side", default=SIDE, show_default=True, help="Of the matrix product.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(model: Path, device: str, steps: int, films: int, side: int, out: Path) -> None:
    """Times sampling and training."""
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "torch": torch.__version__,
        "matmul_bf16_tflops": round(peak(device, side), 1),
    }
    cascade = load_cascade(model).on(device)
    seeds = iter(range(10**9))
    result["seconds_a_film"] = round(seconds_of(lambda: cascade.generate(seed=next(seeds)), device, times=films), 3)
    for stage, (batch, size) in CASES.items():
        result[stage] = training(stage, device, batch=batch, side=size, steps=steps)
        result[stage]["share_of_matmul"] = round(result[stage]["tflops"] / result["matmul_bf16_tflops"], 4)
        click.echo(f"{stage}: {result[stage]}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "background_gpu.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    click.echo(json.dumps(result))


if __name__ == "__main__":
    main()
