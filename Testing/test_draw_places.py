"""What a case's places and sizes follow: zones, the history of sizes, the way to find places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.errors import PlacementError, SettingsError
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.placement.location import heatmap
from HiResMedSynthLib.placement.method import PlacementMethod
from HiResMedSynthLib.placement.sizes import shipped_sizes
from HiResMedSynthLib.placement.zones import zone_mask
from HiResMedSynthLib.read import read_image

RULE = PlacementMethod(danger="rule", prior="density")


@pytest.fixture(scope="module")
def film(cxr_file: Path) -> Ground:
    return prepare_ground(read_image(cxr_file, spacing_mm=(0.342, 0.4175)), domain="cxr", placement=RULE)


def settings(*requests: LesionRequest, placement: PlacementMethod = RULE) -> CaseSettings:
    numbered = tuple(replace(request, seed=k) for k, request in enumerate(requests))
    return CaseSettings(requests=numbered, domain="cxr", placement=placement)


def test_lesions_stay_in_their_zones(film: Ground) -> None:
    zones = ("left", "right", "left-upper", "right-lower")
    wanted = settings(*(LesionRequest(zone=zone, size_mm=(8, 12)) for zone in zones))
    case = draw_case(film.image, wanted, 3, ground=film)
    for lesion, zone in zip(case.lesions, zones, strict=True):
        place = tuple(round(index) for index in lesion.center)
        assert zone_mask(film.image, film.danger_map, zone, domain="cxr")[place]
        assert film.image.index_to_lps([lesion.center]).shape == (1, 3)
    right_half = film.image.columns / 2
    assert case.lesions[0].center[2] > right_half > case.lesions[1].center[2]  # the picture's right is the left side


def test_a_place_outside_the_zone_goes_before_it_and_no_side_is_told(film: Ground) -> None:
    left = draw_case(film.image, settings(LesionRequest(zone="left", size_mm=(8, 10))), 3, ground=film)
    (drawn,) = left.lesions
    assert drawn.request.zone == "left"
    again = draw_case(film.image, left.pinned_settings(), 3, ground=film)
    assert again.lesions[0].request.zone == "left"
    row, column = drawn.center[1], film.image.columns - 1 - drawn.center[2]
    moved = replace(drawn.request, place=(0.0, row, column), size_mm=(6, 7))
    (other,) = draw_case(film.image, settings(moved), 3, ground=film).lesions
    assert other.center[2] < film.image.columns / 2  # the patient's right
    assert other.request.zone is None


def test_a_zone_without_room_is_said(film: Ground) -> None:
    upper = zone_mask(film.image, film.danger_map, "upper", domain="cxr")
    labels = film.danger_map.labels.copy()
    labels[upper & (labels == 0)] = 3  # pleura margin: still lung, so the zones stay where they are
    closed = replace(film, danger_map=replace(film.danger_map, labels=labels))
    with pytest.raises(PlacementError, match="nothing in the zone 'left-upper'"):
        draw_case(film.image, settings(LesionRequest(zone="left-upper")), 1, ground=closed)


def test_a_mirrored_film_has_its_sides_and_its_prior_mirrored(film: Ground) -> None:
    turned = replace(film.image, facts=replace(film.image.facts, patient_orientation=("R", "F")))
    usual, mirrored = (zone_mask(one, film.danger_map, "left", domain="cxr") for one in (film.image, turned))
    assert usual[..., -1].all() and not usual[..., 0].any()
    assert mirrored[..., 0].all() and not mirrored[..., -1].any()
    heats = [heatmap(one, film.danger_map, domain="cxr") for one in (film.image, turned)]
    half = film.image.columns // 2
    left_lung = [float(heats[0][..., half:].sum()), float(heats[1][..., :half].sum())]
    assert left_lung[0] == pytest.approx(left_lung[1], abs=0.1)
    assert not np.allclose(*heats)


def test_an_unknown_zone_or_size_is_refused() -> None:
    with pytest.raises(SettingsError, match="no zone 'middle'"):
        LesionRequest(zone="middle")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="no sizes 'big'"):
        LesionRequest(sizes="big")  # type: ignore[arg-type]


def test_sizes_of_history_are_small_as_real_ones_are() -> None:
    history = shipped_sizes()
    rng = np.random.default_rng(0)
    drawn = np.array([history.diameter_mm(share, (4.0, 30.0)) for share in rng.random(2000)])
    assert drawn.min() >= 4.0
    assert drawn.max() <= 30.0
    assert 5.5 < np.median(drawn) < 7.0  # LIDC's median is 6.2 mm; drawn evenly it would be 11
    assert history.diameter_mm(0.0, (9.0, 9.0)) == history.diameter_mm(1.0, (9.0, 9.0)) == 9.0
    with pytest.raises(SettingsError, match="no nodule of 50 to 60 mm"):
        history.diameter_mm(0.5, (50.0, 60.0))


def test_large_nodules_lie_nearer_to_the_midplane(film: Ground) -> None:
    history = shipped_sizes()
    assert (history.likelihood(20.0)[0], history.likelihood(5.0)[2]) == (1.0, 1.0)
    rows, columns = np.nonzero(~film.forbidden()[0])
    inner = int(np.argmin(np.abs(columns - film.image.columns / 2)))
    outer = int(np.argmax(np.abs(columns - film.image.columns / 2)))
    near, far = ((0, int(rows[k]), int(columns[k])) for k in (inner, outer))
    assert film.size_likelihood(20.0, near) > film.size_likelihood(20.0, far)
    assert film.size_likelihood(5.0, near) < film.size_likelihood(5.0, far)


def test_a_case_by_history_is_the_same_again_and_its_sizes_are_kept(film: Ground) -> None:
    wanted = settings(*(LesionRequest(sizes="history", size_mm=(4, 30)) for _ in range(4)))
    one, other = (draw_case(film.image, wanted, 9, ground=film) for _ in range(2))
    assert [lesion.center for lesion in one.lesions] == [lesion.center for lesion in other.lesions]
    again = draw_case(film.image, one.pinned_settings(), 9, ground=film)
    for lesion, pinned in zip(one.lesions, again.lesions, strict=True):
        assert lesion.diameter_mm == pinned.diameter_mm
        assert (lesion.intensity == pinned.intensity).all()


def test_sizes_of_stones_are_not_on_record(film: Ground) -> None:
    abdomen = replace(film, domain="kub")
    wanted = replace(settings(LesionRequest(sizes="history")), domain="kub")
    with pytest.raises(SettingsError, match="real stones are not on record"):
        draw_case(film.image, wanted, 1, ground=abdomen)


def test_a_ground_of_another_way_to_find_places_is_refused(film: Ground) -> None:
    other = settings(LesionRequest(), placement=PlacementMethod(danger="rule", temperature=2.0))
    with pytest.raises(SettingsError, match="another way to find places"):
        draw_case(film.image, other, 1, ground=film)


def test_the_case_says_how_places_were_found(film: Ground) -> None:
    case = draw_case(film.image, settings(LesionRequest()), 1, ground=film)
    assert case.placement_method == "rule: mean lung shape fitted to the film; prior: density of real lesions"
    assert case.settings.placement == RULE
