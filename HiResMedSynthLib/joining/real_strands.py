"""What real nodules hang together with: a lesion gets the strands of a real one of its type and size.

The table is measured on LIDC-IDRI by `Training/build_nodule_strands.py`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from HiResMedSynthLib.joining.acceptance import RangesError

SHIPPED = Path(__file__).parent / "range_data" / "nodule_strands.json"
LIKE = 16  # nodules of the type that are nearest in size and spiculation: one of them is taken
SPICULATION_WEIGHT = 0.3  # a step of the readers' rating counts as much as this logarithm of a ratio of sizes


@dataclass(frozen=True, kw_only=True)
class Strand:
    """A strand or vessel that ends at a nodule: its tissue's radius, how far it can be followed (8 mm at most)."""

    radius_mm: float
    reach_mm: float


@dataclass(frozen=True, kw_only=True)
class RealNodule:
    """A nodule and its strands; `seen` is the share of its surroundings that could be looked at."""

    type: str
    diameter_mm: float
    spiculation: float
    seen: float
    strands: tuple[Strand, ...]


@dataclass(frozen=True, kw_only=True)
class RealStrands:
    """The table."""

    nodules: tuple[RealNodule, ...]

    def draw(
        self, lesion_type: str, diameter_mm: float, spiculation: float | None, rng: np.random.Generator
    ) -> list[Strand]:
        """The strands of a real nodule like that, the thickest first; more of the same where part of it wasn't seen.

        Args:
            lesion_type: solid nodules stand in for a type that the table doesn't have.
            diameter_mm: of the sphere of equal volume.
            spiculation: the readers' rating, 1..5; None: unknown, it doesn't matter then.
            rng: the lesion's own stream.
        """
        known = {nodule.type for nodule in self.nodules}
        kind = lesion_type if lesion_type in known else "solid"
        weight = 0.0 if spiculation is None else SPICULATION_WEIGHT

        def unlike(nodule: RealNodule) -> float:
            rated = weight * ((spiculation or 0.0) - nodule.spiculation)
            return math.hypot(math.log(nodule.diameter_mm / diameter_mm), rated)

        nearest = sorted((nodule for nodule in self.nodules if nodule.type == kind), key=unlike)[:LIKE]
        nodule = nearest[int(rng.integers(len(nearest)))]
        if not nodule.strands:
            return []
        count = int(len(nodule.strands) / nodule.seen + rng.random())
        found = [nodule.strands[k % len(nodule.strands)] for k in range(count)]
        return sorted(found, key=lambda strand: -strand.radius_mm)


@lru_cache(maxsize=1)
def shipped_strands() -> RealStrands:
    """The table that comes with the product.

    Raises:
        RangesError: the file is missing or damaged.
    """
    try:
        rows = json.loads(SHIPPED.read_text(encoding="utf-8"))["nodules"]
        found = tuple(
            RealNodule(
                type=kind, diameter_mm=diameter, spiculation=rating, seen=seen,
                strands=tuple(Strand(radius_mm=radius, reach_mm=reach) for radius, reach in strands),
            )
            for kind, diameter, rating, seen, strands in rows
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RangesError(
            f"the table of real nodules' strands can't be read ({error})", where=SHIPPED,
            remedy="Reinstall HiResMedSynth.",
        ) from error  # fmt: skip
    return RealStrands(nodules=found)
