"""Deformation: how a bank lesion is turned, flipped, stretched and bent into a new one; `render` applies it.

Strengths follow what a machine reader tells from untouched nodules (docs/results/lesion_generators.md): stretching by
up to 15 % is hardly seen; bending squeezes edges and betrays itself, so it is gentle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

STRETCH = 0.15  # largest logarithmic stretch of an axis
TILT_DEGREES = 20.0  # out of plane: lesions keep their relation to the scan's anisotropic blur
BEND = 0.03  # standard deviation of the displacement, in diameters
CONTROL_POINTS = 5  # along each axis of the displacement grid
FINE_BEND = 21  # the same, refined


@dataclass(frozen=True, kw_only=True, eq=False)
class Deformation:
    """A drawn deformation; the identity is `Deformation.none()`.

    Args:
        rotation_degrees: in-plane turn.
        tilt_degrees: turns about the row and the column axis.
        flips: per axis (slice, row, column), True = mirrored.
        stretch: per axis factor, product 1.
        bend: float32 `[3, n, n, n]`, displacement along (slice, row, column) in diameters, on a grid over the cube
            of 1.6 diameters around the centre; zero on the grid's border.
    """

    rotation_degrees: float
    tilt_degrees: tuple[float, float]
    flips: tuple[bool, bool, bool]
    stretch: tuple[float, float, float]
    bend: NDArray[np.float32]

    @classmethod
    def none(cls) -> Deformation:
        """The identity."""
        return cls(
            rotation_degrees=0.0,
            tilt_degrees=(0.0, 0.0),
            flips=(False, False, False),
            stretch=(1.0, 1.0, 1.0),
            bend=np.zeros((3, CONTROL_POINTS, CONTROL_POINTS, CONTROL_POINTS), np.float32),
        )

    def matrix(self) -> NDArray[np.float64]:
        """3 x 3 matrix that takes output offsets (slice, row, column; mm) to offsets in the source lesion."""
        about_slice = _rotation(0, self.rotation_degrees)
        about_row = _rotation(1, self.tilt_degrees[0])
        about_column = _rotation(2, self.tilt_degrees[1])
        mirror = np.diag([-1.0 if flip else 1.0 for flip in self.flips])
        return np.asarray(mirror @ np.diag([1 / s for s in self.stretch]) @ about_column @ about_row @ about_slice)

    @cached_property
    def fine_bend(self) -> NDArray[np.float32]:
        """The bend refined (cubic) to `[3, FINE_BEND, FINE_BEND, FINE_BEND]`; rendering asks for it twice."""
        fine = _refinement(self.bend.shape[1])
        return np.asarray(np.einsum("ai,bj,ck,xijk->xabc", fine, fine, fine, self.bend, optimize=True), np.float32)

    def record(self) -> dict[str, Any]:
        """Plain numbers for case.json (the bending's strength, not its field: the arrays travel with the case)."""
        return {
            "rotation_degrees": self.rotation_degrees,
            "tilt_degrees": list(self.tilt_degrees),
            "flips": list(self.flips),
            "stretch": list(self.stretch),
            "bend_rms_diameters": float(np.sqrt(np.mean(self.bend.astype(np.float64) ** 2))),
        }


def draw_deformation(
    rng: np.random.Generator, *, rotation_degrees: float | None = None, strength: float = 1.0
) -> Deformation:
    """A random deformation.

    Args:
        rng: the lesion's own stream.
        rotation_degrees: in-plane turn; None: drawn.
        strength: factor on stretch and bend; 0 turns and flips only.
    """
    drawn_rotation = float(rng.uniform(0, 360))
    tilt = rng.uniform(-TILT_DEGREES, TILT_DEGREES, size=2)
    flips = rng.integers(0, 2, size=3).astype(bool)
    stretch = rng.uniform(-STRETCH, STRETCH, size=3) * strength
    stretch = np.exp(stretch - stretch.mean())
    bend = np.zeros((3, CONTROL_POINTS, CONTROL_POINTS, CONTROL_POINTS), np.float32)
    inner = (slice(None), *(slice(1, -1),) * 3)
    bend[inner] = rng.normal(0, BEND * strength, size=bend[inner].shape)
    return Deformation(
        rotation_degrees=drawn_rotation if rotation_degrees is None else float(rotation_degrees),
        tilt_degrees=(float(tilt[0]), float(tilt[1])),
        flips=(bool(flips[0]), bool(flips[1]), bool(flips[2])),
        stretch=(float(stretch[0]), float(stretch[1]), float(stretch[2])),
        bend=bend,
    )


@cache
def _refinement(points: int) -> NDArray[np.float64]:
    """`[FINE_BEND, points]`: the cubic spline through values on a line, read FINE_BEND times; axes are separable."""
    from scipy.ndimage import zoom

    lines = [zoom(line, FINE_BEND / points, order=3, grid_mode=False) for line in np.eye(points)]
    return np.stack(lines, axis=1)


def _rotation(axis: int, degrees: float) -> NDArray[np.float64]:
    """Rotation matrix about one of the axes (slice, row, column)."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = np.eye(3)
    a, b = [k for k in range(3) if k != axis]
    matrix[a, a] = matrix[b, b] = cosine
    matrix[a, b], matrix[b, a] = -sine, sine
    return matrix
