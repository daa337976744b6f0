"""Lung shape of a frontal chest film: a mean film is laid over it, and its mean lungs come with it. A rule, no network.

The template is the mean of 52 frontal films, locally normalised, in the coordinates of the box around both lungs.
The box (top, bottom, left, right) that makes it most like the film is searched, under a normal prior of such boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import PlacementError

WORK_PX = 256  # short side of the film while it is searched
TEMPLATE_PX = 48
SHAPE_PX = 64
AROUND_BOX = 0.12  # share of the box's size that the template sees beyond it
PRIOR_WEIGHT = 0.015
LOWEST_LIKENESS = 0.35  # correlation below which the film shows no chest
LOCAL_PX, GRAIN_PX = 24.0, 2.0
SMALLEST_BOX_PX = 60.0


@dataclass(frozen=True, kw_only=True, eq=False)
class LungTemplate:
    """What a chest film looks like around its lungs.

    Args:
        appearance: float32 `[48, 48]`, weighted mean 0, weighted norm 1.
        weight: float32 `[48, 48]`, inverse variance between films.
        lungs: float32 `[64, 64]`, share of people with lung there, in the box around both lungs.
        box_mean: float64 `[4]` top, bottom, left, right; work pixels from the film's centre.
        box_precision: float64 `[4, 4]`, inverse covariance.
    """

    appearance: NDArray[np.float32]
    weight: NDArray[np.float32]
    lungs: NDArray[np.float32]
    box_mean: NDArray[np.float64]
    box_precision: NDArray[np.float64]


@cache
def shipped_template() -> LungTemplate:
    """The template that ships with the library (prior_data/README.md says from what it was made)."""
    with (files("HiResMedSynthLib.placement") / "prior_data" / "cxr_lung_template.npz").open("rb") as handle:
        stored = np.load(handle, allow_pickle=False)
        return LungTemplate(
            appearance=stored["appearance"].astype(np.float32),
            weight=stored["weight"].astype(np.float32),
            lungs=stored["lungs"].astype(np.float32),
            box_mean=stored["box_mean"].astype(np.float64),
            box_precision=stored["box_precision"].astype(np.float64),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ChestFit:
    """Where the template lies on a film.

    Args:
        lungs: float32 `[row, column]` of the film, 0..1.
        box_px: (top, bottom, left, right) of the box around both lungs, in the film's pixels.
        likeness: correlation of film and template, -1..1.
    """

    lungs: NDArray[np.float32]
    box_px: tuple[float, float, float, float]
    likeness: float


def fit_chest(
    film: NDArray[np.float32], *, pixel_spacing_mm: tuple[float, float], template: LungTemplate | None = None
) -> ChestFit:
    """The lungs of a frontal chest film.

    Args:
        film: `[row, column]`, dense = high; black or white frames and squeezed pixels are allowed.
        pixel_spacing_mm: (row, column); only their ratio matters.
        template: another than the shipped one.

    Raises:
        PlacementError: the film is not like a frontal chest film.
    """
    import cv2

    template = template or shipped_template()
    top, bottom, left, right = _without_frame(film)
    picture = film[top:bottom, left:right]
    height_mm, width_mm = picture.shape[0] * pixel_spacing_mm[0], picture.shape[1] * pixel_spacing_mm[1]
    scale = WORK_PX / min(height_mm, width_mm)
    rows, columns = round(height_mm * scale), round(width_mm * scale)
    if max(rows, columns) > 3 * WORK_PX:
        raise _no_chest("it is more than three times as long as wide")
    small = normalised(cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA))
    centre = np.array([rows, rows, columns, columns]) / 2
    box, likeness = _search(small, centre, template)
    if likeness < LOWEST_LIKENESS:
        raise _no_chest(f"likeness {likeness:.2f}")
    row_scale, column_scale = picture.shape[0] / rows, picture.shape[1] / columns
    found = (
        float(box[0] * row_scale + top),
        float(box[1] * row_scale + top),
        float(box[2] * column_scale + left),
        float(box[3] * column_scale + left),
    )
    return ChestFit(lungs=spread(template.lungs, found, film.shape), box_px=found, likeness=likeness)


def _no_chest(why: str) -> PlacementError:
    return PlacementError(
        f"no lungs were recognised on this film ({why})",
        remedy="Is it a frontal chest film, upright, with MONOCHROME1 or 2 told rightly? Say what it shows with "
        "--domain.",
    )


def normalised(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """The picture with its local mean and contrast taken out (work pixels); exposure and grey curve go with them."""
    import cv2

    edge_rows, edge_columns = picture.shape[0] // 12, picture.shape[1] // 12
    middle = picture[edge_rows:-edge_rows, edge_columns:-edge_columns]
    low, high = np.percentile(middle, [1, 99])
    unit = np.clip((picture.astype(np.float32) - np.float32(low)) / np.float32(max(high - low, 1e-6)), 0, 1)
    deviation = unit - cv2.GaussianBlur(unit, (0, 0), LOCAL_PX)
    contrast = np.sqrt(cv2.GaussianBlur(deviation**2, (0, 0), LOCAL_PX)) + np.float32(0.03)
    return np.asarray(cv2.GaussianBlur(deviation / contrast, (0, 0), GRAIN_PX), dtype=np.float32)


def cut(picture: NDArray[np.float32], box: NDArray[np.float64], *, size_px: int, around: float) -> NDArray[np.float32]:
    """`[size_px, size_px]`: the picture inside a box (top, bottom, left, right) widened by `around` on each side."""
    import cv2

    top, bottom, left, right = box
    height, width = (bottom - top) * (1 + 2 * around), (right - left) * (1 + 2 * around)
    top, left = top - around * (bottom - top), left - around * (right - left)
    to_picture = np.array([[width / size_px, 0, left], [0, height / size_px, top]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(picture, to_picture, (size_px, size_px), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    )


def spread(
    shape: NDArray[np.float32], box: tuple[float, float, float, float], film_shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """A picture in box coordinates laid on the film, 0 outside the box; float32 `[row, column]`."""
    import cv2

    top, bottom, left, right = box
    to_film = np.array(
        [[(right - left) / shape.shape[1], 0, left], [0, (bottom - top) / shape.shape[0], top]], dtype=np.float64
    )
    return np.asarray(cv2.warpAffine(shape, to_film, (film_shape[1], film_shape[0]), flags=cv2.INTER_LINEAR))


def _without_frame(film: NDArray[np.float32]) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) without even black or white borders; at most a third of each side is taken off."""
    step = max(1, min(film.shape) // 512)
    coarse = film[::step, ::step]
    span = float(np.ptp(np.percentile(coarse, [1, 99]))) or 1.0
    bounds = []
    for lines in (coarse, coarse.T):
        even = np.ptp(np.percentile(lines, [5, 95], axis=1), axis=0) < 0.02 * span
        limit = len(even) // 3
        first = next((k for k in range(limit) if not even[k]), 0)
        last = next((k for k in range(limit) if not even[len(even) - 1 - k]), 0)
        bounds.append((first * step, lines.shape[0] * step - last * step))
    (top, bottom), (left, right) = bounds
    return top, min(bottom, film.shape[0]), left, min(right, film.shape[1])


def _search(
    small: NDArray[np.float32], centre: NDArray[np.float64], template: LungTemplate
) -> tuple[NDArray[np.float64], float]:
    """(box in work pixels, likeness): a coarse grid of boxes, the best three refined (Nelder-Mead)."""
    from scipy.optimize import minimize

    weight, appearance = template.weight, template.appearance
    total = float(weight.sum())
    mean = template.box_mean + centre

    def likeness(box: NDArray[np.float64]) -> float:
        part = cut(small, box, size_px=TEMPLATE_PX, around=AROUND_BOX)
        part = part - (weight * part).sum() / total
        norm = float(np.sqrt((weight * part * part).sum()))
        return float((weight * part * appearance).sum()) / (norm + 1e-6)

    def cost(box: NDArray[np.float64]) -> float:
        if box[1] - box[0] < SMALLEST_BOX_PX or box[3] - box[2] < SMALLEST_BOX_PX:
            return 9.0
        away = box - mean
        return PRIOR_WEIGHT * float(away @ template.box_precision @ away) - likeness(box)

    grid = [
        mean + np.array([down - taller / 2, down + taller / 2, across - wider / 2, across + wider / 2])
        for down in np.linspace(-35, 35, 6)
        for taller in (-40, -20, 0, 20, 40)
        for across in (-16, 0, 16)
        for wider in (-24, 0, 24)
    ]
    grid.sort(key=cost)
    best = None
    for start in grid[:3]:
        simplex = start + np.vstack([np.zeros(4), 8 * np.eye(4)])
        options = {"maxfev": 120, "xatol": 0.5, "fatol": 1e-4, "initial_simplex": simplex}
        found = minimize(cost, start, method="Nelder-Mead", options=options)
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    return np.asarray(best.x, dtype=np.float64), likeness(best.x)
