"""Placement networks: plan and file, both engines, sizes that are no multiple of 32, files of another architecture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from HiResMedSynthLib import weights
from HiResMedSynthLib.cli.models import models_group
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.placement.method import PlacementMethod
from HiResMedSynthLib.placement.network import ENTRY, NetworkPlan, PlacementNetwork, build, load_network
from HiResMedSynthLib.weights import ModelError, write_model
from HiResMedSynthLib.whole_tensors import save_state
from Training.pack_placement import pack

FACTS = {"pixel_mm": 1.4, "low_hu": -1000.0, "high_hu": 500.0}
PLAN = NetworkPlan(task="danger-ct", classes=("air", "wall", "lung"), decoder=(16, 8, 8, 8, 8), facts=FACTS)
CARD = {"name": "danger-try", "data": "noise", "licence": "CC0-1.0", "attribution": "nobody"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    torch.manual_seed(0)
    module = build(PLAN)
    for value in module.buffers():  # batch normalisation that has seen something
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    state = {f"average.{name}": value for name, value in module.state_dict().items()}
    save_state(folder / "best.safetensors", state, {"description": {"plan": PLAN.to_json(), "seed": 3}})
    pack(folder, folder / "danger-try.safetensors", CARD)
    return folder / "danger-try.safetensors"


@pytest.fixture
def stored(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "store"))
    return weights.add(packed).card.name


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def test_both_engines_say_the_same_and_sizes_are_kept(stored: str) -> None:
    fast, slow = load_network(stored, engine="onnxruntime"), load_network(stored, engine="torch")
    assert (fast.engine, slow.engine) == ("onnxruntime", "torch")
    given = pictures(2, 1, 70, 45)
    answers = fast.logits(given), slow.logits(given)
    assert answers[0].shape == answers[1].shape == (2, 3, 70, 45)
    assert answers[0].std() > 1e-3
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-3 * float(np.abs(answers[1]).max()))
    assert fast.plan == slow.plan == PLAN


def test_the_list_of_models_says_what_it_is_for(stored: str) -> None:
    done = CliRunner().invoke(models_group, ["list", "--kind", "placement"])
    assert any(line.startswith(stored) and "placement: danger-ct" in line for line in done.output.splitlines())


def test_a_model_of_the_users_own_runs_in_torch(stored: str) -> None:
    assert load_network(stored).own
    assert not load_network("danger-ct").own
    assert load_network(stored).engine == "torch"  # a graph from elsewhere is code that nobody has looked at


def test_pictures_of_other_channels_are_refused(stored: str) -> None:
    with pytest.raises(ModelError, match="takes 1 channels"):
        load_network(stored).logits(pictures(1, 3, 64, 64))


def test_a_module_in_training_answers_and_stays_in_training() -> None:
    module = build(PLAN).train()
    network = PlacementNetwork.of(PLAN, module)
    before = {name: value.clone() for name, value in module.named_buffers()}
    assert network.logits(pictures(1, 1, 64, 64)).shape == (1, 3, 64, 64)
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.named_buffers())


@pytest.mark.parametrize("change", ["shape", "missing", "plan", "version"])
def test_a_file_of_another_architecture_is_refused(
    packed: Path, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays: dict[str, Any] = load_file(packed)
    first = next(name for name, value in arrays.items() if value.ndim == 4)
    plan = PLAN.to_json()
    if change == "shape":
        arrays[first] = arrays[first][:1]
    elif change == "missing":
        del arrays[first]
    elif change == "plan":
        del plan["classes"]
    else:
        plan["version"] = 99
    write_model(
        tmp_path / "odd.safetensors", arrays, weights.Card(kind="placement", **CARD), metadata={ENTRY: json.dumps(plan)}
    )
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "store"))
    weights.add(tmp_path / "odd.safetensors", "odd")
    with pytest.raises(ModelError, match=r"architecture|incomplete|version"):
        load_network("odd")


def test_a_file_without_a_plan_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = weights.Card(kind="placement", **CARD)
    save_file({"a": np.zeros(1, np.float16)}, tmp_path / "x.safetensors", metadata={"card": card.to_json()})
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "store"))
    weights.add(tmp_path / "x.safetensors", "planless")
    with pytest.raises(ModelError, match="holds no network"):
        load_network("planless")


def test_a_model_for_other_pictures_is_refused(stored: str) -> None:
    chosen = PlacementMethod(danger=stored)
    network = chosen.danger_network("lung-ct")
    assert network is not None
    assert network.name == stored
    with pytest.raises(SettingsError, match="forbidden on a chest CT, not what is forbidden on a chest film"):
        chosen.danger_network("cxr")
    with pytest.raises(SettingsError, match="not where lesions are likely on a chest CT"):
        PlacementMethod(prior=stored).local_factor("lung-ct")
    with pytest.raises(ModelError, match="no model 'unheard-of'"):
        PlacementMethod(danger="unheard-of").danger_network("cxr")
    with pytest.raises(ModelError, match="Choose auto, density, distances, or a model"):
        PlacementMethod(prior="distence").local_factor("lung-ct")


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": "tu-hf-hub:someone/something"},
        {"encoder": "tu-local-dir:/tmp"},
        {"facts": {}},
        {"facts": {**FACTS, "pixel_mm": 0.0}},
        {"facts": {**FACTS, "low_hu": float("nan")}},
        {"facts": {**FACTS, "high_hu": -2000.0}},
        {"channels": 0},
        {"classes": []},
    ],
)
def test_a_plan_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="plan can't be"):
        NetworkPlan.from_json({**PLAN.to_json(), **change})
    with pytest.raises(ModelError, match="another version"):
        NetworkPlan.from_json([])  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", ["2,1", "", "many"])
def test_any_thread_setting_is_borne(
    threads: str, monkeypatch: pytest.MonkeyPatch, packed: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "store"))
    name = weights.add(packed, f"threads-{len(threads)}").card.name
    assert load_network(name, engine="onnxruntime").logits(pictures(1, 1, 32, 32)).shape == (1, 3, 32, 32)


def test_without_an_engine_auto_means_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("HiResMedSynthLib.placement.method.ENGINES", ("no_such_package",))
    assert PlacementMethod().danger_network("lung-ct") is None
    assert "the rule's" in PlacementMethod().fallback("lung-ct")
    assert PlacementMethod(danger="rule").fallback("lung-ct") == PlacementMethod().fallback("kub") == ""
    assert PlacementMethod(danger="rule", prior="density").local_factor("lung-ct") is None


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), 1e6])
def test_a_temperature_that_cannot_be_is_refused(temperature: float) -> None:
    with pytest.raises(SettingsError, match="temperature"):
        replace(PlacementMethod(), temperature=temperature)
