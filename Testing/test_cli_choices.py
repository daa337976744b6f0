"""Every choice of the command line reaches what it chooses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from HiResMedSynthLib import weights
from HiResMedSynthLib.case_file import read_case
from HiResMedSynthLib.placement.method import PlacementMethod
from HiResMedSynthLib.read import read_image
from Testing.test_cli import run


def test_choices_of_compose_are_in_the_case_and_the_files(
    ct_series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "case"
    where = ("--zone", "left=1", "--min-distance-mm", 12, "--vessel-margin-mm", 0.5, "--pleura-margin-mm", 3)
    how = ("--danger", "rule", "--prior", "density", "--temperature", 2, "--sizes", "history", "--size-mm", "10:15")
    looks = ("--cnr", "20:30", "--rotation", 30, "--type", "solid", "--fusion", "alpha")
    files = ("--changed-only", "--seg", "labelmap", "--compress", "rle")
    line = ("compose", ct_series_folder, "--lesions", 2, "--seed", 3, *where, *how, *looks, *files, "--out", out)
    assert run(monkeypatch, *line) == 0
    case = read_case(out / "case.json")
    settings = case.settings
    assert (settings.min_distance_mm, settings.margins.vessel_mm, settings.margins.pleura_mm) == (12, 0.5, 3)
    assert settings.placement == PlacementMethod(danger="rule", prior="density", temperature=2)
    assert [request.zone for request in settings.requests].count("left") == 1
    assert all(request.sizes == "history" for request in settings.requests)
    for lesion in case.lesions:
        assert 20 <= lesion.cnr <= 30
        assert lesion.request.rotation_degrees == 30
    slices = [pydicom.dcmread(file) for file in (out / "dicom").glob("*.dcm")]
    assert 0 < len(slices) < 12
    assert {data.file_meta.TransferSyntaxUID for data in slices} == {pydicom.uid.RLELossless}
    assert pydicom.dcmread(out / "segmentation.dcm").SegmentationType == "LABELMAP"


def test_choices_of_candidates_are_kept(
    ct_series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ("candidates", ct_series_folder, "--danger", "rule", "--prior", "density", "--vessel-margin-mm", 0.5)
    more = ("-k", 8, "--zone", "left=6", "--diameter-mm", 6, "--min-distance-mm", 25)
    times = {}
    for temperature in (0.3, 5):
        out = tmp_path / f"{temperature}.json"
        assert run(monkeypatch, *line, *more, "--temperature", temperature, "--out", out) == 0
        places = json.loads(out.read_text())
        assert [place["zone"] for place in places].count("left") == 6
        at = np.array([place["lps_mm"] for place in places])
        apart = np.linalg.norm(at[:, None] - at, axis=2)[np.triu_indices(len(at), 1)]
        assert len(at) == 8
        assert apart.min() >= 25
        times[temperature] = np.median([place["times_even"] for place in places])
    assert times[0.3] > times[5]  # a sharp prior keeps to where lesions are likely
    row, column, plane = (places[0]["place"][k] for k in (1, 2, 0))
    capsys.readouterr()
    told = {}
    for place, size in ((f"{row},{column},{plane}", 6), (f"{row},{column},{plane}", 120), ("5,5,6", 6)):
        assert run(monkeypatch, *line, "--check", place, "--diameter-mm", size) == 0
        told[place, size] = capsys.readouterr().out
    small, large, outside = told.values()
    assert "would touch" not in small
    assert "would touch" in large
    assert "outside the body" in outside


def test_a_place_may_name_the_slice_that_was_chosen(
    ct_series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (ct_series_folder, "--slice", 6, "--danger", "rule")
    check = ("candidates", *asked, "-k", 1, "--out", tmp_path / "one.json")
    assert run(monkeypatch, *check) == 0
    _, row, column = json.loads((tmp_path / "one.json").read_text())[0]["place"]
    capsys.readouterr()
    for place in (f"{row},{column}", f"{row},{column},6"):
        assert run(monkeypatch, "candidates", *asked, "--check", place) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    compose = ("compose", *asked, "--size-mm", "8:8", "--at", f"{row},{column},6", "--out", tmp_path / "case")
    assert run(monkeypatch, *compose) == 0
    assert read_case(tmp_path / "case" / "case.json").lesions[0].request.place == (0, row, column)


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (("--zone", "left"), "Write --zone left=2"),
        (("--zone", "left=3", "--lesions", 2), "--zone asks for 3 lesions, --lesions for 2. Raise --lesions"),
        (("--zone", "left=2", "--at", "9,9,6", "--lesions", 2), "--zone asks for 2 and --at for 1 lesions"),
    ],
)
def test_zones_that_cant_be_are_refused_with_what_to_write(
    wishes: tuple[Any, ...], said: str, ct_series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(monkeypatch, "compose", ct_series_folder, *wishes, "--out", tmp_path / "no") > 0
    assert said in capsys.readouterr().err


def test_few_grey_levels_are_told_where_lesions_are_drawn_alone(
    cxr_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    film = (cxr_file, "--domain", "cxr", "--spacing-mm", 1, "--danger", "rule")
    told = {}
    for name, ending in (("danger", ".nrrd"), ("candidates", ".json"), ("compose", "")):
        assert run(monkeypatch, name, *film, "--out", tmp_path / f"{name}{ending}") == 0
        told[name] = "few grey levels" in capsys.readouterr().err
    assert told == {"danger": False, "candidates": False, "compose": True}


def test_a_volume_without_a_header_is_a_ct_on_the_users_word(
    ct_series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = read_image(ct_series_folder)
    volume = sitk.GetImageFromArray(image.pixels[4:9].astype(np.int16))
    volume.SetSpacing((*image.spacing_mm[:0:-1], image.spacing_mm[0]))
    how = ("--danger", "rule", "--lesions", 1, "--size-mm", "10:12", "--seed", 3, "--modality", "CT", "--out")
    sitk.WriteImage(volume, tmp_path / "hu.nii.gz")
    assert run(monkeypatch, "compose", tmp_path / "hu.nii.gz", *how, tmp_path / "case") == 0
    slices = [pydicom.dcmread(file) for file in (tmp_path / "case" / "dicom").iterdir()]
    assert {(data.SOPClassUID, data.Modality) for data in slices} == {(pydicom.uid.CTImageStorage, "CT")}
    sitk.WriteImage(volume + 1024, tmp_path / "stored.nii.gz")
    capsys.readouterr()
    for source, said in ((tmp_path / "stored.nii.gz", "no Hounsfield units"), (ct_series_folder, "no effect")):
        assert run(monkeypatch, "compose", source, *how, tmp_path / "no") == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_one_series_of_several_is_taken(
    ct_series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, file in enumerate(sorted(ct_series_folder.glob("*.dcm"))):
        data = pydicom.dcmread(file)
        if number >= 8:
            data.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.7"
        data.save_as(tmp_path / file.name)
    assert run(monkeypatch, "inspect", tmp_path) == 1
    assert "--series" in capsys.readouterr().err
    for series, slices in (("1", 8), ("1.2.826.0.1.3680043.8.498.7", 4)):
        assert run(monkeypatch, "inspect", tmp_path, "--series", series, "--json") == 0
        assert json.loads(capsys.readouterr().out)["slices"] == slices


def test_controls_of_samples_reach_the_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from HiResMedSynthLib.lesion import samples

    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "models"))
    whole, drawn = samples.draw_sample, list[samples.Sample]()
    wishes = []

    def draw(generator: Any, wish: Any, *given: Any, **how: Any) -> samples.Sample:
        wishes.append(wish)
        drawn.append(whole(generator, wish, *given, **how))
        return drawn[-1]

    monkeypatch.setattr(samples, "draw_sample", draw)
    line = ("lesion", "sample", "solid-10mm-a", "--count", 3, "--generator", "deform")
    more = ("--diversity", 1.5, "--rotation", 30, "--no-flip", "--voxel-mm", 0.8)
    assert run(monkeypatch, *line, *more, "--out", tmp_path / "out") == 0
    assert {wish.diversity for wish in wishes} == {1.5}
    for sample in drawn:
        assert sample.drawn.deformation.rotation_degrees == 30
        assert not any(sample.drawn.deformation.flips)
        assert sample.voxel_mm == 0.8
