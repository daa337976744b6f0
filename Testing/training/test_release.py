"""From runs to what ships: blended checkpoints, a card and a hash, the spectral calibration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from HiResMedSynthLib import weights
from HiResMedSynthLib.background.calibration import calibrated, gains_for
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation.band_power import power_in
from Training.blend_weights import blend, main
from Training.release_model import release


def checkpoint(path: Path, value: float, step: int, *, size: int = 3) -> Path:
    state = {"step": step, "description": {"stage": "film"}}
    save_file({"average.w": torch.full((size,), value)}, path, metadata={"state": json.dumps(state)})
    return path


def test_blended_weights_lie_between_and_say_so(tmp_path: Path) -> None:
    early, late = checkpoint(tmp_path / "a.safetensors", 1.0, 10), checkpoint(tmp_path / "b.safetensors", 3.0, 90)
    blend(early, late, tmp_path / "run", share=0.25)
    assert load_file(tmp_path / "run" / "best.safetensors")["average.w"].tolist() == [1.5] * 3
    with pytest.raises(SettingsError, match="different layers"):
        blend(early, checkpoint(tmp_path / "c.safetensors", 0.0, 1, size=4), tmp_path / "other", share=0.5)
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    with pytest.raises(SettingsError, match="No trained weights"):
        blend(early, tmp_path / "no.safetensors", tmp_path / "other", share=0.5)
    told = CliRunner().invoke(main, [str(early), str(tmp_path / "no.safetensors"), "--out", str(tmp_path / "other")])
    assert told.output.startswith("Error: No trained weights"), told
    assert not (tmp_path / "other").exists()


def test_a_released_model_carries_its_card_and_is_listed(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "packed.safetensors", metadata={"cascade": "{}"})
    told = {"name": "lungs", "kind": "background", "data": "12 films", "licence": "CC0-1.0", "attribution": "us"}
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "release.json").write_text('{"other.safetensors": "00"}')
    target = release(tmp_path / "packed.safetensors", told, tmp_path / "shipped")
    assert weights.read_card(target).data == "12 films"
    listed = json.loads((tmp_path / "shipped" / "release.json").read_text())
    assert sorted(listed) == ["lungs.safetensors", "other.safetensors"]
    with pytest.raises(SettingsError, match=r"can't be released"):
        release(tmp_path / "packed.safetensors", {**told, "colour": "red"}, tmp_path / "shipped")


def test_calibration_gives_faint_detail_its_power_back_and_keeps_the_rest() -> None:
    rng = np.random.default_rng(0)
    film = rng.normal(size=(256, 256)).astype(np.float32)
    faint = calibrated(film, (0.1, 0.3), (1.0, 0.6))
    bands = ((0.02, 0.1), (0.3, 0.5))
    assert (power_in(faint, bands) / power_in(film, bands)).round(1).tolist() == [1.0, 0.4]
    gains = gains_for(power_in(faint, bands), power_in(film, bands))
    mended = calibrated(faint, (0.1, 0.3), gains)
    np.testing.assert_allclose(power_in(mended, bands) / power_in(film, bands), 1, atol=0.06)
    assert gains_for(np.array([1.0, 100.0]), np.array([100.0, 1.0])) == (2.0, 0.5)
