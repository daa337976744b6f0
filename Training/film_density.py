"""Learns where lesions lie on a site's films: its own smoothed histogram mixed with the density that ships.

How much of it is its own, and how smooth, is what tells places of patients best that were left out. Few films can't
outvote a thousand nodules of others, and needn't.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.patient_split import fold_of
from HiResMedSynthLib.placement.film_density import BINS
from HiResMedSynthLib.placement.location import FLOOR

OWN_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
BLUR_BINS = (1.0, 1.5, 2.5, 4.0)
FOLDS = 5
BOOTSTRAPS = 2000
Grid = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class FilmSites:
    """Lesions of one film in the box around its lungs.

    Args:
        patient: whose film it is.
        shares: `[n, 2]` (down, to the patient's left), 0..1.
        lung: `[32, 32]` pixels of lung in each bin.
    """

    patient: str
    shares: NDArray[np.float64]
    lung: Grid


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """A density `[32, 32]`, mean 1, how much of it is the site's own, and how smooth that part is."""

    density: Grid
    own_share: float
    blur_bins: float


def learn(films: Sequence[FilmSites], shipped: Grid) -> Learned:
    """The best mixture by patients left out in turn.

    Args:
        films: with lesions, of two patients or more.
        shipped: `[32, 32]`, mean 1.
    """
    folds = np.array([fold_of(film.patient, FOLDS) for film in films])
    if len(np.unique(folds)) < 2:  # two patients of one fold
        folds = np.unique([film.patient for film in films], return_inverse=True)[1]
    told = {}
    for blur in BLUR_BINS:
        own = {int(fold): histogram([f for f, at in zip(films, folds, strict=True) if at != fold], blur)
               for fold in np.unique(folds)}  # fmt: skip
        for share in OWN_SHARES:
            nats = [nats_over_even(mixed(own[int(at)], shipped, share), [film])
                    for film, at in zip(films, folds, strict=True)]  # fmt: skip
            told[share, blur] = float(np.concatenate(nats).mean())
    share, blur = max(told, key=lambda choice: told[choice])
    return Learned(density=mixed(histogram(films, blur), shipped, share), own_share=share, blur_bins=blur)


def histogram(films: Sequence[FilmSites], blur_bins: float) -> Grid:
    """`[32, 32]` smoothed histogram of the films' lesions, mean 1."""
    from scipy.ndimage import gaussian_filter

    shares = np.concatenate([film.shares for film in films])
    counts, _ = np.histogramdd(shares, bins=BINS, range=[(0, 1)] * 2)
    smooth = gaussian_filter(counts, blur_bins, mode="nearest")
    return np.asarray(smooth / smooth.mean())


def mixed(own: Grid, shipped: Grid, own_share: float) -> Grid:
    """`[32, 32]`: the site's density and the shipped one in that proportion, mean 1."""
    return own_share * own + (1 - own_share) * shipped


def nats_over_even(density: Grid, films: Sequence[FilmSites]) -> NDArray[np.float64]:
    """`[lesion]` log-likelihood of each place over a place drawn evenly in that film's lungs (`location.heatmap`)."""
    raised = density / density.mean() + FLOOR
    nats = []
    for film in films:
        even = (raised * film.lung).sum() / film.lung.sum()
        at = np.minimum((film.shares * BINS).astype(int), BINS - 1)
        nats.append(np.log(raised[at[:, 0], at[:, 1]] / even))
    return np.concatenate(nats)


def interval(values: NDArray[np.float64], patients: Sequence[str]) -> tuple[float, float, float]:
    """(mean over patients, low, high of its 95 % interval, patients resampled)."""
    _, group = np.unique(np.asarray(patients), return_inverse=True)
    means = np.bincount(group, values) / np.bincount(group)
    draws = np.random.default_rng(1).integers(len(means), size=(BOOTSTRAPS, len(means)))
    low, high = np.percentile(means[draws].mean(axis=1), [2.5, 97.5])
    return float(means.mean()), float(low), float(high)
