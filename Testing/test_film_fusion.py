"""Fusion `better` on a chest film: depth of real nodules, the film's own grey and sharpness; judged, replayed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from HiResMedSynthLib import draw_case as drawing
from HiResMedSynthLib.case import Case, CaseSettings, LesionRequest, PlacedLesion
from HiResMedSynthLib.case_file import case_bytes, read_case, write_case
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import SHAPES_TRIED, draw_case
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.joining.acceptance import Verdict
from HiResMedSynthLib.joining.film_shadow import shadow_measures
from HiResMedSynthLib.read import read_image

SPACING = (0.342, 0.4175)  # of the film in the repository, known from its source
PLACE = (0.0, 430.0, 300.0)  # in the right lung
SOLID = LesionRequest(type="solid", size_mm=(12.0, 12.0), seed=1, place=PLACE)
UNLIKE = Verdict(outside={"edge_width_mm": (9.0, 1.7, 2.9)}, excess=5.0, tested=("edge_width_mm",))


@pytest.fixture(scope="module")
def film(cxr_file: Path) -> MedicalImage:
    return read_image(cxr_file, spacing_mm=SPACING)


@pytest.fixture(scope="module")
def ground(film: MedicalImage) -> Ground:
    return prepare_ground(film, domain="cxr")


def like(image: MedicalImage, pixels: NDArray[Any], **fields: Any) -> Ground:
    """The film with other pixels, prepared."""
    other = replace(image, pixels=pixels, bits_stored=8 * pixels.dtype.itemsize, **fields)
    return prepare_ground(other, domain="cxr")


def draw(ground: Ground, *requests: LesionRequest, **fields: Any) -> Case:
    return draw_case(ground.image, CaseSettings(requests=requests, **fields), 7, ground=ground)


def shadow(lesion: PlacedLesion) -> NDArray[np.float64]:
    return np.asarray(lesion.intensity[0], dtype=np.float64)


def spread_mm(lesion: PlacedLesion, spacing_mm: tuple[float, float]) -> NDArray[np.float64]:
    """Standard deviation of a shadow along rows and columns, millimetres."""
    weight = np.maximum(shadow(lesion), 0)
    at = np.argwhere(weight > 0) * np.asarray(spacing_mm)
    return np.asarray(np.sqrt(np.diag(np.cov(at.T, aweights=weight[weight > 0]))))


def test_the_case_says_how_its_contrast_came_about(ground: Ground) -> None:
    details = draw(ground, SOLID).lesions[0].details
    assert details["contrast_is"].startswith("model-derived: ribs and vessels")
    assert 0.25 < details["water_mm"] / 12.0 < 0.8  # what real solid nodules of 12 mm have
    assert details["resolution"]["measured_on"].endswith("edges of the film")
    assert details["acceptance"]["tested"] == ["edge_width_mm", "anatomic_cnr"]


def test_outside_the_footprint_the_film_is_untouched_and_inside_it_only_gains(ground: Ground) -> None:
    case = draw(ground, SOLID, replace(SOLID, seed=2, place=None, size_mm=(20.0, 25.0)))
    composed = compose(ground.image, case)
    outside = composed.alpha == 0
    assert np.array_equal(composed.image.pixels[outside], ground.image.pixels[outside])
    gained = composed.image.pixels[~outside].astype(int) - ground.image.pixels[~outside]
    assert gained.min() >= 0
    assert gained.max() > 5


def test_contrast_grows_with_the_diameter_and_stays_under_the_films_range(ground: Ground) -> None:
    depths = [draw(ground, replace(SOLID, size_mm=(size, size))).lesions[0].contrast for size in (6.0, 12.0, 24.0)]
    assert depths[0] < depths[1] < depths[2]
    lung, dense = ground.film_scale.knots
    assert depths[2] < 0.5 * (dense - lung)


def test_a_calcified_nodule_is_denser_than_a_solid_one_and_ground_glass_fainter(ground: Ground) -> None:
    glass, solid, calcified = (
        draw(ground, replace(SOLID, type=kind, size_mm=(8.0, 8.0))).lesions[0].contrast
        for kind in ("ground-glass", "solid", "calcified")
    )
    assert glass < 0.8 * solid
    assert calcified > 1.5 * solid


def test_a_contrast_that_is_asked_for_is_met_and_not_judged(ground: Ground) -> None:
    lesion = draw(ground, replace(SOLID, contrast=(30.0, 30.0))).lesions[0]
    assert lesion.contrast == pytest.approx(30.0, abs=0.1)
    assert "anatomic_cnr" not in lesion.details["acceptance"]["tested"]


def test_a_blurred_film_gets_a_blurrier_lesion(film: MedicalImage, ground: Ground) -> None:
    soft = gaussian_filter(film.pixels[0].astype(np.float64), [2.0 / step for step in SPACING])
    blurred = like(film, np.round(soft).astype(np.uint8)[np.newaxis])
    assert blurred.film_sharpness.edge_width_mm > ground.film_sharpness.edge_width_mm + 1.5
    small = replace(SOLID, size_mm=(6.0, 6.0))
    widths = []
    for there in (ground, blurred):
        lesion = draw(there, replace(small, contrast=(60.0, 60.0))).lesions[0]
        widths.append(shadow_measures(shadow(lesion), spacing_mm=SPACING, around=1.0).edge_width_mm)
    assert widths[1] > 1.2 * widths[0]


def test_round_stays_round_on_pixels_that_are_not_square(film: MedicalImage, ground: Ground) -> None:
    narrow = cv2.resize(film.pixels[0], (512, 1024), interpolation=cv2.INTER_AREA)[np.newaxis]
    spacing = (SPACING[0], 2 * SPACING[1])
    squeezed = like(film, narrow, pixel_spacing_mm=spacing)
    place = (0.0, PLACE[1], (PLACE[2] + 0.5) / 2 - 0.5)
    one = draw(ground, replace(SOLID, contrast=(80.0, 80.0))).lesions[0]
    other = draw(squeezed, replace(SOLID, contrast=(80.0, 80.0), place=place)).lesions[0]
    assert spread_mm(other, spacing) == pytest.approx(spread_mm(one, SPACING), rel=0.05)


def test_a_negative_film_gets_the_negative_lesion(film: MedicalImage, ground: Ground) -> None:
    negative = like(film, 255 - film.pixels, photometric="MONOCHROME1")
    one, other = (draw(there, SOLID).lesions[0] for there in (ground, negative))
    assert np.abs(shadow(one) + shadow(other)).max() <= 1
    assert other.contrast == pytest.approx(one.contrast, abs=1)  # told as it is asked for: dense is positive


def test_the_lesion_follows_the_films_own_units(film: MedicalImage, ground: Ground) -> None:
    deep = like(film, film.pixels.astype(np.uint16) * 200 + 500)
    one, other = (draw(there, SOLID).lesions[0] for there in (ground, deep))
    assert other.contrast == pytest.approx(200 * one.contrast, rel=0.02)
    assert np.abs(shadow(other) / 200 - shadow(one)).max() < 0.6


def test_eight_bits_and_clipping_stand_in_the_case(film: MedicalImage, ground: Ground) -> None:
    assert any("8-bit" in line for line in draw(ground, SOLID).background.oddities)
    deep = film.pixels.astype(np.uint16) * 200
    assert draw(like(film, deep), SOLID).background.oddities == film.oddities
    clipped = like(film, np.maximum(deep, np.uint16(np.percentile(deep, 35))))
    lines = draw(clipped, SOLID).background.oddities
    assert any("smallest value of the film: it is clipped there" in line for line in lines)
    assert draw(ground, SOLID, fusion="alpha").background.oddities == film.oddities


def test_a_case_is_drawn_again_and_read_again_bit_for_bit(film: MedicalImage, ground: Ground, tmp_path: Path) -> None:
    case = draw(ground, SOLID, replace(SOLID, seed=2, place=None))
    anew = prepare_ground(film, domain="cxr")
    again = draw_case(film, case.pinned_settings(), case.seed, ground=anew)
    for one, other in zip(case.lesions, again.lesions, strict=True):
        assert np.array_equal(one.alpha, other.alpha)
        assert np.array_equal(one.intensity, other.intensity)
    write_case(case, tmp_path)
    stored = read_case(tmp_path)
    assert case_bytes(stored) == case_bytes(case)
    assert np.array_equal(compose(film, stored).image.pixels, compose(film, case).image.pixels)


def test_one_unlike_real_nodules_is_drawn_again_and_its_neighbour_stays(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(SOLID, seed=2, place=(0.0, 430.0, 760.0))
    alone = draw(ground, SOLID, other).lesions[1]
    excess = iter([5.0, 2.0, 4.0, 3.0, 6.0, 7.0])

    def first_never(lesion: PlacedLesion, _ground: Ground) -> tuple[PlacedLesion, Verdict]:
        fine = Verdict(outside={}, excess=0.0, tested=())
        return lesion, replace(UNLIKE, excess=next(excess)) if lesion.number == 1 else fine

    monkeypatch.setattr(drawing, "judged_on_film", first_never)
    case = draw(ground, SOLID, other)
    assert case.lesions[0].request.attempt == 1
    assert case.lesions[0].request.keep_shape
    assert sum("drawn again" in line for line in case.log) == SHAPES_TRIED
    assert "the nearest is taken" in case.log[-1]
    assert np.array_equal(case.lesions[1].intensity, alone.intensity)


def test_a_film_in_fractions_is_refused_since_no_lesion_could_be_stored(film: MedicalImage, ground: Ground) -> None:
    fractions = like(film, (film.pixels / np.float32(255)).astype(np.float32))
    for fusion in ("better", "alpha"):
        with pytest.raises(SettingsError, match="too few for whole steps"):
            draw(fractions, SOLID, fusion=fusion)
    assert draw(ground, SOLID).lesions[0].intensity.any()
