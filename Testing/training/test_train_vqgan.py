"""The VQGAN's trainer with its tiny preset on films made here."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file

from HiResMedSynthLib.background.vqgan import Vqgan
from HiResMedSynthLib.background.vqgan_file import load_vqgan
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError, SettingsError
from Testing.benchmarks.convergence import main as convergence
from Testing.benchmarks.convergence_results import Curve, table
from Testing.training.interrupted import interrupted_after
from Testing.training.two_processes import run_in_two_processes
from Training.checkpoint import CHECKPOINT
from Training.film_data import Film
from Training.ranks import Ranks
from Training.schedule import rate_share
from Training.train_vqgan import main, make_shape, read_vqgan_preset
from Training.vqgan_data import FilmTensors, load_film_tensors
from Training.vqgan_loop import train
from Training.vqgan_step import BAD_STEPS_ALLOWED, VqganSettings, VqganTraining, make_settings


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten films of 64 px, two of them held out, with ten padded columns left and right; the padding is white."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[0:64, 0:64] / 63
    grey = np.zeros((10, 64, 64), dtype=np.uint8)
    for film in grey:
        middle = 0.3 + 0.05 * rng.normal()
        lungs = np.exp(-(((column - middle) / 0.13) ** 2)) + np.exp(-(((column - 0.7) / 0.13) ** 2))
        film[:] = (180 - 130 * lungs * np.sin(np.pi * row) + rng.normal(0, 4, row.shape)).clip(0, 255)
    masks = np.zeros_like(grey)
    masks[:, :, 10:-10] = 1
    grey[masks == 0] = 255
    path = tmp_path_factory.mktemp("films") / "films.npz"
    np.savez(path, films=grey, masks=masks, held_out=np.arange(10) < 2)
    return path


def run(films: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["--preset", "tiny", "--films", str(films), "--out", str(out), *more])


def log_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def tiny_training(films: Path, **changes: object) -> VqganTraining:
    tables = read_vqgan_preset("tiny")
    torch.manual_seed(1)
    network = Vqgan(make_shape(tables["network"], size=64))
    return VqganTraining(network, load_film_tensors(films, size=64), make_settings(tables["loop"], **changes))


def test_a_run_leaves_log_sheet_checkpoint_and_network(films: Path, tmp_path: Path) -> None:
    result = run(films, tmp_path)
    assert result.exit_code == 0, result.output
    before, *lines = log_of(tmp_path)
    assert [line["step"] for line in lines] == [4, 8]
    assert before["step"] == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["first"]["held_out_l1"] == before["held_out_l1"] > report["last"]["held_out_l1"]
    assert "<polyline" in (tmp_path / "report.html").read_text()
    for name in ("loss", "reconstruction", "commitment", "codebook", "code_use", "code_perplexity", "held_out_l1"):
        assert np.isfinite([line[name] for line in lines]).all()
    assert "separation" not in lines[0]  # the adversary starts at step 4
    assert np.isfinite([lines[1][name] for name in ("separation", "discriminator")]).all()
    assert lines[1]["adversarial"] != 0
    assert np.asarray(Image.open(tmp_path / "sheet-000008.png")).shape == (128, 128)
    network, header = load_vqgan(tmp_path / "vqgan.safetensors")
    assert header["training"]["films"] == 8
    average = load_file(tmp_path / CHECKPOINT)["average.encoder.to_code.weight"]
    assert torch.allclose(network.encoder.to_code.weight, average, atol=1e-3)


def test_training_improves_on_held_out_films(films: Path, tmp_path: Path) -> None:
    training = tiny_training(films, steps=60, report_every=5, adversarial_start=1000, learning_rate=4e-3, revive=5)
    train(training, out=tmp_path, description={})
    lines = log_of(tmp_path)
    assert lines[-1]["loss"] < 0.5 * lines[1]["loss"]
    assert lines[-1]["held_out_l1"] < 0.7 * lines[0]["held_out_l1"]


MUCH = """
[data]
size = 64
canvas_px = 256
spacing_mm = 1.68
[network]
base = "vqgan"
match = true
widths = [4, 8, 8, 16]
codes = 16
dimension = 8
[loop]
learning_rate = 2e-3
batch = 4
accumulate = 2
steps = 6
warm_up = 3
anneal = 0.3
perceptual = 0.0
revive = 3
adversary = "unet"
adversarial_start = 2
adaptive = true
lecam = 0.1
diff_augment = true
precision = "float32"
report_every = 3
"""


def test_resumed_run_equals_an_uninterrupted_one(films: Path, tmp_path: Path) -> None:
    preset = tmp_path / "much.toml"
    preset.write_text(MUCH)
    more = ("--preset", str(preset))
    assert run(films, tmp_path / "whole", *more).exit_code == 0
    tables = read_vqgan_preset(str(preset))
    torch.manual_seed(1)
    training = VqganTraining(
        Vqgan(make_shape(tables["network"], size=64)), load_film_tensors(films, size=64), make_settings(tables["loop"])
    )
    training.network.train()  # the same run, cut at step 4
    for step in range(4):
        for optimiser in (training.state.optimiser, training.state.adversary_optimiser):
            optimiser.param_groups[0]["lr"] = 2e-3 * rate_share(step, training.settings)
        assert training.step()
    (tmp_path / "cut").mkdir()
    training.state.save(tmp_path / "cut" / CHECKPOINT, {})
    refused = run(films, tmp_path / "cut", *more)
    assert refused.exit_code != 0
    assert "--resume" in refused.output
    resumed = run(films, tmp_path / "cut", *more, "--resume")
    assert resumed.exit_code == 0, resumed.output
    whole, cut = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert {"weights_exp_avg.encoder.to_code.weight", "adversary_exp_avg_sq.pixel.bias", "counts"} <= whole.keys()
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), name


def test_ctrl_c_ends_the_step_under_way_and_resume_goes_on_exactly(films: Path, tmp_path: Path) -> None:
    whole, cut, resumed = (tiny_training(films, steps=6, adversarial_start=0) for _ in range(3))
    interrupted_after(3, cut.state.optimiser)  # the network is updated, its adversary and average aren't
    with pytest.raises(KeyboardInterrupt):
        train(cut, out=tmp_path / "cut", description={})
    assert cut.state.progress.step == 3
    train(resumed, out=tmp_path / "cut", description={}, resume=True)
    train(whole, out=tmp_path / "whole", description={})
    for part in ("network", "adversary"):
        one, other = (getattr(training.state, part).state_dict() for training in (whole, resumed))
        assert all(torch.equal(value, other[name]) for name, value in one.items()), part


@pytest.mark.parametrize(("name", "other"), [("seed", 2), ("perceptual", True), ("data_sha256", "0")])
def test_a_run_is_not_resumed_as_another(films: Path, tmp_path: Path, name: str, other: object) -> None:
    first = tiny_training(films, steps=1)
    described = {"seed": 1, "perceptual": False, "data_sha256": first.films.sha256}
    train(first, out=tmp_path, description=described)
    with pytest.raises(SettingsError, match="The run in this folder has another"):
        train(tiny_training(films, steps=2), out=tmp_path, description={**described, name: other}, resume=True)


def test_a_preset_that_lacks_a_table_is_told(films: Path, tmp_path: Path) -> None:
    (tmp_path / "lacking.toml").write_text("[loop]\n")
    refused = run(films, tmp_path / "run", "--preset", str(tmp_path / "lacking.toml"))
    assert "The preset lacks 'data'" in refused.output


def test_checkpoint_of_other_layers_is_refused(films: Path, tmp_path: Path) -> None:
    assert run(films, tmp_path / "run", "--steps", "1").exit_code == 0
    (tmp_path / "other.toml").write_text(MUCH)
    refused = run(films, tmp_path / "run", "--preset", str(tmp_path / "other.toml"), "--resume")
    assert refused.exit_code != 0
    assert "doesn't fit this preset" in refused.output


def test_two_processes_train_one_network(films: Path, tmp_path: Path) -> None:
    """They hold equal weights to the bit (the loop checks it at each report), about those of one process."""
    arguments = ["--preset", "tiny", "--films", str(films), "--out", str(tmp_path / "two")]
    run_in_two_processes("Training.train_vqgan", arguments)
    assert [line["processes"] for line in log_of(tmp_path / "two")[1:]] == [2, 2]
    assert run(films, tmp_path / "one").exit_code == 0
    start = tiny_training(films).network.state_dict()
    one, two = (load_file(tmp_path / name / CHECKPOINT) for name in ("one", "two"))
    moved = [torch.cat([(run[f"weights.{n}"] - v).flatten() for n, v in start.items()]) for run in (one, two)]
    assert float(torch.nn.functional.cosine_similarity(moved[0], moved[1], dim=0)) > 0.9


def test_drifted_weights_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = iter([0.0, 1.0])  # what the smallest and the largest of two processes have more
    monkeypatch.setattr("torch.distributed.all_reduce", lambda values, **_: values.add_(next(changed)))
    with pytest.raises(HiResMedSynthError, match="drifted"):
        Ranks(world=2).check_equal(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_agree_on_clocks_and_signals_and_the_first_keeps_all_counts(
    monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """The other process says 0.4 and 1, and has counted 5 and 0: `rank` has said 0.3 and 0, and counted 2 and 7."""

    def reduced(values: torch.Tensor, op: object = torch.distributed.ReduceOp.SUM) -> None:
        if op == torch.distributed.ReduceOp.MAX:
            values.copy_(torch.maximum(values, torch.tensor([0.4, 1.0])))
        else:
            values.add_(torch.tensor([5, 0]))

    monkeypatch.setattr("torch.distributed.all_reduce", reduced)
    ranks, counts = Ranks(rank=rank, world=2), torch.tensor([2, 7])
    assert ranks.largest(0.3, 0.0) == pytest.approx((0.4, 1.0))
    ranks.gather_first(counts)
    assert counts.tolist() == ([7, 7] if rank == 0 else [0, 0])


def test_an_epoch_shows_each_training_film_once_and_ranks_share_it(films: Path) -> None:
    data = load_film_tensors(films, size=64)
    batches = [data.train_batch(step=step, batch=4, seed=3, change=False)[0] for step in range(4)]
    sums = [sorted(round(float(film.sum()), 3) for film in torch.cat(batches[k : k + 2])) for k in (0, 2)]
    assert sums[0] == sums[1] == sorted(round(float(f.sum()), 3) for f in data.chosen(torch.arange(2, 10))[0])
    parts = [data.train_batch(step=1, batch=4, seed=3, change=True, rank=rank, world=2)[0] for rank in (0, 1)]
    whole = data.train_batch(step=1, batch=4, seed=3, change=True)[0]
    assert torch.equal(torch.stack([parts[0][0], parts[1][0], parts[0][1], parts[1][1]]), whole)


def test_padding_is_in_no_batch(films: Path) -> None:
    data = load_film_tensors(films, size=64)
    for change in (False, True):
        image, mask = data.train_batch(step=0, batch=8, seed=1, change=change)
        assert float((image * (1 - mask)).abs().max()) == 0
        assert 0 < float(mask.mean()) < 0.75
        assert float(image.max()) < 0.99  # the padding is white


def test_films_of_a_cache_and_of_an_archive_are_the_same(films: Path, tmp_path: Path) -> None:
    with np.load(films) as stored:
        np.save(tmp_path / "films.npy", (stored["films"] / 127.5 - 1).astype(np.float16))
    described = [
        asdict(Film(name=str(n), patient=str(n), label=0, held_out=n < 2, field=(0, 10, 64, 44))) for n in range(10)
    ]
    (tmp_path / "films.json").write_text(json.dumps(described))
    one, other = load_film_tensors(films, size=32), load_film_tensors(tmp_path / "films.npy", size=32)
    assert torch.allclose(one.films.float(), other.films.float(), atol=2e-3)
    assert torch.equal(one.masks, other.masks)
    assert torch.equal(one.held_out, other.held_out)


def test_bad_films_are_refused(films: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="divides"):
        load_film_tensors(films, size=48)
    np.savez(tmp_path / "one.npz", films=np.zeros((3, 8, 8), np.uint8), masks=np.ones((3, 8, 8)), held_out=[False] * 3)
    with pytest.raises(SettingsError, match="held out to measure on"):
        load_film_tensors(tmp_path / "one.npz", size=8)
    (tmp_path / "no.npz").write_bytes(b"nothing")
    with pytest.raises(ReadError, match="no prepared films"):
        load_film_tensors(tmp_path / "no.npz", size=8)
    assert "one place" in CliRunner().invoke(main, ["--size", "64", "--out", str(tmp_path / "x")]).output


def test_a_loss_that_stays_nan_stops_the_run(films: Path, tmp_path: Path) -> None:
    training = tiny_training(films, steps=100)
    data = training.films
    training.films = FilmTensors(films=data.films * float("nan"), masks=data.masks, held_out=data.held_out)
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    with pytest.raises(HiResMedSynthError, match=f"{BAD_STEPS_ALLOWED} steps running"):
        train(training, out=tmp_path, description={})
    assert all(torch.equal(value, before[name]) for name, value in training.network.state_dict().items())
    assert (tmp_path / CHECKPOINT).is_file()


def test_a_blind_discriminator_is_an_alarm(films: Path, tmp_path: Path) -> None:
    training = tiny_training(films, adversarial_start=0, learning_rate=0.0)
    for parameter in training.state.adversary.parameters():
        torch.nn.init.zeros_(parameter)
    train(training, out=tmp_path, description={})
    assert "can't tell" in str(log_of(tmp_path)[-1]["alarm"])


def test_the_preset_of_the_unet_adversary_trains_with_all_that_holds_it_back(films: Path) -> None:
    settings = make_settings(read_vqgan_preset("unet")["loop"])
    assert settings.adversary == "unet"
    assert settings.diff_augment
    assert min(settings.lecam, settings.consistency) > 0
    training = tiny_training(films)
    changed = replace(settings, perceptual=0.0, adversarial_start=0, batch=4, precision="float32")
    training = VqganTraining(training.network, training.films, changed)
    assert all(training.step() for _ in range(2))
    assert np.isfinite([*training.logged["discriminator"], *training.logged["adversarial"]]).all()
    assert training.state.lecam.real != 0


def test_consistency_is_a_flag_of_the_unet_adversary(films: Path) -> None:
    learned = {}
    for weight in (0.0, 1.0):
        training = tiny_training(films, adversarial_start=0, adversary="unet", consistency=weight, diff_augment=True)
        assert all(training.step() for _ in range(2))
        learned[weight] = training.state.adversary.state_dict()["pixel.parametrizations.weight.original"]
    assert not torch.equal(learned[0.0], learned[1.0])
    with pytest.raises(SettingsError, match="unet"):
        tiny_training(films, consistency=1.0)


def test_the_faster_precision_is_taken_and_kept(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[str] = []

    def faster(step: object, device: str) -> tuple[str, dict[str, float]]:
        for name in ("float32", "bfloat16"):
            step(name)  # type: ignore[operator]
            timed.append(name)
        return "bfloat16", {"float32": 2.0, "bfloat16": 1.0}

    monkeypatch.setattr("Training.vqgan_step.faster_precision", faster)
    train(tiny_training(films, precision="auto", steps=4), out=tmp_path, description={})
    train(tiny_training(films, precision="auto", steps=8), out=tmp_path, description={}, resume=True)
    assert timed == ["float32", "bfloat16"]  # a resumed run doesn't choose again
    assert {line["precision"] for line in log_of(tmp_path)[1:]} == {"bfloat16"}


def test_time_limit_ends_a_run(films: Path, tmp_path: Path) -> None:
    training = tiny_training(films, steps=10**6)
    train(training, out=tmp_path, description={}, time_limit_s=1.0)
    assert 0 < training.state.progress.step < 1000


@pytest.mark.parametrize(("step", "share"), [(0, 0.1), (9, 1.0), (50, 1.0), (90, 0.5)])
def test_rate_warms_up_and_falls_at_the_end(step: int, share: float) -> None:
    assert rate_share(step, VqganSettings(steps=100, warm_up=10, anneal=0.2)) == pytest.approx(share)
    assert rate_share(step, VqganSettings(steps=100)) == 1  # the paper's is constant


@pytest.mark.parametrize("name", ["paper", "vqgan", "tiny"])
def test_presets_are_whole(name: str) -> None:
    tables = read_vqgan_preset(name)
    settings = make_settings(tables["loop"])
    shape = make_shape(tables["network"], size=tables["data"]["size"])
    assert shape.block == ("residual" if name == "vqgan" else "hdfb")
    if name != "tiny":
        assert (settings.learning_rate, settings.betas, settings.batch) == (2.25e-5, (0.5, 0.9), 8)
        assert (settings.alpha, settings.gamma, settings.adversarial_start) == (1.0, 0.33, 10_000)
    with pytest.raises(SettingsError):
        make_settings({"colour": 1})
    with pytest.raises(SettingsError):
        VqganTraining(Vqgan(make_shape(read_vqgan_preset("tiny")["network"], size=64)), None,  # type: ignore[arg-type]
                      replace(settings, adversary="other"))  # fmt: skip


def test_convergence_benchmark_writes_what_it_saw(films: Path, tmp_path: Path) -> None:
    line = ["--films", str(films), "--size", "64", "--widths", "4,8,8,16", "--seeds", "1", "--steps", "4"]
    line += ["--every", "2", "--revive", "2", "--batch", "4"]
    result = CliRunner().invoke(convergence, [*line, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "curves.json").read_text())
    assert [(c["model"], c["step"]) for c in record["curves"]] == [("paper", [2, 4]), ("vqgan", [2, 4])]
    costs = [record["cost"][name]["parameters"] for name in ("paper", "vqgan")]
    assert costs[0] == pytest.approx(costs[1], rel=0.02)
    assert Image.open(tmp_path / "curves.png").width > 1000
    assert np.asarray(Image.open(tmp_path / "sheet.png")).shape == (192, 128)
    assert "drop_path 0.1" in (tmp_path / "table.md").read_text()


def test_convergence_table_by_hand() -> None:
    curves = [
        Curve(model=model, seed=seed, step=[10, 20, 30], seconds=[1.0, 2.0, 3.0], loss=[0.4, first, second],
              reconstruction=[0.0] * 3, held_out_l1=[1.0] * 3, perplexity=[5.0] * 3)
        for model, seed, first, second in (
            ("paper", 1, 0.09, 0.08), ("paper", 2, 0.09, 0.04), ("vqgan", 1, 0.2, 0.1), ("vqgan", 2, 0.2, 0.1)
        )
    ]  # fmt: skip
    rows = {line.split(" | ")[0]: line for line in table(curves, {}, "").splitlines()}
    assert rows["| 0.1"] == "| 0.1 | 20 ± 0 | 2.0 ± 0.0 | 30 ± 0 | 3.0 ± 0.0 | 0.67 | 0.67 |"
    assert rows["| 0.05"] == "| 0.05 | 30 (1 of 2) | 3.0 (1 of 2) | - | - | - | - |"
