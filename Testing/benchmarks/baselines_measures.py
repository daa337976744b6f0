"""What is measured of a set of films, and of two sets: distances, power, nearness to the training films, pairs.

Every film is seen in its central square only, which lies inside the field of nearly all real ones: padding would be
told from made films at once. Grey values are rounded to 8 bits, as the baselines' films are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from HiResMedSynthLib.evaluation import perceptual, texture_features
from HiResMedSynthLib.evaluation.band_power import band_power
from HiResMedSynthLib.evaluation.feature_cache import FeatureCache
from HiResMedSynthLib.evaluation.metrics import psnr, ssim
from HiResMedSynthLib.evaluation.resampling import INTERVAL, SAMPLES
from HiResMedSynthLib.evaluation.set_distances import Pool, set_distances
from HiResMedSynthLib.evaluation.st_lpips import st_lpips
from HiResMedSynthLib.privacy import TrainingDescriptors

SIDE, CROP = 1024, 768  # px of 0.42 mm
AT_96, AT_48 = "texture at 96 px", "texture at 48 px"  # of 3.4 and 6.7 mm: what a film of 128 or of 64 px can hold
BLOCKS = {texture_features.SPACE: 1, AT_96: 8, AT_48: 16}  # whose means make the crop so small
PAIR_SIDE = 256
SPACES = (texture_features.SPACE, AT_96, perceptual.SPACE)
LEARNED_FILMS, LEARNED_PAIRS = 32, 16
Film = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class FilmSet:
    """Measured films of one origin.

    Attributes:
        name: of the set.
        groups: the patient of each film (each made film is its own).
        features: by space, [film, feature]; of the learned space the first films' only.
        power: [film, band].
        small: [film, 256, 256] in 0..1, for pairs.
        likeness: [film] to the nearest training film, as a whole; NaN where it wasn't asked.
        copies: [film] whether it counts as a near copy.
    """

    name: str
    groups: tuple[str, ...]
    features: dict[str, NDArray[np.float64]]
    power: NDArray[np.float64]
    small: NDArray[np.float32]
    likeness: NDArray[np.float64]
    copies: NDArray[np.bool_]


def measured(
    name: str,
    films: Iterable[tuple[str, Film]],
    cache: FeatureCache,
    *,
    spaces: Sequence[str] = SPACES,
    learned: int | None = None,
    descriptors: TrainingDescriptors | None = None,
) -> FilmSet:
    """Measures films.

    Args:
        name: of the set.
        films: (group, [1024, 1024] in 0..1).
        cache: of numbers measured before.
        spaces: of features.
        learned: how many of the films the VGG reads, which needs seconds each; None: all.
        descriptors: where nearness to the training films is asked.
    """
    features: dict[str, list[NDArray[np.float64]]] = {space: [] for space in spaces}
    groups, power, small, likeness, copies = [], [], [], [], []
    for number, (group, film) in enumerate(films):
        grey = np.rint(film * 255).clip(0, 255).astype(np.uint8)
        edge = (SIDE - CROP) // 2
        crop: Film = np.asarray(grey[edge : edge + CROP, edge : edge + CROP] / 255, dtype=np.float32)
        groups.append(group)
        power.append(_numbers("power", crop, cache))
        for space in spaces:
            if learned is None or number < learned or space != perceptual.SPACE:
                features[space].append(_numbers(space, crop, cache))
        small.append(blocks(crop, CROP // PAIR_SIDE))
        likeness_whole, copy = (np.nan, 0.0) if descriptors is None else _nearness(grey, descriptors, cache)
        likeness.append(likeness_whole)
        copies.append(copy > 0)
    return FilmSet(
        name=name,
        groups=tuple(groups),
        features={space: np.stack(values) for space, values in features.items()},
        power=np.stack(power),
        small=np.stack(small),
        likeness=np.array(likeness),
        copies=np.array(copies),
    )


def _numbers(kind: str, crop: Film, cache: FeatureCache) -> NDArray[np.float64]:
    key = (
        "film baselines",
        kind,
        texture_features.VERSION,
        perceptual.VERSION,
        hashlib.sha256(crop.tobytes()).hexdigest(),
    )
    kept = cache.get(*key)
    if kept is None:
        if kind == "power":
            kept = band_power(crop)
        elif kind == perceptual.SPACE:
            kept = perceptual.vgg_features(crop)
        else:
            kept = texture_features.texture_features(blocks(crop, BLOCKS[kind]))
        cache.put(kept, *key)
    return kept


def _nearness(grey: NDArray[np.uint8], descriptors: TrainingDescriptors, cache: FeatureCache) -> NDArray[np.float64]:
    """[2]: likeness to the nearest training film as a whole; 1 for a near copy, else 0."""
    known = hashlib.sha256(descriptors.signs.tobytes() + repr(descriptors.limits).encode()).hexdigest()
    key = ("film baselines", "nearness", known, hashlib.sha256(grey.tobytes()).hexdigest())
    kept = cache.get(*key)
    if kept is None:
        near = descriptors.nearness(grey.astype(np.float32) / 127.5 - 1)
        kept = np.array([near.whole, float(bool(near.why))])
        cache.put(kept, *key)
    return kept


def blocks(film: Film, factor: int) -> Film:
    """[side / factor, side / factor]: means of blocks."""
    side = len(film) // factor
    return np.asarray(film.reshape(side, factor, side, factor).mean(axis=(1, 3)), dtype=np.float32)


def fingerprint(*sets: FilmSet) -> str:
    """16 hex digits of what was measured of these sets."""
    digest = hashlib.sha256()
    for one in sets:
        for numbers in (*one.features.values(), one.power, one.small, one.copies):
            digest.update(np.ascontiguousarray(numbers).tobytes())
    return digest.hexdigest()[:16]


def distances(real: FilmSet, made: FilmSet, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """By feature space and measure: value, interval, floor, patients a side."""
    found: dict[str, dict[str, Any]] = {}
    for space, features in made.features.items():
        pool = Pool(real.features[space], features)
        found[space] = {
            one.name: {
                "value": one.value,
                "interval": [None if np.isnan(end) else end for end in (one.low, one.high)],
                "floor": one.floor,
                "floor_limit": one.floor_limit,
                "within_floor": one.within_floor,
                "a_side": one.patients,
            }
            for one in set_distances(pool, real.groups, made.groups[: len(features)], seed=seed)
        }
    return found


def power_ratios(real: FilmSet, made: FilmSet, *, seed: int = 0) -> list[dict[str, Any]]:
    """For each band the mean power over real films' mean, with a bootstrap interval over the films of both sides."""
    rng = np.random.default_rng(seed)
    drawn = [
        side.power[rng.integers(len(side.power), size=(SAMPLES, len(side.power)))].mean(axis=1) for side in (made, real)
    ]
    low, high = np.percentile(drawn[0] / drawn[1], INTERVAL, axis=0)
    value = made.power.mean(axis=0) / real.power.mean(axis=0)
    return [{"value": float(v), "interval": [float(a), float(b)]} for v, a, b in zip(value, low, high, strict=True)]


