"""Does a lesion look like a real one where it stands? Its measures against those of real nodules of its type.

The ranges (5th to 95th percentile) are measured on LIDC-IDRI by `Training/build_nodule_ranges.py`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.joining.scan_resolution import ScanResolution
from HiResMedSynthLib.measure import LesionMeasures

SHIPPED = Path(__file__).parent / "range_data" / "nodule_ranges.json"
TESTED = ("edge_width_mm", "rim_gradient_hu_mm", "noise_ratio", "gradient_jump_per_mm2", "cnr")
OF_CONTRAST = frozenset({"rim_gradient_hu_mm", "cnr"})  # follow the contrast: not tested where that was asked for
THICK_SLICES_MM = 1.5  # real nodules' scans are parted here
WIDTH_AROUND_SCAN = (0.95, 1.5)  # of the scan's own edges: widths that are right in it, whatever other scans have
COARSEST_REAL_MM = 1.0  # no real nodule's scan had coarser pixels
EDGE_IN_PIXELS = 1.5  # what a pixel's extent and reading between pixels add to an edge
WORDS = {
    "edge_width_mm": "edge width, mm",
    "rim_gradient_hu_mm": "rim gradient, HU/mm",
    "noise_ratio": "noise around over inside",
    "gradient_jump_per_mm2": "gradient jump, 1/mm2",
    "cnr": "CNR",
    "anatomic_cnr": "contrast over ribs and vessels around",
}


class RangesError(HiResMedSynthError):
    """The real nodules' ranges that ship are missing or damaged."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """5th, 50th and 95th percentile of a measure over `n` real nodules."""

    n: int
    low: float
    median: float
    high: float


@dataclass(frozen=True, kw_only=True)
class NoduleRanges:
    """Ranges of measures by (type, kind of scan); the kind is "thin", "thick" or "any"."""

    cells: dict[tuple[str, str], dict[str, Range]]

    def of(self, lesion_type: str, *, slice_mm: float) -> dict[str, Range]:
        """The ranges for that type in scans of like slices; those of solid nodules for a type without any."""
        kind = "thick" if slice_mm >= THICK_SLICES_MM else "thin"
        for name in (lesion_type, "solid"):
            for scans in (kind, "any"):
                if (name, scans) in self.cells:
                    return self.cells[name, scans]
        raise RangesError("there are no ranges of real nodules", remedy="Reinstall HiResMedSynth.")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the test found.

    Args:
        outside: for each measure that isn't like real nodules': (value, lowest, highest).
        excess: how far outside, in widths of the ranges, summed; 0 if accepted.
        tested: measures that could be taken.
    """

    outside: dict[str, tuple[float, float, float]]
    excess: float
    tested: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """True if nothing is outside."""
        return not self.outside

    @property
    def words(self) -> str:
        """What is outside, one clause."""
        parts = [f"{WORDS[name]} {v:.3g} not in {a:.3g} to {b:.3g}" for name, (v, a, b) in self.outside.items()]
        return "; ".join(parts)

    def record(self) -> dict[str, Any]:
        """Plain values for case.json."""
        return {
            "accepted": self.accepted,
            "tested": list(self.tested),
            "outside": {name: [round(x, 4) for x in values] for name, values in self.outside.items()},
        }


def judge(
    measures: LesionMeasures,
    ranges: dict[str, Range],
    *,
    resolution: ScanResolution,
    pixel_mm: float,
    contrast_was_asked: bool = False,
) -> Verdict:
    """The measures against the ranges; what can't be measured passes, and the verdict says what was.

    Args:
        measures: of the lesion in the composed image.
        ranges: of real nodules of its type in like scans.
        resolution: of this scan: an edge as sharp or blunt as the scan's own is right, whatever other scans have.
        pixel_mm: larger side of a pixel; pixels coarser than any in the real nodules' scans widen an edge themselves.
        contrast_was_asked: gradient and CNR are then what the user wants.
    """
    outside, excess, tested = {}, 0.0, []
    for name in TESTED:
        value = float(getattr(measures, name))
        if not math.isfinite(value) or name not in ranges or (contrast_was_asked and name in OF_CONTRAST):
            continue
        tested.append(name)
        real = ranges[name]
        low, high = real.low, real.high
        own_low, own_high = (factor * resolution.edge_width_mm for factor in WIDTH_AROUND_SCAN)
        usual = ranges.get("edge_width_mm")
        if usual is not None and pixel_mm > COARSEST_REAL_MM:
            own_high = max(own_high, math.hypot(usual.high, EDGE_IN_PIXELS * pixel_mm))
        if name == "edge_width_mm":
            low, high = min(low, own_low), max(high, own_high)
        elif name == "rim_gradient_hu_mm":  # falls as the edge widens
            if usual is not None:
                low *= min(1.0, usual.high / own_high)
                high *= max(1.0, usual.low / own_low)
        elif name == "cnr" and measures.ring_noise_hu > 0:  # a usual contrast is right in a noisier or quieter scan too
            low = min(low, ranges["contrast_hu"].low / measures.ring_noise_hu)
            high = max(high, ranges["contrast_hu"].high / measures.ring_noise_hu)
        elif name == "gradient_jump_per_mm2":  # a rim without any jump is no fault: one too blunt is told by its width
            low = 0.0
        if not low <= value <= high:
            outside[name] = (value, low, high)
            excess += (low - value if value < low else value - high) / max(real.high - real.low, 1e-9)
    return Verdict(outside=outside, excess=excess, tested=tuple(tested))


@lru_cache(maxsize=1)
def shipped_ranges() -> NoduleRanges:
    """The ranges that come with the product.

    Raises:
        RangesError: the file is missing or damaged.
    """
    try:
        document = json.loads(SHIPPED.read_text(encoding="utf-8"))
        cells = {
            (cell["type"], cell["scans"]): {name: Range(**values) for name, values in cell["measures"].items()}
            for cell in document["cells"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RangesError(
            f"the ranges of real nodules can't be read ({error})", where=SHIPPED, remedy="Reinstall HiResMedSynth."
        ) from error
    return NoduleRanges(cells=cells)
