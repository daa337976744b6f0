"""The paper's claim of faster convergence, tested: HDFBs against plain residual blocks, all else equal.

`python -m Testing.benchmarks.convergence --films FILE.npz --size 256 --device cuda --seconds 90 --out DIR`

`paper` and `vqgan` (its widths matched so that both have the same number of weights) see the same films in the same
order with the same seeds, one run after the other. Both minimise Eq. 1 without its perceptual and adversarial terms,
which begin later in any schedule. Dead codes are revived from the batch, which the paper has not: without it
(`--revive 0`) one code takes all, in both networks, and there is little to compare. The clock stands still while
held-out films are measured.
Written to DIR after every run: curves.json, table.md, curves.png; sheet.png shows held-out films.
"""

from __future__ import annotations

import json
import math
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from HiResMedSynthLib.background.quantiser import ALPHA, GAMMA, Codebook, count_codes, perplexity
from HiResMedSynthLib.background.vqgan import Reconstruction, Vqgan, VqganShape, preset_shape
from HiResMedSynthLib.background.vqgan_cost import describe, describe_side_by_side, match_parameters
from Testing.benchmarks.convergence_results import Curve, plot, table
from Training.vqgan_data import FilmTensors, load_film_tensors
from Training.vqgan_losses import equation_1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is equal for both networks."""

    steps: int
    seconds: float
    batch: int
    learning_rate: float
    every: int
    device: str
    bf16: bool
    layout: str
    revive: int
    change: bool


def run_one(name: str, shape: VqganShape, films: FilmTensors, settings: Settings, *, seed: int) -> tuple[Curve, Vqgan]:
    """The curve of one training run, and its network."""
    torch.manual_seed(seed)
    network = Vqgan(shape).to(settings.device).train()
    layout, data_format = _place(network, films, settings)
    optimiser = torch.optim.Adam(
        network.parameters(), lr=settings.learning_rate, betas=(0.5, 0.9), eps=1e-8, fused=_on_gpu(settings.device)
    )
    curve = Curve(model=name, seed=seed, layout=layout)
    counts = torch.zeros(network.quantiser.entries, dtype=torch.int64, device=settings.device)
    before_revival = counts.clone()
    sums = torch.zeros(2, device=settings.device)
    since, clock, began = 0, 0.0, _now(settings.device)
    for step in range(settings.steps):
        torch.manual_seed(seed * 1_000_003 + step)  # DropPath
        image, mask = films.train_batch(step=step, batch=settings.batch, seed=seed, change=settings.change)
        result, loss, reconstruction = _losses(network, image.to(memory_format=data_format), mask, settings)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        sums += torch.stack([loss.detach(), reconstruction.detach()])
        counts += count_codes(result.indices, len(counts))
        since += 1
        if settings.revive and (step + 1) % settings.revive == 0:
            _revive(network, image, counts - before_revival, settings, seed=seed, step=step)
            before_revival = counts.clone()
        if since < settings.every and step + 1 < settings.steps:
            continue
        clock += _now(settings.device) - began
        trained = (sums / since).tolist()
        curve.step.append(step + 1)
        curve.seconds.append(clock)
        curve.loss.append(trained[0])
        curve.reconstruction.append(trained[1])
        curve.held_out_l1.append(held_out_l1(network, films, settings))
        curve.perplexity.append(perplexity(counts))
        if not math.isfinite(trained[0]) or clock >= settings.seconds:
            break
        sums.zero_()
        counts.zero_()
        before_revival.zero_()
        since, began = 0, _now(settings.device)
    return curve, network.eval()


def _place(network: Vqgan, films: FilmTensors, settings: Settings) -> tuple[str, torch.memory_format]:
    """Sets the memory layout (the faster of both for "auto"), and warms up kernels before the clock runs."""
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    image, mask = films.train_batch(step=0, batch=settings.batch, seed=0, change=False)
    needed: dict[str, float] = {}
    for name in formats if settings.layout == "auto" else [settings.layout]:
        placed: Any = network
        placed.to(memory_format=formats[name])  # its overload is not in torch's types
        for repeat in range(7 if settings.layout == "auto" else 3):
            if repeat == 3:
                needed[name] = -_now(settings.device)
            _losses(network, image.to(memory_format=formats[name]), mask, settings)[1].backward()
        needed[name] = needed.get(name, 0.0) + _now(settings.device)
    best = min(needed, key=lambda name: needed[name])
    placed = network
    placed.to(memory_format=formats[best])
    network.zero_grad(set_to_none=True)
    return best, formats[best]


def _losses(network: Vqgan, image: Tensor, mask: Tensor, settings: Settings) -> tuple[Reconstruction, Tensor, Tensor]:
    """(reconstruction, Eq. 1 without perceptual and adversarial term, its first term)."""
    with _precision(settings):
        result = network(image, mask)
    terms = equation_1(result, image, mask, alpha=ALPHA, gamma=GAMMA)
    return result, terms.total(), terms.reconstruction


def _revive(network: Vqgan, image: Tensor, counts: Tensor, settings: Settings, *, seed: int, step: int) -> None:
    assert isinstance(network.quantiser, Codebook)
    with torch.no_grad(), _precision(settings):
        encoded = network.encoder(image).float()
    network.quantiser.revive(encoded, counts, torch.Generator().manual_seed(seed * 1_000_003 + step))


@torch.no_grad()
def held_out_l1(network: Vqgan, films: FilmTensors, settings: Settings) -> float:
    """Mean absolute error inside the field over all held-out films, of values in -1..1."""
    network.eval()
    error = area = 0.0
    for part in films.side(held_out=True).split(settings.batch):
        image, mask = films.chosen(part)
        with _precision(settings):
            made = network(image, mask).image
        error += float(((made - image).abs() * mask).sum())
        area += float(mask.sum())
    network.train()
    return error / area


def _precision(settings: Settings) -> AbstractContextManager[Any]:
    return torch.autocast(torch.device(settings.device).type, dtype=torch.bfloat16) if settings.bf16 else nullcontext()


def _on_gpu(device: str) -> bool:
    return torch.device(device).type == "cuda"


def _now(device: str) -> float:
    if _on_gpu(device):
        torch.cuda.synchronize()
    return time.perf_counter()


@torch.no_grad()
def sheet(networks: dict[str, Vqgan], films: FilmTensors, settings: Settings) -> Image.Image:
    """Six held-out films, below them each network's reconstruction."""
    image, mask = films.chosen(films.side(held_out=True)[:6])
    rows = [image]
    for network in networks.values():
        with _precision(settings):
            rows.append(network(image, mask).image * mask)
    grid = torch.cat([torch.cat([tile[0] for tile in row[:, :1]], dim=1) for row in rows]).cpu().numpy()
    return Image.fromarray(np.rint((np.clip(grid, -1, 1) + 1) * 127.5).astype(np.uint8))


