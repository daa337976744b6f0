"""A lesion made to fit its scan: filtered to its resolution, vessels kept at its rim, the scan's noise inside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import measure
from HiResMedSynthLib.edge_profile import edges, joined
from HiResMedSynthLib.joining.noise_texture import NoiseTexture
from HiResMedSynthLib.joining.scan_resolution import WIDTH_TO_SIGMA, ScanResolution

Index = tuple[int, int, int]
ALPHA_ONE, ALPHA_HALF = 65535, 32768
SMALLEST_ALPHA = 1 / 512  # less of a lesion in a voxel is nothing
FULL_STEP_HU = 900.0  # from lung to a solid lesion: scale on which the edge of a matte is measured
VESSEL_HU = (-550.0, -450.0)  # between them a voxel of the background begins to count as vessel
AIRY_HU = (-300.0, -100.0)  # below the first a vessel shows through the lesion, above the second it is absorbed
THINNEST = 0.02  # share of lesion from which on noise is carried
BLUNTEST = 1.15  # of the scan's usual edge: a matte that is blunter comes from a softer scan, or was enlarged
STEEPER = (1.25, 1.5, 2.0, 2.5, 3.0)  # how much steeper a matte is made, until its edge is as wide as it should be
ODDS = (1e-3, 1e3)  # by which a steeper matte's odds may be moved
SMOOTH_PX = (0.5, 1.0, 1.0)  # what is finer in a lesion counts as its own noise


def matte_width_mm(alpha: NDArray[np.uint16], *, spacing_mm: tuple[float, float, float]) -> float:
    """10-90 % width of the matte's edge in plane, median over the rim; NaN if it has none."""
    inside = alpha >= ALPHA_HALF
    areas = inside.sum(axis=(1, 2))
    found = []
    for k in np.flatnonzero((areas > 0) & (areas >= measure.EQUATOR * areas.max())):
        # room for the rays
        margin = [math.ceil(4.5 / step) for step in spacing_mm[1:]]
        room = ((margin[0],) * 2, (margin[1],) * 2)
        plane = np.pad(alpha[k].astype(np.float32) * np.float32(FULL_STEP_HU / ALPHA_ONE), room)
        found.append(edges(plane, np.pad(inside[k], room), spacing_mm=spacing_mm[1:]))
    widths = joined(found).width_mm
    return float(np.median(widths)) if len(widths) else math.nan


def at_resolution(
    corner: Index,
    alpha: NDArray[np.uint16],
    density: NDArray[np.float32],
    *,
    spacing_mm: tuple[float, float, float],
    resolution: ScanResolution,
    slice_thickness_mm: float | None,
    enlarged: float = 1.0,
) -> tuple[Index, NDArray[np.uint16], NDArray[np.float32], float]:
    """(corner, alpha, density, sigma in mm) of a lesion blurred in plane until it is no sharper than the scan.

    Along the slices it is blurred where these are thicker than they are apart (`render` has averaged it over their
    distance). One much blunter than the scan's usual edges, or than its own before it was enlarged, is made steeper;
    sigma is negative then: so much blur was taken back.

    Args:
        corner, alpha, density: a patch `[slice, row, column]`, HU.
        spacing_mm: (slice, row, column).
        resolution: of the scan.
        slice_thickness_mm: as the header tells; None: as thick as apart.
        enlarged: how many times larger than its source the lesion is: its rim's blur was enlarged with it.
    """
    from scipy.ndimage import gaussian_filter

    own = matte_width_mm(alpha, spacing_mm=spacing_mm)
    widest = min(BLUNTEST * resolution.usual_width_mm, max(own / max(enlarged, 1.0), resolution.edge_width_mm))
    steeper, width = alpha, own
    for times in STEEPER:
        if not width > widest:
            break
        tried = _steepened(alpha, times)
        reached = matte_width_mm(tried, spacing_mm=spacing_mm)
        if math.isnan(reached):
            break
        steeper, width = tried, reached
    if width < own:
        sigma_mm = -math.sqrt(own**2 - width**2) / WIDTH_TO_SIGMA
    else:
        missing = resolution.edge_width_mm**2 - own**2 if math.isfinite(own) else 0.0
        sigma_mm = math.sqrt(max(missing, 0.0)) / WIDTH_TO_SIGMA
    in_plane = max(sigma_mm, 0.0)
    thickness = max(slice_thickness_mm or 0.0, spacing_mm[0])
    along_mm = math.sqrt((thickness**2 - spacing_mm[0] ** 2) / 12.0)  # variance of a box, less that of the voxel
    sigma = [along_mm / spacing_mm[0], in_plane / spacing_mm[1], in_plane / spacing_mm[2]]
    if max(sigma) < 0.1:
        return corner, steeper, density, min(sigma_mm, 0.0)
    alpha = steeper
    room = [math.ceil(3.0 * s) for s in sigma]
    share = np.pad(alpha.astype(np.float32) / np.float32(ALPHA_ONE), [(r, r) for r in room])
    weighted = share * np.pad(density, [(r, r) for r in room], mode="edge")
    share, weighted = (gaussian_filter(values, sigma, truncate=3.0, mode="constant") for values in (share, weighted))
    share[share < SMALLEST_ALPHA] = 0.0
    core = float(np.average(density, weights=alpha)) if alpha.any() else 0.0
    blurred = np.where(share > 0, weighted / np.maximum(share, SMALLEST_ALPHA), core)
    moved: Index = (corner[0] - room[0], corner[1] - room[1], corner[2] - room[2])
    rounded = np.round(np.clip(share, 0.0, 1.0) * ALPHA_ONE).astype(np.uint16)
    return moved, rounded, blurred.astype(np.float32), sigma_mm


