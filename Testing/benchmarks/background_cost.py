"""What the presets of backgrounds cost, side by side: weights, and GFLOP of a film rebuilt and of a new one.

`python -m Testing.benchmarks.background_cost`: `paper` and `vqgan` of 1024 px as the equations have them (no prior, so
no new film), and `better`, the cascade that ships, counted while it draws. Two operations a multiply-add.
"""

from __future__ import annotations

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from HiResMedSynthLib.background.cascade import REBUILDING, FilmCascade
from HiResMedSynthLib.background.find_model import find_background, load_background
from HiResMedSynthLib.background.vqgan import VqganShape, preset_shape
from HiResMedSynthLib.background.vqgan_cost import describe, match_parameters

GIGA = 1e9


def cascade_cost(cascade: FilmCascade) -> tuple[int, float, float]:
    """(weights, GFLOP of a film rebuilt from its picture, GFLOP of a new film): every evaluation of every stage."""
    weights = sum(parameter.numel() for stage in cascade.stages.values() for parameter in stage.network.parameters())
    with FlopCounterMode(display=False) as new:
        film = cascade.generate(seed=1)
    with FlopCounterMode(display=False) as rebuilt:
        cascade.generate(seed=1, codes=cascade.encode(film), settings=REBUILDING)
    return weights, rebuilt.get_total_flops() / GIGA, new.get_total_flops() / GIGA


def table(shapes: dict[str, VqganShape], cascade: FilmCascade) -> str:
    """Markdown: a row for each VQGAN and for the cascade, at the cascade's size."""
    lines = ["| preset | side, px | weights | GFLOP, rebuilt | GFLOP, new |", "| --- | --- | --- | --- | --- |"]
    for name, shape in shapes.items():
        cost = describe(shape, size=cascade.side)
        lines.append(f"| {name} | {cost.size} | {cost.parameters:,} | {2 * cost.gmac:,.1f} | |")
    weights, rebuilt, new = cascade_cost(cascade)
    return "\n".join([*lines, f"| better | {cascade.side} | {weights:,} | {rebuilt:,.1f} | {new:,.1f} |"])


@click.command(help=__doc__)
@click.option("--domain", default="cxr", show_default=True, help="Of the shipped cascade.")
def main(domain: str) -> None:
    torch.set_num_threads(1)
    paper = preset_shape("paper")
    matched = match_parameters(preset_shape("vqgan"), describe(paper).parameters)
    click.echo(table({"paper": paper, "vqgan": matched}, load_background(find_background(domain=domain)).cascade))


if __name__ == "__main__":
    main()
