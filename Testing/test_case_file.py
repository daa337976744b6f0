"""A case on disk: the same bytes, the same case; damage is refused with a reason."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from HiResMedSynthLib.case import BackgroundReference, Case, CaseSettings, LesionRequest, PlacedLesion
from HiResMedSynthLib.case_file import case_bytes, read_case, read_requests, write_case
from HiResMedSynthLib.errors import CaseError, HiResMedSynthError, SettingsError
from HiResMedSynthLib.image import MedicalImage


def small_case() -> Case:
    rng = np.random.default_rng(1)
    image = MedicalImage(
        pixels=rng.integers(0, 200, (2, 32, 40)).astype(np.uint8),
        modality="DX",
        pixel_spacing_mm=(0.3, 0.4),
        spacing_source="assumed",
    )
    alpha = np.zeros((1, 6, 5), np.uint16)
    alpha[0, 1:5, 1:4] = rng.integers(32768, 65536, (4, 3))
    lesion = PlacedLesion(
        number=1,
        request=LesionRequest(place=(0.0, 10.25, 12.5), type="solid", cnr=(2.0, 3.0), seed=4),
        bank_entry="solid-09mm-a",
        origin="real cut-out",
        type="solid",
        center=(0.0, 10.25, 12.5),
        center_lps_mm=(5.0, 3.075, 0.0),
        diameter_mm=1.5,
        contrast=12.0,
        cnr=2.5,
        mode="add",
        corner=(0, 8, 10),
        intensity=rng.integers(-300, 300, (1, 6, 5)).astype(np.int16),
        alpha=alpha,
        details={"rotation_degrees": 12.5},
    )
    settings = CaseSettings(requests=(lesion.request,), domain="cxr")
    return Case(
        background=BackgroundReference.of(image, domain="cxr"),
        settings=settings,
        seed=7,
        lesions=(lesion,),
        log=("lesion 1: drawn again",),
    )


def test_written_and_read_again_a_case_is_the_same(tmp_path: Path) -> None:
    case = small_case()
    write_case(case, tmp_path)
    again = read_case(tmp_path / "case.json")
    assert case_bytes(again) == case_bytes(case)
    assert again.settings == case.settings
    assert again.background == case.background
    for field in fields(PlacedLesion):
        ours, theirs = getattr(case.lesions[0], field.name), getattr(again.lesions[0], field.name)
        assert np.array_equal(ours, theirs), field.name
    assert read_case(tmp_path).seed == 7  # the folder does as well


def test_case_json_is_readable_and_says_it_is_synthetic(tmp_path: Path) -> None:
    write_case(small_case(), tmp_path)
    document = json.loads((tmp_path / "case.json").read_text())
    assert document["synthetic"] is True
    assert document["lesions"][0]["bank_entry"] == "solid-09mm-a"
    assert document["background"]["spacing_source"] == "assumed"


def damaged(document: dict) -> dict[str, dict]:
    def changed(**parts: object) -> dict:
        return {**document, **parts}

    return {
        "other version": changed(case_version=99),
        "unknown field": changed(patient="x"),
        "seed is text": changed(seed="seven"),
        "hash of other arrays": changed(arrays={"file": "lesions.safetensors", "sha256": "0" * 64}),
        "arrays elsewhere": changed(arrays={**document["arrays"], "file": "../../etc/passwd"}),
        "lesion beyond the image": changed(lesions=[{**document["lesions"][0], "corner": [0, 30, 10]}]),
        "lesion of another number": changed(lesions=[{**document["lesions"][0], "number": 2}]),
        "impossible size": changed(settings={**document["settings"], "requests": [{"size_mm": [9, 3]}]}),
    }


@pytest.mark.parametrize("name", sorted(damaged({"arrays": {}, "lesions": [{}], "settings": {}})))
def test_a_damaged_case_is_refused_with_a_remedy(tmp_path: Path, name: str) -> None:
    write_case(small_case(), tmp_path)
    file = tmp_path / "case.json"
    file.write_text(json.dumps(damaged(json.loads(file.read_text()))[name]))
    with pytest.raises(CaseError) as refused:
        read_case(file)
    assert refused.value.remedy


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_no_case_at_all_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "case.json"
    file.write_bytes(content)
    with pytest.raises(CaseError):
        read_case(file)
    with pytest.raises(CaseError):
        read_case(tmp_path / "absent.json")


def test_changed_arrays_are_refused(tmp_path: Path) -> None:
    write_case(small_case(), tmp_path)
    file = tmp_path / "lesions.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CaseError, match="hash differs"):
        read_case(tmp_path)
    file.unlink()
    with pytest.raises(CaseError, match="can't be read"):
        read_case(tmp_path)


def test_requests_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "requests.json"
    file.write_text('[{"size_mm": [6, 9], "type": "solid"}, {"place": [0, 5, 6], "seed": 11}]')
    first, second = read_requests(file)
    assert (first.size_mm, first.type, first.seed) == ((6.0, 9.0), "solid", 0)
    assert (second.place, second.seed) == ((0.0, 5.0, 6.0), 11)
    file.write_text('[{"seed": 1}, {}, {"seed": 0}, {}]')
    assert [request.seed for request in read_requests(file)] == [1, 2, 0, 3]
    for text in ('[{"size": 3}]', '[{"size_mm": [9, 3]}]', "7", '[{"type": "monster"}]', '[{"size_mm": "big"}]'):
        file.write_text(text)
        with pytest.raises(HiResMedSynthError) as refused:
            read_requests(file)
        assert refused.value.remedy
        assert refused.value.where


@pytest.mark.parametrize(
    "wrong",
    [
        {"size_mm": (0.0, 4.0)},
        {"size_mm": (5.0, 4.0)},
        {"size_mm": (4.0, float("inf"))},
        {"contrast": (1.0, 2.0), "cnr": (1.0, 2.0)},
        {"cnr": (float("nan"), 2.0)},
        {"place": (0.0, float("nan"), 1.0)},
        {"seed": -1},
        {"rotation_degrees": float("nan")},
        {"type": "monster"},
    ],
)
def test_an_impossible_request_is_refused(wrong: dict) -> None:
    with pytest.raises(SettingsError):
        LesionRequest(**wrong)


def test_impossible_settings_are_refused() -> None:
    one = LesionRequest()
    for wrong in (
        {"requests": ()},
        {"requests": (one, one)},
        {"requests": (one,), "fusion": "glue"},
        {"requests": (one,), "domain": "knee"},
        {"requests": (one,), "min_distance_mm": -1.0},
    ):
        with pytest.raises(SettingsError):
            CaseSettings(**wrong)


def test_a_case_gives_its_requests_back_pinned(tmp_path: Path) -> None:
    case = small_case()
    write_case(case, tmp_path)
    assert read_requests(tmp_path / "case.json") == case.pinned_settings().requests


def test_a_script_may_give_numpy_values_and_lists(tmp_path: Path) -> None:
    request = LesionRequest(
        seed=np.int64(3),
        place=np.array([1, 2.5, 3]),
        contrast=(np.float32(2), 3),
        size_mm=[8, 9],
        rotation_degrees=np.float32(20),
    )  # type: ignore[arg-type]
    settings = CaseSettings(requests=[request], min_distance_mm=np.float64(2))  # type: ignore[arg-type]
    plain = LesionRequest(seed=3, place=(1.0, 2.5, 3.0), contrast=(2.0, 3.0), size_mm=(8.0, 9.0), rotation_degrees=20.0)
    assert settings == CaseSettings(requests=(plain,), min_distance_mm=2.0)
    assert hash(settings.requests[0]) == hash(plain)
    json.dumps([request.seed, request.place, request.contrast, request.rotation_degrees])
    for wrong, words in (({"size_mm": 12}, "size_mm takes 2 numbers"), ({"place": (1, 2)}, "place takes 3 numbers")):
        with pytest.raises(SettingsError, match=words):
            LesionRequest(**wrong)  # type: ignore[arg-type]