def _steepened(alpha: NDArray[np.uint16], times: float) -> NDArray[np.uint16]:
    """The matte with its edge so many times steeper: what lies above a half rises, what lies below falls.

    The log odds of each voxel's share are multiplied, so that nothing overshoots and the noise of the plateaus shrinks,
    and moved so that its volume stays.
    """
    from scipy.optimize import brentq

    inside, outside = (alpha / ALPHA_ONE) ** times, (1.0 - alpha / ALPHA_ONE) ** times
    volume = float(alpha.sum(dtype=np.float64)) / ALPHA_ONE

    def excess(odds: float) -> float:
        return float((inside / (inside + odds * outside)).sum()) - volume

    share = inside / (inside + brentq(excess, *ODDS, xtol=1e-3) * outside)
    share[share < SMALLEST_ALPHA] = 0.0
    return np.asarray(np.round(share * ALPHA_ONE), np.uint16)


def with_vessels(
    values: NDArray[np.float64], alpha: NDArray[np.uint16], background: NDArray[Any]
) -> NDArray[np.float64]:
    """The lesion's HU, at least those of a vessel that shows through its airy part.

    A solid lesion absorbs what lies inside it; at its rim the vessel ends as gently as the lesion begins.
    """
    vessel = np.clip((background - VESSEL_HU[0]) / (VESSEL_HU[1] - VESSEL_HU[0]), 0.0, 1.0)
    airy = np.clip((AIRY_HU[1] - values) / (AIRY_HU[1] - AIRY_HU[0]), 0.0, 1.0)
    kept = np.maximum(airy, 1.0 - alpha / ALPHA_ONE)
    return np.asarray(values + kept * vessel * np.maximum(background - values, 0.0))


def with_noise(
    values: NDArray[np.float64],
    alpha: NDArray[np.uint16],
    *,
    ring_noise: float,
    source_noise: float | None,
    texture: NoiseTexture,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], dict[str, float]]:
    """(the lesion's HU with the scan's noise, what was done) so that after blending the noise is even across the rim.

    Args:
        values: HU of the lesion, defined over the whole patch.
        alpha: its matte.
        ring_noise: noise of the parenchyma around it, HU. Deep inside real solid nodules it is the same (1.00 of it,
            median of 189 of 8 mm and more).
        source_noise: noise of the scan that the lesion comes from; None: all its fine detail counts as noise.
        texture: grain of the scan's noise.
        rng: the lesion's own stream.
    """
    from scipy.ndimage import gaussian_filter

    field = texture.field((values.shape[0], values.shape[1], values.shape[2]), rng)
    mask = alpha >= ALPHA_HALF
    own = measure.noise(values, mask)
    of_source = own if source_noise is None else min(own, source_noise)
    detail = math.sqrt(own**2 - of_source**2)  # of the lesion itself
    kept = math.hypot(detail, min(of_source, ring_noise))
    if own > kept:  # its source was noisier than this scan
        smooth = gaussian_filter(values, SMOOTH_PX, mode="nearest")
        values = smooth + (kept / own) * (values - smooth)
    left = min(of_source, ring_noise)
    share = alpha / ALPHA_ONE
    lacking = ring_noise**2 * (1.0 - (1.0 - share) ** 2) - (share * left) ** 2
    strength = np.sqrt(np.maximum(lacking, 0.0)) / np.maximum(share, THINNEST)
    strength[share < THINNEST] = 0.0
    added = strength * field
    added -= np.average(added, weights=share)  # noise must not change how bright the lesion is
    return values + added, {"own": own, "of_its_source": of_source, "around": ring_noise}
