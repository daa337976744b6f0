"""What an evaluation says: one row a figure, with its number of images, interval, floor and verdict."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

Family = Literal["pairs", "methods", "sets", "statistics", "lesions"]
NOT_MEASURED, WITHIN, BEYOND = "not measured", "within the floor", "beyond the floor"
DIFFERS, NO_DIFFERENCE, TOO_FEW = "differs", "not significant", "not tested: too few"
NO_POWER, WINDOWS_DIFFER = "can't be told at this n", "windows differ"
FAMILIES: dict[Family, str] = {
    "sets": "Distances between the sets",
    "statistics": "Statistics of the images, synthetic minus real",
    "lesions": "Lesions",
    "pairs": "Pairs",
    "methods": "Two synthetic sets on the same pairs",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure.

    Args:
        family: where it belongs.
        name: of the measure.
        n: how many images, patients or pairs, in words.
        value: None where it wasn't measured, infinite where pixels are equal.
        low, high: 95 % interval; NaN where there is none.
        floor: what real against real gives at the same n; NaN where there is none.
        floor_limit: the point that 95 % of real against real keeps to; NaN where there is none.
        unit: of value, interval and floor.
        verdict: one of the words above, or "".
        reason: what the verdict rests on or is weakened by; "" where its measure says it all.
        note: how it is meant, or why it wasn't measured.
        p: after Bonferroni's correction; NaN where nothing was tested.
    """

    family: Family
    name: str
    n: str
    value: float | None
    low: float = math.nan
    high: float = math.nan
    floor: float = math.nan
    floor_limit: float = math.nan
    unit: str = ""
    verdict: str = ""
    reason: str = ""
    note: str = ""
    p: float = math.nan

    @classmethod
    def missing(cls, family: Family, name: str, why: str) -> Row:
        """A figure that wasn't measured, and why."""
        return cls(family=family, name=name, n="", value=None, verdict=NOT_MEASURED, note=why)

    def record(self) -> dict[str, Any]:
        """Plain values for JSON; what is infinite is the word, what is missing null."""
        return {name: plain(value) for name, value in vars(self).items()}


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One of the seven criteria of the FDA's scorecard of synthetic medical data.

    Args:
        name: "congruence" ...
        asks: what it asks, one sentence.
        measured: what was measured and what came out, one sentence each; empty where nothing was.
    """

    name: str
    asks: str
    measured: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"name": self.name, "asks": self.asks, "measured": list(self.measured) or NOT_MEASURED}


def plain(value: Any) -> Any:
    """A number that JSON can hold: 6 significant digits, "infinite", or None for NaN."""
    if not isinstance(value, float):
        return value
    if math.isnan(value):
        return None
    return ("infinite" if value > 0 else "-infinite") if math.isinf(value) else float(f"{value:.6g}")


def shown(value: float | None) -> str:
    """A number for people: 3 significant digits."""
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "infinite"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def patients(groups: Collection[str]) -> str:
    """How many patients these groups are, in words."""
    count = len(set(groups))
    return "1 patient" if count == 1 else f"{count} patients"
