"""Runs packed into a release, and films made from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from HiResMedSynthLib.background.cascade import FilmCascade, load_cascade
from HiResMedSynthLib.background.flow_unet import FlowUNet, FlowUNetShape
from HiResMedSynthLib.errors import ReadError, SettingsError
from Training.loop import CHECKPOINT, Progress, save_checkpoint
from Training.pack_cascade import pack
from Training.sample_film import nearest_correlation
from Training.train_background import STAGES, read_preset


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained tiny networks; what starts at zero (tails, modulation) is set at random."""
    runs = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    for stage in STAGES:
        shape = FlowUNetShape.from_json(read_preset("tiny")[stage]["network"])
        network = FlowUNet(shape)
        for parameter in network.parameters():
            if not parameter.detach().any():
                torch.nn.init.normal_(parameter, std=0.1)
        (runs / stage).mkdir()
        save_checkpoint(
            runs / stage / CHECKPOINT,
            network,
            network.state_dict(),
            torch.optim.AdamW(network.parameters()),
            progress=Progress(step=3),
            description={"network": shape.to_json(), "unit": 0.5, "size": 16, "spacing_mm": 1.68},
        )
    assert set(pack(runs, runs / "release.safetensors")) == set(STAGES)
    return runs / "release.safetensors"


@pytest.fixture(scope="module")
def cascade(release: Path) -> FilmCascade:
    return load_cascade(release)


def test_a_seed_gives_the_same_film_again_and_another_seed_another(cascade: FilmCascade) -> None:
    film = cascade.generate(seed=4)
    assert film.shape == (256, 256)
    assert np.abs(film).max() <= 1
    np.testing.assert_array_equal(film, cascade.generate(seed=4))
    assert np.abs(film - cascade.generate(seed=5)).mean() > 0.01


def test_stages_can_be_stopped_and_are_told(cascade: FilmCascade) -> None:
    told: list[str] = []
    assert cascade.generate(seed=1, sex="F", until="detail-256", on_step=told.append).shape == (64, 64)
    assert told == ["film", "detail-256"]


def test_sex_matters_where_given(cascade: FilmCascade) -> None:
    female, male = (cascade.generate(seed=1, sex=sex, until="film") for sex in ("F", "M"))
    assert not np.array_equal(female, male)


def test_impossible_choices_are_refused(cascade: FilmCascade) -> None:
    with pytest.raises(SettingsError, match="detail-512"):
        cascade.generate(seed=1, until="detail-512")
    with pytest.raises(SettingsError, match="sex X"):
        cascade.generate(seed=1, sex="X")


def test_other_files_are_no_cascade(tmp_path: Path, release: Path) -> None:
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    with pytest.raises(ReadError, match="no film cascade"):
        load_cascade(tmp_path / "no.safetensors")
    with pytest.raises(ReadError, match="no film cascade"):
        load_cascade(release.parent / "film" / CHECKPOINT)


def test_a_planted_copy_is_found() -> None:
    films = np.random.default_rng(0).normal(size=(5, 16, 16)).astype(np.float32)
    assert nearest_correlation(films[3] * 2 + 1, films) == pytest.approx(1, abs=1e-5)
    assert nearest_correlation(films[3], np.delete(films, 3, axis=0)) < 0.5