@click.command()
@click.option("--films", type=click.Path(path_type=Path), required=True, help=".npz or .npy of Training/vqgan_data.py.")
@click.option("--size", default=256, show_default=True)
@click.option("--widths", default="64,128,256,512", show_default=True, help="Of the encoder.")
@click.option("--strides", default="4,4,4", show_default=True, help="4,2,2 gives 256 px a grid of 16 x 16.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--steps", default=1_000_000, show_default=True, help="Of a run, at most.")
@click.option("--seconds", default=90.0, show_default=True, help="Of a run, at most.")
@click.option("--batch", default=8, show_default=True)
@click.option("--learning-rate", default=2.25e-5, show_default=True)
@click.option("--every", default=50, show_default=True, help="Steps between two entries.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--bf16/--fp32", default=None, help="Default: bf16 on CUDA, fp32 on a CPU.")
@click.option("--layout", type=click.Choice(["auto", "channels_last", "contiguous"]), default="auto", show_default=True)
@click.option("--activation", type=click.Choice(["relu", "gelu"]), default="relu", show_default=True)
@click.option("--drop-path", default=0.1, show_default=True, help="Of the last HDFB.")
@click.option("--literal", is_flag=True, help="HDFB without the convolution that only the text has.")
@click.option("--revive", default=50, show_default=True, help="Steps between revivals of dead codes; 0 (paper): none.")
@click.option("--change", is_flag=True, help="Shift films and change their gamma.")
@click.option("--threads", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(
    films: Path, size: int, widths: str, strides: str, seeds: int, out: Path, threads: int, **options: Any
) -> None:
    """Trains both networks with each seed and writes what was seen."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    device = options["device"]
    reading = {name: options.pop(name) for name in ("activation", "drop_path", "literal")}
    if options["bf16"] is None:
        options["bf16"] = _on_gpu(device)
    settings = Settings(**options)
    numbers = [tuple(int(part) for part in text.split(",")) for text in (widths, strides)]
    paper = preset_shape("paper", widths=numbers[0])
    block = replace(
        paper.reading, activation=reading["activation"], drop_path=reading["drop_path"],
        first_convolution=not reading["literal"],
    )  # fmt: skip
    paper = replace(paper, size=size, strides=numbers[1], reading=block)
    vqgan = match_parameters(replace(paper, block="residual"), describe(paper).parameters)
    shapes = {"paper": paper, "vqgan": vqgan}
    words = ", ".join(f"{name} {value}" for name, value in asdict(block).items()) + f", strides {strides}"
    facts = (
        f"Reading of the equations: {words}. Batch {settings.batch}, Adam {settings.learning_rate:g}, an entry "
        f"every {settings.every} steps, dead codes revived each {settings.revive} steps. {_machine(device)}"
    )
    click.echo(describe_side_by_side(shapes))
    data = load_film_tensors(films, size=size).to(device)
    out.mkdir(parents=True, exist_ok=True)
    curves: list[Curve] = []
    networks: dict[str, Vqgan] = {}
    for seed in range(1, seeds + 1):
        for name, shape in shapes.items():
            curve, network = run_one(name, shape, data, settings, seed=seed)
            curves.append(curve)
            networks.setdefault(name, network)
            click.echo(
                f"{name} seed {seed}: {curve.step[-1]} steps, {curve.seconds[-1]:.1f} s ({curve.layout}), loss "
                f"{curve.loss[-1]:.4f}, held-out L1 {curve.held_out_l1[-1]:.4f}, perplexity {curve.perplexity[-1]:.1f}"
            )
            record = {
                "settings": asdict(settings), "reading": words, "films": len(data.films),
                "shapes": {key: value.to_json() for key, value in shapes.items()},
                "cost": {key: asdict(describe(value)) for key, value in shapes.items()},
                "machine": _machine(device), "curves": [asdict(c) for c in curves],
            }  # fmt: skip
            (out / "curves.json").write_text(json.dumps(record), encoding="utf-8")
            (out / "table.md").write_text(table(curves, shapes, facts), encoding="utf-8")
            plot(curves).save(out / "curves.png")
            if len(networks) == len(shapes):
                sheet(networks, data, settings).save(out / "sheet.png")
    sys.stdout.write((out / "table.md").read_text(encoding="utf-8"))


def _machine(device: str) -> str:
    kind = torch.cuda.get_device_name() if _on_gpu(device) else f"CPU, {torch.get_num_threads()} threads"
    return f"{kind}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
