"""The priors' trainer with its tiny preset on films and an untrained cascade made here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file, save_file

from HiResMedSynthLib import weights
from HiResMedSynthLib.background.cascade import build_network, load_cascade
from HiResMedSynthLib.background.find_model import BackgroundModel
from HiResMedSynthLib.background.find_prior import KIND, load_background_prior
from HiResMedSynthLib.background.token_layers import PriorShape
from HiResMedSynthLib.background.token_prior import build_prior, encoder_fingerprint, load_prior
from HiResMedSynthLib.errors import HiResMedSynthError
from Testing.training.film_folder import lungs, size, write_films
from Testing.training.interrupted import interrupted_after
from Testing.training.two_processes import run_in_two_processes
from Training.checkpoint import CHECKPOINT
from Training.film_data import FilmSet, load_films
from Training.film_tokens import FilmEncoder
from Training.loop import BAD_STEPS_ALLOWED, LoopSettings
from Training.preset_files import read_preset
from Training.ranks import Ranks
from Training.release_model import release
from Training.token_loop import PRIOR, PriorTraining, train_prior
from Training.train_token_prior import main, make_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten films, two of them held out, narrower than the canvas; a third states no sex."""
    rng = np.random.default_rng(0)
    return write_films(
        tmp_path_factory.mktemp("films"),
        learned=8,
        picture=lambda _: lungs(0.3 + 0.05 * rng.normal()) + rng.normal(0, 4, (96, 96)),
        row=lambda number: {"sex": ("F", "M", "")[number % 3], **size(128, 256, 1.68)},
    )


def write_cascade(path: Path, *, seed: int) -> Path:
    """A cascade of the film stage alone, untrained."""
    table = read_preset("tiny")["film"]
    torch.manual_seed(seed)
    network = build_network(table)
    described = {
        "network": table["network"],
        "code": table["code"],
        "unit": 0.5,
        "size": 16,
        "grid": 4,
        "spacing_mm": 27.0,
    }
    told = {"domain": "cxr", "stages": {"film": described}}
    tensors = {f"film.{name}": value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, path, metadata={"cascade": json.dumps(told), "card": json.dumps({"name": "theirs"})})
    return path


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cascade(tmp_path_factory.mktemp("cascade") / "cascade.safetensors", seed=0)


def command(films: Path, cascade: Path, out: Path, *more: str, preset: str = "token_prior_tiny") -> list[str]:
    where = ["--cascade", str(cascade), "--data", str(films), "--cache", str(films / "cache"), "--out", str(out)]
    return [*where, "--preset", preset, *more]


def run(films: Path, cascade: Path, out: Path, *more: str, preset: str = "token_prior_tiny") -> Result:
    return CliRunner().invoke(main, command(films, cascade, out, *more, preset=preset))


def gpt_preset(folder: Path) -> str:
    text = (ROOT / "Training" / "presets" / "token_prior_tiny.toml").read_text()
    (folder / "gpt.toml").write_text(text.replace('"masked"', '"gpt"'))
    return str(folder / "gpt.toml")


def log_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["masked", "gpt"])
def test_a_run_leaves_a_log_a_report_and_a_prior_that_its_cascade_draws_and_the_store_takes(
    films: Path, cascade: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = gpt_preset(tmp_path) if kind == "gpt" else "token_prior_tiny"
    result = run(films, cascade, tmp_path / "run", preset=preset)
    assert result.exit_code == 0, result.output
    assert "8 films to train on in 2 changed copies, 2 held out" in result.output
    assert "6.908 nats" in result.output
    lines = log_of(tmp_path / "run")
    assert [line["step"] for line in lines] == [0, 3, 6]
    assert 0 < lines[2]["measured_train"] < lines[1]["measured_train"] < 7.2
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["first"] == lines[0]
    assert report["last"]["step"] == 6
    assert np.asarray(Image.open(tmp_path / "run" / "sheet-last.png")).shape == (32, 32)  # two films over two
    drawer = load_cascade(cascade)
    own = encoder_fingerprint(drawer.first)
    prior = load_prior(tmp_path / "run" / PRIOR, encoder_fingerprint=own)
    assert prior.network.shape.kind == kind
    assert prior.facts["model"] == "theirs"
    assert prior.facts["step"] == report["best_held_out"]["step"]
    codes = prior.sample(2, seed=1, sex="M", encoder_fingerprint=own)
    film = drawer.generate(seed=1, codes=codes[:1], until="film")
    assert film.shape == (16, 16)
    card = {"name": "ours", "kind": KIND, "data": "8 films", "licence": "internal use", "attribution": "our site"}
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "models"))
    weights.add(release(tmp_path / "run" / PRIOR, card, tmp_path / "release"))
    stored = load_background_prior("ours", BackgroundModel(name="theirs", cascade=drawer)).prior
    assert torch.equal(stored.sample(2, seed=1, sex="M", encoder_fingerprint=own), codes)


