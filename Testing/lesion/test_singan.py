"""SinGAN: the official schedule, K lesions as K single ones, resumed as uncut, refused with a remedy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from HiResMedSynthLib.errors import BankError, HiResMedSynthError, SettingsError
from HiResMedSynthLib.lesion.bank import load_bank
from HiResMedSynthLib.lesion.lesion_grid import to_grid
from HiResMedSynthLib.lesion.singan import SinGan
from HiResMedSynthLib.lesion.singan_settings import PAPER, SinGanSettings, official_sizes, preset
from HiResMedSynthLib.lesion.singan_step import Scale
from HiResMedSynthLib.lesion.singan_train import train_singan
from Testing.lesion.singan_runs import SMALL_PAPER, TINY, assert_same, read_log


@pytest.mark.parametrize(
    ("side", "sizes"),
    [
        (25, [25]),
        (48, [25, 29, 35, 41, 48]),
        (64, [25, 30, 36, 44, 53, 64]),
        (96, [25, 31, 39, 49, 61, 77, 96]),
        (500, [25, 32, 42, 54, 70, 90, 116, 150, 194, 250]),
    ],
)
def test_the_official_pyramid(side: int, sizes: list[int]) -> None:
    assert official_sizes((side, side)) == [(n, n) for n in sizes]


def test_the_paper_preset_is_the_official_schedule() -> None:
    p = preset("paper", 2)
    assert (p.layers, p.iterations_at(5), p.d_steps, p.g_steps, p.batch) == (5, 2000, 3, 3, 1)
    assert (p.gradient_penalty, p.reconstruction, p.noise, p.g_rate, p.d_rate) == (0.1, 10.0, 0.1, 5e-4, 5e-4)
    assert p.decay_at * p.iterations_at(0) == 1600
    assert [p.width(k) for k in range(12)] == [32] * 4 + [64] * 4 + [128] * 4
    assert p.adversary == "wgan-gp"
    assert [s[0] for s in preset("better", 2).sizes((64, 64))] == [25, 34, 47, 64]
    assert [s[0] for s in preset("better", 3).sizes((32, 32, 32))] == [17, 23, 32]
    assert SinGanSettings.from_json(json.loads(json.dumps(p.to_json()))) == p
    with pytest.raises(SettingsError, match="no preset 'best'"):
        preset("best", 2)


def test_paper_weights_start_as_the_official_ones_and_are_handed_on(flats: list[np.ndarray], tmp_path: Path) -> None:
    still = dataclasses.replace(PAPER, g_rate=0.0, d_rate=0.0, iterations=(1,))
    model = train_singan(flats[:1], still, out=tmp_path / "same")[0]
    first = model.nets[0].state_dict()
    assert float(first["convs.2.weight"].std()) == pytest.approx(0.02, rel=0.05)
    assert float(first["norms.1.weight"].mean()) == pytest.approx(1.0, abs=0.02)
    assert first["convs.0.weight"].shape == (32, 2, 3, 3)
    for net in model.nets[1:]:
        assert torch.equal(net.state_dict()["convs.2.weight"], first["convs.2.weight"])
    assert model.amplitudes[0] == 1.0
    rest = dataclasses.replace(still, double_every=1, channels=8)
    wider = train_singan(flats[:1], rest, out=tmp_path / "wider")[0]
    assert [net.state_dict()["convs.1.weight"].shape[0] for net in wider.nets] == [8, 16, 32]


def test_noise_amplitude_is_a_tenth_of_the_error_before_the_scale(flats: list[np.ndarray], tmp_path: Path) -> None:
    from HiResMedSynthLib.lesion.singan_nets import resize

    model = train_singan(flats[:1], SMALL_PAPER, out=tmp_path)[0]
    real = torch.from_numpy(model.scaling.apply(model.values))[None]
    below = SinGan(model.settings, model.values, [model.nets[0].state_dict()], [1.0], model.start)
    below.sizes = below.sizes[:1]  # the first scale's own reconstruction
    reached = torch.from_numpy(model.scaling.apply(below.values * 0))[None]
    with torch.no_grad():
        z = model.start.expand(1, 2, *model.sizes[0])
        reached = torch.tanh(model.nets[0](torch.nn.functional.pad(z, (5,) * 4)))
    error = resize(reached, model.sizes[1]) - resize(real, model.sizes[1])
    assert model.amplitudes[1] == pytest.approx(0.1 * float(error.square().mean().sqrt()), rel=1e-2)


def test_the_gradient_penalty_by_hand() -> None:
    from HiResMedSynthLib.lesion.singan_step import Chain, Scale, ScaleData

    n = 10
    settings = dataclasses.replace(PAPER, layers=1)
    zeros = torch.zeros(1, 2, n, n)
    data = ScaleData(reals=zeros, lower=None, fixed=zeros, fixed_noise=zeros, amplitude=torch.ones(1, 2, 1, 1))
    scale = Scale(
        settings, data, Chain(settings, [], [], [(n, n)]), scale=0, lesions=1, seed=1, device=zeros.device, bf16=False
    )
    with torch.no_grad():  # a linear critic 3 x + 4 y: its slope has norm 5 inside, 0 in the rim that it doesn't see
        weight = scale.critic.convs[0].weight
        weight.zero_()
        weight[0, :, 1, 1] = torch.tensor([3.0, 4.0])
    scale.prepare(0)
    inside = (n - 2) ** 2
    expected = (inside * (5 - 1) ** 2 + (n**2 - inside) * 1) / n**2
    assert float(scale._penalty(zeros, zeros + 1, 0).detach()) == pytest.approx(expected)


@pytest.mark.parametrize("form", ["tiny 2-D", "tiny 3-D", "paper"])
def test_two_lesions_at_once_are_two_single_runs(
    form: str, solids: list[np.ndarray], flats: list[np.ndarray], tmp_path: Path, doubles: None
) -> None:
    grids, settings = {
        "tiny 2-D": (flats, preset("tiny", 2)),
        "tiny 3-D": ([grid[:, 2:14, 2:14, 2:14] for grid in solids], dataclasses.replace(TINY, iterations=(3,))),
        "paper": (flats, SMALL_PAPER),
    }[form]
    both = train_singan(grids, settings, seed=5, out=tmp_path / "both")
    for k in range(2):
        alone = train_singan(grids[k : k + 1], settings, seed=5 + k, out=tmp_path / str(k))[0]
        assert_same(both[k], alone, tolerance=1e-4)
        rngs = [np.random.default_rng(3) for _ in range(2)]
        assert np.allclose(both[k].sample(rngs[0]), alone.sample(rngs[1]), atol=1e-4)
    assert np.abs(both[0].sample(np.random.default_rng(3)) - both[1].sample(np.random.default_rng(3))).max() > 0.1


def test_block_diagonal_convolutions_are_grouped_ones() -> None:
    from HiResMedSynthLib.lesion.singan_nets import ScaleNet

    net = ScaleNet(3, 2, 1, width=4, layers=3, dims=3, batch_norm=True, padding=1, spectral=True).eval()
    net.draw_weights([torch.Generator().manual_seed(k) for k in range(3)], official=False)
    x = torch.randn(2, 6, 7, 7, 7, generator=torch.Generator().manual_seed(9))
    grouped = net(x)
    net.use_dense(True)
    assert torch.allclose(net(x), grouped, atol=1e-5)
    for conv in net.convs:
        for _ in range(100):
            conv.power_iteration()
        flat = conv._flat().detach()
        found = torch.einsum("ko,koi,ki->k", conv.u, flat, conv.v)
        assert torch.allclose(found, torch.linalg.matrix_norm(flat, ord=2), rtol=1e-3)


def test_resizing_keeps_constants_and_is_the_usual_cubic() -> None:
    from HiResMedSynthLib.lesion.singan_nets import resize

    assert torch.allclose(resize(torch.full((1, 2, 9, 9, 9), 0.7), (13, 5, 9)), torch.tensor(0.7))
    x = torch.randn(1, 1, 24, 24, generator=torch.Generator().manual_seed(1))
    usual = torch.nn.functional.interpolate(x, (12, 12), mode="bicubic", antialias=True)
    assert torch.allclose(resize(x, (12, 12))[..., 3:-3, 3:-3], usual[..., 3:-3, 3:-3], atol=1e-5)


def test_the_log_tells_where_training_stands(
    solids: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from HiResMedSynthLib.lesion import singan_train

    seconds = iter(range(1_000_000))
    monkeypatch.setattr(singan_train, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    lines: list[dict[str, Any]] = []
    train_singan(solids[:1], TINY, out=tmp_path, report=lines.append)
    assert [(line["scale"], line["iteration"]) for line in lines] == [(0, 10), (0, 20), (1, 10), (1, 20)]
    assert lines[-1]["left_s"] == 0
    assert lines[0]["left_s"] > lines[1]["left_s"] > lines[2]["left_s"] > 0
    assert 0 < lines[0]["seconds"] < lines[1]["seconds"] < lines[2]["seconds"]
    assert {"gap", "d_loss", "g_loss", "rec_rmse"} <= lines[0].keys()
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == lines


def test_training_learns_to_give_the_lesion_back(flats: list[np.ndarray], tmp_path: Path) -> None:
    settings = dataclasses.replace(PAPER, iterations=(40,), channels=8)
    model = train_singan(flats[:1], settings, out=tmp_path)[0]
    first, *_, last = read_log(tmp_path)
    assert last["rec_rmse"] < 0.5 * first["rec_rmse"]
    untrained = dataclasses.replace(settings, iterations=(1,))
    assert model.rmse_hu() < train_singan(flats[:1], untrained, out=tmp_path / "none")[0].rmse_hu()


def test_a_scale_ends_when_its_reconstruction_is_flat(solids: list[np.ndarray], tmp_path: Path) -> None:
    still = dataclasses.replace(TINY, g_rate=0.0, flat=0.5, flat_window=2, report_every=2)
    train_singan(solids[:1], still, out=tmp_path)
    assert [line["iteration"] for line in read_log(tmp_path) if line["scale"] == 1][-1] == 8


def test_a_dead_critic_stops_the_run(
    solids: list[np.ndarray], flats: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = dataclasses.replace(
        TINY, iterations=(200,), g_rate=0.0, d_rate=0.0, start_strength=0.0, real_strength=0.0, noise=0.0
    )
    with pytest.raises(HiResMedSynthError, match=r"critic is dead: for 100 iterations") as stopped:
        train_singan(solids[:1], same, out=tmp_path / "hinge")
    assert "seed" in stopped.value.remedy
    judged = Scale._judge
    monkeypatch.setattr(Scale, "_judge", lambda scale, images: 0 * judged(scale, images))
    few = dataclasses.replace(SMALL_PAPER, iterations=(110,), layers=2, d_steps=1, g_steps=1)
    with pytest.raises(HiResMedSynthError, match=r"critic is dead: .*loss 0\.100"):  # WGAN-GP: its penalty alone
        train_singan(flats[:1], few, out=tmp_path / "wgan-gp")


def test_a_loss_that_is_no_number_stops_the_run(solids: list[np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(HiResMedSynthError, match="became NaN at scale 0") as stopped:
        train_singan(solids[:1], dataclasses.replace(TINY, g_rate=1e30), out=tmp_path)
    assert "g_rate" in stopped.value.remedy


def test_samples_follow_their_seed_and_diversity(trained: SinGan) -> None:
    one, again, other = (trained.sample(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.dtype == np.float32
    assert one.shape == trained.values.shape
    assert np.array_equal(one, again)
    assert np.abs(one - other).max() > 0.1
    assert one[1].min() >= 0
    assert one[1].max() <= 1
    assert np.array_equal(trained.sample(np.random.default_rng(1), diversity=0.0), trained.reconstruct())
    spread = [
        np.mean(
            [np.abs(trained.sample(np.random.default_rng(k), diversity=d) - trained.values).mean() for k in range(6)]
        )
        for d in (0.3, 1.5)
    ]
    assert spread[1] > 1.5 * spread[0]


def test_diversity_of_a_start_from_noise(flats: list[np.ndarray], tmp_path: Path) -> None:
    model = train_singan(flats[:1], SMALL_PAPER, out=tmp_path)[0]
    assert np.allclose(model.sample(np.random.default_rng(1), diversity=0.0), model.reconstruct(), atol=1e-6)
    assert np.abs(model.sample(np.random.default_rng(1)) - model.reconstruct()).max() > 0.05


def test_deformed_starts_stay_inside_the_grid(trained: SinGan) -> None:
    from HiResMedSynthLib.lesion.singan_warp import Warper, draw_warp

    values = to_grid(load_bank().lesion("solid-16mm-a")).values
    warper, rng = Warper(values), np.random.default_rng(4)
    assert np.allclose(warper(draw_warp(rng, 3, 0.0), (32, 32, 32)), values, atol=1e-5)
    for _ in range(20):
        alpha = warper(draw_warp(rng, 3, 1.2), (24, 24, 24))[1]
        assert max(side.max() for axis in range(3) for side in (alpha.take(0, axis), alpha.take(-1, axis))) < 0.1
        assert 0.25 < alpha.sum() / values[1].sum() * (32 / 24) ** 3 < 4


def test_a_stored_model_samples_as_before(trained: SinGan, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    trained.save(file, metadata={"card": "{}"}, tensors={"lesion.alpha": np.ones(3, np.uint8)})
    again = SinGan.load(file)
    assert again.settings == trained.settings
    assert again.finished
    assert np.array_equal(again.sample(np.random.default_rng(8)), trained.sample(np.random.default_rng(8)))
    assert np.array_equal(load_file(file)["lesion.alpha"], np.ones(3, np.uint8))
    assert file.stat().st_size < 200_000


def test_a_file_that_is_no_model_is_refused(trained: SinGan, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    trained.save(file)
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'\\"version\\": 1,', b'\\"version\\": 9,'))
    with pytest.raises(BankError, match="of version 9") as refused:
        SinGan.load(file)
    assert "train the model anew" in refused.value.remedy
    for content in (b"", b"hello", whole[:-9], whole.replace(b"singan.0.convs.0.bias", b"singan.0.convs.0.bias"[::-1])):
        file.write_bytes(content)
        with pytest.raises(BankError) as refused:
            SinGan.load(file)
        assert refused.value.remedy
    save_file({"x": np.zeros(3)}, file)
    with pytest.raises(BankError, match="no SinGAN model"):
        SinGan.load(file)
    with pytest.raises(BankError, match="can't be read"):
        SinGan.load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("nan", "NaN"),
        ("empty", "matte is empty"),
        ("large", "64 is the most"),
        ("small", "8 is the least"),
        ("bytes", "colour picture"),
        ("channels", "two channels"),
        ("raw", "units of 1000 HU"),
        ("shapes", "one shape"),
        ("none", "no lesion"),
    ],
)
def test_what_is_no_lesion_is_refused(fault: str, said: str, solids: list[np.ndarray], tmp_path: Path) -> None:
    good = solids[0]
    nan = good.copy()
    nan[0, 3, 3, 3] = np.nan
    grids = {
        "nan": [nan],
        "empty": [good * 0],
        "large": [np.zeros((2, 65, 65), np.float32)],
        "small": [good[:, :7]],
        "bytes": [np.zeros((3, 32, 32), np.uint8)],
        "channels": [good[:1]],
        "raw": [good * np.array([1000.0, 1.0]).reshape(2, 1, 1, 1)],
        "shapes": [good, good[:, :12]],
        "none": [],
    }[fault]
    with pytest.raises(BankError, match=said) as refused:
        train_singan(grids, TINY, out=tmp_path)
    assert refused.value.remedy


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cuda_graph_gives_the_plain_iterations(solids: list[np.ndarray], tmp_path: Path) -> None:
    plain, replayed = (
        train_singan(solids, TINY, out=tmp_path / str(graph), device="cuda", graph=graph) for graph in (False, True)
    )
    assert "no CUDA graph" not in (tmp_path / "True" / "log.jsonl").read_text()
    for one, other in zip(plain, replayed, strict=True):
        assert_same(one, other, tolerance=0.05)
