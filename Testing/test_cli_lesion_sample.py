"""`lesion sample` as a user meets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from HiResMedSynthLib import weights
from Testing.lesion.small_models import add_singan
from Testing.test_cli import run


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "models"))
    return tmp_path / "models"


def test_samples_are_volumes_arrays_and_a_picture(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import SimpleITK as sitk

    add_singan(tmp_path, "mine")
    wish = ("--count", 3, "--seed", 5, "--size-mm", "8:12", "--contrast-hu", "500:600")
    for name, out in (("mine", "a"), ("mine", "b"), ("solid-10mm-a", "c")):
        assert run(monkeypatch, "lesion", "sample", name, *wish, "--out", tmp_path / out) == 0
    assert "by deform" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    volumes = [f"sample-{k:04d}{part}.nrrd" for k in (1, 2, 3) for part in ("-alpha", "")]
    assert names == [*volumes, "samples.npz", "samples.png"]
    first, second = (np.load(tmp_path / out / "samples.npz", allow_pickle=False) for out in "ab")
    assert np.array_equal(first["values"], second["values"])
    assert first["values"].shape == (3, 2, 32, 32, 32)
    assert ((first["diameter_mm"] >= 8) & (first["diameter_mm"] <= 12)).all()
    with Image.open(tmp_path / "a" / "samples.png") as picture:
        assert picture.text["Description"].startswith("SYNTHETIC")
    hu, alpha = (sitk.ReadImage(str(tmp_path / "a" / f"sample-0001{part}.nrrd")) for part in ("", "-alpha"))
    assert hu.GetOrigin() == alpha.GetOrigin()
    inside = sitk.GetArrayFromImage(alpha) >= 0.5
    assert 499 <= sitk.GetArrayFromImage(hu)[inside].mean() + 860 <= 601
    assert np.abs(hu.TransformPhysicalPointToContinuousIndex((0.0, 0.0, 0.0)) - np.array(hu.GetSize()) / 2).max() < 6
    assert run(monkeypatch, "lesion", "sample", "mine", *wish, "--out", tmp_path / "a") == 1
    assert run(monkeypatch, "lesion", "sample", "mine", *wish, "--generator", "deform", "--overwrite",
               "--out", tmp_path / "a") == 0  # fmt: skip
    assert not list(tmp_path.glob(".*part"))


def test_overwrite_spares_files_that_no_call_wrote(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ("lesion", "sample", "solid-10mm-a", "--out", tmp_path / "s", "--overwrite")
    assert run(monkeypatch, *line, "--count", 2) == 0
    assert "1 of 2 samples" in capsys.readouterr().err  # progress without a terminal
    for name in ("thesis.txt", "sample-0003.nrrd"):
        (tmp_path / "s" / name).write_text("precious")
        assert run(monkeypatch, *line, "--count", 1) == 1
        assert name in capsys.readouterr().err
        assert (tmp_path / "s" / name).read_text() == "precious"
        (tmp_path / "s" / name).unlink()
    assert run(monkeypatch, *line, "--count", 1) == 0
    names = ["sample-0001-alpha.nrrd", "sample-0001.nrrd", "samples.npz", "samples.png"]
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == names
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_ctrl_c_keeps_the_whole_samples(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from HiResMedSynthLib.lesion import samples

    line = ("lesion", "sample", "solid-10mm-a", "--seed", 3, "--count")
    assert run(monkeypatch, *line, 3, "--out", tmp_path / "uncut") == 0
    whole, calls = samples.draw_sample, iter(range(9))

    def cut(*given: Any, **how: Any) -> samples.Sample:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return whole(*given, **how)

    monkeypatch.setattr(samples, "draw_sample", cut)
    assert run(monkeypatch, *line, 3, "--out", tmp_path / "cut") == 130
    said = capsys.readouterr().err
    assert "2 of 3" in said
    assert "Nothing was left" not in said
    kept, uncut = (np.load(tmp_path / out / "samples.npz", allow_pickle=False)["values"] for out in ("cut", "uncut"))
    assert np.array_equal(kept, uncut[:2])
    assert len(list((tmp_path / "cut").iterdir())) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "uncut"]


def test_seeds_beyond_32_bits_give_other_samples(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ("lesion", "sample", "solid-10mm-a", "--count")
    assert run(monkeypatch, *line, 2, "--seed", 1, "--out", tmp_path / "a") == 0
    assert run(monkeypatch, *line, 1, "--seed", 1 + 2**32, "--out", tmp_path / "b") == 0
    one, other = (np.load(tmp_path / out / "samples.npz", allow_pickle=False)["values"] for out in "ab")
    assert not np.array_equal(one[1], other[0])


def test_a_model_of_another_lesion_is_not_drawn_under_a_name(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = add_singan(tmp_path, "mine")
    weights.add(model.path, "twin")
    add_singan(tmp_path, "other", "solid-16mm-a")
    line = ("lesion", "sample", "--generator", "singan", "--count", 1)
    for number, (name, drawn) in enumerate((("solid-10mm-a", "mine"), ("mine", "twin"), ("mine", "mine"))):
        assert run(monkeypatch, *line, name, "--model", drawn, "--out", tmp_path / str(number)) == 0
    for name in ("solid-10mm-a", "mine"):
        assert run(monkeypatch, *line, name, "--model", "other", "--out", tmp_path / "out") == 1
        assert "of another lesion" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["nobody"], "neither the bank nor your models"),
        (["solid-10mm-a", "--generator", "singan"], "no model for the generator"),
        (["solid-10mm-a", "--spiculation", "3"], "learned generator only"),
        (["solid-10mm-a", "--size-mm", "0:3"], "can't be"),
        (["solid-10mm-a", "--size-mm", "0.3:0.3", "--voxel-mm", "2"], "fills no voxel"),
    ],
)
def test_samples_that_cant_be_are_refused(
    arguments: list[str], what: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(monkeypatch, "lesion", "sample", *arguments, "--out", tmp_path / "out") == 1
    assert what in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
