"""How a film may look otherwise: its cut, bends, grey curve and what lies over it. Drawn, then applied.

Flips are allowed: no structure here has a side, and situs inversus exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.placement.regions_film import SHORT_PX, wide_blur

Box = tuple[float, float, float, float]
CONTROL_POINTS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Placing:
    """Where the canvas lies on a film.

    Args:
        box: (top, bottom, left, right) in the film's pixels, what the canvas shows.
        turn: radians.
        flip: left and right exchanged.
        elastic_px: `[2, 5, 5]` displacement in canvas pixels.
    """

    box: Box
    turn: float
    flip: bool
    elastic_px: NDArray[np.float32]

    def grid(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(column, row) of the film for every pixel of the canvas, float32 `[192, 192]`."""
        import cv2

        top, bottom, left, right = self.box
        line = (np.arange(SHORT_PX, dtype=np.float32) + 0.5) / SHORT_PX - 0.5
        row, column = np.meshgrid(line, line, indexing="ij")
        bend = [cv2.resize(e, (SHORT_PX, SHORT_PX), interpolation=cv2.INTER_CUBIC) / SHORT_PX for e in self.elastic_px]
        row, column = row + bend[0], (-column if self.flip else column) + bend[1]
        cosine, sine = np.cos(self.turn), np.sin(self.turn)
        row, column = cosine * row - sine * column, sine * row + cosine * column
        return (
            (left + (column + 0.5) * (right - left) - 0.5).astype(np.float32),
            (top + (row + 0.5) * (bottom - top) - 0.5).astype(np.float32),
        )


def draw_placing(rng: np.random.Generator, box: Box) -> Placing:
    """The box turned to 10 degrees, sheared in its sides by 8 %, half of them flipped, bent by some 3 px."""
    top, bottom, left, right = box
    tall, wide = np.exp(rng.normal(0, 0.06, 2))
    middle = ((top + bottom) / 2, (left + right) / 2)
    half = (tall * (bottom - top) / 2, wide * (right - left) / 2)
    return Placing(
        box=(middle[0] - half[0], middle[0] + half[0], middle[1] - half[1], middle[1] + half[1]),
        turn=float(np.deg2rad(np.clip(rng.normal(0, 4), -14, 14))),
        flip=bool(rng.random() < 0.5),
        elastic_px=rng.normal(0, 3.5, (2, CONTROL_POINTS, CONTROL_POINTS)).astype(np.float32),
    )


def straight(box: Box) -> Placing:
    """The box as it is."""
    still = np.zeros((2, CONTROL_POINTS, CONTROL_POINTS), np.float32)
    return Placing(box=box, turn=0.0, flip=False, elastic_px=still)


def draw_box_on_film(rng: np.random.Generator, shape: tuple[int, int]) -> Box:
    """A part of a film as it was taken: 70 to 115 % of it, beyond its edge the border of the cassette."""
    rows, columns = shape
    share = np.exp(rng.uniform(np.log(0.72), np.log(1.2)))
    height, width = rows * share, columns * share
    top, left = (
        rng.uniform(min(0, rows - height), max(0, rows - height)),
        rng.uniform(min(0, columns - width), max(0, columns - width)),
    )
    return (top, top + height, left, left + width)


def draw_box_round_lungs(rng: np.random.Generator, lungs: Box, pixel_mm: float) -> Box:
    """How a chest film is collimated: a border of -2 to 8 cm round the lungs, square or nearly so."""
    top, bottom, left, right = lungs
    cut = rng.uniform([-10, -20, -10, -10], [60, 80, 70, 70]) / pixel_mm
    top, bottom, left, right = top - cut[0], bottom + cut[1], left - cut[2], right + cut[3]
    proportion = np.exp(rng.uniform(np.log(0.85), np.log(1.2)))  # width over height
    short = proportion * (bottom - top) - (right - left)
    left, right = (left - short / 2, right + short / 2) if short > 0 else (left, right)
    return (top, bottom, left, right)


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """Grey curve and what lies over the picture; `seed` draws the noise.

    Args:
        local, local_px: share of the local mean (of that sigma) that is taken out, as detector software does.
        detail: gain of the finest detail; below 0: blur.
        gamma, curve: exponent of grey in 0..1, and strength of an S-curve (below 0 the reverse).
        noise: standard deviation, and its blur in px.
        clip: percentiles that become black and white.
        lines, letters, border: how many tubes and wires, letters, and whether shutters stand over the edge.
    """

    local: float
    local_px: float
    detail: float
    gamma: float
    curve: float
    noise: tuple[float, float]
    clip: tuple[float, float]
    lines: int
    letters: int
    border: bool
    seed: int


def draw_look(rng: np.random.Generator, *, projected: bool) -> Look:
    """Looks as detectors, films and beds make them; projected films get more of what software does."""
    return Look(
        local=float(rng.uniform(0.2, 0.85) if projected else rng.choice([0.0, rng.uniform(0, 0.6)])),
        local_px=float(np.exp(rng.uniform(np.log(12), np.log(60)))),
        detail=float(rng.uniform(-0.3, 1.5) if projected else rng.uniform(-1.0, 1.0)),
        gamma=float(np.exp(rng.uniform(-0.7, 0.7))),
        curve=float(rng.uniform(-0.4, 0.9)),
        noise=(float(rng.choice([0.0, rng.uniform(0, 0.06)])), float(rng.uniform(0.3, 2.0))),
        clip=(float(rng.choice([0.0, rng.uniform(0, 8)])), float(rng.choice([100.0, rng.uniform(92, 100)]))),
        lines=int(rng.choice([0, 0, 1, 3])),
        letters=int(rng.choice([0, 1, 2])),
        border=bool(rng.random() < 0.2),
        seed=int(rng.integers(2**31)),
    )


