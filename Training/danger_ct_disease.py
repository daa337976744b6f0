"""Disease painted into healthy lungs whose outline is known: what rules on HU fail at.

The lung keeps its label: the network's lung is the pleural cavity with all that fills it, effusion too.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.placement.network_ct import LUNG

KINDS = ("patches", "lobe", "glass", "effusion", "white", "fibres", "emphysema")
SHARES = (0.24, 0.2, 0.2, 0.18, 0.06, 0.07, 0.05)
LEAST_LUNG_MM2 = 400.0
DENSE = ("patches", "lobe", "effusion", "white")


def draw_disease(
    hu: NDArray[np.float32], labels: NDArray[np.uint8], rng: np.random.Generator, *, mm: float, kind: str | None = None
) -> NDArray[np.float32]:
    """The slice `[row, column]` with a disease painted in; unchanged where there is little lung.

    Args:
        hu: face up, on square pixels of `mm`.
        labels: `LUNG` where the pleural cavity is.
        kind: one of `KINDS`; None draws one.
    """
    cavity = labels == LUNG
    count, parts, stats, _ = cv2.connectedComponentsWithStats(cavity.astype(np.uint8), connectivity=4)
    sides = [n for n in range(1, count) if stats[n, cv2.CC_STAT_AREA] * mm * mm >= LEAST_LUNG_MM2]
    if not sides:
        return hu
    kind = kind or str(rng.choice(KINDS, p=SHARES))
    if kind == "white" or (len(sides) > 1 and rng.random() < 0.45):
        sides = [int(rng.choice(sides))]
    changed = hu
    for side in sides:
        lung = parts == side
        depth = _depth(kind, lung, rng, mm)
        changed = _painted(changed, depth, lung, kind, rng, mm)
    return changed


def field(shape: tuple[int, ...], scale_px: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise of that grain, mean 0, standard deviation 1."""
    small = (max(3, round(shape[0] / scale_px) + 3), max(3, round(shape[1] / scale_px) + 3))
    noise = cv2.resize(
        rng.standard_normal(small).astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC
    )
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-6), dtype=np.float32)


def _depth(kind: str, lung: NDArray[np.bool_], rng: np.random.Generator, mm: float) -> NDArray[np.float32]:
    """0..1 [row, column]: how far the disease has filled each pixel of that lung."""
    rows, columns = np.nonzero(lung)
    height, width = max(np.ptp(rows), 1), max(np.ptp(columns), 1)
    row = (np.arange(lung.shape[0], dtype=np.float32)[:, np.newaxis] - rows.min()) / height
    column = (np.arange(lung.shape[1], dtype=np.float32)[np.newaxis] - columns.mean()) / width
    if kind == "white":
        return np.ones(lung.shape, dtype=np.float32)
    noise = field(lung.shape, rng.uniform(6, 30) / mm, rng)
    share = rng.uniform(0.1, 0.8)
    soft = rng.uniform(0.05, 0.8)
    if kind == "effusion":  # lies at the back, highest at the wall
        value = row + rng.uniform(-0.1, 0.5) * np.abs(column) + 0.03 * noise
        share, soft = rng.uniform(0.08, 0.75), 0.03
    elif kind == "lobe":
        angle = rng.uniform(-1.0, 1.0)
        turn = 1.0 if rng.random() < 0.75 else -1.0
        value = turn * (np.cos(angle) * row + np.sin(angle) * column) + rng.uniform(0, 0.15) * noise
        soft = rng.uniform(0.02, 0.2)
    else:  # patches lean to the wall or to the back, or anywhere
        away = cv2.distanceTransform(lung.astype(np.uint8), cv2.DIST_L2, 3) * mm
        value = noise - rng.uniform(0, 0.1) * away + rng.uniform(-0.5, 2.0) * row
    level = float(np.quantile(value[lung], 1 - share))
    return np.asarray(np.clip((value - level) / soft + 0.5, 0, 1), dtype=np.float32)


def _painted(
    hu: NDArray[np.float32],
    depth: NDArray[np.float32],
    lung: NDArray[np.bool_],
    kind: str,
    rng: np.random.Generator,
    mm: float,
) -> NDArray[np.float32]:
    """That lung with the disease in it; the half-filled pixels of its rim are filled too."""
    grain = field(hu.shape, rng.uniform(1.5, 5) / mm, rng)
    if kind in DENSE:
        level = rng.uniform(-5, 30) if kind == "effusion" else rng.uniform(-60, 80)
        texture = rng.uniform(0, 6) if kind == "effusion" else rng.uniform(5, 30)
        target = level + texture * grain
        if kind != "effusion" and rng.random() < 0.5:  # air bronchograms, and lung that is left
            tubes = np.abs(field(hu.shape, rng.uniform(6, 14) / mm, rng)) < rng.uniform(0.03, 0.15)
            target = np.where(tubes, rng.uniform(-850, -300), target)
        if kind != "effusion" and rng.random() < 0.3:  # half filled throughout
            depth = depth * rng.uniform(0.6, 1.0)
        filled = depth * lung
        # the rim of the cavity is half air by partial volume: a line there would give the painting away
        reach = cv2.dilate(filled, np.ones((5, 5), np.uint8))
        rim = ~lung & (reach > 0.3)
        result = hu * (1 - filled) + target * filled
        return np.where(rim, np.maximum(result, hu * (1 - reach) + target * reach), result).astype(np.float32)
    if kind == "glass":
        added = rng.uniform(80, 450) * depth * (1 + rng.uniform(0, 0.3) * grain)
    elif kind == "fibres":
        added = rng.uniform(150, 600) * depth * np.clip(grain + rng.uniform(-0.3, 0.5), 0, 2)
    else:
        added = -rng.uniform(30, 120) * depth * (hu < -600)
    room = np.clip((60 - hu) / 900, 0, 1)  # dense pixels stay as they are
    return np.where(lung, hu + added * (room if kind != "emphysema" else 1), hu).astype(np.float32)
