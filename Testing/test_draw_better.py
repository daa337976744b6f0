"""Fusion `better` in the repository's own CT series: fitted to the scan, judged, drawn again, replayed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from HiResMedSynthLib import draw_case as drawing
from HiResMedSynthLib import measure
from HiResMedSynthLib.case import Case, CaseSettings, LesionRequest
from HiResMedSynthLib.case_file import case_bytes, read_case, read_requests, write_case
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import SHAPES_TRIED, draw_case
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.joining.acceptance import Verdict
from HiResMedSynthLib.read import read_image

SOLID = LesionRequest(type="solid", size_mm=(10.0, 12.0), seed=1)
UNLIKE = Verdict(outside={"edge_width_mm": (9.0, 1.7, 2.9)}, excess=5.0, tested=("edge_width_mm",))


@pytest.fixture(scope="module")
def ground(ct_series_folder: Path) -> Ground:
    return prepare_ground(read_image(ct_series_folder))


def draw(ground: Ground, *requests: LesionRequest, **fields: object) -> Case:
    return draw_case(ground.image, CaseSettings(requests=requests, **fields), 7, ground=ground)  # type: ignore[arg-type]


def test_better_is_the_default_and_says_what_it_did(ground: Ground) -> None:
    case = draw(ground, SOLID)
    assert case.settings.fusion == "better"
    details = case.lesions[0].details
    assert details["resolution"]["edge_width_mm"] == ground.resolution.edge_width_mm
    assert details["noise_carried"]["around"] > 0
    verdict = details["acceptance"]
    assert verdict["accepted"] is (verdict["outside"] == {})
    assert verdict["measures"]["contrast_hu"] > 300


def test_the_lesion_is_no_sharper_and_no_calmer_than_the_scan(ground: Ground) -> None:
    wanted = tuple(replace(SOLID, seed=seed) for seed in range(3))
    case = draw(ground, *wanted)
    composition = compose(ground.image, case)
    found = []
    for lesion in case.lesions:
        first, last = max(lesion.corner[0] - 2, 0), lesion.corner[0] + len(lesion.alpha) + 2
        outline = composition.instance_mask[first:last] == lesion.number
        pixels = composition.image.pixels[first:last]
        found.append(measure.lesion_measures(pixels, outline, spacing_mm=ground.image.spacing_mm))
    assert np.nanmedian([row.edge_width_mm for row in found]) >= 0.9 * ground.resolution.edge_width_mm
    ratio = np.nanmedian([row.noise_ratio for row in found])
    assert 0.4 < ratio < 1.4


def test_drawing_a_pinned_case_again_gives_it_bit_for_bit(ground: Ground) -> None:
    case = draw(ground, SOLID, replace(SOLID, seed=2, type="ground-glass"))
    assert all(lesion.request.keep_shape for lesion in case.lesions)
    again = draw_case(ground.image, case.pinned_settings(), case.seed, ground=ground)
    for one, other in zip(case.lesions, again.lesions, strict=True):
        assert np.array_equal(one.alpha, other.alpha)
        assert np.array_equal(one.intensity, other.intensity)


def test_one_unlike_real_lesions_is_drawn_again_and_at_last_the_nearest_taken(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    excess = iter([5.0, 2.0, 4.0, 3.0, 6.0, 7.0])

    def never(lesion: object, _ground: object) -> tuple[object, Verdict]:
        return lesion, replace(UNLIKE, excess=next(excess))

    monkeypatch.setattr(drawing, "judged", never)
    case = draw(ground, SOLID)
    assert case.lesions[0].request.attempt == 1
    assert sum("drawn again" in line and "edge width, mm 9" in line for line in case.log) == SHAPES_TRIED
    assert "the nearest is taken (edge width, mm 9" in case.log[-1]
    # drawn again from its pinned request it is the same lesion, though no more accepted than before
    monkeypatch.setattr(drawing, "judged", lambda lesion, _ground: (lesion, UNLIKE))
    again = draw_case(ground.image, case.pinned_settings(), case.seed, ground=ground)
    assert np.array_equal(again.lesions[0].intensity, case.lesions[0].intensity)
    assert len(again.log) == 1
    assert "kept as it was drawn" in again.log[0]


def test_the_first_that_is_like_real_ones_is_taken(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = iter([UNLIKE, UNLIKE, Verdict(outside={}, excess=0.0, tested=())])
    monkeypatch.setattr(drawing, "judged", lambda lesion, _ground: (lesion, next(verdicts)))
    case = draw(ground, SOLID)
    assert case.lesions[0].request.attempt == 2
    assert len([line for line in case.log if "unlike" in line]) == 2


def test_alpha_and_paper_are_not_judged(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "judged", None)
    for fusion in ("alpha", "paper"):
        lesion = draw(ground, SOLID, fusion=fusion).lesions[0]
        assert "acceptance" not in lesion.details
        assert not lesion.request.keep_shape


def test_a_single_slice_is_fitted_too(ct_series_folder: Path) -> None:
    image = read_image(ct_series_folder, slice_index=6)
    case = draw_case(image, CaseSettings(requests=(SOLID,)), 7, source_slice=6)
    assert case.lesions[0].details["noise_carried"]["grain"]
    composed = compose(image, case)
    outside = composed.alpha == 0
    assert np.array_equal(composed.image.pixels[outside], image.pixels[outside])


def test_a_case_keeps_its_verdicts_on_disk(ground: Ground, tmp_path: Path) -> None:
    case = draw(ground, SOLID)
    write_case(case, tmp_path)
    again = read_case(tmp_path)
    assert case_bytes(again) == case_bytes(case)
    assert again.lesions[0].details["acceptance"] == case.lesions[0].details["acceptance"]
    assert read_requests(tmp_path / "case.json")[0].keep_shape


def test_a_short_stack_of_overlapping_slices_has_room(ct_series_folder: Path) -> None:
    image = read_image(ct_series_folder)
    assert image.positions_lps_mm is not None
    near = replace(
        image,
        pixels=image.pixels[4:7].copy(),
        positions_lps_mm=image.positions_lps_mm[4] + np.outer(np.arange(3), [0.0, 0.0, 2.5]),
        slice_thickness_mm=8.0,
    )
    case = draw(prepare_ground(near), LesionRequest(size_mm=(4.5, 5.0), seed=1))
    assert len(case.lesions) == 1
