"""`generate --prior`: films from codes that a site's own prior draws, and what such a prior can't be used for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from HiResMedSynthLib import weights
from HiResMedSynthLib.background.find_model import BackgroundModel
from HiResMedSynthLib.background.find_prior import KIND, load_background_prior
from HiResMedSynthLib.background.make import generate
from HiResMedSynthLib.background.token_layers import PriorShape
from HiResMedSynthLib.background.token_prior import build_prior, encoder_fingerprint, save_prior
from HiResMedSynthLib.errors import ReadError, SettingsError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import read_image
from Testing.background.tiny_cascade import add_tiny
from Testing.test_cli import run


def add_prior(
    folder: Path, name: str, *, fingerprint: str, kind: str = "masked", classes: int = 2, **facts: Any
) -> None:
    """An untrained prior of 4 x 4 codes in the store; `folder` takes the file that is added."""
    torch.manual_seed(0)
    network = build_prior(PriorShape(kind=kind, grid=4, width=16, depth=1, heads=2, classes=classes))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    card = weights.Card(name=name, kind=KIND, data="nothing: untrained", licence="CC0-1.0", attribution="nobody")
    path = folder / f"{name}.safetensors"
    save_prior(network, path, fingerprint=fingerprint, facts=facts, metadata={"card": card.to_json()})
    weights.add(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundModel]:
    """The model `ours` with priors of its codes (`masked`, `gpt`, `sexless`) and one of others (`theirs`)."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.STORE_VARIABLE, str(folder / "models"))
        model = add_tiny(folder, name="ours")
        own = encoder_fingerprint(model.cascade.first)
        add_prior(folder, "masked", fingerprint=own)
        add_prior(folder, "gpt", fingerprint=own, kind="gpt")
        add_prior(folder, "sexless", fingerprint=own, classes=0)
        add_prior(folder, "theirs", fingerprint="0" * 16, model="other-films")
        add_prior(folder, "nameless", fingerprint="0" * 16)
        yield model


def film() -> MedicalImage:
    y, x = np.mgrid[0 : 1 : 300 * 1j, 0 : 1 : 200 * 1j]
    grey = 2000 + 1500 * np.sin(5 * x + 1) * np.cos(4 * y)
    return MedicalImage(
        pixels=grey.astype(np.uint16), modality="DX", pixel_spacing_mm=(1.1, 1.1), spacing_source="header",
        bits_stored=12,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["masked", "gpt"])
def test_a_seed_makes_the_same_film_from_its_priors_codes_and_another_without(
    model: BackgroundModel, name: str
) -> None:
    prior = load_background_prior(name, model)
    made = generate(model, seed=3, sex="F", size=32, prior=prior)
    assert f"codes by the prior {name} (sha256 " in made.how
    again, without = generate(model, seed=3, sex="F", size=32, prior=prior), generate(model, seed=3, sex="F", size=32)
    np.testing.assert_array_equal(made.image.pixels, again.image.pixels)
    assert np.abs(made.coarse - without.coarse).mean() > 0.01


def test_codes_of_a_given_image_are_kept_and_none_is_told_of_padding(model: BackgroundModel) -> None:
    prior, cascade = load_background_prior("masked", model), model.cascade
    codes = torch.ones(1, 4, 4, 4)
    known, inside = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 16, 16)
    known[..., :2, :] = 1
    inside[..., 12:] = 0  # the last column of codes is padding
    drawn, told = prior.complete(codes, known, cascade=cascade, inside=inside, seed=1, sex=None)
    assert torch.equal(drawn[..., :2, :], codes[..., :2, :])
    assert not torch.equal(drawn[..., 2:, :3], codes[..., 2:, :3])
    assert torch.equal(told[0, 0], torch.tensor([[1.0] * 4, [1.0] * 4, [1.0, 1, 1, 0], [1.0, 1, 1, 0]]))


def test_an_image_that_is_kept_whole_needs_nothing_of_the_prior(model: BackgroundModel) -> None:
    prior, like = load_background_prior("masked", model), film()
    kept = [generate(model, seed=1, like=like, strength=0, size=32, prior=one).coarse for one in (prior, None)]
    np.testing.assert_array_equal(*kept)
    varied = [generate(model, seed=1, like=like, strength=0.5, size=32, prior=one).coarse for one in (prior, None)]
    assert not np.array_equal(*varied)


