"""Inception where its weights lie on the machine: torchvision's own forward pass, and what is said where they don't."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.evaluation.evaluate_sets import EvaluationSettings, evaluate
from HiResMedSynthLib.evaluation.inception import SPACE, WEIGHTS, inception_features
from HiResMedSynthLib.torchvision_guard import import_torchvision
from Testing.evaluation.films import put_films
from Testing.test_cli import run


class Evil:
    """Runs code where a file is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (Path.write_text, (Path("ran"), "code"))


@pytest.fixture()
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub folder for checkpoints; the working folder is beside it."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_its_features_are_what_the_classifier_sees(checkpoints: Path) -> None:
    import_torchvision()
    from torchvision import models

    torch.manual_seed(0)
    network = models.inception_v3(weights=None, init_weights=False, transform_input=True)
    torch.save({name: value.half() for name, value in network.state_dict().items()}, checkpoints / WEIGHTS)
    film = np.random.default_rng(1).random((299, 299), dtype=np.float32)
    found = inception_features(film)

    network.load_state_dict(torch.load(checkpoints / WEIGHTS, weights_only=True))
    seen: list[torch.Tensor] = []
    network.fc.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    colours = models.Inception_V3_Weights.IMAGENET1K_V1.transforms(crop_size=299, resize_size=299)
    with torch.no_grad():
        network.eval()(colours(torch.from_numpy(film).expand(3, -1, -1))[None])
    assert found.shape == (2048,)
    np.testing.assert_allclose(found, seen[0][0].numpy(), rtol=1e-4, atol=1e-6)


def test_missing_and_foreign_weights_are_told_and_no_code_runs(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = np.zeros((64, 64), np.float32)
    for side in ("real", "made"):
        put_films(tmp_path / side, range(2))
    monkeypatch.setattr("HiResMedSynthLib.evaluation.evaluate_sets.survey", lambda *_, **__: pytest.fail("images read"))
    with pytest.raises(HiResMedSynthError, match="not on this machine"):
        evaluate(tmp_path / "real", tmp_path / "made", EvaluationSettings(spaces=(SPACE,)))
    (checkpoints / WEIGHTS).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(HiResMedSynthError, match="is not torchvision's Inception"):
        inception_features(film)
    assert not Path("ran").exists()


def test_features_whose_weights_are_not_here_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HIRESMEDSYNTH_CACHE", str(tmp_path / "cache"))
    put_films(tmp_path / "real", range(6))
    put_films(tmp_path / "made", range(100, 106))
    line = ("evaluate", tmp_path / "real", tmp_path / "made", "--report", tmp_path / "r", "--features", "inception")
    assert run(monkeypatch, *line) == 1
    assert WEIGHTS in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
