"""Runs packed into a release, and films made from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from HiResMedSynthLib.background.cascade import FilmCascade, build_network, load_cascade
from HiResMedSynthLib.errors import ReadError, SettingsError
from Training.checkpoint import CHECKPOINT, Progress, save_checkpoint
from Training.pack_cascade import pack
from Training.preset_files import read_preset, stages_of
from Training.sample_film import nearest_correlation

SIZES = {"film": 16, "detail-256": 64, "detail-1024": 256}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained tiny networks; what starts at zero (tails, modulation) is set at random."""
    runs = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    preset = read_preset("tiny")
    for stage in stages_of(preset):
        network = build_network(preset[stage])
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
            description={
                **{name: preset[stage][name] for name in ("network", "code") if name in preset[stage]},
                "unit": 0.5,
                "size": 16,
                "grid": 4,
                "spacing_mm": 1.68 * 16 / SIZES[stage],
            },
        )
    assert set(pack(runs, runs / "release.safetensors", preset="tiny")) == set(SIZES)
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


def test_codes_keep_what_is_known_and_leave_the_rest_open(cascade: FilmCascade) -> None:
    film = cascade.generate(seed=1)
    codes = cascade.encode(film)
    assert codes.shape == (1, 4, 4, 4)
    assert torch.equal(codes, cascade.encode(film))
    free = cascade.generate(seed=2, until="film")
    nothing_known = cascade.generate(seed=2, until="film", codes=codes, known=torch.zeros(1, 1, 4, 4))
    all_known = cascade.generate(seed=2, until="film", codes=codes)
    np.testing.assert_array_equal(free, nothing_known)
    assert np.abs(free - all_known).mean() > 0.01


def test_nothing_of_the_picture_passes_beside_the_codes(cascade: FilmCascade) -> None:
    network = cascade.first
    picture = torch.randn(1, 2, 64, 64, requires_grad=True)
    told = {"condition": torch.ones(1, 1, 16, 16), "known": torch.ones(1, 1, 4, 4), "label": torch.zeros(1).long()}
    noisy, time = torch.randn(1, 1, 16, 16), torch.full((1,), 0.5)
    codes = network.encoder(picture)
    steps = (codes + 1) * 0.5 * (torch.tensor([8, 5, 5, 5]) - 1)[:, None, None]
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    by_picture = network(noisy, time, picture=picture, **told)
    by_codes = network(noisy, time, codes=codes.detach(), **told)
    assert torch.equal(by_picture, by_codes)


def test_a_distilled_stage_walks_its_own_few_steps(release: Path, tmp_path: Path) -> None:
    runs = release.parent
    assert load_cascade(release).stages["detail-1024"].shortcut is None
    (runs / "detail-1024-fast").mkdir()
    with safe_open(runs / "detail-1024" / CHECKPOINT, framework="pt") as file:
        state = json.loads(file.metadata()["state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    state["description"]["shortcut"] = [0.0, 0.5, 1.0]
    save_file(tensors, runs / "detail-1024-fast" / CHECKPOINT, metadata={"state": json.dumps(state)})
    pack(runs, tmp_path / "fast.safetensors", preset="tiny")
    fast = load_cascade(tmp_path / "fast.safetensors")
    assert fast.stages["detail-1024"].shortcut == (0.0, 0.5, 1.0)
    assert fast.generate(seed=4).shape == (256, 256)


def test_impossible_choices_are_refused(cascade: FilmCascade) -> None:
    with pytest.raises(SettingsError, match="detail-512"):
        cascade.generate(seed=1, until="detail-512")
    with pytest.raises(SettingsError, match="sex X"):
        cascade.generate(seed=1, sex="X")


def test_other_files_are_no_cascade(tmp_path: Path, release: Path) -> None:
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    with pytest.raises(ReadError, match=r"no film cascade .it is no safetensors file, or it is cut off"):
        load_cascade(tmp_path / "no.safetensors")
    with pytest.raises(ReadError, match=r"no film cascade .it lacks 'cascade'"):
        load_cascade(release.parent / "film" / CHECKPOINT)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"domain": "../elsewhere"}, "its domain"),
        ({"domain": "/tmp/elsewhere"}, "its domain"),
        ({"domain": ""}, "its domain"),
        ({"domain": "cxr\n"}, "its domain"),
        ({"domain": "x" * 40}, "its domain"),
        ({"domain": None}, "its domain"),
        ({"stages": [1]}, "its stages"),
        ({"stages": {}}, "its stages"),
        ({"without": ("film", "code")}, "'film' has no codes"),
        ({"without": ("detail-256", "network")}, "network"),
        ({"spacing_mm": float("nan")}, "spacing_mm"),
        ({"spacing_mm": "no number"}, "no number"),
    ],
)
def test_a_description_that_cannot_be_walked_is_refused(
    release: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with safe_open(release, framework="pt") as file:
        described = json.loads(file.metadata()["cascade"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    if "without" in changes:
        stage, key = changes["without"]
        del described["stages"][stage][key]
    elif "spacing_mm" in changes:
        described["stages"]["film"] |= changes
    else:
        described |= changes
    save_file(tensors, tmp_path / "odd.safetensors", metadata={"cascade": json.dumps(described)})
    with pytest.raises(ReadError, match=f"no film cascade.*{words}"):
        load_cascade(tmp_path / "odd.safetensors")


def test_a_planted_copy_is_found() -> None:
    films = np.random.default_rng(0).normal(size=(5, 16, 16)).astype(np.float32)
    assert nearest_correlation(films[3] * 2 + 1, films) == pytest.approx(1, abs=1e-5)
    assert nearest_correlation(films[3], np.delete(films, 3, axis=0)) < 0.5
