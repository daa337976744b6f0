"""How much real nodules add to the rays of a film, by diameter and type; measured on nodules projected out of CT.

The table is made by `Training/build_film_contrasts.py` from LIDC-IDRI. Depths are millimetres of water.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from HiResMedSynthLib.joining.acceptance import Range, RangesError, Verdict
from HiResMedSynthLib.joining.film_shadow import ShadowMeasures

SHIPPED = Path(__file__).parent / "range_data" / "film_contrasts.json"
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of real nodules: at which the table gives a depth
EDGE_SLACK_MM = 0.3  # what pixels and the reading of a rim may add to its width


@dataclass(frozen=True, kw_only=True)
class FilmReference:
    """A projected chest or abdomen, measured as films are, mm of water.

    Args:
        detail: robust spread of structures of 5 to 25 mm in the lungs (chest).
        step: from the median of the lungs to that of the mediastinum (chest).
        lung_range, mediastinum_range: 5th to 95th percentile there (chest).
        spine: spine against flank (abdomen).
    """

    detail: float
    step: float
    lung_range: float
    mediastinum_range: float
    spine: float


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Real nodules of one type and like size.

    Args:
        n: how many.
        diameter_mm: their median.
        depth_per_mm: depth over diameter at each of `SHARES`.
        edge_width_mm, anatomic_cnr: 5th, 50th and 95th percentile.
    """

    n: int
    diameter_mm: float
    depth_per_mm: tuple[float, ...]
    edge_width_mm: Range
    anatomic_cnr: Range


@dataclass(frozen=True, kw_only=True)
class FilmContrasts:
    """The table: cells by type, ascending in diameter, and the projected bodies it is read by."""

    cells: dict[str, tuple[Cell, ...]]
    reference: FilmReference

    def of(self, lesion_type: str) -> tuple[Cell, ...]:
        """The cells of a type; those of solid nodules for one without any."""
        return self.cells.get(lesion_type, self.cells["solid"])

    def depth_mm(self, lesion_type: str, diameter_mm: float, share: float) -> float:
        """Depth in mm of water that this share of real nodules of that type and diameter doesn't reach."""
        cells = self.of(lesion_type)
        at = np.log([cell.diameter_mm for cell in cells])
        by_share = [
            np.interp(math.log(diameter_mm), at, column)
            for column in zip(*(c.depth_per_mm for c in cells), strict=True)
        ]
        return diameter_mm * float(np.interp(share, SHARES, by_share))

    def nearest(self, lesion_type: str, diameter_mm: float) -> Cell:
        """The cell of like size."""
        return min(self.of(lesion_type), key=lambda cell: abs(math.log(cell.diameter_mm / diameter_mm)))


def judge_shadow(
    measures: ShadowMeasures, cell: Cell, *, diameter_mm: float, blur_width_mm: float, contrast_was_asked: bool
) -> Verdict:
    """The measures against real nodules' of its type and size; what can't be measured passes.

    Args:
        measures: of the shadow in the film.
        cell: real nodules.
        diameter_mm: of the lesion: widths grow with it within a cell.
        blur_width_mm: 10-90 % width that the film's own blur has added.
        contrast_was_asked: the contrast is then what the user wants.
    """
    size = diameter_mm / cell.diameter_mm
    low, high = cell.edge_width_mm.low, cell.edge_width_mm.high
    limits = {
        "edge_width_mm": (
            low * min(size, 1.0) - EDGE_SLACK_MM,
            math.hypot(high * max(size, 1.0), blur_width_mm) + EDGE_SLACK_MM,
        )
    }
    if not contrast_was_asked:
        limits["anatomic_cnr"] = (cell.anatomic_cnr.low, cell.anatomic_cnr.high)
    values = {name: float(getattr(measures, name)) for name in limits}
    tested = tuple(name for name, value in values.items() if math.isfinite(value))
    outside = {
        name: (values[name], *limits[name]) for name in tested if not limits[name][0] <= values[name] <= limits[name][1]
    }
    excess = sum(max(a - v, v - b) / max(b - a, 1e-9) for v, a, b in outside.values())
    return Verdict(outside=outside, excess=excess, tested=tested)


@lru_cache(maxsize=1)
def shipped_contrasts() -> FilmContrasts:
    """The table that comes with the product.

    Raises:
        RangesError: the file is missing or damaged.
    """
    try:
        document = json.loads(SHIPPED.read_text(encoding="utf-8"))
        return FilmContrasts(
            cells={kind: tuple(_cell(row) for row in rows) for kind, rows in document["cells"].items()},
            reference=FilmReference(**document["reference"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RangesError(
            f"the contrasts of real nodules on films can't be read ({error})", where=SHIPPED,
            remedy="Reinstall HiResMedSynth.",
        ) from error  # fmt: skip


def _cell(row: dict[str, Any]) -> Cell:
    ranges = {name: Range(**row[name]) for name in ("edge_width_mm", "anatomic_cnr")}
    return Cell(n=row["n"], diameter_mm=row["diameter_mm"], depth_per_mm=tuple(row["depth_per_mm"]), **ranges)
