"""Random smooth deformations of a grid's values, resampled once and straight onto a coarser scale.

Only a changed start gives a new shape: from an unchanged coarse image a single-image GAN returns copies, from pure
noise it returns blobs in pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AFFINE = 0.13  # standard deviation of the entries of the linear part's logarithm (stretch, shear, small turns)
BEND = 0.042  # standard deviation of the displacement, in sides of the grid
CONTROL_POINTS = 5  # along each axis: a bend's half wave is about a quarter of the side
EDGE = 1.5 / 32  # share of the side that stays free after deforming
EDGE_ALPHA = 0.05
FIT_SIDE, FIT_FIELD = 24, 2.0  # where the lesion lies is found on so coarse a grid
FRAME = 4  # voxels of zeros around the source


@dataclass(frozen=True, kw_only=True, eq=False)
class Warp:
    """Where each point of the new image comes from: the matrix, then the bend (sides of the grid).

    Args:
        matrix: `[dims, dims]`.
        bend: `[dims, n, ...]`, displacement at control points that span the grid.
    """

    matrix: NDArray[np.float64]
    bend: NDArray[np.float64]


def draw_warp(rng: np.random.Generator, dims: int, strength: float) -> Warp:
    """A random deformation; strength 0 is the identity, 1 what a machine reader hardly notices."""
    from scipy.linalg import expm

    linear = rng.normal(0, AFFINE * strength, (dims, dims))
    matrix = expm(linear - np.eye(dims) * np.trace(linear) / dims)  # keeps the volume
    bend = rng.normal(0, BEND * strength, (dims, *(CONTROL_POINTS,) * dims))
    return Warp(matrix=matrix, bend=np.clip(bend, -2 * BEND * strength, 2 * BEND * strength))


class Warper:
    """Deforms one grid's values; keeps the spline of each scale's blurred image.

    Args:
        values: `[channels, *space]`, the last channel is alpha.
    """

    def __init__(self, values: NDArray[np.floating]) -> None:
        self.values = np.asarray(values, dtype=np.float64)
        self.splines: dict[tuple[int, ...], NDArray[np.float64]] = {}

    def __call__(self, warp: Warp, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The deformed values on `shape`, centred again and shrunk where they would leave the grid."""
        if not warp.bend.any() and np.array_equal(warp.matrix, np.eye(len(shape))):
            return self._at(warp, shape, self._spline(shape)).astype(np.float32)
        side = max(shape)
        small = tuple(max(round(n * FIT_SIDE / side), 4) for n in shape)
        # seen in a wider field first, since a bend may push the lesion out of the grid
        zoom, shift = _fit(self._at(warp, small, self._spline(small)[-1:], zoom=FIT_FIELD)[0], FIT_FIELD)
        return self._at(warp, shape, self._spline(shape), zoom=zoom, shift=shift).astype(np.float32)

    def _spline(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Coefficients of the image blurred to the voxels of `shape`, in a frame of zeros."""
        from scipy.ndimage import gaussian_filter, spline_filter

        if shape not in self.splines:
            ratios = [a / b for a, b in zip(self.values.shape[1:], shape, strict=True)]
            sigma = [0.5 * float(np.sqrt(max(r**2 - 1, 0.0))) for r in ratios]
            framed = np.pad(self.values, [(0, 0)] + [(FRAME, FRAME)] * len(shape))
            self.splines[shape] = np.stack([spline_filter(gaussian_filter(c, sigma), order=3) for c in framed])
        return self.splines[shape]

    def _at(
        self,
        warp: Warp,
        shape: tuple[int, ...],
        spline: NDArray[np.float64],
        *,
        zoom: float = 1.0,
        shift: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        from scipy.ndimage import map_coordinates, spline_filter

        moved = np.zeros(len(shape)) if shift is None else shift
        axes = [((np.arange(n) + 0.5) / n - 0.5) * zoom + s for n, s in zip(shape, moved, strict=True)]
        source = np.tensordot(warp.matrix, np.stack(np.meshgrid(*axes, indexing="ij")), axes=1) + 0.5
        if warp.bend.any():
            for axis, control in enumerate(warp.bend):  # separable, since the new grid is straight
                bend = spline_filter(control, order=3, mode="mirror")
                for u in axes:
                    bend = np.tensordot(bend, _basis(u), axes=([0], [1]))
                source[axis] += bend
        index = [u * n - 0.5 + FRAME for u, n in zip(source, self.values.shape[1:], strict=True)]
        return np.stack([map_coordinates(c, index, order=3, prefilter=False, mode="constant") for c in spline])


def _basis(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[n, control points]`: cubic B-splines at u (-.5 to .5 spans the points), mirrored at the ends."""
    at = np.clip(u + 0.5, 0, 1) * (CONTROL_POINTS - 1)
    basis = np.zeros((len(u), CONTROL_POINTS))
    for tap in range(-1, 3):
        point = np.floor(at).astype(int) + tap
        distance = np.abs(at - point)
        near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6
        weight = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
        last = CONTROL_POINTS - 1
        np.add.at(basis, (np.arange(len(u)), last - np.abs(last - np.abs(point))), weight)
    return basis


def _fit(alpha: NDArray[np.float64], field: float) -> tuple[float, NDArray[np.float64]]:
    """Zoom and shift (sides) that put the seen part in the middle, inside the edge."""
    lows, highs = [], []
    for axis in range(alpha.ndim):
        profile = alpha.max(axis=tuple(k for k in range(alpha.ndim) if k != axis))
        inside = np.flatnonzero(profile > EDGE_ALPHA)
        if len(inside) == 0:
            return 1.0, np.zeros(alpha.ndim)
        n = len(profile)
        first, last = int(inside[0]), int(inside[-1])
        before = profile[first - 1] if first > 0 else 0.0
        after = profile[last + 1] if last + 1 < n else 0.0
        lows.append((first + 0.5 - _part(profile[first], before)) / n - 0.5)
        highs.append((last + 0.5 + _part(profile[last], after)) / n - 0.5)
    high, low = np.array(highs) * field, np.array(lows) * field
    return max(float(np.max(high - low)) / (1 - 2 * EDGE), 1.0), (high + low) / 2


def _part(inside: float, outside: float) -> float:
    """Share of a voxel to where the profile falls below the edge's alpha."""
    return float((inside - EDGE_ALPHA) / max(inside - outside, 1e-6))