def copy_share(films: FilmSet) -> dict[str, Any]:
    """Share of near copies of training films, with an exact interval; median and largest likeness."""
    count = int(films.copies.sum())
    interval = binomtest(count, len(films.copies)).proportion_ci(method="exact")
    return {
        "copies": count,
        "of": len(films.copies),
        "share": count / len(films.copies),
        "interval": [float(interval.low), float(interval.high)],
        "likeness_median": float(np.median(films.likeness)),
        "likeness_largest": float(films.likeness.max()),
    }


def paired(films: FilmSet, partners: FilmSet, *, nearest: bool, seed: int = 0) -> dict[str, Any]:
    """PSNR, SSIM and ST-LPIPS of each film and a partner: the most correlated one, or one of another patient at random.

    At 256 px, range 1. Means over films with bootstrap intervals; ST-LPIPS of the first 16 pairs.
    """
    chosen = [_partner(films, k, partners, nearest, np.random.default_rng((seed, k))) for k in range(len(films.groups))]
    pairs = [(films.small[k], partners.small[other]) for k, other in enumerate(chosen)]
    values = {
        "psnr_db": [psnr(b, a, data_range=1.0) for a, b in pairs],
        "ssim": [ssim(b, a, data_range=1.0) for a, b in pairs],
    }
    values["st_lpips"] = [st_lpips_of(a, b) for a, b in pairs[:LEARNED_PAIRS]]
    return {name: _mean(np.array(numbers), seed) for name, numbers in values.items()}


def st_lpips_of(one: Film, other: Film) -> float:
    """ST-LPIPS on AlexNet of two films in 0..1; on VGG, which `evaluate` takes, it needs ten times as long."""
    import torch

    placed = [torch.from_numpy(2 * film - 1)[None, None].expand(-1, 3, -1, -1) for film in (one, other)]
    with torch.no_grad():
        return float(st_lpips("alex")(*placed))


def _partner(films: FilmSet, number: int, partners: FilmSet, nearest: bool, rng: np.random.Generator) -> int:
    others = [k for k, group in enumerate(partners.groups) if group != films.groups[number]]
    if not nearest:
        return int(rng.choice(others))
    own = _even(films.small[number])
    return max(others, key=lambda k: float(own @ _even(partners.small[k])))


def _even(film: Film) -> Film:
    flat = blocks(film, 4).ravel()
    flat = flat - flat.mean()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-9), dtype=np.float32)


def _mean(values: NDArray[np.float64], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    low, high = np.percentile(values[rng.integers(len(values), size=(SAMPLES, len(values)))].mean(axis=1), INTERVAL)
    return {"value": float(values.mean()), "interval": [float(low), float(high)], "pairs": len(values)}
