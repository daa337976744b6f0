"""The results of `film_quality` as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from HiResMedSynthLib.evaluation.set_rows import SPACE_WORDS, WORDS
from Testing.benchmarks import film_structure

FEW_DIGITS = 50  # above it whole numbers are shown
SHOWN = ("frechet", "kid", "precision", "recall", "coverage")


def markdown(result: Mapping[str, Any]) -> str:
    """All tables, under one line that says what was measured."""
    counts = ", ".join(f"{count} {name}" for name, count in result["films"].items())
    parts = [f"Model {result['model']}; films: {counts}. Brackets: 95 % intervals by patient."]
    parts += ["\n".join(lines) for lines in (_pairs(result["pairs"]), _powers(result["power"]))]
    parts += ["\n".join(_codes(result["codes"])), "\n".join(_distances(result["distances"]))]
    parts += ["\n".join(_copies(result["copies"]))]
    if "anatomy" in result:
        parts.append(film_structure.markdown(film_structure.Comparison(**result["anatomy"])))
    if times := result.get("seconds, wall and CPU"):
        rows = [(name, f"{wall:.3f}", f"{busy:.3f}") for name, (wall, busy) in times.items()]
        where = f"seconds ({result['machine']['threads']} threads, load {result['machine']['load']:.1f} at the start)"
        parts.append("\n".join(_table((where, "wall", "CPU"), rows)))
    return "\n\n".join(parts) + "\n"


def _pairs(pairs: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[str]:
    heads = ("reconstruction from codes", *pairs)
    names = next(iter(pairs.values()))
    return _table(heads, [(name, *(_spread(one[name], 3) for one in pairs.values())) for name in names])


def _powers(power: Mapping[str, Any]) -> Iterator[str]:
    bands = [f"{low:g}-{high:g}" for low, high in power["samples"]["bands_cycles_per_pixel"]]
    rows = []
    for part in (power["samples"], *power["rebuilt"]):
        names = part.keys() - {"bands_cycles_per_pixel", "over"}
        rows += [(f"{name} over {part['over']}", *(_spread(value, 2) for value in part[name])) for name in names]
    return _table(("power, cycles/pixel", *bands), sorted(rows))


def _codes(codes: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    names = [name for name in next(iter(codes.values())) if name != "codes"]
    rows = [(name, *(f"{one[name]:.3g}" for one in codes.values())) for name in names]
    return _table((f"use of the {next(iter(codes.values()))['codes']:.0f} codes", *codes), rows)


def _distances(distances: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    rows = []
    for real, others in distances.items():
        for other, spaces in others.items():
            for space, found in spaces.items():
                what = f"{other} against {real}, {SPACE_WORDS[space]}"
                if isinstance(found, str):
                    rows.append((what, "", found, *("",) * (len(SHOWN) - 1)))
                    continue
                cells = (_beside_floor(found[name]) for name in SHOWN)
                rows.append((what, str(found[SHOWN[0]]["patients"]), *cells))
    heads = (f"{WORDS[name][0]}" for name in SHOWN)
    return _table(("set, feature space: value (interval); limit of real against real", "n a side", *heads), rows)


def _beside_floor(one: Mapping[str, Any]) -> str:
    """A distance with its interval and the point that 95 % of draws of real against real keep to; bold: beyond it."""
    digits = 0 if one["value"] > FEW_DIGITS else 2
    value = f"{one['value']:.{digits}f}"
    value = value if one["within_floor"] else f"**{value}**"
    return f"{value} ({one['low']:.{digits}f} to {one['high']:.{digits}f}); {one['floor_limit']:.{digits}f}"


def _copies(copies: Mapping[str, Any]) -> Iterator[str]:
    if "not measurable" in copies:
        return iter([f"Near copies: not measurable ({copies['not measurable']})."])
    rows = []
    for name, one in copies.items():
        near = one["near copies"]
        counted = f"{near['found']} of {near['of']} ({near['interval'][0]:.3f} to {near['interval'][1]:.3f})"
        likeness = one["likeness over its limit, median and largest"]
        correlation = one["correlation at 64 px, 5/50/95 % and largest"]
        rows.append((name, counted, *(" / ".join(f"{v:.2f}" for v in values) for values in (likeness, correlation))))
    heads = ("nearness to films trained on", "near copies", "likeness over limit: median / largest",
             "correlation at 64 px: 5 / 50 / 95 % / largest")  # fmt: skip
    return _table(heads, rows)


def _spread(values: Sequence[float], digits: int) -> str:
    mean, *interval = (f"{value:.{digits}f}" for value in values)
    return f"{mean} ({' to '.join(interval)})" if interval else mean


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "| --- " * len(heads) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
