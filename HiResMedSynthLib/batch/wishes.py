"""Values of a spec that are drawn for each case or lesion: a number of lesions, a type, a zone, a range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator

Range = tuple[float, float]
Weights = dict[str, float]
Bins = tuple[tuple[Range, float], ...]


def drawn_name(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    """One of the names, as often as its weight says."""
    names = list(weights)
    ends = np.cumsum([weights[name] for name in names])
    place = int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))
    return names[min(place, len(names) - 1)]


def drawn_range(bins: Bins, rng: np.random.Generator) -> Range:
    """One of the ranges, as often as its weight says."""
    return bins[int(drawn_name({str(k): weight for k, (_, weight) in enumerate(bins)}, rng))][0]


def _weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
        raise ValueError(f"a weight of {value!r} can't be: give a number from 0 up")
    return float(value)


def _weights(value: Any) -> Weights:
    """A name, a list of names, or a table name = weight."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        value = dict.fromkeys(value, 1.0)
    if not isinstance(value, dict) or not value:
        raise ValueError('give a name, a list of names, or weights like { "solid" = 3, "calcified" = 1 }')
    told = {str(name): _weight(weight) for name, weight in value.items()}
    if sum(told.values()) == 0:
        raise ValueError("all weights are zero")
    return told


def _counts(value: Any) -> Weights:
    """A whole number, [smallest, largest], or a table count = weight."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    pair = isinstance(value, list) and len(value) == 2 and all(type(part) is int for part in value)
    if whole:
        value = [value, value]
    if whole or pair:
        low, high = value
        if low > high:
            raise ValueError(f"{value!r} is reversed: give [{high}, {low}]")
        if not 1 <= low <= high <= 1000:
            raise ValueError(f"{low} to {high} lesions can't be: give 1 to 1000")
        return {str(count): 1.0 for count in range(low, high + 1)}
    told = _weights(value)
    if not all(name.isascii() and name.isdigit() and 1 <= int(name) <= 1000 for name in told):
        raise ValueError('give a number, [smallest, largest], or weights like { "1" = 3, "2" = 1 }')
    return told


def _bins(value: Any) -> Bins:
    """[smallest, largest], or a list of tables { range = [smallest, largest], weight = n }."""
    if isinstance(value, list) and len(value) == 2 and not any(isinstance(part, dict) for part in value):
        value = [{"range": value}]
    if not isinstance(value, list) or not value:
        raise ValueError("give [smallest, largest], or a list of { range = [smallest, largest], weight = n }")
    bins = []
    for part in value:
        if not isinstance(part, dict) or not {"range"} <= set(part) <= {"range", "weight"}:
            raise ValueError("each part is { range = [smallest, largest], weight = n }")
        limits = part["range"]
        numbers = isinstance(limits, list) and len(limits) == 2 and all(type(n) in (int, float) for n in limits)
        if numbers and limits[0] > limits[1]:
            raise ValueError(f"{limits!r} is reversed: give [{limits[1]}, {limits[0]}]")
        if not numbers or not all(map(math.isfinite, limits)):
            raise ValueError(f"{limits!r} is no range: give [smallest, largest]")
        bins.append(((float(limits[0]), float(limits[1])), _weight(part.get("weight", 1))))
    if sum(weight for _, weight in bins) == 0:
        raise ValueError("all weights are zero")
    return tuple(bins)


Choice = Annotated[Weights, BeforeValidator(_weights)]
Counts = Annotated[Weights, BeforeValidator(_counts)]
RangeChoice = Annotated[Bins, BeforeValidator(_bins)]
