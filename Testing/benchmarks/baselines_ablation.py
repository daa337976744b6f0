"""The paper's ablations with our compose: one lesion on ten backgrounds, five lesions on each of ten backgrounds.

A pair is a composed film and its own background. SSIM inside the lesion's mask, and outside its footprint (alpha > 0),
where our pixels are the background's own bit for bit; the SSIM window of 11 px reaches over the border all the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.choices import FusionName
from HiResMedSynthLib.compose import Composition, compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.evaluation.metrics import mean_of_map, psnr, ssim_map
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.read import read_image

BACKGROUNDS, LESIONS = 10, 5
SIZE_MM = 16.0
SPACING_MM = 0.42
SEED = 1
WAYS: tuple[FusionName, ...] = ("better", "paper")


def grounds(folder: Path, count: int) -> list[tuple[str, Ground]]:
    """The first `count` films of a folder of `hiresmedsynth generate` on which lungs are found."""
    found: list[tuple[str, Ground]] = []
    for path in sorted(folder.glob("*-[0-9][0-9][0-9][0-9].png")):
        if len(found) == count:
            break
        image = replace(
            read_image(path), modality="DX", pixel_spacing_mm=(SPACING_MM, SPACING_MM), spacing_source="header"
        )
        try:
            found.append((path.stem, prepare_ground(image, domain="cxr")))
        except HiResMedSynthError as error:
            click.echo(f"{path.name}: {error.what}", err=True)
    return found


def ablation(folder: Path, *, count: int = BACKGROUNDS) -> dict[str, Any]:
    """Both ablations by either way of fusion; the lesion and its place are those drawn first, seeds 1 to 5."""
    made = grounds(folder, count)
    found: dict[str, Any] = {"backgrounds": [name for name, _ in made], "seeds": list(range(1, LESIONS + 1))}
    for way in WAYS:
        one, five, variety = [], [], []
        for name, ground in made:
            first = _composed(ground, _request(1), way)
            place = first.case.lesions[0].request.place
            lesions = [
                first,
                *(_composed(ground, replace(_request(k), place=place), way) for k in range(2, LESIONS + 1)),
            ]
            one.append(_numbers(first))
            five += [_numbers(lesion) for lesion in lesions]
            variety.append(_variety(lesions))
            click.echo(f"{way} {name}", err=True)
        found[way] = {
            "one lesion, ten backgrounds": _summary(one),
            "five lesions a background": _summary(five),
            "SSIM of two lesions on one background, inside": _spread(variety),
        }
    return found


def _request(seed: int) -> LesionRequest:
    """A lesion of the seed; its form is kept, so that it is the same on every background."""
    return LesionRequest(size_mm=(SIZE_MM, SIZE_MM), type="solid", seed=seed, rotation_degrees=0.0, keep_shape=True)


def _composed(ground: Ground, request: LesionRequest, way: FusionName) -> Composition:
    settings = CaseSettings(requests=(request,), domain="cxr", fusion=way)
    return compose(ground.image, draw_case(ground.image, settings, SEED, ground=ground))


def _pixels(made: Composition) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(background, composed) in 0..1 of the background's own range."""
    before, after = (image.pixels[0].astype(np.float64) for image in (made.background, made.image))
    low, span = before.min(), np.ptp(before)
    return (before - low) / span, (after - low) / span


def _numbers(made: Composition) -> dict[str, float]:
    before, after = _pixels(made)
    inside, outside = made.instance_mask[0] > 0, made.alpha[0] == 0
    similar = ssim_map(before, after, data_range=1.0)
    return {
        "SSIM whole": mean_of_map(similar),
        "SSIM inside": mean_of_map(similar, inside),
        "SSIM outside": mean_of_map(similar, outside),
        "PSNR inside": psnr(before, after, data_range=1.0, mask=inside),
        "pixels changed outside": float((before != after)[outside].sum()),
        "mask, px": float(inside.sum()),
    }


def _variety(lesions: Sequence[Composition]) -> float:
    """Mean SSIM of all pairs of composed films inside the masks of both."""
    values = []
    for a, b in itertools.combinations(lesions, 2):
        mask = (a.instance_mask[0] > 0) | (b.instance_mask[0] > 0)
        values.append(mean_of_map(ssim_map(_pixels(a)[1], _pixels(b)[1], data_range=1.0), mask))
    return float(np.mean(values))


def _summary(numbers: Sequence[dict[str, float]]) -> dict[str, Any]:
    return {name: _spread([one[name] for one in numbers]) for name in numbers[0]}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "n": len(values), "worst": min(values)}
