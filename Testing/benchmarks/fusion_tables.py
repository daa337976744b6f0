"""Real and composed lesions measured alike, tables as Markdown: how they stand, what they hang together with."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.joining.belonging import Belonging, belonging
from HiResMedSynthLib.measure import LesionMeasures

Scene = tuple[NDArray[np.int16], NDArray[np.bool_], tuple[float, float, float]]  # HU, outline, spacing in mm
NAMES = ("edge_width_mm", "rim_gradient_hu_mm", "noise_hu", "noise_ratio", "gradient_jump_per_mm2", "cnr", "texture_hu")
FAR_MM = 7.0


def table(real: list[LesionMeasures], made: dict[str, list[LesionMeasures]]) -> list[str]:
    """Median and 95 % bootstrap interval of each measure, of its ratio to the real nodule's in the same place, and of
    the size of that ratio's logarithm: how far apart a pair is, whichever way.
    """
    rng = np.random.default_rng(0)
    lines = []
    for name in NAMES:
        own = np.array([getattr(one, name) for one in real])
        lines.append(f"| {name} | real | {int(np.isfinite(own).sum())} | {_interval(own, rng)} | | |")
        for way, measures in made.items():
            values = np.array([getattr(one, name) for one in measures])
            both = np.isfinite(values) & np.isfinite(own) & (own > 0) & (values > 0)
            ratio = values[both] / own[both]
            lines.append(
                f"| | {way} | {int(np.isfinite(values).sum())} | {_interval(values, rng)} "
                f"| {_interval(ratio, rng)} | {_interval(np.abs(np.log(ratio)), rng)} |"
            )
    return lines


def strand_table(ways: dict[str, list[Scene]]) -> list[str]:
    """A row a way: strands a lesion, those that can be followed 7 mm, lesions with none and with pleura or wall, things
    that pass by, and the strands' width, excess and reach.
    """
    head = ("| | n | strands (95 %) | followed 7 mm | without | at pleura or wall | pass by | share that ends at it "
            "| width, mm | excess, HU | reach, mm |")  # fmt: skip
    lines = [head, "| --- " * 11 + "|"]
    for way, scenes in ways.items():
        found = [
            one for one in (belonging(hu, outline, spacing_mm=mm) for hu, outline, mm in scenes) if one is not None
        ]
        lines.append(f"| {way} | {len(found)} | {_row(found)} |")
    return lines


def _row(found: list[Belonging]) -> str:
    if not found:
        return " | ".join("-" * 9)
    counts = np.array([len(one.strands) for one in found])
    far = np.array([sum(strand.reach_mm >= FAR_MM for strand in one.strands) for one in found])
    wide = np.array([any(part.is_wide for part in one.attached) for one in found])
    passing = np.array([one.passing for one in found])
    strands = [strand for one in found for strand in one.strands]
    drawn = np.random.default_rng(0).choice(counts, (2000, len(counts))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    share = counts.sum() / max(counts.sum() + passing.sum(), 1)
    cells = [
        f"{counts.mean():.2f} ({low:.2f} to {high:.2f})", f"{far.mean():.2f}", f"{((counts == 0) & ~wide).mean():.0%}",
        f"{wide.mean():.0%}", f"{passing.mean():.2f}", f"{share:.0%}",
        _quartiles(strand.width_mm for strand in strands), _quartiles(strand.excess_hu for strand in strands),
        _quartiles(strand.reach_mm for strand in strands),
    ]  # fmt: skip
    return " | ".join(cells)


def _quartiles(values: Iterable[float]) -> str:
    low, median, high = np.percentile(list(values) or [np.nan], [25, 50, 75])
    return f"{median:.3g} ({low:.3g} to {high:.3g})"


def _interval(values: NDArray[np.float64], rng: np.random.Generator) -> str:
    values = values[np.isfinite(values)]
    if len(values) < 3:
        return "-"
    drawn = np.median(rng.choice(values, (2000, len(values))), axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{np.median(values):.3g} ({low:.3g} to {high:.3g})"
