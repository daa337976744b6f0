"""evaluate(real, synthetic) -> Evaluation: every figure of two folders, checked to be comparable first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation import texture_features
from HiResMedSynthLib.evaluation.comparable import (
    Grid,
    PictureFacts,
    Progress,
    Shared,
    SharedPatientError,
    common_grid,
    nearest_likeness,
    shared_patients,
    survey,
)
from HiResMedSynthLib.evaluation.feature_cache import FeatureCache, cache_folder
from HiResMedSynthLib.evaluation.findings import Criterion, Row
from HiResMedSynthLib.evaluation.image_sets import find_images
from HiResMedSynthLib.evaluation.measure_side import NETWORKS, SPACES, SideMeasures, measure_side
from HiResMedSynthLib.evaluation.pair_rows import method_rows, pair_rows
from HiResMedSynthLib.evaluation.pairs import PairPlan, measure_pairs, plan_pairs, real_pairs
from HiResMedSynthLib.evaluation.resampling import FEWEST_GROUPS, splits
from HiResMedSynthLib.evaluation.scorecard import scorecard
from HiResMedSynthLib.evaluation.set_distances import Pool, standardised
from HiResMedSynthLib.evaluation.set_rows import distance_rows, lesion_rows, statistic_rows
from HiResMedSynthLib.evaluation.texture_distance import frechet
from HiResMedSynthLib.image import Window

MOST_LEADING = 8  # features named
HALVES = 30  # draws of halves of a set
SHARED_WHY = "patients are on both sides, so a distance between the sets would measure what they share"


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Choices of an evaluation.

    Args:
        paired: real and synthetic images of the same name are pairs; patients on both sides are then expected.
        allow_shared: distances are measured although patients are on both sides; the report says so.
        resample: bring all to the smallest size.
        window: one display window for all; None: each image's own.
        slices: of a volume, evenly spread.
        spaces: feature spaces of the distances.
        learned_pairs: pairs that ST-LPIPS and LPIPS read.
        seed: of all draws.
        cache: whether numbers measured before are used, and new ones kept.
    """

    paired: bool = False
    allow_shared: bool = False
    resample: bool = False
    window: Window | None = None
    slices: int = 4
    spaces: tuple[str, ...] = (texture_features.SPACE,)
    learned_pairs: int = 16
    seed: int = 0
    cache: bool = True

    def __post_init__(self) -> None:
        unknown = [space for space in self.spaces if space not in SPACES]
        if unknown or not self.spaces or self.slices < 1 or self.learned_pairs < 0:
            raise SettingsError(
                "these settings of an evaluation can't be",
                remedy=f"Choose feature spaces of {', '.join(SPACES)}, and slices of 1 or more.",
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What was found.

    Args:
        settings: as given.
        real, synthetic: what was measured of each side.
        grid: how images were brought to values 0..1.
        notes: what a reader must know, one sentence each.
        shared: patients on both sides.
        rows: every figure.
        criteria: the scorecard.
        nearest: `[synthetic]` the real picture most like each in the first feature space.
        leading: (feature, mean difference in SD of the real set) of the texture features that differ most.
        plans: the pairs.
    """

    settings: EvaluationSettings
    real: SideMeasures
    synthetic: SideMeasures
    grid: Grid
    notes: tuple[str, ...]
    shared: tuple[Shared, ...]
    rows: tuple[Row, ...]
    criteria: tuple[Criterion, ...]
    nearest: NDArray[np.int64]
    leading: tuple[tuple[str, float], ...]
    plans: tuple[PairPlan, ...]


def evaluate(
    real: str | Path,
    synthetic: str | Path,
    settings: EvaluationSettings | None = None,
    *,
    against: str | Path | None = None,
    progress: Progress = lambda _done, _total, _what: None,
) -> Evaluation:
    """Compares two folders of images.

    Args:
        real, synthetic: folders (or files) of any layout that `find_images` knows.
        settings: choices.
        against: another synthetic folder, images named as in the first one: paired tests tell which is nearer.
        progress: called with (done, total, what).

    Raises:
        SharedPatientError: a patient is on both sides, and nothing allows that.
        SettingsError: the sets can't be compared; says what differs.
        ReadError: an image can't be read.
        HiResMedSynthError: a network of the feature spaces isn't on this machine.
    """
    settings = settings or EvaluationSettings()
    sources = {"real": find_images(real), "synthetic": find_images(synthetic)}
    plans = plan_pairs(sources["real"], sources["synthetic"], by_name=settings.paired)
    other = [] if against is None else plan_pairs(sources["real"], find_images(against), by_name=settings.paired)
    if against is not None and not (plans and other):
        raise SettingsError("--against compares pairs, and there are none", remedy="Add --paired.")
    for space in NETWORKS.keys() & settings.spaces:
        NETWORKS[space]()  # refuses what isn't here before any image is read
    facts = {name: survey(found, most=settings.slices, progress=progress, what=name) for name, found in sources.items()}
    grid, notes = common_grid(
        facts["real"], facts["synthetic"], window=settings.window, resample=settings.resample, pairs=bool(plans)
    )
    shared = shared_patients(facts["real"], facts["synthetic"])
    if shared and not (settings.paired or settings.allow_shared):
        raise SharedPatientError(
            shared,
            remedy="Take real images of other patients. If each synthetic image is to be compared with its own real "
            "one, add --paired; --allow-shared measures distances all the same, and the report says so.",
        )
    cache = FeatureCache(cache_folder() if settings.cache else None)
    sides = {
        name: measure_side(
            found,
            grid,
            most=settings.slices,
            spaces=settings.spaces,
            cache=cache,
            progress=progress,
            what=f"{name}, measured",
        )
        for name, found in facts.items()
    }
    both = bool(shared) or settings.paired
    rows, nearest, halves = _of_sets(sides["real"], sides["synthetic"], settings, both, progress)
    rows += _of_pairs(plans, other, facts["real"], grid, settings, progress)
    criteria = scorecard(
        rows,
        sides["real"],
        sides["synthetic"],
        shared=shared,
        likeness=nearest_likeness(facts["real"], facts["synthetic"]),
        halves=halves,
    )
    return Evaluation(
        settings=settings,
        real=sides["real"],
        synthetic=sides["synthetic"],
        grid=grid,
        notes=(*notes, *_more_notes(shared, settings)),
        shared=tuple(shared),
        rows=tuple(rows),
        criteria=criteria,
        nearest=nearest,
        leading=_leading(sides["real"], sides["synthetic"]),
        plans=tuple(plans),
    )


def _of_sets(
    real: SideMeasures, synthetic: SideMeasures, settings: EvaluationSettings, shared: bool, progress: Progress
) -> tuple[list[Row], NDArray[np.int64], tuple[float, float] | None]:
    """(rows, nearest real of each synthetic picture, Frechet distances between halves)."""
    rows: list[Row] = []
    told = shared and not settings.allow_shared
    groups = real.groups, synthetic.groups
    pools = {space: Pool(real.features[space], synthetic.features[space], groups) for space in settings.spaces}
    for space, pool in pools.items():
        if told:
            rows.append(Row.missing("sets", f"distances ({space})", SHARED_WHY))
            continue
        step = _step(progress, f"distances, {space}")
        rows += distance_rows(space, pool, real, synthetic, seed=settings.seed, step=step)
    rows += statistic_rows(real, synthetic, seed=settings.seed)
    rows += lesion_rows(real.lesions, synthetic.lesions, seed=settings.seed)
    first = settings.spaces[0]
    return rows, pools[first].nearest_real(), _halves(first, real, synthetic, settings.seed)


def _leading(real: SideMeasures, synthetic: SideMeasures) -> tuple[tuple[str, float], ...]:
    """The texture features whose means differ most, in SD of the real set."""
    if texture_features.SPACE not in real.features:
        return ()
    one, other = (side.features[texture_features.SPACE] for side in (real, synthetic))
    spread = one.std(axis=0)
    apart = np.divide(other.mean(axis=0) - one.mean(axis=0), spread, out=np.zeros_like(spread), where=spread > 1e-9)
    names = texture_features.feature_names()
    return tuple((names[k], float(apart[k])) for k in np.argsort(-np.abs(apart))[:MOST_LEADING])


def _step(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(done, total, what)


def _halves(space: str, real: SideMeasures, synthetic: SideMeasures, seed: int) -> tuple[float, float] | None:
    """Frechet distances between halves of the synthetic and of the real set, at the same number, in SD of the real."""
    count = min(len(set(real.groups)), len(set(synthetic.groups))) // 2
    if count < FEWEST_GROUPS // 2:
        return None
    found = []
    scaled = standardised(real.features[space], synthetic.features[space])
    for features, groups in zip(scaled, (real.groups, synthetic.groups), strict=True):
        trios = splits(groups, groups, count=count, draws=HALVES, rng=np.random.default_rng(seed))
        found.append(float(np.mean([frechet(features[one.real], features[one.other_real]) for one in trios])))
    return found[1], found[0]


def _of_pairs(
    plans: Sequence[PairPlan],
    other: Sequence[PairPlan],
    real: Sequence[PictureFacts],
    grid: Grid,
    settings: EvaluationSettings,
    progress: Progress,
) -> list[Row]:
    """Rows of the pairs, and of the tests against those of another set."""
    if not plans:
        return [Row.missing("pairs", "PSNR, NMSE, SSIM, MS-SSIM, ST-LPIPS", "there are no pairs: see --paired")]
    most, learned = settings.slices, settings.learned_pairs
    pairs, missing = measure_pairs(plans, grid, most=most, learned_pairs=learned, progress=progress)
    floor = real_pairs(real, grid, most=most, seed=settings.seed)
    rows = pair_rows(pairs, missing, floor, unit=grid.unit, seed=settings.seed)
    if other:
        theirs, _ = measure_pairs(other, grid, most=most, learned_pairs=learned, progress=progress)
        rows += method_rows(pairs, theirs, names=("SYNTHETIC", "the other set"))
    return rows


def _more_notes(shared: Sequence[Shared], settings: EvaluationSettings) -> list[str]:
    if not shared:
        return []
    what = f"{len(shared)} synthetic images are of a patient of the real side"
    allowed = (
        "distances were measured all the same, as was asked (--allow-shared): they flatter"
        if settings.allow_shared
        else "no distances between the sets were measured"
    )
    return [f"{what}; {allowed}"]