def test_learning_brings_the_surprise_well_below_even_odds(films: Path, cascade: Path, tmp_path: Path) -> None:
    result = run(films, cascade, tmp_path, "--steps", "80", "--loop", "report_every=40")
    assert result.exit_code == 0, result.output
    assert log_of(tmp_path)[-1]["measured_held_out"] < 5.0  # ln 1000 = 6.91; an untrained encoder uses few codes


def test_resumed_run_equals_an_uninterrupted_one(films: Path, cascade: Path, tmp_path: Path) -> None:
    assert run(films, cascade, tmp_path / "whole").exit_code == 0
    assert run(films, cascade, tmp_path / "cut", "--steps", "3").exit_code == 0
    refused = run(films, cascade, tmp_path / "cut")
    assert refused.exit_code != 0
    assert "--resume" in refused.output
    assert run(films, cascade, tmp_path / "cut", "--resume").exit_code == 0
    whole, cut = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), name


def test_another_cascade_is_refused_for_a_run_that_began(films: Path, cascade: Path, tmp_path: Path) -> None:
    assert run(films, cascade, tmp_path / "run", "--steps", "3").exit_code == 0
    other = write_cascade(tmp_path / "other.safetensors", seed=1)
    refused = run(films, other, tmp_path / "run", "--resume")
    assert refused.exit_code != 0
    assert "codes of another background model" in refused.output


def test_time_and_patience_end_a_run(films: Path, cascade: Path, tmp_path: Path) -> None:
    assert run(films, cascade, tmp_path / "time", "--steps", "100000", "--time-limit", "0.01").exit_code == 0
    assert (tmp_path / "time" / CHECKPOINT).is_file()
    stuck = ("--steps", "1000", "--loop", "learning_rate=0", "--loop", "report_every=1")
    preset = tmp_path / "patient.toml"
    text = (ROOT / "Training" / "presets" / "token_prior_tiny.toml").read_text()
    preset.write_text(text.replace("patience = 1000", "patience = 5"))
    assert run(films, cascade, tmp_path / "stuck", *stuck, preset=str(preset)).exit_code == 0
    assert log_of(tmp_path / "stuck")[-1]["step"] == 6  # best at step 1, then five without better


def test_bad_settings_are_told(films: Path, cascade: Path, tmp_path: Path) -> None:
    assert "1 or more" in run(films, cascade, tmp_path, "--copies", "0").output
    assert "no film cascade" in run(films, films / "index.csv", tmp_path).output
    (tmp_path / "lacking.toml").write_text("[loop]\n")
    assert "lacks 'training'" in run(films, cascade, tmp_path, preset=str(tmp_path / "lacking.toml")).output


@pytest.fixture(scope="module")
def training(films: Path, cascade: Path) -> PriorTraining:
    return make_training(films, cascade)


def film_set(films: Path) -> FilmSet:
    return load_films(films, films / "cache", canvas_px=256, spacing_mm=1.68)


def make_training(films: Path, cascade: Path, *, steps: int = 6) -> PriorTraining:
    tables, loaded = read_preset("token_prior_tiny"), load_cascade(cascade)
    tokens = FilmEncoder(film_set(films), loaded).tokens(copies=3, seed=1)
    torch.manual_seed(0)
    network = build_prior(PriorShape.from_json({**tables["network"], "levels": (8, 5, 5, 5), "grid": 4}))
    settings = make_settings(tables["training"], batch=64, copies=None)
    return PriorTraining(network, tokens, settings, LoopSettings(**{**tables["loop"], "steps": steps}))


def test_codes_are_the_cascades_own_and_changed_copies_differ(
    films: Path, cascade: Path, training: PriorTraining
) -> None:
    encoder = FilmEncoder(film_set(films), load_cascade(cascade))
    tokens = encoder.tokens(copies=3, seed=1)
    assert tokens.changed.digits.shape == (24, 4, 4, 4)
    assert (tokens.changed.digits[:8] != tokens.train.digits).any()
    assert (tokens.changed.digits[:8] != tokens.changed.digits[8:16]).any()
    assert torch.equal(tokens.changed.digits, training.changed.digits)
    assert tokens.held_out.labels.tolist() == [1, 2]
    np.testing.assert_allclose(tokens.train.field[0, 1].numpy(), [0, 1, 1, 0], atol=0.1)


