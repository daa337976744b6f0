"""Cases drawn with named generators: recorded, replayed, pinned; without one, a case reads as it did before them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from HiResMedSynthLib import weights
from HiResMedSynthLib.case import Case, CaseSettings, LesionRequest
from HiResMedSynthLib.case_file import case_bytes, read_case, read_requests, write_case
from HiResMedSynthLib.choices import FusionName
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.image import MedicalImage
from Testing.lesion.small_models import add_singan
from Testing.placement.phantoms import chest_ct


@pytest.fixture(scope="module")
def ground() -> Ground:
    return prepare_ground(chest_ct(noise_hu=15))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "store"))
    add_singan(tmp_path, "mine")
    return tmp_path


def request(seed: int = 1, **fields: object) -> LesionRequest:
    wished = {"size_mm": (18.0, 18.0), "place": (4.0, 60.0, 30.5), "generator": "singan", **fields}
    return LesionRequest(seed=seed, **wished)  # type: ignore[arg-type]


def draw(ground: Ground, *requests: LesionRequest, fusion: FusionName = "better") -> Case:
    settings = CaseSettings(requests=requests, min_distance_mm=1.0, fusion=fusion)
    return draw_case(ground.image, settings, 3, ground=ground)


def test_the_generator_and_its_model_stand_in_the_case_which_replays_without_them(ground: Ground, store: Path) -> None:
    case = draw(ground, request(model="mine"))
    lesion, digest = case.lesions[0], weights.find("mine").card.sha256
    assert lesion.details["generator"] == {"name": "singan", "model": "mine", "model_sha256": digest}
    assert (lesion.request.generator, lesion.request.model, lesion.request.model_sha256) == ("singan", "mine", digest)
    write_case(case, store)
    weights.remove("mine")
    again = read_case(store)
    assert case_bytes(again) == case_bytes(case)
    assert compose(ground.image, again).image.pixel_sha256 == compose(ground.image, case).image.pixel_sha256
    assert read_requests(store / "case.json")[0].model == "mine"


def test_pinned_settings_draw_the_same_lesion_whether_its_model_was_named_or_found(ground: Ground, store: Path) -> None:
    case = draw(ground, request(place=None), request(2, place=(6.0, 74.25, 92.0), generator="deform"))
    pinned = case.pinned_settings()
    assert pinned.requests[0].model == "mine"
    again = draw_case(ground.image, pinned, 3, ground=ground)
    for one, other in zip(case.lesions, again.lesions, strict=True):
        assert np.array_equal(one.alpha, other.alpha)
        assert np.array_equal(one.intensity, other.intensity)


def test_another_model_under_the_name_is_noticed(ground: Ground, store: Path) -> None:
    first = draw(ground, request(model="mine"))
    weights.remove("mine")
    add_singan(store, "mine", "solid-09mm-a")
    with pytest.raises(weights.ModelError, match="isn't the one that this case was drawn with") as refused:
        draw(ground, first.lesions[0].request)
    assert refused.value.lesion == 1
    anew = draw(ground, request(model="mine"))  # the kept forms of the ground are of the other file
    assert not np.array_equal(anew.lesions[0].alpha, first.lesions[0].alpha)


def test_without_a_generator_a_case_has_no_new_field(ground: Ground) -> None:
    text = case_bytes(draw(ground, request(generator="deform"), fusion="alpha"))[0].decode()
    document = json.loads(text)
    for told in (document["settings"]["requests"][0], document["lesions"][0]["request"]):
        assert set(told) == {
            "place", "type", "size_mm", "bank_entry", "contrast", "cnr", "rotation_degrees", "seed", "attempt"
        }  # fmt: skip
    assert set(document["lesions"][0]["details"]) == {"deformation", "surroundings", "noise"}


def test_a_generator_that_cant_be_is_refused(ground: Ground) -> None:
    for wrong in ({"generator": "magic"}, {"generator": "deform", "model": "mine"}):
        with pytest.raises(SettingsError):
            request(**wrong)
    with pytest.raises(HiResMedSynthError):
        draw(ground, request(model="../mine"))


def test_the_contrast_of_a_sample_is_met(ground: Ground, store: Path) -> None:
    for wish, wanted in (({"contrast": (600.0, 620.0)}, (599, 621)), ({"cnr": (20.0, 22.0)}, None)):
        lesion = draw(ground, request(model="mine", **wish)).lesions[0]
        if wanted is not None:
            assert wanted[0] <= lesion.contrast <= wanted[1]
        else:
            assert 19.9 <= lesion.cnr <= 22.1


def test_a_cnr_is_refused_on_a_film(cxr_film: MedicalImage) -> None:
    wanted = replace(request(), place=None, generator="deform", cnr=(2.0, 3.0))
    with pytest.raises(SettingsError, match="radiograph") as refused:
        draw_case(cxr_film, CaseSettings(requests=(wanted,), domain="cxr"), 3)
    assert "--contrast" in refused.value.remedy


@pytest.fixture(scope="module")
def cxr_film(cxr_file: Path) -> MedicalImage:
    from HiResMedSynthLib.read import read_image

    return read_image(cxr_file, spacing_mm=(0.342, 0.4175))