def apply_look(film: NDArray[np.float32], look: Look) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(film, covered): the film `[192, 192]` in that look, grey 0..1; covered: shutters hide the anatomy."""
    import cv2

    rng = np.random.default_rng(look.seed)
    low, high = np.percentile(film, [0.5, 99.5])
    unit = (film - low) / max(high - low, 1e-6)
    unit = unit - look.local * wide_blur(unit, look.local_px)
    if look.detail > 0:
        unit = unit + look.detail * (unit - cv2.GaussianBlur(unit, (0, 0), 1.5))
    elif look.detail < -0.05:
        unit = cv2.GaussianBlur(unit, (0, 0), -1.5 * look.detail)
    low, high = np.percentile(unit, [max(look.clip[0], 0.3), min(look.clip[1], 99.7)])
    unit = np.clip((unit - low) / max(high - low, 1e-6), 0, 1) ** look.gamma
    unit = unit + look.curve * 0.25 * np.sin(2 * np.pi * (unit - 0.5)) * (0.6 if look.curve > 0 else 1)
    grain = rng.normal(0, 1, unit.shape).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), look.noise[1])
    unit = (unit + look.noise[0] * grain / (grain.std() + 1e-6)).astype(np.float32)
    for _ in range(look.lines):
        unit = _line(unit, rng)
    for _ in range(look.letters):
        ink = np.zeros(unit.shape, np.uint8)
        where = (int(rng.integers(0, SHORT_PX - 20)), int(rng.integers(16, SHORT_PX)))
        text = str(rng.choice(["L", "R", "AP", "PA", "12", "S"]))
        size, thick = float(rng.uniform(0.3, 0.8)), int(rng.integers(1, 3))
        cv2.putText(ink, text, where, cv2.FONT_HERSHEY_SIMPLEX, size, 255, thick)
        unit = np.where(ink > 127, np.float32(rng.choice([0.0, 1.0, 1.2])), unit)
    covered = np.zeros(unit.shape, dtype=bool)
    if look.border:
        sides = rng.integers(0, 28, 4) * (rng.random(4) < 0.6)
        top, bottom, left, right = (int(side) for side in sides)
        covered[:top] = covered[SHORT_PX - bottom :] = True
        covered[:, :left] = covered[:, SHORT_PX - right :] = True
        unit[covered] = float(rng.choice([0.0, 0.0, 1.0, float(unit.min())]))
    return unit, covered


def _line(unit: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A tube, wire or lead: a bent line, brighter than what is below."""
    import cv2

    layer = np.zeros(unit.shape, np.float32)
    ends = rng.uniform(-20, SHORT_PX + 20, (3, 2))
    share = np.linspace(0, 1, 24)[:, None]
    path = (1 - share) ** 2 * ends[0] + 2 * share * (1 - share) * ends[1] + share**2 * ends[2]
    cv2.polylines(layer, [np.rint(path).astype(np.int32)], False, 1.0, int(rng.integers(1, 4)))
    return np.asarray(unit + rng.uniform(0.1, 0.5) * cv2.GaussianBlur(layer, (0, 0), 0.7), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An upper arm or a humeral head beside the chest: a capsule of soft tissue with a bone in it, canvas pixels."""

    start: tuple[float, float]
    end: tuple[float, float]
    flesh_px: float
    bone_px: float


def draw_arms(rng: np.random.Generator) -> list[Arm]:
    """None, one or two arms that hang beside the chest."""
    arms = []
    for side in (0.0, float(SHORT_PX)):
        if rng.random() < 0.25:
            inward = 1 if side == 0 else -1
            start = (rng.uniform(-10, 70), side + inward * rng.uniform(-10, 22))
            end = (rng.uniform(150, 330), side + inward * rng.uniform(-25, 8))
            arms.append(Arm(start=start, end=end, flesh_px=rng.uniform(18, 34), bone_px=rng.uniform(6, 10)))
    return arms


def arm_layers(arm: Arm) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(flesh, bone): thickness along the rays in canvas pixels, float32 `[192, 192]`."""
    row, column = np.mgrid[:SHORT_PX, :SHORT_PX].astype(np.float32)
    along = np.array(arm.end) - np.array(arm.start)
    length = float(np.hypot(*along))
    at = ((row - arm.start[0]) * along[0] + (column - arm.start[1]) * along[1]) / length**2
    at = np.clip(at, 0, 1)
    away = np.hypot(row - arm.start[0] - at * along[0], column - arm.start[1] - at * along[1])

    def chord(radius: float) -> NDArray[np.float32]:
        return np.asarray(2 * np.sqrt(np.maximum(radius**2 - away**2, 0)), dtype=np.float32)

    return chord(arm.flesh_px), chord(arm.bone_px) - chord(0.65 * arm.bone_px)
