"""Proposed places: quotas by the patient's own sides, distances, seeds, temperature; verdicts on given places."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from HiResMedSynthLib import weights
from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.choices import ZONES, Zone
from HiResMedSynthLib.cli.candidates_file import judged, write_places
from HiResMedSynthLib.cli.main import cli
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.errors import HiResMedSynthError, PlacementError, SettingsError
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.method import ENGINES, PlacementMethod
from HiResMedSynthLib.placement.network import ENTRY, KIND
from HiResMedSynthLib.placement.zones import zone_mask
from HiResMedSynthLib.propose import judge, propose
from HiResMedSynthLib.read import read_image
from Testing.placement.phantoms import chest_ct

RULE = PlacementMethod(danger="rule", prior="density")


def whole_chest() -> MedicalImage:
    """A phantom whose lungs begin and end inside the stack: 40 slices of 5 mm."""
    image = chest_ct(40)
    pixels = image.pixels.copy()
    lungs = np.linspace(-1, 1, 40)
    for index, height in enumerate(lungs):
        shrink = max(1 - height**2, 0.02)
        row, column = np.mgrid[:128, :128].astype(np.float32) * 2.5 - 160.0
        body = (column / 140) ** 2 + (row / 100) ** 2 < 1
        picture = np.where(body, 40, -1000)
        for side in (-1, 1):
            picture[((column - side * 70) / 45) ** 2 + (row / 70) ** 2 < shrink] = -850
        pixels[index] = picture
    return replace(image, pixels=pixels)


@pytest.fixture(scope="module")
def ground() -> Ground:
    return prepare_ground(whole_chest(), placement=RULE)


def test_places_are_permitted_apart_and_the_same_by_seed(ground: Ground) -> None:
    found = propose(ground, count=12, seed=4, min_distance_mm=15.0)
    assert len(found) == 12
    forbidden = ground.forbidden()
    assert not any(forbidden[one.place] for one in found)
    points = np.array([one.lps_mm for one in found])
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)[np.triu_indices(12, 1)]
    assert apart.min() >= 15.0
    assert found == propose(ground, count=12, seed=4, min_distance_mm=15.0)
    assert found != propose(ground, count=12, seed=5, min_distance_mm=15.0)


def test_quotas_are_kept_on_the_patients_own_sides(ground: Ground) -> None:
    found = propose(ground, count=10, seed=1, quotas={"left-upper": 3, "right": 4})
    assert [one.zone for one in found] == ["left-upper"] * 3 + ["right"] * 4 + [None] * 3
    middle = ground.image.index_to_lps([(20, 64, 64)])[0]
    for one in found:
        x, _, z = one.lps_mm
        if one.zone == "left-upper":  # LPS: x grows to the patient's left, z upwards
            assert x > middle[0]
            assert z > middle[2]
        elif one.zone == "right":
            assert x < middle[0]


def test_zones_part_the_lungs(ground: Ground) -> None:
    masks = {zone: zone_mask(ground.image, ground.danger_map, zone, domain="lung-ct") for zone in ZONES}
    permitted = ~ground.forbidden()
    for one, other in (("left", "right"), ("upper", "lower")):
        assert not (masks[one] & masks[other]).any()
        assert (masks[one] | masks[other])[permitted].all()
    corners: list[Zone] = ["left-upper", "left-lower", "right-upper", "right-lower"]
    assert (sum(masks[zone].astype(int) for zone in corners) == 1)[permitted].all()


def test_a_turned_volume_keeps_its_sides() -> None:
    image = whole_chest()
    assert image.positions_lps_mm is not None
    turned = replace(
        image,
        pixels=image.pixels[::-1, :, ::-1].copy(),
        positions_lps_mm=image.positions_lps_mm[::-1].copy() + np.array([127 * 2.5, 0, 0]),
        directions_lps=np.array([[-1.0, 0, 0], [0, 1.0, 0]]),
    )
    place = propose(prepare_ground(turned, placement=RULE), count=1, seed=3, quotas={"left-upper": 1})[0]
    middle = turned.index_to_lps([(20, 64, 63)])[0]
    assert place.lps_mm[0] > middle[0]
    assert place.lps_mm[2] > middle[2]


def test_upper_and_lower_of_a_single_slice_cannot_be_told() -> None:
    ground = prepare_ground(chest_ct(1), placement=RULE)
    assert len(propose(ground, count=2, seed=1, quotas={"left": 1})) == 2
    with pytest.raises(PlacementError, match="whole lung"):
        propose(ground, count=2, seed=1, quotas={"upper": 1})


def test_quotas_beyond_the_count_are_refused(ground: Ground) -> None:
    with pytest.raises(SettingsError, match="quotas ask for 3"):
        propose(ground, count=2, seed=1, quotas={"left": 3})


def test_a_lesion_of_the_diameter_fits_at_each_place(ground: Ground) -> None:
    for one in propose(ground, count=8, seed=2, diameter_mm=12.0):
        assert judge(ground, one.place, diameter_mm=12.0).touches == ()


def test_no_place_lies_where_the_image_ends(ct_series_folder: Path) -> None:
    ground = prepare_ground(read_image(ct_series_folder), placement=RULE)
    found = propose(ground, count=20, seed=0, diameter_mm=12.0)
    assert len(found) == 20
    for one in found:
        assert judge(ground, one.place, diameter_mm=12.0).touches == ()


@pytest.mark.parametrize(("quota", "distance"), [(0, 5.0), (-5, 5.0), (1, float("nan")), (1, -5.0)])
def test_numbers_that_cannot_be_are_refused(ground: Ground, quota: int, distance: float) -> None:
    with pytest.raises(SettingsError):
        propose(ground, count=10, seed=1, quotas={"left": quota}, min_distance_mm=distance)


def test_one_lung_alone_has_no_sides() -> None:
    image = chest_ct(4)
    half = replace(image, pixels=image.pixels[:, :, :62].copy())
    ground = prepare_ground(half, placement=RULE)
    with pytest.raises(PlacementError, match="only one lung"):
        propose(ground, count=1, seed=1, quotas={"left": 1})
    assert ground.size_likelihood(20.0, propose(ground, count=1, seed=1)[0].place) == 1.0


def test_a_ct_that_is_not_axial_has_no_sides_and_the_record_says_so() -> None:
    coronal = replace(chest_ct(1), directions_lps=np.array([[1.0, 0, 0], [0, 0, -1.0]]))
    ground = prepare_ground(coronal, placement=RULE)
    assert "not stored as axial slices" in ground.method
    assert len(propose(ground, count=2, seed=1)) == 2
    with pytest.raises(PlacementError, match="isn't stored as axial"):
        propose(ground, count=2, seed=1, quotas={"left": 1})


def test_a_picture_larger_than_a_patient_is_refused() -> None:
    with pytest.raises(PlacementError, match="larger than a patient"):
        prepare_ground(replace(chest_ct(1), pixel_spacing_mm=(10.0, 10.0)), placement=RULE)
    film = MedicalImage(
        pixels=np.zeros((1, 64, 64), np.uint8), modality="DX", pixel_spacing_mm=(0.4, 0.4), spacing_source="header"
    )
    with pytest.raises(PlacementError, match="26 x 26 mm is smaller than a newborn's"):
        prepare_ground(film, domain="cxr", placement=RULE)


def test_a_forbidden_place_is_named_with_the_nearest_free_one(ground: Ground) -> None:
    verdict = judge(ground, (20, 64, 64), diameter_mm=8.0)
    assert verdict.touches == ("mediastinum, heart or spine",)
    assert verdict.nearest is not None
    assert judge(ground, verdict.nearest, diameter_mm=8.0).touches == ()
    assert judge(ground, (0, 0, 0), diameter_mm=8.0).touches[0] == "outside the image"
    assert "the nearest free place is row" in judged(ground, [(64, 64, 20)], 8.0)
    with pytest.raises(SettingsError, match="diameter"):
        judge(ground, (20, 64, 64), diameter_mm=0.0)


def test_what_may_be_touched_and_must_be_goes_by_the_type(ct_series_folder: Path) -> None:
    """Suggestion, check and composing are of one mind: at the margin a juxtapleural lesion stands, and no other."""
    ground = prepare_ground(read_image(ct_series_folder), placement=RULE)
    found = propose(ground, count=4, seed=3, diameter_mm=8.0, lesion_type="juxtapleural")
    for one in found:
        row, column = one.place[1:]
        assert judge(ground, one.place, diameter_mm=8.0).touches == ("pleura margin",)
        line = judged(ground, [(row, column, one.place[0])], 8.0, "juxtapleural")
        assert line.endswith("8 mm: permitted")
    inner = next(one.place for one in propose(ground, count=9, seed=3, diameter_mm=8.0) if one.fits)
    assert judge(ground, inner, diameter_mm=8.0, lesion_type="juxtapleural").missing == "pleura margin"
    place = (inner[1], inner[2], inner[0])
    assert "would not touch the pleura margin, as a lesion of type" in judged(ground, [place], 8.0, "juxtapleural")
    request = LesionRequest(type="juxtapleural", size_mm=(7.9, 8.1), place=found[0].place)
    settings = CaseSettings(requests=(request,), placement=RULE, fusion="alpha")
    assert len(draw_case(ground.image, settings, 1, ground=ground).lesions) == 1
    with pytest.raises(SettingsError, match="type 'stone' doesn't belong"):
        propose(ground, count=1, seed=1, lesion_type="stone")
    names = {label: name.replace("pleura margin", "wall") for label, name in ground.danger_map.names.items()}
    without = replace(ground, danger_map=replace(ground.danger_map, names=names))
    with pytest.raises(SettingsError, match="no pleura margin is known"):
        judge(without, inner, diameter_mm=8.0, lesion_type="juxtapleural")


def test_where_a_lesion_fits_nowhere_the_places_say_so(ground: Ground, tmp_path: Path) -> None:
    assert all(one.fits for one in propose(ground, count=3, seed=1, diameter_mm=10.0))
    huge = propose(ground, count=3, seed=1, diameter_mm=190.0)
    assert len(huge) == 3
    assert not any(one.fits for one in huge)
    rare = [one for seed in range(12) for one in propose(ground, count=1, seed=seed, diameter_mm=60.0)]
    fitting = [not judge(ground, one.place, diameter_mm=60.0).touches for one in rare]
    assert [one.fits for one in rare] == fitting
    assert 0 < sum(fitting) < 12
    write_places(rare, tmp_path / "places.json")
    assert [one["fits"] for one in json.loads((tmp_path / "places.json").read_text())] == fitting
    write_places(rare, tmp_path / "places.csv")
    assert [line.rsplit(",")[-1] for line in (tmp_path / "places.csv").read_text().split()] == [
        "fits",
        *map(str, fitting),
    ]


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("-k 2 --zone left=2 --zone upper=1", "quotas ask for 3 places, the count is 2"),
        ("--min-distance-mm -4", "a distance of -4.0 mm"),
        ("--check 64,64", "a place in one of 12 slices"),
        ("--prior nosuch", "there is no model 'nosuch'"),
        ("--prior danger-ct", "tells what is forbidden on a chest CT, not where lesions are likely on a chest CT"),
    ],
)
def test_what_cant_be_is_refused_before_a_map_is_made(
    wish: str, said: str, ct_series_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("HiResMedSynthLib.ground.danger", lambda *_, **__: pytest.fail("a map was made"))
    error = CliRunner().invoke(cli, ["candidates", str(ct_series_folder), *wish.split()]).exception
    assert isinstance(error, HiResMedSynthError), error
    assert said in str(error)


@pytest.mark.parametrize(
    ("task", "missing"), [("location-ct", "nothing that runs networks"), ("yolo-ct", "ultralytics")]
)
def test_a_prior_whose_packages_are_missing_is_refused_before_a_map_is_made(
    task: str, missing: str, ct_series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "models"))
    card = weights.Card(name="ours", kind=KIND, data="nothing", licence="CC0-1.0", attribution="nobody")
    told = {ENTRY: json.dumps({"task": task})}
    weights.write_model(tmp_path / "ours.safetensors", {"x": np.zeros(1, np.float16)}, card, metadata=told)
    weights.add(tmp_path / "ours.safetensors")
    gone = (*ENGINES, "ultralytics")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in gone else find(name, *more))
    monkeypatch.setattr("HiResMedSynthLib.ground.danger", lambda *_, **__: pytest.fail("a map was made"))
    line = ["prior", str(ct_series_folder), "--danger", "rule", "--prior", "ours", "--out", str(tmp_path / "p.nrrd")]
    error = CliRunner().invoke(cli, line).exception
    assert isinstance(error, HiResMedSynthError), error
    assert f"{missing} is" in str(error)
    assert "pip install" in str(error)


def test_temperature_evens_out_and_sharpens(ground: Ground) -> None:
    plain = ground.heat()
    heats = {}
    for temperature in (0.5, 4.0):
        other = prepare_ground(ground.image, placement=PlacementMethod(danger="rule", temperature=temperature))
        heats[temperature] = other.heat()
        assert float(heats[temperature].sum(dtype=np.float64)) == pytest.approx(1, abs=1e-4)
        assert ((heats[temperature] > 0) == (plain > 0)).all()
    assert heats[4.0].max() < plain.max() < heats[0.5].max()