def test_a_near_copy_is_drawn_again_from_other_codes(model: BackgroundModel) -> None:
    prior, seen = load_background_prior("masked", model), list[int]()

    def why(film: np.ndarray) -> str:
        seen.append(hash(film.tobytes()))
        return "too near" if len(seen) == 1 else ""

    made = generate(model, seed=3, size=32, prior=prior, why_copy=why)
    assert made.redrawn == ("too near",)
    assert seen[0] != seen[1]


def test_a_prior_of_another_codebook_or_without_sexes_is_refused(model: BackgroundModel) -> None:
    with pytest.raises(ReadError, match="for the background model 'other-films', not for 'ours'"):
        load_background_prior("theirs", model)
    with pytest.raises(ReadError, match="for another background model, not for 'ours'"):
        load_background_prior("nameless", model)
    with pytest.raises(weights.ModelError, match="makes backgrounds; needed: one that writes the tokens"):
        load_background_prior("ours", model)
    sexless = load_background_prior("sexless", model)
    assert generate(model, seed=1, size=32, prior=sexless).coarse.shape == (16, 16)
    with pytest.raises(SettingsError, match="knows no sexes"):
        generate(model, seed=1, sex="F", size=32, prior=sexless)


def test_the_command_draws_by_the_prior_and_records_it(
    model: BackgroundModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ("generate", "--model", "ours", "--size", 32, "--format", "nrrd", "--seed", 3, "--out")
    assert run(monkeypatch, *line, tmp_path / "films", "--prior", "masked") == 0
    record = json.loads((tmp_path / "films" / "generated.json").read_text())
    drawn = {"steps": 16, "temperature": 1, "guidance": 1}
    assert record["prior"] == {"name": "masked", "sha256": weights.find("masked").card.sha256, **drawn}
    made = generate(model, seed=3, size=32, prior=load_background_prior("masked", model))
    np.testing.assert_array_equal(read_image(tmp_path / "films" / "cxr-0003.nrrd").pixels, made.image.pixels)
    capsys.readouterr()
    assert run(monkeypatch, *line, tmp_path / "none", "--prior", "theirs") == 1
    said = capsys.readouterr().err
    assert "trained for the background model 'other-films'" in said
    assert "train_token_prior" in said
    assert str(tmp_path) not in said
    assert not (tmp_path / "none").exists()


def test_steps_temperature_and_guidance_reach_the_prior_and_the_record(
    model: BackgroundModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("generate", "--model", "ours", "--size", 32, "--format", "nrrd", "--seed", 3, "--sex", "F")
    changes = {"steps": 8, "temperature": 0.5, "guidance": 3.0}
    told = ("--prior", "masked", "--prior-steps", 8, "--temperature", 0.5, "--guidance", 3)
    assert run(monkeypatch, *line, "--out", tmp_path / "films", *told) == 0
    record = json.loads((tmp_path / "films" / "generated.json").read_text())
    assert {name: record["prior"][name] for name in changes} == changes
    prior = load_background_prior("masked", model)
    made = generate(model, seed=3, sex="F", size=32, prior=replace(prior, **changes))
    assert ", 8 steps, temperature 0.5, guidance 3, seed 3" in made.how
    np.testing.assert_array_equal(read_image(tmp_path / "films" / "cxr-0003.nrrd").pixels, made.image.pixels)
    for name, value in changes.items():
        other = generate(model, seed=3, sex="F", size=32, prior=replace(prior, **{**changes, name: vars(prior)[name]}))
        assert not np.array_equal(other.coarse, made.coarse), (name, value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ("--prior-steps", 8, "--temperature", 0.5),
            "--prior-steps, --temperature would have no effect without --prior",
        ),
        (("--prior", "masked", "--guidance", 2), "--guidance would have no effect without --sex"),
        (("--prior", "gpt", "--prior-steps", 8), "one code after the other"),
        (("--prior", "masked", "--prior-steps", 65), "8<=x<=64"),
    ],
)
def test_what_would_do_nothing_is_refused(
    model: BackgroundModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: tuple[object, ...],
    words: str,
) -> None:
    assert run(monkeypatch, "generate", "--model", model.name, "--size", 32, "--out", tmp_path / "films", *given) != 0
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "films").exists()
