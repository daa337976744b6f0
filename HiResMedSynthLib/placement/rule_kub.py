"""Where a stone must not go on an abdominal film: spine and pelvis, by a rule of symmetry, brightness and typical size.

The spine is the bright vertical band near the middle; the iliac crests are the bright thin line on both sides of it;
what lies below them is pelvis, but for the middle of the pelvic inlet. Sizes are those of adults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger_map import OUTSIDE_BODY, PELVIS, SPINE, DangerMap
from HiResMedSynthLib.placement.margins import Margins

METHOD = "rule: spine band, iliac crest line and adult sizes"
LABELS = {1: OUTSIDE_BODY, 2: SPINE, 3: PELVIS}
WORK_MM = 2.0
SPINE_HALF_MM = 30.0  # vertebral bodies and most of the transverse processes
CREST_ZONE_MM = (45.0, 115.0)  # from the midline
CREST_BLUR_MM = 6.0  # the two crests are rarely level
CREST_PRIOR = (0.5, 0.1)  # share of the film's height: mean, spread
ABOVE_CREST_MM = 4.0
INLET_BELOW_MM, INLET_HALF_MM = 102.0, (28.0, 40.0)  # centre of the pelvic inlet below the crests; (rows, columns)
SMALLEST_FILM_MM = 150.0


@dataclass(frozen=True, kw_only=True)
class KubLandmarks:
    """Lines of an abdominal film, in millimetres from its upper left corner.

    Args:
        spine_top_mm, spine_bottom_mm: column of the spine's middle at the film's first and last row.
        crest_mm: row of the top of the iliac crests.
    """

    spine_top_mm: float
    spine_bottom_mm: float
    crest_mm: float


def danger_kub(image: MedicalImage, *, margins: Margins) -> DangerMap:
    """The danger map of a frontal abdominal film. Pleura and vessel margins have no meaning here.

    Raises:
        GeometryError: the spacing is unknown.
        PlacementError: the film is too small to hold spine and flanks.
    """
    del margins
    _, row_mm, column_mm = image.spacing_mm
    film = image.pixels[0].astype(np.float32)
    if not image.bright_is_dense:
        film = -film
    marks = find_landmarks(film, pixel_spacing_mm=(row_mm, column_mm))
    down = (np.arange(image.rows)[:, np.newaxis] + 0.5) * row_mm
    spine_mm = marks.spine_top_mm + (marks.spine_bottom_mm - marks.spine_top_mm) * down / (image.rows * row_mm)
    aside = (np.arange(image.columns)[np.newaxis] + 0.5) * column_mm - spine_mm
    labels = np.zeros(image.shape, dtype=np.uint8)
    labels[:, np.abs(aside) < SPINE_HALF_MM] = 2
    inlet = ((down - marks.crest_mm - INLET_BELOW_MM) / INLET_HALF_MM[0]) ** 2 + (aside / INLET_HALF_MM[1]) ** 2 < 1
    below = np.broadcast_to(down > marks.crest_mm - ABOVE_CREST_MM, aside.shape)
    labels[:, below] = 3
    labels[:, inlet] = 0
    labels[:, ~_body(film)] = 1
    return DangerMap(labels=labels, names=LABELS, method=METHOD)


def find_landmarks(film: NDArray[np.float32], *, pixel_spacing_mm: tuple[float, float]) -> KubLandmarks:
    """Spine line and iliac crests of a film `[row, column]`, dense = high.

    Raises:
        PlacementError: the film is too small.
    """
    import cv2

    row_mm, column_mm = pixel_spacing_mm
    height_mm, width_mm = film.shape[0] * row_mm, film.shape[1] * column_mm
    if min(height_mm, width_mm) < SMALLEST_FILM_MM:
        raise PlacementError(
            f"a film of {height_mm:.0f} x {width_mm:.0f} mm is too small for an abdomen",
            remedy="Check the spacing (--spacing-mm), or say what the picture shows with --domain.",
        )
    rows, columns = round(height_mm / WORK_MM), round(width_mm / WORK_MM)
    small = cv2.resize(film, (columns, rows), interpolation=cv2.INTER_AREA)
    body = _body(small)
    spine = _spine_line(_bright_against(small, 6.0, 60.0), body)
    spine_at = np.linspace(spine[0], spine[1], rows)[:, np.newaxis]
    aside_mm = (np.arange(columns)[np.newaxis] - spine_at) * WORK_MM
    lines = np.maximum(_bright_against(small, 3.0, 12.0), 0)
    profile = np.min([_zone_profile(lines, body, side * aside_mm) for side in (-1, 1)], axis=0)  # bowel is one-sided
    share = np.arange(rows) / rows
    crest = int(np.argmax(profile - ((share - CREST_PRIOR[0]) / CREST_PRIOR[1]) ** 2 / 2))
    return KubLandmarks(
        spine_top_mm=(spine[0] + 0.5) * WORK_MM,
        spine_bottom_mm=(spine[1] + 0.5) * WORK_MM,
        crest_mm=(crest + 0.5) * WORK_MM,
    )


def _zone_profile(
    lines: NDArray[np.float32], body: NDArray[np.bool_], aside_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`[row]` mean brightness of thin lines on one side of the spine, in its own standard deviations."""
    from scipy.ndimage import gaussian_filter1d

    zone = (aside_mm > CREST_ZONE_MM[0]) & (aside_mm < CREST_ZONE_MM[1]) & body
    profile = gaussian_filter1d((lines * zone).sum(axis=1) / np.maximum(zone.sum(axis=1), 1), CREST_BLUR_MM / WORK_MM)
    return np.asarray(profile / (profile.std() + 1e-6), dtype=np.float64)


def _bright_against(film: NDArray[np.float32], inner_mm: float, outer_mm: float) -> NDArray[np.float32]:
    import cv2

    inner = cv2.GaussianBlur(film, (0, 0), inner_mm / WORK_MM / 2)
    return np.asarray(inner - cv2.GaussianBlur(film, (0, 0), outer_mm / WORK_MM / 2))


def _body(film: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Brighter than a tenth of the way from the darkest to the 90th percentile."""
    low, high = np.percentile(film, [0.5, 90])
    return np.asarray(film > low + 0.1 * (high - low))


def _spine_line(bright: NDArray[np.float32], body: NDArray[np.bool_]) -> tuple[float, float]:
    """Columns of the spine's middle at the first and last row: the brightest straight band of the upper 60 %."""
    rows, columns = bright.shape
    upper = slice(0, rows * 3 // 5)
    half = SPINE_HALF_MM / WORK_MM
    sides = np.flatnonzero(body[upper].mean(axis=0) > 0.5)
    middle = float(sides[[0, -1]].mean()) if len(sides) else columns / 2
    at = np.arange(rows)[upper, np.newaxis] / rows
    best, best_score = (middle, middle), -np.inf
    for top in np.arange(middle - 30 / WORK_MM, middle + 30 / WORK_MM + 1):
        for lean in np.arange(-20, 21, 4) / WORK_MM:
            aside = np.abs(np.arange(columns)[np.newaxis] - (top + lean * at))
            inside, beside = aside < 0.7 * half, (aside > 1.2 * half) & (aside < 2.2 * half)
            score = float(bright[upper][inside].mean() - bright[upper][beside].mean())
            if score > best_score:
                best, best_score = (float(top), float(top + lean)), score
    return best
