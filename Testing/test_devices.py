"""What computes on a GPU computes on a device that isn't the CPU: nothing is left behind, the numbers are the CPU's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from HiResMedSynthLib import free_memory, weights
from HiResMedSynthLib.background import memory
from HiResMedSynthLib.background.cascade import SamplingSettings
from HiResMedSynthLib.background.find_model import BackgroundModel, loading
from HiResMedSynthLib.background.find_prior import BackgroundPrior
from HiResMedSynthLib.background.make import generate, reconstruct
from HiResMedSynthLib.background.rebuild import Rebuilder, rebuild
from HiResMedSynthLib.background.token_layers import PriorShape
from HiResMedSynthLib.background.token_prior import TokenPrior, build_prior, encoder_fingerprint
from HiResMedSynthLib.background.vqgan import Vqgan, preset_shape
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.ground import prepare_ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.lesion.flow_net import LesionFlowNet, LesionNetShape
from HiResMedSynthLib.lesion.learned import LearnedGenerator
from HiResMedSynthLib.lesion.singan_merged import MergedScale
from HiResMedSynthLib.lesion.singan_timing import seconds_on_gpu
from HiResMedSynthLib.lesion.singan_train import _Run, train_singan
from HiResMedSynthLib.placement.network import NetworkPlan, PlacementNetwork
from HiResMedSynthLib.read import read_image
from Testing.background.tiny_cascade import add_tiny
from Testing.elsewhere import elsewhere
from Testing.lesion.singan_runs import SMALL_PAPER, TINY, assert_same
from Training import train_background, vqgan_losses
from Training.captured_step import CapturedStep, adamw
from Training.precision import faster_precision

FEW = SamplingSettings(film_steps=2, detail_steps=1)
SECOND = torch.device("cuda", 1)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackgroundModel:
    monkeypatch.setenv("HIRESMEDSYNTH_MODELS", str(tmp_path / "store"))
    return add_tiny(tmp_path, name="our-films")


def prior(model: BackgroundModel, kind: str) -> BackgroundPrior:
    torch.manual_seed(1)
    levels = model.cascade.first.code_shape.levels
    network = build_prior(PriorShape(kind=kind, levels=levels, grid=4, width=16, depth=1, heads=2)).eval()
    known = TokenPrior(network=network, fingerprint=encoder_fingerprint(model.cascade.first))
    return BackgroundPrior(name=kind, prior=known, steps=2, guidance=1.5)


def lesion() -> np.ndarray:
    row, column = np.mgrid[-1:1:30j, -1:1:30j]
    alpha = np.clip(2 - 3 * np.hypot(row, column), 0, 1)
    return np.stack([alpha * (0.8 + 0.1 * np.sin(9 * row)), alpha]).astype(np.float32)


def test_the_stand_in_refuses_what_a_gpu_does() -> None:
    with elsewhere() as device:
        there, here = torch.ones(3, device=device), torch.ones(3)
        assert torch.equal((there + 1).cpu(), here + 1)
        assert float(there.sum()) == 3
        with pytest.raises(RuntimeError, match="mixes devices"):
            there + here
        with pytest.raises(RuntimeError, match="mixes devices"):
            here[torch.zeros(2, dtype=torch.long, device=device)]
        with pytest.raises(RuntimeError, match="generator of another device"):
            torch.randn(2, device=device, generator=torch.Generator().manual_seed(1))
        with pytest.raises(TypeError, match="cpu"):
            there.numpy()


def test_films_are_made_varied_and_rebuilt(model: BackgroundModel) -> None:
    def made() -> list[MedicalImage]:
        new = generate(model, seed=3, settings=FEW).image
        drawn = [
            generate(model, seed=4, sex="F", like=new, strength=0.7, prior=one, settings=FEW).image for one in priors
        ]
        return [new, *drawn, reconstruct(model, new).image]

    priors = [prior(model, kind) for kind in ("masked", "gpt")]
    expected = made()
    with elsewhere() as device:
        model.cascade.on(device)
        for one in priors:
            one.prior.network.to(device)
        found = made()
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one.pixels.astype(float) - other.pixels).max() <= 4  # of 65535: rounding


def test_a_vqgan_and_the_lesion_generator(model: BackgroundModel) -> None:
    torch.manual_seed(2)
    shape = replace(preset_shape("paper", size=64, widths=(8, 8, 8, 16)), codes=16, dimension=8)
    vqgan = Rebuilder(name="ours", network=Vqgan(shape).eval(), spacing_mm=3.0)
    network = LesionFlowNet(LesionNetShape(widths=(8, 8), blocks=(1, 1))).eval()
    learned = LearnedGenerator(network=network, shortcut=(0.0, 0.5, 1.0), licence="", attribution="")
    film, wanted = generate(model, seed=1, size=64, settings=FEW).image, np.zeros((2, 10), np.float32)
    whole, values = rebuild(vqgan, film).image.pixels, learned.values(wanted, rng=np.random.default_rng(1))
    with elsewhere() as device:
        vqgan.network.to(device)
        assert np.abs(rebuild(vqgan, film).image.pixels.astype(float) - whole).max() <= 1
        found = learned.values(wanted, rng=np.random.default_rng(1), device=device)
    np.testing.assert_allclose(found, values, atol=1e-5)


def test_a_placement_network_answers_in_arrays() -> None:
    network = nn.Conv2d(1, 1, 3, padding=1)
    answering = PlacementNetwork.of(NetworkPlan(task="danger-film", classes=("heart",)), network)
    picture = np.random.default_rng(1).random((1, 1, 32, 32), dtype=np.float32)
    expected = answering.logits(picture)
    with elsewhere() as device:
        network.to(device)
        np.testing.assert_allclose(answering.logits(picture), expected, atol=1e-6)


def test_a_lesions_gan_is_trained(tmp_path: Path) -> None:
    few = replace(TINY, iterations=(3,), reals=2, cache=2)
    with elsewhere() as device:
        (network,) = train_singan([lesion()], few, out=tmp_path / "there", device=device)
        (again,) = train_singan([lesion()], few, out=tmp_path / "again", device=device)
    assert network.finished
    assert network.sample(np.random.default_rng(1)).shape == (2, 30, 30)
    assert_same(network, again)


def test_the_gpus_iteration_runs_in_bfloat16(tmp_path: Path) -> None:
    """Its batch norms kept bfloat16 moments, which the running float32 ones can't take up."""
    run = _Run(SMALL_PAPER, [lesion()], seed=1, out=tmp_path, device=torch.device("cpu"), bf16=True, graph=False)
    run.open(resume=False)
    scale = run.current
    assert scale is not None
    merged = MergedScale(SMALL_PAPER, scale.data, scale.chain, scale=0, lesions=1, seed=1, device=run.device, bf16=True)
    merged.prepare(0)
    merged.iterate()
    assert torch.isfinite(merged.metrics).all()
    moments = [value for name, value in merged.generator.state_dict().items() if "norms" in name and "mean" in name]
    assert all(value.dtype == torch.float32 and value.any() for value in moments)


