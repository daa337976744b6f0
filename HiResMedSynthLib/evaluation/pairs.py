"""Pairs: a synthetic image and the real one that it was made from or stands for, and every metric of a pair.

A case with its own background beside it is a pair; else images of the same name are, where that was asked for. Lesions
part the picture into inside and outside (the paper's Table 6 masks them).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.annotations_files import stem_of
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.evaluation import metrics
from HiResMedSynthLib.evaluation.comparable import Grid, PictureFacts, Progress
from HiResMedSynthLib.evaluation.image_sets import Picture, Source, evenly, pictures, read_source
from HiResMedSynthLib.evaluation.in_threads import in_threads
from HiResMedSynthLib.evaluation.perceptual import Distance, lpips_distance, st_lpips_distance

PLACES = ("whole", "inside", "outside")
PSNR, NMSE, SSIM, MS_SSIM = "PSNR", "NMSE", "SSIM", "MS-SSIM"
ST_LPIPS, LPIPS = "ST-LPIPS", "LPIPS"
LEARNED: dict[str, Callable[[], Distance]] = {ST_LPIPS: st_lpips_distance, LPIPS: lpips_distance}
SMALLEST_MASK = 16  # px: inside of fewer nothing is measured
MOST_REAL_PAIRS = 20  # pairs of different real images, what a pair is compared with


@dataclass(frozen=True, kw_only=True, eq=False)
class PairPlan:
    """A synthetic source and its partner; None: the background that it brings itself."""

    synthetic: Source
    partner: Source | None


@dataclass(frozen=True, kw_only=True)
class PairNumbers:
    """One pair of pictures.

    Args:
        name, group: of the synthetic one.
        values: by (metric, place); what can't be measured is left out. PSNR of equal pixels is infinite.
    """

    name: str
    group: str
    values: dict[tuple[str, str], float]


def plan_pairs(real: Sequence[Source], synthetic: Sequence[Source], *, by_name: bool) -> list[PairPlan]:
    """The pairs: own backgrounds always, equal names only where asked for.

    Raises:
        SettingsError: names were to pair them, and a synthetic image has no partner, or two.
    """
    found = [PairPlan(synthetic=one, partner=None) for one in synthetic if one.paired]
    if not by_name:
        return found
    by_stem: dict[str, list[Source]] = {}
    for one in real:
        by_stem.setdefault(_short(one), []).append(one)
    lonely = []
    for one in (one for one in synthetic if not one.paired):
        partners = by_stem.get(_short(one), [])
        if len(partners) == 1:
            found.append(PairPlan(synthetic=one, partner=partners[0]))
        else:
            lonely.append(f"{one.name} ({len(partners) or 'none'})")
    if lonely:
        raise SettingsError(
            f"{len(lonely)} synthetic image(s) have no single partner of the same name: {', '.join(lonely[:5])}",
            remedy="Name each like its real image, or export cases with their background (compose --pair).",
        )
    return found


def _short(source: Source) -> str:
    return PurePosixPath(stem_of(source.name)).name


def measure_pairs(
    plans: Sequence[PairPlan], grid: Grid, *, most: int, learned_pairs: int, progress: Progress
) -> tuple[list[PairNumbers], dict[str, str]]:
    """(numbers of each pair of pictures, what couldn't be measured and why).

    Args:
        plans: from `plan_pairs`.
        grid: how pictures are brought to 0..1, which is the range of PSNR and SSIM.
        most: slices of a volume: those with most lesion, else evenly spread.
        learned_pairs: how many pairs of pictures, of evenly spaced plans and evenly spaced slices of each, ST-LPIPS and
            LPIPS read; they need about a second each.
        progress: called with (done, total, what).

    Raises:
        ReadError: an image can't be read.
        SettingsError: a pair differs in size.
    """
    missing: dict[str, str] = {}
    learned: dict[str, Distance] = {}
    for name, get in LEARNED.items() if learned_pairs else ():
        try:
            learned[name] = get()
        except HiResMedSynthError as error:
            missing[name] = f"{error.what}. {error.remedy}"
    step = max(1, -(-len(plans) // max(learned_pairs, 1)))
    slices = max(1, learned_pairs // max(len(plans), 1))
    numbered = list(enumerate(plans))

    def work(item: tuple[int, PairPlan]) -> list[PairNumbers]:
        number, plan = item
        return _of_plan(plan, grid, most, learned if number % step == 0 else {}, slices)

    found: list[PairNumbers] = []
    for done, numbers in enumerate(in_threads(work, numbered), start=1):
        found += numbers
        progress(done, len(plans), "pairs")
    return found, missing


def _of_plan(
    plan: PairPlan, grid: Grid, most: int, learned: dict[str, Distance], learned_slices: int
) -> list[PairNumbers]:
    found, both = [], picture_pairs(plan, most=most)
    chosen = evenly(len(both), learned_slices)
    for number, (picture, reference) in enumerate(both):
        one, other = grid.values(reference.image), grid.values(picture.image)
        inside = lesions_on(picture, grid)
        values = pair_numbers(one, other, inside)
        if number in chosen:
            values |= {(name, "whole"): measure(one, other) for name, measure in learned.items()}
        found.append(PairNumbers(name=picture.name, group=picture.group, values=values))
    return found


def picture_pairs(plan: PairPlan, *, most: int) -> list[tuple[Picture, Picture]]:
    """(synthetic, real) pictures of a pair of sources, the same slices of both.

    Raises:
        ReadError: a source can't be read.
        SettingsError: they differ in size.
    """
    loaded = read_source(plan.synthetic)
    partner = loaded.background if plan.partner is None else read_source(plan.partner).image
    if partner is None or partner.shape != loaded.image.shape:
        size = None if partner is None else partner.shape
        raise SettingsError(
            f"a pair differs in size: {plan.synthetic.name} {loaded.image.shape}, its real image {size}",
            remedy="Export both on the same grid.",
        )
    chosen = pictures(plan.synthetic, loaded, most=most, with_lesions=True)
    numbers = [0 if loaded.image.slices == 1 else int(one.name.rpartition("#")[2]) for one in chosen]
    return [
        (one, Picture(name=one.name, group=one.group, image=partner.single_slice(k)))
        for one, k in zip(chosen, numbers, strict=True)
    ]


def lesions_on(picture: Picture, grid: Grid) -> NDArray[np.bool_] | None:
    """Where the picture's lesions are, on the grid; None where nobody marked any."""
    import cv2

    if picture.lesions is None or not picture.lesions.any():
        return None
    inside = (picture.lesions > 0).astype(np.float32)
    if inside.shape != grid.size:
        inside = cv2.resize(inside, grid.size[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(inside >= 0.5) if (inside >= 0.5).any() else None


def pair_numbers(
    reference: NDArray[np.float32], image: NDArray[np.float32], inside: NDArray[np.bool_] | None
) -> dict[tuple[str, str], float]:
    """The metrics of two pictures in 0..1, whole, and inside and outside of a mask."""
    found: dict[tuple[str, str], float] = {}
    masks: dict[str, NDArray[np.bool_] | None] = {"whole": None}
    if inside is not None:
        masks |= {
            name: mask for name, mask in (("inside", inside), ("outside", ~inside)) if int(mask.sum()) >= SMALLEST_MASK
        }
    similar = metrics.ssim_map(reference, image, data_range=1.0)
    scales = (
        metrics.ms_ssim_maps(reference, image, data_range=1.0) if min(reference.shape) >= metrics.SMALLEST_MS else None
    )
    for place, mask in masks.items():
        found[PSNR, place] = metrics.psnr(reference, image, data_range=1.0, mask=mask)
        found[NMSE, place] = metrics.nmse(reference, image, mask=mask)
        found[SSIM, place] = metrics.mean_of_map(similar, mask)
        if scales is not None:
            found[MS_SSIM, place] = metrics.mean_over_scales(scales, mask)
    return {key: value for key, value in found.items() if not math.isnan(value)}  # NMSE where all is black


def real_pairs(
    facts: Sequence[PictureFacts], grid: Grid, *, most: int, seed: int
) -> dict[tuple[str, str], list[float]]:
    """The same metrics, whole, of pairs of real pictures of different patients: what no relation at all scores."""
    rng = np.random.default_rng(seed)
    order = [facts[int(k)] for k in rng.permutation(len(facts))]
    chosen = [(a, b) for a, b in zip(order[::2], order[1::2], strict=False) if a.group != b.group][:MOST_REAL_PAIRS]
    found: dict[tuple[str, str], list[float]] = {}
    for one, other in chosen:
        units = [grid.values(picture_of(facts_of, most=most).image) for facts_of in (one, other)]
        for key, value in pair_numbers(units[0], units[1], None).items():
            found.setdefault(key, []).append(value)
    return found


def picture_of(facts: PictureFacts, *, most: int) -> Picture:
    """The picture that the facts are of, read again."""
    found = pictures(facts.source, read_source(facts.source), most=most)
    return next(one for one in found if one.name == facts.name)


def finite(values: Sequence[float]) -> NDArray[np.float64]:
    """Those that are finite: PSNR of equal pixels is not."""
    return np.array([value for value in values if math.isfinite(value)])
