"""Strands of lesions in the repository's own CT series: drawn by a stream of their own, outside of the mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from HiResMedSynthLib import draw_case as drawing
from HiResMedSynthLib import lesion_in_scan
from HiResMedSynthLib.case import HALF, Case, CaseSettings, LesionRequest, PlacedLesion
from HiResMedSynthLib.case_file import read_case, write_case
from HiResMedSynthLib.compose import boxes_of, compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.lesion_in_scan import with_strands
from HiResMedSynthLib.read import read_image

SEEDS = range(4)
WANTED = tuple(LesionRequest(type="solid", size_mm=(10.0, 14.0), seed=seed) for seed in SEEDS)


@pytest.fixture(scope="module")
def ground(ct_series_folder: Path) -> Ground:
    return prepare_ground(read_image(ct_series_folder))


@pytest.fixture(scope="module")
def case(ground: Ground) -> Case:
    return draw_case(ground.image, CaseSettings(requests=WANTED), 7, ground=ground)


@pytest.fixture(scope="module")
def bare(ground: Ground) -> Case:
    """The same lesions, as they were without strands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "with_strands", lambda lesion, _ground, **_more: lesion)
        return draw_case(ground.image, CaseSettings(requests=WANTED), 7, ground=ground)


def test_strands_are_drawn_and_on_record(case: Case) -> None:
    kinds = [kind for lesion in case.lesions for kind in lesion.details["strands"]]
    assert len(kinds) >= 3
    assert set(kinds) <= {"vessel", "pleura", "lung"}


def test_they_widen_the_footprint_and_leave_mask_boxes_and_record_alone(case: Case, bare: Case, ground: Ground) -> None:
    one, other = compose(ground.image, case), compose(ground.image, bare)
    assert np.array_equal(one.instance_mask, other.instance_mask)
    assert boxes_of(case) == boxes_of(bare)
    for lesion, plain in zip(case.lesions, bare.lesions, strict=True):
        assert (lesion.contrast, lesion.diameter_mm) == (plain.contrast, plain.diameter_mm)
        assert lesion.details["acceptance"] == plain.details["acceptance"]
    changed = one.image.pixels != other.image.pixels
    assert changed.any()
    assert not changed[one.alpha == 0].any()
    assert ((one.alpha > 0) & (other.alpha == 0)).sum() > 50
    assert (one.image.pixels[changed].astype(int) > other.image.pixels[changed]).all()
    assert not (one.image.pixels != ground.image.pixels)[one.alpha == 0].any()


def test_they_hide_no_noise(case: Case, bare: Case, ground: Ground) -> None:
    """Where a strand is faint the scan's fine detail shows through it unchanged."""
    one, other = (compose(ground.image, drawn).image.pixels.astype(float) for drawn in (case, bare))
    added = one - other
    faint = (added > 20) & (added < 150)
    fine = [pixels[:, 1:-1, 1:-1] * 2 - pixels[:, 1:-1, :-2] - pixels[:, 1:-1, 2:] for pixels in (one, other)]
    inner = faint[:, 1:-1, 1:-1]
    assert inner.sum() > 50
    assert np.corrcoef(fine[0][inner], fine[1][inner])[0, 1] > 0.8


def test_what_is_as_bright_as_a_strand_would_be_stays(
    bare: Case, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A strand that runs along a vessel is that vessel: the two don't add up."""
    monkeypatch.setattr(lesion_in_scan, "filled_share", lambda _paths, shape, **_more: np.full(shape, 0.3))
    case = draw_case(ground.image, CaseSettings(requests=WANTED), 7, ground=ground)
    one, other = (compose(ground.image, drawn).image.pixels.astype(float) for drawn in (case, bare))
    outside = compose(ground.image, bare).alpha == 0
    seen, added = gaussian_filter(other, (0, 1, 1)), one - other
    near = outside & (compose(ground.image, case).alpha > 0)
    assert np.median(added[near & (seen > -900) & (seen < -800)]) > 200  # such a strand looks like -600 HU
    vessels = outside & (seen > -450) & (seen < -200)
    assert vessels.any()
    assert np.mean(added[vessels] != 0) < 0.001  # a few at the border of a patch, where smoothing sees less


def test_a_contrast_that_was_asked_for_stays(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = LesionRequest(type="ground-glass", size_mm=(14.0, 16.0), contrast=(150.0, 150.0), seed=3)
    inside = []
    for drawn in (with_strands, lambda lesion, _ground, **_more: lesion):
        monkeypatch.setattr(drawing, "with_strands", drawn)
        lesion = draw_case(ground.image, CaseSettings(requests=(wanted,)), 3, ground=ground).lesions[0]
        inside.append((lesion.details.get("strands"), lesion.intensity[lesion.alpha >= HALF]))
    assert inside[0][0]
    assert np.array_equal(inside[0][1], inside[1][1])


def test_a_lesion_s_strands_don_t_depend_on_the_others(case: Case, ground: Ground) -> None:
    alone = replace(case.pinned_settings(), requests=(case.pinned_settings().requests[2],))
    again = draw_case(ground.image, alone, case.seed, ground=ground).lesions[0]
    there = case.lesions[2]
    assert again.corner == there.corner
    assert np.array_equal(again.alpha, there.alpha)
    assert np.array_equal(again.intensity, there.intensity)


def test_the_case_s_places_are_permitted_when_it_is_drawn_again(case: Case, ground: Ground) -> None:
    again = draw_case(ground.image, case.pinned_settings(), case.seed, ground=ground)
    assert all(np.array_equal(a.alpha, b.alpha) for a, b in zip(again.lesions, case.lesions, strict=True))


def test_a_case_with_strands_comes_back_from_disk(case: Case, ground: Ground, tmp_path: Path) -> None:
    write_case(case, tmp_path)
    written, read = (compose(ground.image, one).image.pixels for one in (case, read_case(tmp_path)))
    assert np.array_equal(written, read)


@pytest.mark.parametrize("fusion", ["alpha", "paper"])
def test_other_fusions_get_none(fusion: str, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "with_strands", None)
    settings = CaseSettings(requests=WANTED[:1], fusion=fusion)  # type: ignore[arg-type]
    assert "strands" not in draw_case(ground.image, settings, 7, ground=ground).lesions[0].details


def test_in_a_single_slice_they_stay_in_it(ct_series_folder: Path) -> None:
    image = read_image(ct_series_folder, slice_index=6)
    found: list[PlacedLesion] = []
    for seed in SEEDS:
        settings = CaseSettings(requests=(LesionRequest(type="solid", size_mm=(10.0, 14.0), seed=seed),))
        found.extend(draw_case(image, settings, seed, source_slice=6).lesions)
    assert any(lesion.details["strands"] for lesion in found)
    assert all(len(lesion.alpha) == 1 for lesion in found)
    assert all((lesion.alpha >= HALF).any() for lesion in found)
