"""Learns where lesions lie on a site's films: its own smoothed histogram mixed with the density that ships.

How much of it is its own, and how smooth, is what tells places of patients best that were left out in turn. Patients
weigh alike, however many lesions they have. Few patients can't outvote a thousand nodules of others: their share is
capped, which also keeps a model of few lesions from being a list of their places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.patient_split import fold_of
from HiResMedSynthLib.placement.film_density import BINS
from HiResMedSynthLib.placement.location import FLOOR

OWN_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
BLUR_BINS = (1.0, 1.5, 2.5, 4.0)
PATIENTS_FOR_ALL = 100  # of fewer patients the own share is at most their number over this
FOLDS = 5
BOOTSTRAPS = 2000
Grid = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class FilmSites:
    """Lesions of one film in the box around its lungs; all of them in lung.

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
    folds = folds_of(films)
    most = len({film.patient for film in films}) / PATIENTS_FOR_ALL
    told = {}
    for blur in BLUR_BINS:
        own = {fold: histogram(part(films, folds != fold), blur) for fold in np.unique(folds)}
        for share in dict.fromkeys(min(share, most) for share in OWN_SHARES):
            told[share, blur] = np.mean([
                nats_by_patient(mixed(own[fold], shipped, share), part(films, folds == fold)).mean()
                for fold in np.unique(folds)
            ])  # fmt: skip
    share, blur = max(told, key=lambda choice: told[choice])  # the first of equals: the smaller share
    return Learned(density=mixed(histogram(films, blur), shipped, share), own_share=share, blur_bins=blur)


def cross_fitted(films: Sequence[FilmSites], shipped: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`[patient]` nats over even by the shipped density, and by one that was learned without that patient."""
    folds = folds_of(films)
    before, learned = [], []
    for fold in np.unique(folds):
        tested = part(films, folds == fold)
        before.append(nats_by_patient(shipped, tested))
        learned.append(nats_by_patient(learn(part(films, folds != fold), shipped).density, tested))
    return np.concatenate(before), np.concatenate(learned)


def folds_of(films: Sequence[FilmSites]) -> NDArray[np.int64]:
    """`[film]` part of five that a film's patient falls into; few patients are dealt out, so that none are alone."""
    patients = sorted({film.patient for film in films}, key=lambda patient: (fold_of(patient, 2**31), patient))
    dealt = {patient: index % FOLDS for index, patient in enumerate(patients)}
    return np.array([dealt[film.patient] for film in films])


def part(films: Sequence[FilmSites], chosen: NDArray[np.bool_]) -> list[FilmSites]:
    """The films that are chosen."""
    return [film for film, taken in zip(films, chosen, strict=True) if taken]


def histogram(films: Sequence[FilmSites], blur_bins: float) -> Grid:
    """`[32, 32]` smoothed histogram of the films' lesions, those of a patient counting one together; mean 1."""
    from scipy.ndimage import gaussian_filter

    of = np.array([film.patient for film in films for _ in film.shares])
    _, patient, lesions = np.unique(of, return_inverse=True, return_counts=True)
    shares = np.concatenate([film.shares for film in films])
    counts, _ = np.histogramdd(shares, bins=BINS, range=[(0, 1)] * 2, weights=1 / lesions[patient])
    smooth = gaussian_filter(counts, blur_bins, mode="nearest")
    return np.asarray(smooth / smooth.mean())


def mixed(own: Grid, shipped: Grid, own_share: float) -> Grid:
    """`[32, 32]`: the site's density and the shipped one in that proportion, mean 1."""
    return own_share * own + (1 - own_share) * shipped


def nats_by_patient(density: Grid, films: Sequence[FilmSites]) -> NDArray[np.float64]:
    """`[patient]` mean log-likelihood of the places over a place drawn evenly in the film's lungs.

    The likelihood is that of `location.heatmap`, its floor included, in the middle of the bins.
    """
    raised = density / density.mean() + FLOOR
    nats: dict[str, list[float]] = {}
    for film in films:
        even = (raised * film.lung).sum() / film.lung.sum()
        at = np.minimum((film.shares * BINS).astype(int), BINS - 1)
        nats.setdefault(film.patient, []).extend(np.log(raised[at[:, 0], at[:, 1]] / even))
    return np.array([np.mean(found) for found in nats.values()])


def interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """(mean, low, high of its 95 % interval) of values of patients, which are resampled."""
    draws = np.random.default_rng(1).integers(len(values), size=(BOOTSTRAPS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(values.mean()), float(low), float(high)