def test_a_perceptual_loss_elsewhere_leaves_the_loaded_network_here(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = nn.Conv2d(1, 1, 1)
    monkeypatch.setattr(vqgan_losses, "st_lpips", lambda: loaded)
    placed: Any = vqgan_losses.load_perceptual("meta")
    assert (placed.weight.device.type, loaded.weight.device.type) == ("meta", "cpu")


# -- the memory of a GPU ---------------------------------------------------------------------------------------------
def test_the_cpus_memory_says_nothing_of_a_gpus(model: BackgroundModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    with pytest.raises(SettingsError, match="are free"):
        memory.require_memory(model.cascade, "film")
    memory.require_memory(model.cascade.on("meta"), "film")
    memory.require_memory_to_rebuild(preset_shape("paper"), SECOND)


def test_what_torch_keeps_for_later_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[bool] = []
    for name, value in {"mem_get_info": (100, 999), "memory_reserved": 70, "memory_allocated": 30}.items():
        monkeypatch.setattr(torch.cuda, name, lambda _device, value=value: value)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(True))
    assert free_memory.free_bytes("cuda") == 140
    for library in ("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "CUDNN_STATUS_ALLOC_FAILED"):
        assert free_memory.is_short_of_memory(RuntimeError(f"error: {library}"))
    free_memory.give_back_cached()
    assert not given_back  # no GPU was used
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    free_memory.give_back_cached()
    assert given_back


def test_a_gpu_without_kernels_is_told_when_a_model_is_loaded(
    model: BackgroundModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    found = weights.find(model.name, "background")
    monkeypatch.setattr(torch, "zeros", none)
    with pytest.raises(SettingsError, match="device 'cuda' can't be used"), loading(found, "cuda"):
        pass
    with loading(found, "cpu"):
        pass


def test_a_trainer_refuses_a_gpu_that_is_not_there_before_it_reads(tmp_path: Path) -> None:
    line = ["film", "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--device", "cuda:77"]
    refused = CliRunner().invoke(train_background.main, line)
    assert (refused.exit_code, "there is no GPU for --device cuda:77" in refused.output) == (1, True)


# -- a machine with two GPUs -----------------------------------------------------------------------------------------
class Second:
    """torch.cuda's own names, which note every device that they are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        for name in ("Stream", "current_stream", "synchronize"):
            monkeypatch.setattr(torch.cuda, name, lambda device=None: self.asked.append(device) or self)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch.cuda, "stream", lambda _stream: self)
        monkeypatch.setattr(torch.cuda, "graph", lambda _graph, stream=None: self if stream is self else 1 / 0)

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
    def wait_stream(self, _other: object) -> None: ...
    def replay(self) -> None: ...


def test_graphs_and_clocks_are_of_the_device_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph captured on the current device would hold nothing of another one's work, and train nothing."""
    network = nn.Linear(1, 1)
    optimiser = adamw(network, learning_rate=0.1, weight_decay=0.0, device="cpu", captured=True)
    step = CapturedStep(network, dict(network.state_dict()), optimiser, lambda: network(torch.ones(1)).sum(), clip=1.0)
    step.device = SECOND
    monkeypatch.setattr(step, "_step", lambda: None)
    second = Second(monkeypatch)
    for seed in range(5):
        step.take(seed=seed, rate=0.1, share=0.1)
    assert step.graph is second
    seconds_on_gpu(lambda: None, SECOND)
    assert set(second.asked) == {SECOND}
    second.asked.clear()
    faster_precision(lambda _: None, "cuda:1")
    assert set(second.asked) == {"cuda:1"}


def test_places_are_found_with_the_networks_elsewhere_as_on_the_cpu(ct_series_folder: Path, cxr_file: Path) -> None:
    for image, domain in (
        (read_image(ct_series_folder, slice_index=6), "lung-ct"),
        (read_image(cxr_file, spacing_mm=(0.342, 0.4175)), "cxr"),
    ):
        here = prepare_ground(image, domain=domain)  # type: ignore[arg-type]
        with elsewhere() as device:
            there = prepare_ground(image, domain=domain, device=device)  # type: ignore[arg-type]
            method = there.method
        assert (there.danger_map.labels == here.danger_map.labels).mean() > 0.9999
        assert f" on {device}" in method
        assert here.method == method.replace(f" on {device}", "")
