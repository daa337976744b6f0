"""render: a bank lesion, deformed and scaled, on the voxels of a background; one interpolation, no copy of a copy.

Voxels are averaged over their extent (several samples a voxel), so a thick slice gets its true partial volume and a
coarse pixel its true edge. A radiograph gets the integral along the ray.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.lesion.deform import FINE_BEND, Deformation
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE, Lesion

Point3 = tuple[float, float, float]
SAMPLE_STEP = 1.0  # samples stand no farther apart than this many source voxels after scaling
SHADOW_STEP = 0.7  # of a source voxel after scaling: a shadow is sampled no finer
THIN_PATH = 0.2  # of the longest path: shorter ones fade out of the silhouette
MOST_SAMPLES = 12  # along one axis of a voxel
BEND_EXTENT = 1.6  # edge of the bending grid's cube, in diameters
SMALLEST_ALPHA = 1 / 512  # less of a lesion in a voxel is nothing


@dataclass(frozen=True, kw_only=True, eq=False)
class RenderedLesion:
    """A lesion on a voxel grid.

    Args:
        corner: (slice, row, column) index of the patch's first voxel; may be negative.
        alpha: uint16 `[slice, row, column]`, 0..65535, empty on its outer shell.
        intensity_hu: int16, same shape, HU of the lesion's own tissue.
        diameter_mm: of the sphere that has the volume of alpha.
    """

    corner: tuple[int, int, int]
    alpha: NDArray[np.uint16]
    intensity_hu: NDArray[np.int16]
    diameter_mm: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ProjectedLesion:
    """A lesion seen along a ray.

    Args:
        corner: (row, column) index of the patch's first pixel; may be negative.
        alpha: uint16 `[row, column]`, silhouette: the largest share of lesion along the ray, fading where the path
            is short; >= 0.5 from a tenth of the longest path on.
        water_mm: float32 `[row, column]`, what the lesion adds to the ray, in millimetres of water.
        diameter_mm: of the sphere that has the volume of the lesion.
    """

    corner: tuple[int, int]
    alpha: NDArray[np.uint16]
    water_mm: NDArray[np.float32]
    diameter_mm: float


def render(
    lesion: Lesion, deformation: Deformation, *, diameter_mm: float, spacing_mm: Point3, centre: Point3
) -> RenderedLesion:
    """The lesion with its centre at `centre` on a grid of `spacing_mm`.

    Args:
        lesion: from the bank, or procedural.
        deformation: how it is varied.
        diameter_mm: of the sphere that has its volume; met within 5 %.
        spacing_mm: (slice, row, column); slices are taken to be as thick as they are apart.
        centre: (slice, row, column) index, fractional.
    """
    scale = _scale(lesion, deformation, diameter_mm)
    corner, shape, samples = _grid(lesion, deformation, scale, spacing_mm, centre)
    points = _points(lesion, deformation, scale, spacing_mm, centre, corner, shape, samples)
    alpha, weighted = _sample(lesion, points)
    alpha, weighted = _voxel_means(alpha, samples), _voxel_means(weighted, samples)
    alpha[alpha < SMALLEST_ALPHA] = 0.0
    trim = _trimmed(alpha)
    alpha, weighted = alpha[trim], weighted[trim]
    core = float(np.average(lesion.intensity_hu, weights=lesion.alpha))
    intensity = np.where(alpha > 0, weighted / np.maximum(alpha, SMALLEST_ALPHA), core)
    volume = float(alpha.sum()) * math.prod(spacing_mm)
    return RenderedLesion(
        corner=(corner[0] + trim[0].start - 1, corner[1] + trim[1].start - 1, corner[2] + trim[2].start - 1),
        alpha=np.pad(np.round(alpha * ALPHA_ONE).astype(np.uint16), 1),
        intensity_hu=np.pad(np.round(intensity).astype(np.int16), 1, mode="edge"),
        diameter_mm=_diameter(volume),
    )


def render_projection(
    lesion: Lesion,
    deformation: Deformation,
    *,
    diameter_mm: float,
    pixel_spacing_mm: tuple[float, float],
    centre: tuple[float, float],
    background_hu: float = -860.0,
) -> ProjectedLesion:
    """The lesion's shadow with its centre at `centre` on a film of `pixel_spacing_mm`.

    Args:
        lesion, deformation, diameter_mm: as in `render`.
        pixel_spacing_mm: (row, column); round lesions stay round in millimetres.
        centre: (row, column) index, fractional.
        background_hu: of the tissue that the lesion displaces.
    """
    scale = _scale(lesion, deformation, diameter_mm)
    depth_mm = lesion.voxel_mm * scale
    # pixels much finer than the lesion's own voxels add samples, not detail: the shadow is then enlarged in 2-D
    row_mm, column_mm = (max(step, SHADOW_STEP * depth_mm) for step in pixel_spacing_mm)
    spacing = (depth_mm, row_mm, column_mm)
    floor = [math.floor(c) for c in centre]
    # where a pixel isn't enlarged the grids coincide, so that its mean stays exact
    middle = [c - f if w == p else 0.0 for c, f, w, p in zip(centre, floor, spacing[1:], pixel_spacing_mm, strict=True)]
    at = (0.0, middle[0], middle[1])
    corner, shape, samples = _grid(lesion, deformation, scale, spacing, at)
    alpha, weighted = _sample(lesion, _points(lesion, deformation, scale, spacing, at, corner, shape, samples))
    alpha, weighted = _voxel_means(alpha, samples), _voxel_means(weighted, samples)
    alpha[alpha < SMALLEST_ALPHA] = 0.0
    weighted[alpha == 0] = 0.0
    water = (weighted - background_hu * alpha).sum(axis=0) / 1000.0 * depth_mm
    path = alpha.sum(axis=0)
    # thin spicules are seen, but don't belong to the mask
    silhouette = alpha.max(axis=0) * np.clip(path / max(THIN_PATH * float(path.max()), 1e-6), 0.0, 1.0)
    axes = []
    low = []
    for k in range(2):
        ratio = spacing[k + 1] / pixel_spacing_mm[k]
        first = math.floor(centre[k] + (corner[k + 1] - middle[k]) * ratio)
        last = math.ceil(centre[k] + (corner[k + 1] + shape[k + 1] - 1 - middle[k]) * ratio)
        axes.append((np.arange(first, last + 1) - centre[k]) / ratio + middle[k] - corner[k + 1])
        low.append(first)
    silhouette, water = (_enlarged(plane, axes) for plane in (silhouette, water))
    silhouette = np.clip(silhouette, 0.0, 1.0)
    silhouette[silhouette < SMALLEST_ALPHA] = 0.0
    water[silhouette == 0] = 0.0
    rows, columns = _trimmed(silhouette)
    volume = float(alpha.sum()) * math.prod(spacing)
    return ProjectedLesion(
        corner=(low[0] + rows.start - 1, low[1] + columns.start - 1),
        alpha=np.pad(np.round(silhouette[rows, columns] * ALPHA_ONE).astype(np.uint16), 1),
        water_mm=np.pad(water[rows, columns].astype(np.float32), 1),
        diameter_mm=_diameter(volume),
    )


def _enlarged(plane: NDArray[np.float32], axes: list[NDArray[np.floating]]) -> NDArray[np.float32]:
    """The plane read at fractional (row, column) indices, cubic; 0 outside."""
    from scipy.ndimage import map_coordinates

    at = np.stack(np.meshgrid(*(axis + 2 for axis in axes), indexing="ij"))
    return np.asarray(map_coordinates(np.pad(plane, 2), at, order=3, mode="constant", output=np.float32))


def _diameter(volume_mm3: float) -> float:
    return float((6.0 * volume_mm3 / math.pi) ** (1 / 3))


def _own_diameter(lesion: Lesion) -> float:
    return _diameter(float(lesion.alpha.sum(dtype=np.float64)) / ALPHA_ONE * lesion.voxel_mm**3)


def _centroid(lesion: Lesion) -> NDArray[np.float64]:
    """Centre of mass of alpha, in voxels."""
    total = lesion.alpha.sum(dtype=np.float64)
    profiles = [lesion.alpha.sum(axis=tuple(k for k in range(3) if k != axis), dtype=np.float64) for axis in range(3)]
    return np.array([np.arange(len(profile)) @ profile / total for profile in profiles])


def _scale(lesion: Lesion, deformation: Deformation, diameter_mm: float) -> float:
    """Factor from the lesion's own millimetres to those wanted, the bending's change of volume taken back."""
    scale = diameter_mm / _own_diameter(lesion)
    if not deformation.bend.any():
        return scale
    spacing = (lesion.voxel_mm * scale * 1.5,) * 3
    corner, shape, samples = _grid(lesion, deformation, scale, spacing, (0.0, 0.0, 0.0))
    points = _points(lesion, deformation, scale, spacing, (0.0, 0.0, 0.0), corner, shape, samples)
    alpha = np.clip(points.read(lesion.alpha.astype(np.float32) / ALPHA_ONE, order=1), 0.0, 1.0)
    bent = _diameter(float(alpha.mean()) * math.prod(shape) * math.prod(spacing))
    return scale * diameter_mm / bent if bent > 0 else scale


def _grid(
    lesion: Lesion, deformation: Deformation, scale: float, spacing_mm: Point3, centre: Point3
) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]:
    """(corner, shape) of the voxels that the lesion can reach, and the samples a voxel along each axis."""
    # the eight corners of the source box, taken back to the output
    ends = [np.array([-0.5 - c, n - 0.5 - c]) for c, n in zip(_centroid(lesion), lesion.alpha.shape, strict=True)]
    corners = np.stack(np.meshgrid(*ends, indexing="ij")).reshape(3, -1) * lesion.voxel_mm * scale
    corners = np.asarray(np.linalg.solve(deformation.matrix(), corners), dtype=np.float64)
    bend_mm = float(np.abs(deformation.bend).max()) * _own_diameter(lesion) * scale
    lowest, highest = corners.min(axis=1) - bend_mm, corners.max(axis=1) + bend_mm
    low = [math.floor(c + r / s) for c, r, s in zip(centre, lowest, spacing_mm, strict=True)]
    high = [math.ceil(c + r / s) for c, r, s in zip(centre, highest, spacing_mm, strict=True)]
    fine_mm = SAMPLE_STEP * lesion.voxel_mm * scale
    samples = [min(MOST_SAMPLES, max(1, math.ceil(s / max(fine_mm, 0.05) - 1e-9))) for s in spacing_mm]
    corner = (low[0], low[1], low[2])
    return (
        corner,
        (high[0] - low[0] + 1, high[1] - low[1] + 1, high[2] - low[2] + 1),
        (samples[0], samples[1], samples[2]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Points:
    """Samples on an output grid, as places in the source lesion.

    Args:
        shape: of the grid of samples.
        near: int `[n]`, flat indices of the samples that the lesion may touch.
        voxels: `[3, n]`, where those lie, in source voxels.
    """

    shape: tuple[int, int, int]
    near: NDArray[np.intp]
    voxels: NDArray[np.floating]

    def read(self, values: NDArray[np.floating], *, order: int = 3) -> NDArray[np.float32]:
        """Those source values on the grid, interpolated by a spline of that order; 0 elsewhere."""
        from scipy.ndimage import map_coordinates, spline_filter

        filtered = spline_filter(values, order, output=np.float32) if order > 1 else values
        sampled = np.zeros(math.prod(self.shape), np.float32)
        sampled[self.near] = map_coordinates(filtered, self.voxels, order=order, mode="constant", prefilter=False)
        return sampled.reshape(self.shape)


def _points(
    lesion: Lesion,
    deformation: Deformation,
    scale: float,
    spacing_mm: Point3,
    centre: Point3,
    corner: tuple[int, int, int],
    shape: tuple[int, int, int],
    samples: tuple[int, int, int],
) -> _Points:
    """All samples of the voxels, `[slices x samples, rows x samples, columns x samples]`."""
    offsets = []
    for c, low, n, k, step in zip(centre, corner, shape, samples, spacing_mm, strict=True):
        index = low + (np.arange(n * k) + 0.5) / k - 0.5
        offsets.append((index - c) * step)
    grid = np.stack(np.meshgrid(*offsets, indexing="ij")).astype(np.float32)  # [3, slices, rows, columns], mm
    source = np.tensordot(deformation.matrix().astype(np.float32) / np.float32(scale), grid.reshape(3, -1), axes=1)
    centroid = _centroid(lesion)[:, np.newaxis].astype(np.float32)
    # most of the box is empty: only samples that the bending may bring near the lesion are looked up
    reach = 3 + math.ceil(float(np.abs(deformation.bend).max()) * _own_diameter(lesion) / lesion.voxel_mm)
    near = np.flatnonzero(_is_near(lesion, source / lesion.voxel_mm + centroid, reach))
    source = source[:, near]
    if deformation.bend.any():
        source = source + _displacement(deformation, _own_diameter(lesion), source)
        touched = _is_near(lesion, source / lesion.voxel_mm + centroid, 3)
        near, source = near[touched], source[:, touched]
    rows = (grid.shape[1], grid.shape[2], grid.shape[3])
    return _Points(shape=rows, near=near, voxels=source / lesion.voxel_mm + centroid)


def _sample(lesion: Lesion, points: _Points) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Alpha and alpha x HU at the samples."""
    own_alpha = lesion.alpha.astype(np.float32) / ALPHA_ONE
    alpha = np.clip(points.read(own_alpha), 0.0, 1.0)
    weighted = points.read(own_alpha * lesion.intensity_hu.astype(np.float32))
    # cubic overshoot at the rim would give HU that the lesion doesn't have
    tissue = lesion.intensity_hu[lesion.alpha > 0]
    ends = alpha * float(tissue.min()), alpha * float(tissue.max())
    return alpha, np.clip(weighted, np.minimum(*ends), np.maximum(*ends))


