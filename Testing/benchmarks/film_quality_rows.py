"""What is measured of a background model's pictures: all of it by the evaluation library, nothing written twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from HiResMedSynthLib.background.cascade import FilmCascade
from HiResMedSynthLib.background.quantiser import FSQ, count_codes, perplexity, usage
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.evaluation import metrics, perceptual, texture_features
from HiResMedSynthLib.evaluation.band_power import BANDS_CYCLES_PER_PIXEL, band_power
from HiResMedSynthLib.evaluation.feature_cache import FeatureCache
from HiResMedSynthLib.evaluation.resampling import FEWEST_GROUPS, mean_interval, patient_means
from HiResMedSynthLib.evaluation.set_distances import Pool, set_distances
from HiResMedSynthLib.privacy import TrainingDescriptors, describe
from Testing.benchmarks.film_quality_sets import Pictures, Unit
from Testing.benchmarks.privacy_gate import share
from Training.film_data import FilmSet
from Training.sample_film import nearest_correlation

SMALL_PX = 256  # longer side of pictures for learned measures: all at one scale
Numbers = NDArray[np.float64]


def pairs(real: Pictures, rebuilt: Pictures, *, seed: int) -> dict[str, list[float]]:
    """The mean (see `_mean`) of each measure of the pairs; the range of values is 0..1."""
    measured: dict[str, Callable[[Unit, Unit, Any], float]] = {
        "L1, share of the range": lambda a, b, m: float(
            np.abs(a - b)[np.ones_like(a, bool) if m is None else m].mean()
        ),
        "PSNR, dB": lambda a, b, m: metrics.psnr(a, b, data_range=1, mask=m),
        "SSIM": lambda a, b, m: metrics.ssim(a, b, data_range=1, mask=m),
        "MS-SSIM": lambda a, b, _: metrics.ms_ssim(a, b, data_range=1),
    }
    try:
        distance = perceptual.st_lpips_distance()
        measured["ST-LPIPS (VGG, 256 px)"] = lambda a, b, _: distance(small(a), small(b))
    except HiResMedSynthError:
        pass  # its package is not installed; the table lacks the row
    found = {}
    for name, measure in measured.items():
        values = np.array([measure(*trio) for trio in zip(real.units, rebuilt.units, real.masks, strict=True)])
        found[name] = _mean(values, real.patients, seed)
    return found


def powers(sets: Sequence[Pictures], *, seed: int) -> dict[str, Any]:
    """By set and band the mean (see `_mean`) of the power over the first set's mean."""
    tables = [np.stack([band_power(unit) for unit in one.units]) for one in sets]
    base = tables[0].mean(axis=0)
    result: dict[str, Any] = {"bands_cycles_per_pixel": BANDS_CYCLES_PER_PIXEL, "over": sets[0].name}
    for one, table in zip(sets[1:], tables[1:], strict=True):
        result[one.name] = [_mean(column, one.patients, seed) for column in (table / base).T]
    return result


def _mean(values: Numbers, patients: Sequence[str], seed: int) -> list[float]:
    """The mean of the patients' means, and its 95 % interval where there are enough of them."""
    means = patient_means(values, patients)
    interval = mean_interval(values, patients, seed=seed) if len(means) >= FEWEST_GROUPS else ()
    return [float(means.mean()), *interval]


@torch.no_grad()
def codes(cascade: FilmCascade, sets: Sequence[Pictures]) -> dict[str, dict[str, float]]:
    """Use of the codes by set: share of all codes that occur, perplexity, and the perplexity of each digit."""
    quantise = cascade.first.encoder.quantise
    assert isinstance(quantise, FSQ)
    result = {}
    for one in sets:
        digits = torch.cat([_digits(cascade, quantise, unit) for unit in one.units])
        counts = count_codes(quantise.to_index(digits), quantise.entries)
        result[one.name] = {"films": len(one.units), "codes": quantise.entries, "used": usage(counts)}
        result[one.name]["perplexity"] = perplexity(counts)
        for k, levels in enumerate(quantise.levels):
            counted = count_codes(digits[:, k], levels)
            result[one.name][f"digit {k + 1} of {levels} levels"] = perplexity(counted)
    return result


