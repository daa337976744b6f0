"""A site's own density of lesions on chest films, in the box around both lungs: read from a model of that task.

Learned by `python -m Training.train_density` from labelled films; used in place of the shipped density.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import weights
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.axes import film_leftwards
from HiResMedSynthLib.placement.method import OF_FILMS
from HiResMedSynthLib.placement.network import ENTRY, KIND
from HiResMedSynthLib.weights import ModelError
from HiResMedSynthLib.whole_tensors import read_tensors

TASK = OF_FILMS
TENSOR = "density"
BINS = 32  # as the shipped one


def load_density(name: str) -> NDArray[np.float32]:
    """float32 `[32, 32]`, downwards and to the patient's left, mean 1, of the model of that name.

    Raises:
        ModelError: there is none, or it holds no density.
    """
    path = weights.find(name, KIND).path
    try:
        arrays, _ = read_tensors(path, ENTRY, "np")
        density = np.asarray(arrays[TENSOR], dtype=np.float32)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _no_density(name) from error
    if density.shape != (BINS, BINS) or not np.isfinite(density).all() or density.min() < 0 or density.mean() <= 0:
        raise _no_density(name)
    return np.asarray(density / density.mean())


def box_shares(image: MedicalImage, lungs: NDArray[np.bool_], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[n, 2]` shares of the box around both lungs (down, to the patient's left) of places; 0..1 inside.

    Args:
        image: a chest film.
        lungs: `[row, column]`, some of it True.
        places: `[n, 2]` (row, column); centres of pixels are whole numbers.
    """
    shares = np.empty((len(places), 2))
    for axis, rising in ((0, True), (1, film_leftwards(image))):
        seen = np.flatnonzero(lungs.any(axis=1 - axis))
        share = (places[:, axis] - seen[0] + 0.5) / (seen[-1] - seen[0] + 1)
        shares[:, axis] = share if rising else 1 - share
    return shares


def lung_bins(image: MedicalImage, lungs: NDArray[np.bool_]) -> NDArray[np.float64]:
    """float64 `[32, 32]`: how many pixels of each bin of the box are lung."""
    shares = box_shares(image, lungs, np.argwhere(lungs).astype(np.float64))
    counts, _ = np.histogramdd(shares, bins=BINS, range=[(0, 1)] * 2)
    return np.asarray(counts)


def _no_density(name: str) -> ModelError:
    return ModelError(
        f"the model '{name}' holds no density of lesions on films",
        remedy="Train it anew: python -m Training.train_density --help.",
    )
