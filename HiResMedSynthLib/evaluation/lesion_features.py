"""Shape, edge and texture of a lesion grid in numbers: what a machine reader may tell a made lesion by.

A grid is `[2, n, n, n]` (slice, row, column): channel 0 alpha * (F + 860) / 1000 with F in HU, channel 1 alpha. All
lengths are in voxels, so that size doesn't count. The core has alpha > .9, the body alpha > .5, the rim alpha .1 to .9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError

PARENCHYMA_HU = -860.0
HU_PER_UNIT = 1000.0
CORE_ALPHA, BODY_ALPHA, RIM_ALPHA = 0.9, 0.5, (0.1, 0.9)
FEWEST_VOXELS = 20
OPENING_VOXELS = 2.5  # spikes thinner than a ball of this radius are what an opening takes away

FEATURES = (
    "sphericity",  # surface of the ball of equal volume over the surface (coarea formula: the sum of |grad alpha|)
    "elongation",  # middle over longest principal axis of alpha
    "flatness",  # shortest over longest principal axis
    "convexity",  # volume over that of the convex hull
    "radius_spread",  # SD over mean of the distances from the centre to the surface
    "spikes",  # share of the body that an opening with a ball of 2.5 voxels removes
    "surface_roughness",  # surface over the surface after smoothing by 1.5 voxels
    "edge_width",  # volume of the rim over the surface, voxels
    "alpha_softness",  # sum of 4 alpha (1 - alpha) over the sum of alpha
    "alpha_tail",  # volume of 0.02 < alpha < 0.2 over the surface, voxels
    "alpha_steepest",  # 95th percentile of |grad alpha| in the rim, 1/voxel
    "alpha_curvature",  # RMS of the Laplacian of alpha in the body
    "mean_hu",  # F in the body
    "sd_hu",
    "p5_hu",
    "p95_hu",
    "core_minus_shell_hu",  # F in the core minus F in the rest of the body
    "core_gradient_hu",  # mean |grad F| in the core, HU/voxel
    "rim_gradient_hu",  # mean |grad| of the composed intensity in the rim, HU/voxel
    "local_sd_3_hu",  # mean SD of F in cubes of 3 voxels in the body
    "local_sd_5_hu",
    "autocorrelation_1",  # of F minus its mean in the body, at a lag of 1 voxel in plane
    "autocorrelation_2",
    "autocorrelation_slice",  # at a lag of 1 voxel along the slice axis
    "high_band",  # SD of F minus F smoothed by 1 voxel, over the SD of F, in the body
    "laplacian_hu",  # RMS of the Laplacian of the composed intensity in the body, HU/voxel^2
)


def lesion_features(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """The features of one grid `[2, n, n, n]`, in the order of `FEATURES`; finite also for specks.

    Raises:
        SettingsError: no such grid, or NaN in it.
    """
    if values.ndim != 4 or values.shape[0] != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise SettingsError(
            f"an array of shape {values.shape} is no lesion grid", remedy="Give [2, n, n, n] without NaN: see to_grid."
        )
    premultiplied, alpha = (channel.astype(np.float64) for channel in values)
    alpha = np.clip(alpha, 0.0, 1.0)
    body = alpha > BODY_ALPHA
    if int(body.sum()) < FEWEST_VOXELS:
        body = alpha >= np.sort(alpha.ravel())[-FEWEST_VOXELS]
    core = alpha > CORE_ALPHA if int((alpha > CORE_ALPHA).sum()) >= FEWEST_VOXELS else body
    return np.array([*_shape(alpha, body), *_edge(alpha, body), *_texture(premultiplied, alpha, body, core)])


def feature_table(grids: Sequence[NDArray[np.floating]] | NDArray[np.floating]) -> NDArray[np.float64]:
    """`[number of grids, number of features]`."""
    return np.stack([lesion_features(grid) for grid in grids])


def _steepness(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length of the gradient, by central differences."""
    return np.asarray(np.sqrt(np.sum(np.square(np.gradient(values)), axis=0)))


def _surface(alpha: NDArray[np.float64]) -> float:
    return max(float(_steepness(alpha).sum()), 1e-6)


def _shape(alpha: NDArray[np.float64], body: NDArray[np.bool_]) -> list[float]:
    from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

    volume, surface = float(alpha.sum()), _surface(alpha)
    seen = (alpha > 0.05) | body
    at, weight = np.argwhere(seen).astype(np.float64), alpha[seen] + 1e-9
    centre = np.average(at, axis=0, weights=weight)
    spread = np.sort(np.linalg.eigvalsh(np.cov((at - centre).T, aweights=weight, ddof=0)))
    axes = np.sqrt(np.maximum(spread, 1e-6))
    surface_voxels = np.argwhere(body & ~binary_erosion(body)).astype(np.float64)
    radii = np.linalg.norm(surface_voxels - centre, axis=1)
    inside = distance_transform_edt(np.pad(body, 1))
    reach = min(OPENING_VOXELS, 0.9 * float(inside.max()))
    opened = distance_transform_edt(inside < reach) < reach if (inside >= reach).any() else np.zeros_like(inside, bool)
    return [
        math.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface,
        float(axes[1] / axes[2]),
        float(axes[0] / axes[2]),
        float(body.sum()) / _hull_volume(surface_voxels),
        float(radii.std() / max(radii.mean(), 1e-6)),
        1.0 - float((opened[1:-1, 1:-1, 1:-1] & body).sum()) / float(body.sum()),
        surface / _surface(np.asarray(gaussian_filter(alpha, 1.5))),
    ]


