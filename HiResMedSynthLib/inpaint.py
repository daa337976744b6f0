"""inpaint(pixels, mask): fills a masked region smoothly from its rim (a membrane: Laplace's equation).

The one inpainter of the project: it completes parenchyma behind a cut-out and erases lesions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError


def inpaint(
    pixels: NDArray[Any], mask: NDArray[np.bool_], *, spacing_mm: tuple[float, ...] | None = None
) -> NDArray[Any]:
    """The pixels with the masked ones replaced by the harmonic function that meets the others at the rim.

    Args:
        pixels: 2-D or 3-D array; integers are rounded back to their type.
        mask: same shape, True = to fill.
        spacing_mm: voxel size along each axis; None: equal along all.

    Raises:
        SettingsError: shapes differ, or nothing is left outside the mask.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import cg

    if mask.shape != pixels.shape:
        raise SettingsError(
            f"a mask of shape {mask.shape} doesn't fit pixels of shape {pixels.shape}", remedy="Resample the mask."
        )
    if not mask.any():
        return pixels.copy()
    if mask.all():
        raise SettingsError("the whole image is masked", remedy="Leave some of it outside the mask.")
    unknowns = int(mask.sum())
    number = np.full(mask.shape, -1, dtype=np.int64)
    number[mask] = np.arange(unknowns)
    known = pixels.astype(np.float64)
    diagonal, right = np.zeros(unknowns), np.zeros(unknowns)
    rows, columns, values = [], [], []
    for axis, step in enumerate(spacing_mm or (1.0,) * pixels.ndim):
        weight = 1.0 / step**2
        for shift in (1, -1):
            here, there = _neighbours(mask.shape, axis, shift)
            inside = mask[here]
            own, other = number[here][inside], number[there][inside]
            diagonal[own] += weight
            is_rim = other < 0
            np.add.at(right, own[is_rim], weight * known[there][inside][is_rim])
            rows.append(own[~is_rim])
            columns.append(other[~is_rim])
            values.append(np.full(int((~is_rim).sum()), -weight))
    rows.append(np.arange(unknowns))
    columns.append(np.arange(unknowns))
    values.append(diagonal)
    matrix = csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(unknowns,) * 2
    )
    start = _nearest_known(known, mask, spacing_mm)
    jacobi = csr_matrix((1.0 / diagonal, (np.arange(unknowns), np.arange(unknowns))), shape=(unknowns,) * 2)
    solution, _ = cg(matrix, right, x0=start, rtol=1e-5, maxiter=2000, M=jacobi)
    filled = pixels.copy()
    filled[mask] = solution if pixels.dtype.kind == "f" else np.round(solution)
    return filled


def _neighbours(shape: tuple[int, ...], axis: int, shift: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Index pairs (voxel, its neighbour at +-1 along an axis) inside the array."""
    here, there = [slice(None)] * len(shape), [slice(None)] * len(shape)
    low, high = slice(0, shape[axis] - 1), slice(1, shape[axis])
    here[axis], there[axis] = (low, high) if shift == 1 else (high, low)
    return tuple(here), tuple(there)


def _nearest_known(
    known: NDArray[np.float64], mask: NDArray[np.bool_], spacing_mm: tuple[float, ...] | None
) -> NDArray[np.float64]:
    """Value of the nearest unmasked voxel for each masked one: a start close to the solution."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(mask, sampling=spacing_mm, return_distances=False, return_indices=True)
    return np.asarray(known[tuple(index[mask] for index in nearest)])
