"""How sharp an MR is, and which of its tissue shows its noise: measured on the image itself, whatever its units."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import measure
from HiResMedSynthLib.edge_profile import Edges, edges, joined
from HiResMedSynthLib.joining.noise_texture import LOCAL_PX
from HiResMedSynthLib.joining.scan_resolution import FEWEST_EDGES, SLICES_READ, ScanResolution

LEVELS = (20, 40, 60, 80)  # percentiles of the signal along whose borders edges are looked for
SMOOTH_PX = 1.0  # before a level's border is taken: it should follow anatomy, not grain
MOST_EDGES = 400  # a level and slice
STEP_NOISES, STEP_SHARE = 8.0, 0.1  # least step of an edge: over the noise, and of the signal's range
OFF_MIDDLE = 0.2  # of the step: how far a level may lie from the middle of an edge that it finds
SHARP = 25  # percentile of the widths: many borders in a body are blunt or oblique, its sharper ones show the scan
DEFAULT_WIDTH_PX, DEFAULT_USUAL_PX = 1.5, 2.0  # of an image without such edges: what sampling alone makes of a step
QUIETEST = 40  # percentile: so much of the tissue is taken for homogeneous, the rest for anatomy


def mr_resolution(pixels: NDArray[Any], *, spacing_mm: tuple[float, float, float]) -> ScanResolution:
    """The in-plane resolution of an MR, from a dozen of its slices; the same image always gives the same.

    Args:
        pixels: `[slice, row, column]`, any units.
        spacing_mm: (slice, row, column).
    """
    parts: list[Edges] = []
    for k in np.unique(np.linspace(0, len(pixels) - 1, min(len(pixels), SLICES_READ)).round().astype(int)):
        parts += _edges_of(pixels[k].astype(np.float32), spacing_mm[1:])
    widths, pixel_mm = joined(parts).width_mm, max(spacing_mm[1:])
    if len(widths) < FEWEST_EDGES:
        sharp, usual, count = DEFAULT_WIDTH_PX * pixel_mm, DEFAULT_USUAL_PX * pixel_mm, 0
    else:
        sharp, usual = (float(x) for x in np.percentile(widths, [SHARP, 50]))
        count = len(widths)
    return ScanResolution(edge_width_mm=round(sharp, 3), usual_width_mm=round(usual, 3), count=count)


def quiet_tissue(plane: NDArray[Any], *, darkest: float) -> NDArray[np.bool_]:
    """`[row, column]`: the tissue of an MR slice that varies least, where what varies is noise rather than anatomy.

    Args:
        plane: the slice.
        darkest: signal of its darkest tissue; what is darker is air.
    """
    from scipy.ndimage import gaussian_filter

    tissue = plane >= darkest
    if not tissue.any():
        return tissue
    values = plane.astype(np.float32)
    share = np.maximum(gaussian_filter(tissue.astype(np.float32), LOCAL_PX), 1e-3)
    mean, square = (gaussian_filter(np.where(tissue, x, 0.0), LOCAL_PX) / share for x in (values, values**2))
    spread = square - mean**2
    return np.asarray(tissue & (spread <= np.percentile(spread[tissue], QUIETEST)))


def _edges_of(plane: NDArray[np.float32], spacing_mm: tuple[float, float]) -> list[Edges]:
    from scipy.ndimage import gaussian_filter

    low, high = (float(x) for x in np.percentile(plane, [2, 98]))
    least = max(STEP_NOISES * measure.noise(plane), STEP_SHARE * (high - low))
    if not high > low:
        return []
    smooth, found = gaussian_filter(plane, SMOOTH_PX), []
    for level in np.percentile(smooth, LEVELS):
        rays = edges(plane, smooth > level, spacing_mm=spacing_mm, most=MOST_EDGES)
        step = rays.high - rays.low
        halfway = np.abs(level - (rays.high + rays.low) / 2) <= OFF_MIDDLE * step
        found.append(rays.where(halfway & (step >= least)))
    return found
