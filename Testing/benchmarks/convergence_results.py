"""Curves of the convergence benchmark, and what they say: as a table and as a picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import mean, stdev

from PIL import Image

from HiResMedSynthLib.background.vqgan import VqganShape
from HiResMedSynthLib.background.vqgan_cost import describe_side_by_side
from Testing.benchmarks.curve_plot import Line, draw_panels

LOSSES = (1.0, 0.5, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.035, 0.023)  # the paper names 0.1 and 0.023
HELD_OUT = (0.4, 0.3, 0.25, 0.2, 0.175, 0.15, 0.125, 0.1, 0.08)
COLOURS = {"paper": "#c30", "vqgan": "#06c"}

Reached = tuple[int, float] | None
"""(steps, seconds) at which a run reached a loss; None where it never did."""


@dataclass(kw_only=True)
class Curve:
    """One run: lists of equal length, one entry each `every` steps; losses are means since the entry before."""

    model: str
    seed: int
    layout: str = ""
    step: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    reconstruction: list[float] = field(default_factory=list)
    held_out_l1: list[float] = field(default_factory=list)
    perplexity: list[float] = field(default_factory=list)

    def first(self, values: list[float], bound: float) -> tuple[int, float] | None:
        """(step, seconds) of the first entry at or below a bound."""
        return next(
            ((s, t) for s, t, value in zip(self.step, self.seconds, values, strict=True) if value <= bound), None
        )


def table(curves: list[Curve], shapes: dict[str, VqganShape], facts: str) -> str:
    """The results as Markdown: cost, where each run ended, steps and seconds to reach each loss."""
    lines = [describe_side_by_side(shapes), "", facts, ""]
    lines += ["| network, seed | steps | seconds | ms a step | loss | held-out L1 | codes' perplexity |"]
    lines += ["| --- " * 7 + "|"]
    lines += [
        f"| {c.model}, {c.seed} | {c.step[-1]} | {c.seconds[-1]:.1f} | {1000 * c.seconds[-1] / c.step[-1]:.1f} "
        f"| {c.loss[-1]:.4f} | {c.held_out_l1[-1]:.4f} | {c.perplexity[-1]:.1f} |"
        for c in curves
    ]
    for title, key, bounds in (("training loss", "loss", LOSSES), ("held-out L1", "held_out_l1", HELD_OUT)):
        heads = [f"{title} reached", *(f"{model}: {unit}" for model in COLOURS for unit in ("steps", "s"))]
        heads += ["steps, ratio", "s, ratio"]
        lines += ["", "| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
        for bound in bounds:
            found = [[c.first(getattr(c, key), bound) for c in curves if c.model == model] for model in COLOURS]
            if any(entry for entries in found for entry in entries):
                cells = [cell for entries in found for cell in _cells(entries)]
                ratios = [_ratio(found, part=part) for part in (0, 1)]
                lines.append(f"| {bound} | " + " | ".join([*cells, *ratios]) + " |")
    lines += ["", "Mean and SD over seeds; where some seeds did not reach it, how many did. Ratio: paper to vqgan."]
    return "\n".join(lines) + "\n"


def _cells(entries: list[Reached]) -> tuple[str, str]:
    reached = [entry for entry in entries if entry]
    if not reached:
        return "-", "-"
    note = "" if len(reached) == len(entries) else f" ({len(reached)} of {len(entries)})"
    cells = []
    for values, digits in (([float(s) for s, _ in reached], 0), ([t for _, t in reached], 1)):
        spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
        cells.append(f"{mean(values):.{digits}f}{spread}{note}")
    return cells[0], cells[1]


def _ratio(found: list[list[Reached]], *, part: int) -> str:
    """Mean steps (part 0) or seconds (part 1) of paper over vqgan's, where all seeds of both got there."""
    if not all(entries and all(entries) for entries in found):
        return "-"
    paper, vqgan = (mean(entry[part] for entry in entries if entry) for entries in found)
    return f"{paper / vqgan:.2f}"


def plot(curves: list[Curve]) -> Image.Image:
    """Loss against steps and seconds, held-out L1 against seconds; a line for each seed."""
    panels: dict[str, list[Line]] = {}
    for title, x, y in (
        ("training loss against steps", "step", "loss"), ("training loss against seconds", "seconds", "loss"),
        ("held-out L1 against steps", "step", "held_out_l1"), ("held-out L1 against seconds", "seconds", "held_out_l1"),
    ):  # fmt: skip
        named: set[str] = set()
        panels[title] = []
        for c in curves:
            name = "" if c.model in named else c.model
            panels[title].append(Line(x=getattr(c, x), y=getattr(c, y), colour=COLOURS[c.model], name=name))
            named.add(c.model)
    return draw_panels(panels)