def test_padding_and_told_codes_are_not_counted_and_few_told_codes_are_wrong(training: PriorTraining) -> None:
    batch = training.batch(0, 0)
    inside = batch.field.flatten(1) > 0.5
    told = batch.told.flatten(1)
    assert not (told & ~inside).any()
    assert torch.equal(batch.counted.bool(), inside & ~told)
    assert batch.counted.sum(1).min() >= 1
    assert 0.25 < float(told.sum() / inside.sum()) < 0.5  # 1 - 2 / pi, less by rounding
    assert 0.01 < float((batch.seen != batch.digits).any(1).float().mean()) < 0.15
    assert 0.2 < float((batch.label == 0).float().mean()) < 0.6  # a quarter has none, a tenth is withheld
    again = training.batch(0, 0)
    assert torch.equal(again.seen, batch.seen)
    assert not torch.equal(training.batch(1, 0).seen, batch.seen)


def test_a_loss_that_stays_nan_stops_the_run_and_keeps_it(films: Path, cascade: Path, tmp_path: Path) -> None:
    training = make_training(films, cascade, steps=100)
    with torch.no_grad():
        training.network.place.fill_(float("nan"))
    with pytest.raises(HiResMedSynthError, match=f"in {BAD_STEPS_ALLOWED} steps running"):
        train_prior(training, out=tmp_path, description={"encoder": "f"})
    assert (tmp_path / CHECKPOINT).is_file()


def test_ctrl_c_ends_the_step_under_way_and_resume_goes_on_exactly(films: Path, cascade: Path, tmp_path: Path) -> None:
    whole, cut, resumed = (make_training(films, cascade, steps=5) for _ in range(3))
    interrupted_after(3, cut.optimiser)  # the network is updated, its average isn't
    with pytest.raises(KeyboardInterrupt):
        train_prior(cut, out=tmp_path / "cut", description={"encoder": "f"})
    assert cut.progress.step == 3
    train_prior(resumed, out=tmp_path / "cut", description={"encoder": "f"}, resume=True)
    train_prior(whole, out=tmp_path / "whole", description={"encoder": "f"})
    for part in ("network", "average"):
        one, other = (getattr(training, part).state_dict() for training in (whole, resumed))
        assert all(torch.equal(value, other[name]) for name, value in one.items()), part


def test_processes_take_one_precision_whatever_each_has_timed(
    films: Path, cascade: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else they would measure unlike surprises, and one would end while the others wait for it."""
    training = make_training(films, cascade)
    training.ranks, training.loop = Ranks(world=2), replace(training.loop, precision="auto")
    monkeypatch.setattr("Training.token_loop.faster_precision", lambda *_: ("float32", {}))
    monkeypatch.setattr("torch.distributed.all_reduce", lambda values, **_: values.fill_(1.0))  # the other: bfloat16
    training.choose_precision()
    assert training.progress.precision == "bfloat16"


def test_two_processes_train_together(films: Path, cascade: Path, tmp_path: Path) -> None:
    """Their clocks differ, and by the time that is left their rate falls: it must not differ, nor then the weights."""
    by_time = ("--steps", "100000", "--time-limit", "0.05", "--loop", "anneal=1", "--loop", "report_every=1")
    run_in_two_processes("Training.train_token_prior", command(films, cascade, tmp_path / "run", *by_time))
    lines = log_of(tmp_path / "run")
    assert {line["processes"] for line in lines[1:]} == {2}
    assert [line["step"] for line in lines] == list(range(len(lines)))  # written by the first alone


def test_a_batch_in_two_parts_learns_what_two_processes_learn(films: Path, cascade: Path, tmp_path: Path) -> None:
    run_in_two_processes("Training.train_token_prior", command(films, cascade, tmp_path / "two", "--steps", "3"))
    result = run(films, cascade, tmp_path / "parts", "--steps", "3", "--loop", "accumulate=2")
    assert result.exit_code == 0, result.output
    two, parts = (load_file(tmp_path / name / CHECKPOINT) for name in ("two", "parts"))
    for name, value in two.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)
    odd = run(films, cascade, tmp_path / "odd", "--loop", "accumulate=5")
    assert "can't be split" in odd.output