def _digits(cascade: FilmCascade, quantise: FSQ, unit: Unit) -> torch.Tensor:
    """int64 [1, digits, grid, grid] of a picture laid in the middle of the canvas."""
    border = [((cascade.side - n) // 2, cascade.side - n - (cascade.side - n) // 2) for n in unit.shape]
    field = np.pad(np.ones(unit.shape, bool), border)
    values = cascade.encode(np.pad(2 * unit - 1, border, mode="edge"), field)
    return torch.round((values + 1) / 2 * (quantise.scale[:, None, None] - 1)).long()


def distances(
    real: Pictures, others: Sequence[Pictures], cache: FeatureCache, *, seed: int, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """By other set and feature space the distances to the real set with their floors, or why there are none."""
    spaces: dict[str, tuple[int, Callable[[Unit], Numbers]]] = {
        texture_features.SPACE: (texture_features.VERSION, texture_features.texture_features)
    }
    try:
        perceptual.st_lpips_distance()
        spaces[perceptual.SPACE] = (perceptual.VERSION, lambda unit: perceptual.vgg_features(small(unit)))
    except HiResMedSynthError:
        pass
    result: dict[str, dict[str, Any]] = {one.name: {} for one in others}
    for space, (version, measure) in spaces.items():
        say(f"features: {space}")
        known, *tested = (kept(cache, one, f"{space} {version}", measure) for one in (real, *others))
        for one, features in zip(others, tested, strict=True):
            try:
                found = set_distances(
                    Pool(known, features, (real.patients, one.patients)), real.patients, one.patients, seed=seed
                )
                result[one.name][space] = {row.name: vars(row) for row in found}
            except SettingsError as problem:
                result[one.name][space] = f"not measurable at this n: {problem.what}"
    return result


def copies(films: FilmSet, made: Pictures, held_out: Pictures, known: TrainingDescriptors | None) -> dict[str, Any]:
    """Nearness to the films trained on: by the privacy gate, and by correlation at 64 px; held-out films beside it.

    `known` are descriptors of these training films. None, or of another number of films: made here, with limits from
    the held-out films and from the training films against each other.
    """
    trained = [i for i in films.side(held_out=False) if films.films[i].whole]
    own = [_block_mean(films.pixels[i], SMALL_PX) for i in trained]
    real = [_block_mean(films.pixels[i], SMALL_PX) for i in films.side(held_out=True)]
    try:
        if known is None or len(known.signs) != len(own):
            known = describe(own, real, [films.films[i].patient for i in trained])
    except SettingsError as problem:
        return {"not measurable": problem.what}
    tiny = np.stack([_block_mean(film, 64) for film in own])
    result: dict[str, Any] = {}
    for name, group in (
        (held_out.name, real),
        (made.name, [_block_mean(2 * unit - 1, SMALL_PX) for unit in made.units]),
    ):
        nearness = [known.nearness(film) for film in group]
        over = [max(a / b for a, b in zip(one.likeness, known.limits, strict=True)) for one in nearness]
        like = [nearest_correlation(_block_mean(film, 64), tiny) for film in group]
        result[name] = {
            "near copies": share([bool(one.why) for one in nearness]),
            "likeness over its limit, median and largest": [float(np.median(over)), max(over)],
            "correlation at 64 px, 5/50/95 % and largest": [
                *map(float, np.quantile(like, (0.05, 0.5, 0.95))),
                max(like),
            ],
            "nearest": [films.films[trained[one.nearest]].name for one in nearness],
        }
    return result


def small(unit: Unit) -> Unit:
    """The picture reduced so that its longer side has at most 256 pixels."""
    import cv2

    factor = max(unit.shape) / SMALL_PX
    if factor <= 1:
        return unit
    rows, columns = (max(1, round(n / factor)) for n in unit.shape)
    return np.asarray(cv2.resize(unit, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.float32)


def kept(cache: FeatureCache, pictures: Pictures, what: str, measure: Callable[[Unit], Numbers]) -> Numbers:
    """[picture, number]: each picture is measured once."""
    rows = []
    for unit in pictures.units:
        key = ("film quality", what, hashlib.sha256(unit.tobytes()).hexdigest(), pictures.spacing_mm)
        numbers = cache.get(*key)
        if numbers is None:
            numbers = measure(unit)
            cache.put(numbers, *key)
        rows.append(numbers)
    return np.stack(rows)


def _block_mean(film: Unit, side: int) -> Unit:
    factor = max(1, film.shape[0] // side)
    return np.asarray(film.reshape(film.shape[0] // factor, factor, -1, factor).mean(axis=(1, 3)), dtype=np.float32)
