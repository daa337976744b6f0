"""Drawing a case in the repository's own CT series and film: places, streams, refusals, replay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from HiResMedSynthLib.case import HALF, Case, CaseSettings, LesionRequest, PlacedLesion
from HiResMedSynthLib.case_file import case_bytes, read_case, write_case
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.errors import CaseError, GeometryError, PlacementError, SettingsError
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.method import PlacementMethod
from HiResMedSynthLib.read import read_image
from Testing.placement.phantoms import chest_ct

SEED = 7


@pytest.fixture(scope="module")
def ct_ground(ct_series_folder: Path) -> Ground:
    return prepare_ground(read_image(ct_series_folder))


@pytest.fixture(scope="module")
def film_ground(cxr_file: Path) -> Ground:
    return prepare_ground(read_image(cxr_file, spacing_mm=(0.342, 0.4175)), domain="cxr")


def requests(count: int, **fields: object) -> tuple[LesionRequest, ...]:
    return tuple(LesionRequest(size_mm=(10.0, 14.0), seed=seed, **fields) for seed in range(count))  # type: ignore[arg-type]


def draw(ground: Ground, wanted: tuple[LesionRequest, ...], seed: int = SEED, **fields: object) -> Case:
    return draw_case(ground.image, CaseSettings(requests=wanted, **fields), seed, ground=ground)  # type: ignore[arg-type]


def same(one: PlacedLesion, other: PlacedLesion) -> bool:
    return (
        one.corner == other.corner
        and one.center == other.center
        and np.array_equal(one.alpha, other.alpha)
        and np.array_equal(one.intensity, other.intensity)
    )


def test_a_case_is_drawn_whole_and_only_the_footprints_change(ct_ground: Ground) -> None:
    case = draw(ct_ground, requests(3))
    composition = compose(ct_ground.image, case)
    assert [lesion.number for lesion in case.lesions] == [1, 2, 3]
    outside = composition.alpha == 0
    assert np.array_equal(composition.image.pixels[outside], ct_ground.image.pixels[outside])
    assert (composition.image.pixels != ct_ground.image.pixels).any()
    assert set(np.unique(composition.instance_mask)) == {0, 1, 2, 3}
    assert not ct_ground.forbidden()[~outside].any()  # the whole footprint is permitted
    for lesion in case.lesions:
        assert 10 <= lesion.diameter_mm <= 14
        assert lesion.contrast > 30  # denser than lung; ground glass is faint


def test_the_same_seed_gives_the_same_case_and_another_seed_another(ct_ground: Ground) -> None:
    assert case_bytes(draw(ct_ground, requests(2))) == case_bytes(draw(ct_ground, requests(2)))
    assert case_bytes(draw(ct_ground, requests(2))) != case_bytes(draw(ct_ground, requests(2), seed=8))


def test_lesions_keep_their_distance(ct_ground: Ground) -> None:
    from scipy.ndimage import distance_transform_edt

    case = draw(ct_ground, requests(4), min_distance_mm=9.0)
    footprints = []
    for lesion in case.lesions:
        footprint = np.zeros(ct_ground.image.shape, bool)
        footprint[lesion.region] = lesion.alpha > 0
        footprints.append(footprint)
    for index, footprint in enumerate(footprints):
        distance = distance_transform_edt(~footprint, sampling=ct_ground.image.spacing_mm)
        for other in footprints[:index]:
            assert distance[other].min() > 9.0


def test_adding_moving_or_deleting_one_leaves_the_others_bit_for_bit(ct_ground: Ground) -> None:
    case = draw(ct_ground, requests(3))
    pinned = case.pinned_settings().requests
    by_seed = {lesion.request.seed: lesion for lesion in case.lesions}

    def unchanged(edited: tuple[LesionRequest, ...], *seeds: int) -> None:
        again = {lesion.request.seed: lesion for lesion in draw(ct_ground, edited).lesions}
        assert all(same(by_seed[seed], again[seed]) for seed in seeds)

    unchanged(pinned, 0, 1, 2)  # nothing edited
    unchanged((pinned[0], pinned[2]), 0, 2)  # the second deleted
    unchanged((*pinned, LesionRequest(size_mm=(10.0, 11.0), seed=99)), 0, 1, 2)  # one added
    unchanged((replace(pinned[0], place=None), *pinned[1:]), 1, 2)  # the first goes elsewhere
    unchanged((pinned[2], pinned[0], pinned[1]), 0, 1, 2)  # another order


def test_a_case_is_replayed_bit_for_bit_from_disk(ct_ground: Ground, tmp_path: Path) -> None:
    case = draw(ct_ground, requests(2))
    write_case(case, tmp_path)
    again = compose(ct_ground.image, read_case(tmp_path))
    assert again.image.pixel_sha256 == compose(ct_ground.image, case).image.pixel_sha256


def test_a_case_refuses_another_background(ct_ground: Ground) -> None:
    case = draw(ct_ground, requests(1))
    other = ct_ground.image.with_pixels(ct_ground.image.pixels + np.int16(1))
    with pytest.raises(CaseError, match="another image"):
        compose(other, case)


def test_a_point_of_the_user_is_kept_exactly(ct_ground: Ground) -> None:
    center = draw(ct_ground, requests(1)).lesions[0].center
    asked = (center[0], round(center[1]) + 0.25, float(round(center[2])))
    placed = draw(ct_ground, requests(1, place=asked)).lesions[0]
    assert placed.center == asked
    weights = placed.alpha.astype(float)
    grid = np.indices(placed.alpha.shape)
    centroid = [(grid[k] * weights).sum() / weights.sum() + placed.corner[k] for k in range(3)]
    spacing = ct_ground.image.spacing_mm
    assert all(abs(c - a) * s < 2.5 for c, a, s in zip(centroid, asked, spacing, strict=True))


def test_a_forbidden_point_is_refused_with_reason_and_the_nearest_permitted_one(ct_ground: Ground) -> None:
    mid = (ct_ground.image.slices // 2, 256.0, 256.0)  # mediastinum
    with pytest.raises(PlacementError, match="would touch") as refused:
        draw(ct_ground, requests(1, place=mid))
    assert "nearest permitted place is row" in refused.value.remedy
    words = refused.value.remedy.replace(",", "").rstrip(".").split()
    row, column, index = (float(words[words.index(name) + 1]) for name in ("row", "column", "slice"))
    assert draw(ct_ground, requests(1, place=(index, row, column))).lesions[0].center == (index, row, column)


def test_far_outside_the_body_another_place_is_advised_before_a_smaller_lesion(ct_ground: Ground) -> None:
    with pytest.raises(PlacementError, match="outside the body") as refused:
        draw(ct_ground, requests(1, place=(ct_ground.image.slices // 2, 20.0, 20.0)))
    assert "choose another; inside tissue a smaller lesion may fit" in refused.value.remedy


@pytest.mark.parametrize("place", [(5.0, -20.0, 100.0), (5.0, 100.0, 5000.0), (400.0, 100.0, 100.0)])
def test_a_point_outside_the_image_is_refused(ct_ground: Ground, place: tuple[float, float, float]) -> None:
    with pytest.raises(PlacementError, match="outside the image"):
        draw(ct_ground, requests(1, place=place))


def test_two_points_on_top_of_each_other_are_refused(ct_ground: Ground) -> None:
    middle = ct_ground.image.slices / 2
    center = min((lesion.center for lesion in draw(ct_ground, requests(4)).lesions), key=lambda at: abs(at[0] - middle))
    wanted = tuple(replace(request, place=center) for request in requests(2))
    with pytest.raises(PlacementError, match="another lesion"):
        draw(ct_ground, wanted)


def test_when_no_room_is_left_it_says_how_many_fitted(ct_ground: Ground) -> None:
    with pytest.raises(PlacementError, match=r"no room left for a lesion of 10 mm or more: \d+ of 40 lesions fitted"):
        draw(ct_ground, requests(40), min_distance_mm=80.0)


def test_a_lesion_thinner_than_a_voxel_is_refused_with_the_size_that_works(ct_ground: Ground) -> None:
    with pytest.raises(SettingsError, match="fills no voxel") as refused:
        draw(ct_ground, (LesionRequest(size_mm=(0.5, 0.6)),))
    assert "--size-mm" in refused.value.remedy


def test_a_lesion_thinner_than_the_slices_is_told(ct_ground: Ground) -> None:
    small, large = LesionRequest(size_mm=(4.5, 4.5), seed=1), LesionRequest(size_mm=(12.0, 12.0), seed=2)
    told = draw(ct_ground, (small, large)).background.oddities
    assert [note for note in told if "thinner than the slices (5 mm)" in note and note.startswith("lesion 1 (4.5 mm)")]
    assert "shows fainter than it is" in told[-1]
    assert not any(note.startswith("lesion 2") for note in told)
    asked = draw(ct_ground, (replace(small, contrast=(300.0, 300.0)),)).background.oddities
    assert "it has the contrast asked for, where a real one would show fainter" in asked[-1]


@pytest.mark.parametrize("wish", [{"contrast": (0.0, 0.0)}, {"cnr": (0.1, 0.1)}])
def test_a_lesion_that_nobody_could_see_is_told(ct_ground: Ground, wish: dict) -> None:
    faint = LesionRequest(size_mm=(12.0, 12.0), seed=1, **wish)
    told = draw(ct_ground, (faint, replace(faint, seed=2, contrast=(300.0, 300.0), cnr=None))).background.oddities
    assert [note for note in told if "can't be seen" in note] == [told[-1]]
    assert told[-1].startswith("lesion 1 is 0.")


def test_one_in_an_image_without_noise_is_not_called_unseen() -> None:
    ground = prepare_ground(chest_ct(10), placement=PlacementMethod(danger="rule", prior="density"))
    case = draw(
        ground, (LesionRequest(size_mm=(12.0, 12.0), seed=1, contrast=(600.0, 600.0)),), placement=ground.placement
    )
    assert case.lesions[0].cnr == 0  # there is no noise to measure by
    assert not [note for note in case.background.oddities if "can't be seen" in note]


@pytest.mark.parametrize("fusion", ["better", "alpha", "paper"])
@pytest.mark.parametrize("wish", [{"contrast": (500.0, 500.0)}, {"cnr": (12.0, 12.0)}])
def test_contrast_and_cnr_are_met_in_the_composed_pixels(ct_ground: Ground, fusion: str, wish: dict) -> None:
    case = draw(ct_ground, (LesionRequest(size_mm=(12.0, 12.0), **wish),), fusion=fusion)
    lesion = case.lesions[0]
    wanted = wish["contrast"][0] if "contrast" in wish else wish["cnr"][0] * lesion.details["noise"]
    assert lesion.contrast == pytest.approx(wanted, rel=0.02)
    composed = compose(ct_ground.image, case).image.pixels[lesion.region]
    level = composed[lesion.alpha >= HALF].mean() - lesion.details["surroundings"]
    # the paper blurs the edge of the mask, where the lung gets in
    assert level == pytest.approx(wanted, rel=0.3 if fusion == "paper" else 0.1)


@pytest.mark.parametrize("fusion", ["better", "alpha"])
@pytest.mark.parametrize("seed", [2, 5])
def test_a_calcified_lesion_of_little_contrast_has_just_that_and_no_dark_rim(
    ct_ground: Ground, fusion: str, seed: int
) -> None:
    wish = LesionRequest(size_mm=(11.0, 11.0), bank_entry="calcified-12mm-a", contrast=(200.0, 200.0), seed=seed)
    case = draw(ct_ground, (wish,), fusion=fusion)
    (lesion,) = case.lesions
    assert lesion.contrast == pytest.approx(200, abs=1)
    composed = compose(ct_ground.image, case).image.pixels[lesion.region]
    inside, before = lesion.alpha >= HALF, ct_ground.image.pixels[lesion.region]
    darkest = np.minimum(before, lesion.details["surroundings"]) - 4 * lesion.details["noise"]
    assert np.mean((composed < darkest)[inside]) < 0.02
    assert composed[inside].max() > lesion.details["surroundings"] + 500


@pytest.mark.parametrize("wish", [{"contrast": (-300.0, -100.0)}, {"cnr": (-20.0, -20.0)}])
def test_a_hole_is_no_lesion(ct_ground: Ground, film_ground: Ground, wish: dict) -> None:
    for ground in (ct_ground, film_ground):
        with pytest.raises(SettingsError, match="less dense than its surroundings"):
            draw_case(ground.image, CaseSettings(requests=(LesionRequest(**wish),)), 1, ground=ground)


def test_a_contrast_beyond_the_depth_is_recorded_as_it_came_out(film_ground: Ground) -> None:
    lesion = draw(film_ground, (LesionRequest(size_mm=(15.0, 20.0), contrast=(1e6, 1e6)),)).lesions[0]
    assert 0 < lesion.contrast <= 255


def test_paper_fusion_stays_inside_its_footprint(ct_ground: Ground) -> None:
    case = draw(ct_ground, requests(2), fusion="paper")
    composition = compose(ct_ground.image, case)
    outside = composition.alpha == 0
    assert np.array_equal(composition.image.pixels[outside], ct_ground.image.pixels[outside])
    assert (composition.alpha[composition.instance_mask > 0] >= HALF).all()


def test_a_film_gets_projections_added(film_ground: Ground) -> None:
    case = draw(film_ground, requests(2))
    composition = compose(film_ground.image, case)
    outside = composition.alpha == 0
    before, after = film_ground.image.pixels.astype(int), composition.image.pixels.astype(int)
    assert np.array_equal(before[outside], after[outside])
    for lesion in case.lesions:
        assert lesion.mode == "add"
        inside = composition.instance_mask == lesion.number
        rows, columns = np.nonzero(inside[0])
        height, width = np.ptp(rows) * 0.342, np.ptp(columns) * 0.4175
        assert 0.5 < height / width < 2  # round in millimetres
        assert (after - before)[inside].mean() > 1


def test_an_inverted_film_gets_the_inverted_contrast(film_ground: Ground) -> None:
    pixels = np.uint8(255) - film_ground.image.pixels
    inverted = replace(film_ground.image, pixels=pixels, photometric="MONOCHROME1")
    ground = prepare_ground(inverted, domain="cxr")
    composition = compose(inverted, draw(ground, requests(1)))
    inside = composition.instance_mask > 0
    assert (composition.image.pixels.astype(int) - pixels)[inside].mean() < -1


def test_one_slice_of_a_ct_takes_a_cut(ct_series_folder: Path) -> None:
    image = read_image(ct_series_folder, slice_index=6)
    case = draw_case(image, CaseSettings(requests=requests(1)), SEED, source_slice=6)
    assert case.background.source_slice == 6
    assert compose(image, case).changed_slices == (0,)


def test_a_tilted_series_is_refused_whole_and_worked_on_slice_by_slice(tilted_folder: Path) -> None:
    image = read_image(tilted_folder)
    with pytest.raises(GeometryError, match="sheared") as refused:
        prepare_ground(image, domain="lung-ct")
    assert "--slice" in refused.value.remedy
    assert image.single_slice(1).volume_problem is None


def test_what_does_not_fit_the_picture_is_refused(ct_ground: Ground, film_ground: Ground) -> None:
    with pytest.raises(SettingsError, match="doesn't belong"):
        draw(ct_ground, requests(1, type="stone"))
    with pytest.raises(SettingsError):
        prepare_ground(film_ground.image, domain="lung-ct")
    with pytest.raises(SettingsError):
        prepare_ground(ct_ground.image, domain="cxr")
    unknown = MedicalImage(pixels=np.zeros((64, 64), np.uint8), modality="OT")
    with pytest.raises(SettingsError, match="tell"):
        prepare_ground(unknown)
    with pytest.raises(GeometryError, match="spacing") as refused:
        prepare_ground(unknown, domain="cxr")
    assert "--spacing-mm" in refused.value.remedy


def test_a_juxtapleural_nodule_reaches_the_pleura_margin(ct_ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    from HiResMedSynthLib.placement.danger_map import PLEURA_MARGIN

    # strands may end at what is forbidden to the lesion itself
    monkeypatch.setattr("HiResMedSynthLib.draw_case.with_strands", lambda lesion, _ground, **_more: lesion)
    allowed = ct_ground.forbidden((PLEURA_MARGIN,))
    for seed in range(4):
        lesion = draw(ct_ground, requests(1, type="juxtapleural"), seed=seed).lesions[0]
        footprint = lesion.alpha > 0
        assert lesion.type == "juxtapleural"
        assert not allowed[lesion.region][footprint].any()
        assert PLEURA_MARGIN in ct_ground.danger_map.classes_in(lesion.region, footprint)
    entry = {"bank_entry": "solid-13mm-a"}
    off = draw(ct_ground, requests(1, type="solid", **entry)).lesions[0].center  # an ordinary place, off the pleura
    with pytest.raises(PlacementError, match="no pleura margin"):
        draw(ct_ground, requests(1, type="juxtapleural", place=off, **entry))


def test_an_entry_of_another_type_is_refused(ct_ground: Ground) -> None:
    with pytest.raises(SettingsError, match="not calcified"):
        draw(ct_ground, requests(1, type="calcified", bank_entry="solid-10mm-a"))
    placed = draw(ct_ground, requests(1, type="solid", bank_entry="solid-10mm-a")).lesions[0]
    assert (placed.type, placed.bank_entry) == ("solid", "solid-10mm-a")


def test_a_lesion_bigger_than_the_lungs_is_refused_at_once(ct_ground: Ground) -> None:
    room_mm = ct_ground.room_mm
    for diameter_mm in (120.0, 0.95 * room_mm):  # the second is no wider than the place that the message names
        with pytest.raises(PlacementError, match=rf"{room_mm:.0f} mm across.*One of \d+ mm still fits") as refused:
            draw(ct_ground, (LesionRequest(size_mm=(diameter_mm, 400.0)),))
        fits = float(refused.value.remedy.split()[2])
        assert 0.2 * room_mm < fits < 0.8 * room_mm
        assert draw(ct_ground, (LesionRequest(size_mm=(fits, fits)),)).lesions[0].diameter_mm == pytest.approx(fits)


def test_vetoes_method_and_bank_are_on_record(ct_ground: Ground) -> None:
    case = draw(ct_ground, requests(6))
    assert any("vetoed (" in line for line in case.log)
    assert case.placement_method == ct_ground.method
    assert len(case.bank_sha256) == 64


def test_a_ground_of_other_margins_is_refused(ct_ground: Ground) -> None:
    from HiResMedSynthLib.placement.margins import Margins

    with pytest.raises(SettingsError, match="other margins"):
        draw(ct_ground, requests(1), margins=Margins(pleura_mm=20.0))


def test_replay_needs_the_geometry_too(film_ground: Ground) -> None:
    case = draw(film_ground, requests(1))
    row, column = film_ground.image.pixel_spacing_mm or (1.0, 1.0)
    compose(replace(film_ground.image, pixel_spacing_mm=(row * (1 + 1e-9), column)), case)  # as DICOM rounds it
    with pytest.raises(CaseError, match="the spacing is"):
        compose(replace(film_ground.image, pixel_spacing_mm=(3.0, 3.0)), case)
    with pytest.raises(CaseError, match="stored in another way"):
        compose(replace(film_ground.image, bits_stored=7), case)


def test_a_lesion_may_reach_the_first_and_last_slice(ct_ground: Ground) -> None:
    """Only what a lesion changes has to lie inside the image, not the empty shell of its patch."""
    touched: set[int] = set()
    ends = {0, ct_ground.image.slices - 1}
    for seed in range(30):
        if seed >= 8 and ends & touched:
            break
        lesion = draw(ct_ground, requests(1), seed=seed).lesions[0]
        assert lesion.alpha[0].any()
        assert lesion.alpha[-1].any()
        touched |= {lesion.corner[0], lesion.corner[0] + lesion.alpha.shape[0] - 1}
    assert ends & touched


def test_a_stone_goes_into_a_kub_film() -> None:
    """A film projected from a made-up abdomen: spine in the middle, flanks beside it."""
    from HiResMedSynthLib.project import project

    z, y, x = np.indices((60, 50, 70))
    body = ((x - 35) / 32) ** 2 + ((y - 25) / 20) ** 2 < 1
    spine = (np.abs(x - 35) < 6) & (np.abs(y - 36) < 6)
    pelvis = (z < 18) & (np.abs(x - 35) > 10) & (np.abs(y - 25) < 6) & body
    hu = np.where(body, np.where(spine | pelvis, 600, 30), -1000).astype(np.int16)
    ct = MedicalImage(
        pixels=hu,
        modality="CT",
        units="HU",
        pixel_spacing_mm=(5.0, 5.0),
        spacing_source="header",
        slice_thickness_mm=6.0,
        positions_lps_mm=np.array([[0.0, 0.0, 6.0 * k] for k in range(60)]),
    )
    ground = prepare_ground(project(ct, pixel_spacing_mm=(1.0, 1.0)), domain="kub")
    assert ground.view_warnings == ()
    case = draw(ground, tuple(LesionRequest(size_mm=(6.0, 9.0), seed=seed) for seed in range(2)))
    composition = compose(ground.image, case)
    for lesion in case.lesions:
        assert (lesion.type, lesion.origin) == ("stone", "procedural")
        assert not ground.forbidden()[lesion.region][lesion.alpha > 0].any()
    added = composition.image.pixels.astype(int) - ground.image.pixels
    assert added[composition.instance_mask > 0].mean() > 0