def _is_near(lesion: Lesion, voxels: NDArray[np.floating], reach: int) -> NDArray[np.bool_]:
    """Which points `[3, n]` (source voxels) lie within `reach` voxels (a cube) of the lesion; bool `[n]`."""
    from scipy.ndimage import maximum_filter

    support = maximum_filter(np.pad(lesion.alpha > 0, reach + 1), size=2 * reach + 1)
    limits = np.array(support.shape, np.int32)[:, np.newaxis] - 1
    index = np.clip(np.rint(voxels).astype(np.int32) + reach + 1, 0, limits)  # the outermost layer is always empty
    return np.asarray(support[tuple(index)])


def _displacement(deformation: Deformation, own_mm: float, source: NDArray[np.float32]) -> NDArray[np.float32]:
    """Displacement in mm `[3, n]` of points in the source lesion: the bending grid, cubic, read linearly."""
    from scipy.ndimage import map_coordinates

    at = (source / (BEND_EXTENT * own_mm) + 0.5) * (FINE_BEND - 1)
    moved = [map_coordinates(axis, at, order=1, mode="constant", output=np.float32) for axis in deformation.fine_bend]
    return np.asarray(own_mm * np.stack(moved), dtype=np.float32)


def _voxel_means(values: NDArray[np.float32], samples: tuple[int, int, int]) -> NDArray[np.float32]:
    """Mean over each voxel's samples."""
    a, b, c = (n // k for n, k in zip(values.shape, samples, strict=True))
    blocks = values.reshape(a, samples[0], b, samples[1], c, samples[2])
    return np.asarray(blocks.mean(axis=(1, 3, 5), dtype=np.float32))


def _trimmed(alpha: NDArray[np.float32]) -> tuple[slice, ...]:
    """The bounding box of what isn't empty (one voxel in the middle if all is)."""
    return bounding_box(alpha) if alpha.any() else tuple(slice(n // 2, n // 2 + 1) for n in alpha.shape)
