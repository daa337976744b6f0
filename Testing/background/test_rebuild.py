"""`reconstruct --model` with a VQGAN of the user's own, from the trainer's file to the rebuilt image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from HiResMedSynthLib import weights
from HiResMedSynthLib.background import memory
from HiResMedSynthLib.background.find_model import KIND, find_background
from HiResMedSynthLib.background.rebuild import Rebuilder, load_rebuilder, rebuild
from HiResMedSynthLib.background.vqgan import Reconstruction, Vqgan, preset_shape
from HiResMedSynthLib.background.vqgan_file import save_vqgan
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.export.image_file import write_image_file
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import read_image
from Testing.test_cli import run
from Training.release_model import release

SPACING_MM = 3.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rebuilder]:
    """An untrained VQGAN of 128 px as `train_vqgan` leaves it, released with a card and added as `vqmine`."""
    folder = tmp_path_factory.mktemp("store")
    torch.manual_seed(0)
    network = Vqgan(replace(preset_shape("paper", size=128, widths=(4, 8, 8, 16)), codes=32, dimension=8))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_vqgan(network, folder / "vqgan.safetensors", training={"spacing_mm": SPACING_MM})
    card = {"name": "vqmine", "kind": KIND, "data": "nothing: untrained", "licence": "CC0-1.0", "attribution": "nobody"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.STORE_VARIABLE, str(folder / "models"))
        weights.add(release(folder / "vqgan.safetensors", card, folder / "release"))
        yield load_rebuilder(find_background("vqmine"))


def film() -> MedicalImage:
    """12 bits, 300 x 200 pixels of 1.1 mm; what the detector didn't see is white."""
    y, x = np.mgrid[0 : 1 : 300 * 1j, 0 : 1 : 200 * 1j]
    grey = (2000 + 1500 * np.sin(5 * x + 1) * np.cos(4 * y)).astype(np.uint16)
    grey[:20] = 4095
    return MedicalImage(
        pixels=grey, modality="DX", pixel_spacing_mm=(1.1, 1.1), spacing_source="header", bits_stored=12,
        padding_value=4095,
    )  # fmt: skip


def test_an_image_comes_back_on_its_grid_through_its_grey_range(
    model: Rebuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, seen = film(), list[torch.Tensor]()

    def as_it_came(image: torch.Tensor) -> Reconstruction:
        seen.append(image[0, 0])
        none = torch.zeros(())
        return Reconstruction(image=image, indices=torch.zeros(1, 2, 2), commitment=none, codebook=none)

    monkeypatch.setattr(model.network, "forward", as_it_came)
    made = rebuild(model, given).image
    assert (made.pixels.dtype, made.pixels.shape, made.bits_stored) == (np.uint16, given.pixels.shape, 12)
    np.testing.assert_array_equal(made.pixels[0, :20], given.pixels[0, :20])
    apart = made.pixels[0, 25:].astype(float) - given.pixels[0, 25:]
    assert np.abs(apart).mean() < 15
    rows, columns = round(300 * 1.1 / SPACING_MM), round(200 * 1.1 / SPACING_MM)
    padding = torch.ones(128, 128, dtype=torch.bool)
    top, left = (128 - rows) // 2, (128 - columns) // 2
    padding[top + 7 : top + rows, left : left + columns] = False
    assert not seen[0][padding].any()  # as in training
    assert seen[0][~padding].std() > 0.3
    monkeypatch.undo()
    unknown = rebuild(replace(model, spacing_mm=None), replace(given, pixel_spacing_mm=None, spacing_source="unknown"))
    assert unknown.image.pixels.shape == given.pixels.shape
    assert "4 codes" in unknown.how


def test_the_command_rebuilds_and_the_others_say_why_not(
    model: Rebuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image_file(film(), tmp_path / "film.nrrd", how="made here")
    line = ("reconstruct", tmp_path / "film.nrrd", "--model", "vqmine", "--spacing-mm", 1.1, "--out")
    assert run(monkeypatch, *line, tmp_path / "rebuilt.dcm") == 0
    made = read_image(tmp_path / "rebuilt.dcm")
    expected = rebuild(model, read_image(tmp_path / "film.nrrd", spacing_mm=(1.1, 1.1))).image
    np.testing.assert_array_equal(made.pixels, expected.pixels)
    assert made.pixels.std() > 10
    assert "rebuilt from its 4 codes by the model vqmine (sha256 " in capsys.readouterr().out
    assert run(monkeypatch, *line, tmp_path / "again.dcm", "--seed", 3) == 1
    assert "--seed would have no effect" in capsys.readouterr().err
    assert run(monkeypatch, "generate", "--model", "vqmine", "--out", tmp_path / "films") == 1
    assert "makes none without a prior over its codes" in capsys.readouterr().err
    assert not (tmp_path / "films").exists()


def test_too_little_memory_is_told_before_the_work(model: Rebuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: memory.KEPT_FREE)
    with pytest.raises(SettingsError, match=r"128 x 128 pixels needs about .*Close other programs"):
        rebuild(model, film())


def test_a_vqgan_rebuilds_in_bfloat16_nearly_the_same(
    model: Rebuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image_file(film(), tmp_path / "film.nrrd", how="made for a test", sex=None)
    told = ("reconstruct", tmp_path / "film.nrrd", "--model", "vqmine", "--spacing-mm", "1.1", "--out")
    for precision in ("float32", "bfloat16"):
        assert run(monkeypatch, *told, tmp_path / f"{precision}.nrrd", "--precision", precision) == 0
    here, there = (read_image(tmp_path / f"{kind}.nrrd").pixels.astype(float) for kind in ("float32", "bfloat16"))
    assert np.median(np.abs(here - there)) < 0.1 * np.ptp(here)
