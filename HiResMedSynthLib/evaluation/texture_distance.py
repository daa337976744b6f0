"""Frechet distance between the textures of lesions: on a bank of filters without weights, or on VGG features (SIFID).

Every place of an image gives one feature vector; two images, or two sets of them, are compared by mean and covariance:
d^2 = |mu_A - mu_B|^2 + tr A + tr B - 2 tr sqrt(A B), with tr sqrt(A B) as a nuclear norm, exact also where there are
fewer places than features (models.md 4.4's form; no matrix root, no epsilon).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError

if TYPE_CHECKING:
    from torch import nn

PARENCHYMA_HU, HU_PER_UNIT = -860.0, 1000.0
CUT_PX = 64
WAVELENGTHS_PX = (3.0, 6.0, 12.0)  # on the enlarged cut
ORIENTATIONS = 4
LOG_SIGMAS_PX = (1.0, 2.0, 4.0)
WINDOW_HU = (-1000.0, 400.0)  # shown to the VGG as -1..1
VGG_SLICE = 2  # features after relu2_2: 128 channels at half the size, as shallow as SIFID's Inception block


def frechet(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Squared Frechet distance of two sets of feature vectors `[places, features]`; covariances with n - 1.

    Raises:
        SettingsError: fewer than two vectors, or different numbers of features.
    """
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1] or min(len(one), len(other)) < 2:
        raise SettingsError(
            f"features of shapes {one.shape} and {other.shape} can't be compared", remedy="Give [places, features]."
        )
    means, factors = [], []
    for features in (one.astype(np.float64), other.astype(np.float64)):
        mean = features.mean(axis=0)
        means.append(mean)
        # the triangular factor has the singular values of the centred features: places drop out
        factors.append(np.linalg.qr((features - mean) / math.sqrt(len(features) - 1))[1])
    cross = float(np.linalg.norm(factors[0] @ factors[1].T, ord="nuc"))
    spread = float((factors[0] ** 2).sum()) + float((factors[1] ** 2).sum())
    return max(float(((means[0] - means[1]) ** 2).sum()) + spread - 2 * cross, 0.0)


def cuts(values: NDArray[np.floating], *, size: int = CUT_PX) -> NDArray[np.float64]:
    """The three orthogonal middle cuts of a grid `[2, n, n, n]` in HU, enlarged (cubic): `[3, size, size]`.

    The lesion lies on parenchyma of -860 HU.

    Raises:
        SettingsError: no such grid.
    """
    from scipy.ndimage import zoom

    if values.ndim != 4 or values.shape[0] != 2 or len(set(values.shape[1:])) != 1:
        raise SettingsError(f"an array of shape {values.shape} is no lesion grid", remedy="Give [2, n, n, n].")
    composed = HU_PER_UNIT * values[0].astype(np.float64) + PARENCHYMA_HU
    planes = [composed.take(composed.shape[axis] // 2, axis) for axis in range(3)]
    return np.stack([zoom(plane, size / plane.shape[0], order=3, mode="nearest", grid_mode=True) for plane in planes])


@lru_cache(maxsize=1)
def filter_bank() -> tuple[NDArray[np.float64], ...]:
    """27 kernels: even and odd Gabor filters (3 wavelengths, 4 orientations) and 3 Laplacians of a Gaussian.

    Each has mean 0; a Gabor filter answers a wave of its own length and direction with the wave's amplitude, a
    Laplacian a wave of its own best length.
    """
    bank = []
    for wavelength in WAVELENGTHS_PX:
        y, x = _plane(math.ceil(1.2 * wavelength))
        envelope = np.exp(-(x**2 + y**2) / (2 * (0.5 * wavelength) ** 2))
        for step in range(ORIENTATIONS):
            angle = math.pi * step / ORIENTATIONS
            phase = 2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / wavelength
            for wave in (np.cos(phase), np.sin(phase)):
                kernel = envelope * wave
                kernel -= envelope * kernel.sum() / envelope.sum()
                bank.append(kernel / (kernel * wave).sum())
    for sigma in LOG_SIGMAS_PX:
        y, x = _plane(math.ceil(4 * sigma))
        square = (x**2 + y**2) / (2 * sigma**2)
        kernel = (1 - square) * np.exp(-square)
        kernel -= kernel.mean()
        bank.append(kernel / (kernel * np.cos(math.sqrt(2) / sigma * x)).sum())
    return tuple(bank)


def _plane(reach: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    axis = np.arange(-reach, reach + 1, dtype=np.float64)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


def filter_features(images: NDArray[np.floating]) -> NDArray[np.float64]:
    """The bank's responses at every place of images `[n, row, column]`, and the grey value: `[places, 28]`."""
    from scipy.signal import fftconvolve

    columns = [images.astype(np.float64)]
    for kernel in filter_bank():
        reach = kernel.shape[0] // 2
        padded = np.pad(columns[0], ((0, 0), (reach, reach), (reach, reach)), mode="edge")
        columns.append(fftconvolve(padded, kernel[np.newaxis, ::-1, ::-1], mode="valid", axes=(1, 2)))
    return np.stack(columns, axis=-1).reshape(-1, len(columns))


def texture_distance(
    one: NDArray[np.floating] | Sequence[NDArray[np.floating]],
    other: NDArray[np.floating] | Sequence[NDArray[np.floating]],
) -> float:
    """Frechet distance in HU (the root) of two sets of grids `[n, 2, m, m, m]`, or of two grids, on the filter bank."""
    return math.sqrt(frechet(*(filter_features(_all_cuts(grids)) for grids in (one, other))))


def sifid_vgg(
    one: NDArray[np.floating] | Sequence[NDArray[np.floating]],
    other: NDArray[np.floating] | Sequence[NDArray[np.floating]],
) -> float:
    """Single-image Frechet distance (squared, as SIFID is) of two grids, or two sets, on ST-LPIPS VGG features.

    Raises:
        HiResMedSynthError: the package stlpips-pytorch or torchvision is not installed.
    """
    return frechet(*(vgg_features(_all_cuts(grids)) for grids in (one, other)))


def vgg_features(images: NDArray[np.floating]) -> NDArray[np.float64]:
    """ST-LPIPS VGG features (relu2_2) at every place of images in HU `[n, row, column]`: `[places, 128]`.

    Raises:
        HiResMedSynthError: as `sifid_vgg`.
    """
    import torch

    low, high = WINDOW_HU
    unit = np.clip((images - low) / (high - low), 0, 1) * 2 - 1
    network = _vgg()
    found = []
    with torch.no_grad():
        for part in torch.from_numpy(unit.astype(np.float32))[:, None].expand(-1, 3, -1, -1).split(32):
            places = network(part).permute(0, 2, 3, 1)
            found.append(places.reshape(-1, places.shape[-1]).double().numpy())
    return np.concatenate(found)


def _all_cuts(grids: NDArray[np.floating] | Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    many = [grids] if isinstance(grids, np.ndarray) and grids.ndim == 4 else grids
    return np.concatenate([cuts(np.asarray(grid)) for grid in many])


@lru_cache(maxsize=1)
def _vgg() -> nn.Module:
    """The scaling and the first two slices of the shift-tolerant VGG; its weights come with the package."""
    from torch import nn

    from HiResMedSynthLib.evaluation.st_lpips import st_lpips

    whole = st_lpips()
    slices = [getattr(whole.net, f"slice{number}") for number in range(1, VGG_SLICE + 1)]
    return nn.Sequential(whole.scaling_layer, *slices)