def _hull_volume(voxels: NDArray[np.float64]) -> float:
    """Volume of the convex hull of cubic voxels given by their centres."""
    from scipy.spatial import ConvexHull

    corners = np.stack(np.meshgrid(*([-0.5, 0.5],) * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return float(ConvexHull((voxels[:, np.newaxis] + corners).reshape(-1, 3)).volume)


def _edge(alpha: NDArray[np.float64], body: NDArray[np.bool_]) -> list[float]:
    from scipy.ndimage import laplace

    surface, steep = _surface(alpha), _steepness(alpha)
    rim = (alpha > RIM_ALPHA[0]) & (alpha < RIM_ALPHA[1])
    return [
        float(rim.sum()) / surface,
        float((4 * alpha * (1 - alpha)).sum() / max(alpha.sum(), 1e-6)),
        float(((alpha > 0.02) & (alpha < 0.2)).sum()) / surface,
        float(np.percentile(steep[rim], 95)) if rim.any() else 0.0,
        float(np.sqrt(np.mean(laplace(alpha)[body] ** 2))),
    ]


def _texture(
    premultiplied: NDArray[np.float64], alpha: NDArray[np.float64], body: NDArray[np.bool_], core: NDArray[np.bool_]
) -> list[float]:
    from scipy.ndimage import laplace

    composed = HU_PER_UNIT * premultiplied + PARENCHYMA_HU
    own = HU_PER_UNIT * premultiplied / np.maximum(alpha, BODY_ALPHA) + PARENCHYMA_HU
    chosen = own[body]
    rim = (alpha > RIM_ALPHA[0]) & (alpha < RIM_ALPHA[1])
    shell = body & ~core
    centred = np.where(body, own - chosen.mean(), 0.0)
    in_plane = [_autocorrelation(centred, body, axis, lag) for lag in (1, 2) for axis in (1, 2)]
    high = own - _within(own, body, 1.0)
    sd = max(float(chosen.std()), 1e-3)
    return [
        float(chosen.mean()),
        sd,
        float(np.percentile(chosen, 5)),
        float(np.percentile(chosen, 95)),
        float(own[core].mean() - own[shell].mean()) if shell.any() else 0.0,
        float(_steepness(own)[core].mean()),
        float(_steepness(composed)[rim].mean()) if rim.any() else 0.0,
        _local_sd(own, body, 3),
        _local_sd(own, body, 5),
        (in_plane[0] + in_plane[1]) / 2,
        (in_plane[2] + in_plane[3]) / 2,
        _autocorrelation(centred, body, 0, 1),
        float(high[body].std()) / sd,
        float(np.sqrt(np.mean(laplace(composed)[body] ** 2))),
    ]


def _autocorrelation(centred: NDArray[np.float64], body: NDArray[np.bool_], axis: int, lag: int) -> float:
    """Correlation of body voxels with those `lag` voxels on, where both lie in the body."""
    n = body.shape[axis]
    first, second = np.arange(n - lag), np.arange(lag, n)
    both = body.take(first, axis) & body.take(second, axis)
    a, b = centred.take(first, axis)[both], centred.take(second, axis)[both]
    return float((a * b).sum() / max(math.sqrt(float((a * a).sum()) * float((b * b).sum())), 1e-9)) if len(a) else 0.0


def _within(own: NDArray[Any], body: NDArray[np.bool_], sigma: float) -> NDArray[np.float64]:
    """Gaussian mean over body voxels only, so that the edge doesn't leak in."""
    from scipy.ndimage import gaussian_filter

    weight = gaussian_filter(body.astype(np.float64), sigma)
    return np.asarray(gaussian_filter(np.where(body, own, 0.0), sigma) / np.maximum(weight, 1e-6))


def _local_sd(own: NDArray[np.float64], body: NDArray[np.bool_], size: int) -> float:
    """Mean over the body of the SD in a cube around each voxel, body voxels only."""
    from scipy.ndimage import uniform_filter

    count = np.maximum(uniform_filter(body.astype(np.float64), size), 1e-9)
    offset = float(own[body].mean())
    inside = np.where(body, own - offset, 0.0)
    mean, square = uniform_filter(inside, size) / count, uniform_filter(inside**2, size) / count
    return float(np.sqrt(np.maximum(square - mean**2, 0.0))[body].mean())
