"""`lesion train` and `lesion sample`, `models` and `compose --generator` as a user meets them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from HiResMedSynthLib import weights
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.lesion import singan_settings
from HiResMedSynthLib.lesion.trained import own_bank
from HiResMedSynthLib.write_volume import to_simpleitk
from Testing.lesion.small_models import add_singan
from Testing.test_cli import run

SHAPE, MIDDLE = (24, 56, 60), (12, 28, 30)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with lung around a bumpy nodule of 11 mm: ct.nrrd, its mask, and what goes wrong with both."""
    import SimpleITK as sitk

    folder = tmp_path_factory.mktemp("chest")
    grid = np.indices(SHAPE) - np.array(MIDDLE)[:, None, None, None]
    angle = np.arctan2(grid[1], grid[2])
    away = np.sqrt((grid.astype(float) ** 2).sum(axis=0))
    alpha = np.clip(5.5 + 0.8 * np.sin(3 * angle) - away, 0, 1)
    hu = alpha * 20 + (1 - alpha) * -850 + np.random.default_rng(0).normal(0, 10, SHAPE)
    mask = (alpha > 0.5).astype(np.uint8)
    long = np.zeros(SHAPE, np.uint8)
    long[12, 28, :] = 1
    image = MedicalImage(
        pixels=np.round(hu).astype(np.int16), modality="CT", units="HU", pixel_spacing_mm=(1.0, 1.0),
        spacing_source="header", slice_thickness_mm=1.0,
    )  # fmt: skip
    made = {
        "ct": image.pixels,
        "mask": mask,
        "empty": np.zeros_like(mask),
        "whole": np.ones_like(mask),
        "two": mask + 2 * (np.roll(mask, 20, axis=2)),
    }
    for name, array in made.items():
        sitk.WriteImage(to_simpleitk(array, image)[0], str(folder / f"{name}.nrrd"))
    moved = to_simpleitk(mask, image)[0]
    moved.SetOrigin((300.0, 0.0, 0.0))
    sitk.WriteImage(moved, str(folder / "moved.nrrd"))
    nan = sitk.GetImageFromArray(np.where(mask, np.nan, hu).astype(np.float32))
    nan.SetSpacing((1.0, 1.0, 1.0))
    sitk.WriteImage(nan, str(folder / "nan.nrrd"))
    grey = np.clip((hu[12] + 1350) / 1500 * 255, 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(255 * mask[12]).save(folder / "grey-mask.png")
    colour = np.stack([grey, grey, grey], axis=-1)
    colour[0, 0] = (255, 0, 0)
    Image.fromarray(colour).save(folder / "colour.png")
    return folder


def shorten_training(patch: pytest.MonkeyPatch) -> None:
    """The tiny preset with three iterations a scale: 3-D convolutions are slow on one core."""
    whole = singan_settings.preset
    patch.setattr(singan_settings, "preset", lambda *which: dataclasses.replace(whole(*which), iterations=(3,)))


def train(patch: pytest.MonkeyPatch, chest: Path, *more: object) -> int:
    given = {"--mask", "--box"} & {str(part) for part in more}
    mask = () if given else ("--mask", chest / "mask.nrrd")
    line = ("lesion", "train", chest / "ct.nrrd", *mask, "--preset", "tiny", "--name", "mine")
    return run(patch, *line, "--dimensions", "2", *more)


def test_a_radiologists_nodule_becomes_an_entry_a_model_and_lesions_in_another_image(
    chest: Path, store: Path, tmp_path: Path, ct_series_folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shorten_training(monkeypatch)
    assert train(monkeypatch, chest, "--dimensions", "3") == 0
    said = capsys.readouterr()
    assert "lesion sample mine" in said.out
    assert "holds the voxels" in said.out
    assert "left" in said.err  # progress with the time that is left
    report = store / "training" / "mine"
    assert sorted(path.name for path in report.iterdir()) == ["report.html", "report.json"]
    assert str(report / "report.html") in said.out
    page = (report / "report.html").read_text()
    assert page.count("<polyline") == 4  # of two scales
    assert "data:image/png" in page
    scales = json.loads((report / "report.json").read_text())["scales"]
    assert [scale["iterations"] for scale in scales] == [3, 3]
    assert run(monkeypatch, "lesion", "list") == 0
    assert "mine" in capsys.readouterr().out
    assert run(monkeypatch, "lesion", "show", "mine", "--out", tmp_path / "mine.png") == 0
    assert run(monkeypatch, "models", "show", "mine", "--json") == 0
    told = json.loads(capsys.readouterr().out.split("\n", 1)[1])
    assert "holds the voxels" in told["limits"]
    assert (told["kind"], told["details"]["source"], told["seed"]) == ("lesion-singan", "mine", 0)
    assert len([float(gap) for gap in told["metrics"]["critic_gap_by_scale"].split()]) == 2  # of the tiny preset
    assert str(tmp_path) not in json.dumps(told)
    common = ("compose", ct_series_folder, "--slice", 6, "--size-mm", "12:12", "--seed", 2)
    assert run(monkeypatch, *common, "--generator", "singan", "--model", "mine", "--contrast-hu", "700:700",
               "--out", tmp_path / "a") == 0  # fmt: skip
    lesion = json.loads((tmp_path / "a" / "case.json").read_text())["lesions"][0]
    assert lesion["details"]["generator"]["model"] == "mine"
    assert lesion["contrast"] == pytest.approx(700, abs=1)
    assert run(monkeypatch, *common, "--bank-entry", "mine", "--out", tmp_path / "b") == 0
    assert json.loads((tmp_path / "b" / "case.json").read_text())["lesions"][0]["bank_entry"] == "mine"
    assert run(monkeypatch, "compose", ct_series_folder, "--case", tmp_path / "a", "--out", tmp_path / "c") == 0
    assert train(monkeypatch, chest) == 1
    assert "already" in capsys.readouterr().err
    assert run(monkeypatch, "models", "remove", "mine") == 0
    assert not report.exists()


def test_a_crop_of_one_slice_is_trained_in_two_dimensions(
    chest: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = ("lesion", "train", chest / "grey.png", "--mask", chest / "grey-mask.png", "--spacing-mm", 1)
    assert run(monkeypatch, *picture, "--window-hu", "-1350:150", "--preset", "tiny", "--name", "flat") == 0
    card = weights.find("flat").card
    assert card.details["dimensions"] == 2
    near = [card.metrics[f"samples_dice_to_the_lesion_{which}"] for which in ("median", "largest")]
    assert 0 < near[0] <= near[1] <= 1
    assert run(monkeypatch, "lesion", "sample", "flat", "--count", 2, "--out", tmp_path / "s") == 0
    assert np.load(tmp_path / "s" / "samples.npz", allow_pickle=False)["values"].shape == (2, 2, 32, 32, 32)


def test_one_label_of_several_is_taken(chest: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_training(monkeypatch)
    assert train(monkeypatch, chest) == 0
    alone = own_bank(("mine",)).lesion("mine")
    weights.remove("mine")
    assert train(monkeypatch, chest, "--mask", chest / "two.nrrd", "--label", 1) == 0
    chosen = own_bank(("mine",)).lesion("mine")
    assert np.array_equal(chosen.alpha, alone.alpha)
    assert np.array_equal(chosen.intensity_hu, alone.intensity_hu)


def test_a_synthetic_slice_gives_a_lesion_that_says_so(
    chest: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from HiResMedSynthLib import read

    whole = read.read_image

    def synthetic(*which: Any, **how: Any) -> MedicalImage:
        return dataclasses.replace(whole(*which, **how), oddities=("the source is itself synthetic (0008,001C)",))

    monkeypatch.setattr(read, "read_image", synthetic)
    assert train(monkeypatch, chest) == 0
    assert "itself synthetic" in capsys.readouterr().err
    card = weights.find("mine").card
    assert "synthetic image" in card.data
    assert "source image" in card.licence
    assert "synthetic" in own_bank(("mine",)).cards["mine"].origin


BAD = {
    "doesn't meet": ["--mask", "moved.nrrd"],
    "mask is empty": ["--mask", "empty.nrrd"],
    "of the image": ["--mask", "whole.nrrd"],
    "several labels": ["--mask", "two.nrrd"],
    "no label 3": ["--mask", "two.nrrd", "--label", "3"],
    "reaches beyond": ["--box", "10,10,60,20,3,9"],
    "its slices too": ["--box", "10,10,20,20"],
    "too few": ["--box", "2,2,3,3,2,3"],
    "can't name a model": ["--name", "../mine"],
    "already": ["--name", "solid-10mm-a"],
    "no interrupted training": ["--resume"],
    "contradict": ["--resume", "--restart"],
    "8-bit picture": ["--window-hu", "-1350:150"],
    "no device 'gpu'": ["--device", "gpu"],
    "no GPU": ["--device", "cuda:77"],
}


@pytest.mark.parametrize("what", BAD)
def test_bad_outlines_are_refused_in_one_paragraph(
    what: str, chest: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [chest / part if part.endswith(".nrrd") else part for part in BAD[what]]
    assert train(monkeypatch, chest, *more) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ")
    assert what in said
    assert said.count("\n") == 1
    assert all(model.shipped for model in weights.models())
    assert not (store / "training" / "mine").exists()


@pytest.mark.parametrize(
    ("image", "what", "more"),
    [("nan.nrrd", "NaN", ()), ("colour.png", "colour", ()), ("grey.png", "Hounsfield", ("--spacing-mm", "1")),
     ("grey.png", "spacing", ("--window-hu", "-1350:150"))],
)  # fmt: skip
def test_bad_images_are_refused_in_one_paragraph(
    image: str, what: str, more: tuple[str, ...], chest: Path, store: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    mask = chest / ("mask.nrrd" if image.endswith("nrrd") else "grey-mask.png")
    assert run(monkeypatch, "lesion", "train", chest / image, "--mask", mask, "--preset", "tiny", *more) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ")
    assert what in said
    assert said.count("\n") == 1


def test_a_lesion_beyond_64_voxels_is_refused_with_what_fits(
    chest: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import SimpleITK as sitk

    grid = np.indices((30, 96, 40)) - np.array([15, 48, 20])[:, None, None, None]
    alpha = np.clip(1 + 10 * (1 - np.sqrt((grid[0] / 8) ** 2 + (grid[1] / 38) ** 2 + (grid[2] / 8) ** 2)), 0, 1)
    hu = alpha * 20 + (1 - alpha) * -850 + np.random.default_rng(0).normal(0, 10, alpha.shape)
    for name, array in (("long", np.round(hu).astype(np.int16)), ("long-mask", (alpha > 0.5).astype(np.uint8))):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(chest / f"{name}.mha"))
    assert run(monkeypatch, "lesion", "train", chest / "long.mha", "--mask", chest / "long-mask.mha") == 1
    said = capsys.readouterr().err
    assert "up to 64" in said
    assert "Outline one of up to" in said


def test_an_interrupted_training_resumes_to_the_weights_of_an_uncut_one(
    chest: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(monkeypatch, chest, "--time-limit", 0) == 1
    assert "Stopped at the time limit. What was learned is kept" in (told := capsys.readouterr().err)
    assert "--name mine --resume" in told
    assert "Error" not in told
    compose = ("compose", chest / "ct.nrrd", "--out", tmp_path / "no")
    for line in (
        ("lesion", "sample", "mine", "--out", tmp_path / "no"),
        (*compose, "--bank-entry", "mine"),
        (*compose, "--generator", "singan", "--model", "mine"),
    ):
        assert run(monkeypatch, *line) == 1
        assert "the training of 'mine' isn't finished" in capsys.readouterr().err
    assert all(model.shipped for model in weights.models())
    assert train(monkeypatch, chest) == 1
    assert "interrupted training of that name is kept" in capsys.readouterr().err
    assert train(monkeypatch, chest, "--resume", "--type", "calcified") == 1
    assert "another lesion" in capsys.readouterr().err
    assert train(monkeypatch, chest, "--resume") == 0
    resumed = load_file(weights.find("mine").path)
    weights.remove("mine")
    assert train(monkeypatch, chest) == 0
    uncut = load_file(weights.find("mine").path)
    assert set(uncut) == set(resumed)
    assert all(np.array_equal(uncut[name], resumed[name]) for name in uncut)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_keeps_the_training(chest: Path, store: Path) -> None:
    line = [str(Path(sys.executable).parent / "hiresmedsynth"), "lesion", "train", str(chest / "ct.nrrd")]
    line += ["--mask", str(chest / "mask.nrrd"), "--preset", "paper", "--dimensions", "2", "--name", "mine"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        deadline, log = time.monotonic() + 120, store / "training" / "mine" / "log.jsonl"
        while process.poll() is None and time.monotonic() < deadline and not log.exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "--name mine --resume" in said
    assert "Nothing was left" not in said
    assert (store / "training" / "mine" / "checkpoint.safetensors").is_file()
    assert not (store / "mine.safetensors").exists()


def test_models_are_added_listed_and_removed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = add_singan(tmp_path, "mine")
    shutil.copy(model.path, tmp_path / "copy.safetensors")
    assert run(monkeypatch, "models", "add", tmp_path / "copy.safetensors", "--name", "theirs") == 0
    assert run(monkeypatch, "models", "list", "--kind", "lesion-singan") == 0
    said = capsys.readouterr().out
    assert "mine" in said
    assert "theirs" in said
    content = bytearray(model.path.read_bytes())
    content[-1] ^= 1
    model.path.write_bytes(content)
    assert run(monkeypatch, "models", "list") == 0
    assert "hash differs" in capsys.readouterr().out
    assert run(monkeypatch, "lesion", "sample", "mine", "--out", tmp_path / "out") == 1
    assert "hash differs" in capsys.readouterr().err
    for name in ("mine", "theirs"):
        assert run(monkeypatch, "models", "remove", name) == 0
    assert run(monkeypatch, "models", "remove", "mine") == 1
    assert list(store.glob("*.safetensors")) == []


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--contrast-hu", "10:20"], "stored values"),
        (["--cnr", "1:2"], "radiograph"),
        (["--generator", "learned", "--model", "nobody"], "no model 'nobody'"),
        (["--contrast", "1:2", "--contrast-hu", "1:2"], "both given"),
        (["--model", "mine"], "uses no model"),
    ],
)
def test_compose_refuses_what_a_film_or_generator_cant_do(
    more: list[str], what: str, store: Path, cxr_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    film = ("compose", cxr_file, "--domain", "cxr", "--spacing-mm", "0.342,0.4175", "--size-mm", "15:20")
    assert run(monkeypatch, *film, *more, "--out", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ")
    assert what in said


def test_every_help_page_of_these_groups_has_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from HiResMedSynthLib.cli.lesion import lesion_group
    from HiResMedSynthLib.cli.models import models_group

    for group in (lesion_group, models_group):
        for name in group.commands:
            assert run(monkeypatch, str(group.name), name, "--help") == 0
            assert f"hiresmedsynth {group.name} {name}" in capsys.readouterr().out
