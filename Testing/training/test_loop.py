"""The loop's guards: bad losses, Ctrl-C, the time limit, the learning rate's end."""

# ruff: noqa: ARG002 (stand-ins take what the loop gives)

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.flow import FlowBatch
from HiResMedSynthLib.whole_tensors import save_state
from Training.checkpoint import CHECKPOINT, best_weights, check_same_run
from Training.flow_loop import train
from Training.loop import BAD_STEPS_ALLOWED, LoopSettings
from Training.objective import Shortcut
from Training.precision import faster_precision
from Training.ranks import Ranks
from Training.schedule import rate_share


class OneWeight(nn.Module):
    """The least network: the velocity is w times the noisy image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        return self.weight * noisy


class Constant:
    """Batches of one value; `trouble` is a step that fails: NaN, or Ctrl-C."""

    def __init__(self, *, nan: bool = False, interrupt_at: int = -1) -> None:
        self.nan, self.interrupt_at, self.drawn = nan, interrupt_at, 0

    def constants(self) -> dict[str, float]:
        return {"unit": 1.0}

    def train_batch(self, rng: np.random.Generator) -> FlowBatch:
        if self.drawn == self.interrupt_at:
            signal.raise_signal(signal.SIGINT)
        self.drawn += 1
        data = torch.full((2, 1, 4, 4), float("nan") if self.nan else 1.0)
        return FlowBatch(data=data, mask=torch.ones_like(data))

    def measured_batches(self, *, held_out: bool) -> list[FlowBatch]:
        data = torch.ones(2, 1, 4, 4)
        return [FlowBatch(data=data, mask=data)]

    def noted(self, network: nn.Module) -> dict[str, float]:
        return {}

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        return np.zeros((2, 2), dtype=np.uint8)


def test_a_loss_that_stays_nan_stops_the_run_with_the_reason(tmp_path: Path) -> None:
    network = OneWeight()
    with pytest.raises(HiResMedSynthError, match=f"in {BAD_STEPS_ALLOWED} steps running"):
        train(network, Constant(nan=True), LoopSettings(steps=100, precision="float32"), out=tmp_path, description={})
    assert float(network.weight.detach()) == 0


def test_ctrl_c_keeps_the_run_and_resume_goes_on(tmp_path: Path) -> None:
    settings = LoopSettings(steps=12, report_every=4, precision="float32")
    with pytest.raises(KeyboardInterrupt):
        train(OneWeight(), Constant(interrupt_at=5), settings, out=tmp_path, description={})
    assert (tmp_path / CHECKPOINT).is_file()
    stage, cut, whole = Constant(), OneWeight(), OneWeight()
    train(cut, stage, settings, out=tmp_path, description={}, resume=True)
    assert stage.drawn == 12 - 6  # the step under way was ended first
    train(whole, Constant(), settings, out=tmp_path / "whole", description={})
    assert torch.equal(cut.weight, whole.weight)


def test_what_stops_one_process_stops_all_of_them_at_the_same_step(tmp_path: Path) -> None:
    class Told(Ranks):
        """One of several processes; another was interrupted in its third step."""

        def largest(self, *numbers: float) -> tuple[float, ...]:
            began = stage.drawn >= 3
            return (numbers[0], float(began)) if len(numbers) == 2 else numbers

    stage, settings = Constant(), LoopSettings(steps=12, report_every=4, precision="float32")
    with pytest.raises(KeyboardInterrupt):
        train(OneWeight(), stage, settings, out=tmp_path, description={}, ranks=Told())
    assert stage.drawn == 3
    with safe_open(tmp_path / CHECKPOINT, framework="pt") as file:
        assert json.loads(file.metadata()["state"])["progress"]["step"] == 3


def test_processes_take_one_precision_whatever_each_has_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(Ranks):
        """One of several processes; another has found bfloat16 faster."""

        def largest(self, *numbers: float) -> tuple[float, ...]:
            return (1.0,) if len(numbers) == 1 else numbers

    monkeypatch.setattr("Training.loop.faster_precision", lambda *_: ("float32", {}))
    train(OneWeight(), Constant(), LoopSettings(steps=1, report_every=1), out=tmp_path, description={}, ranks=Told())
    with safe_open(tmp_path / CHECKPOINT, framework="pt") as file:
        assert json.loads(file.metadata()["state"])["progress"]["precision"] == "bfloat16"


@pytest.mark.parametrize("other", [{"data_sha256": "b"}, {"seed": 2}, {"batch": 4}, {"stage": "detail"}])
def test_a_run_is_not_resumed_as_another(tmp_path: Path, other: dict[str, object]) -> None:
    description = {"stage": "film", "data_sha256": "a", "seed": 1, "batch": 2}
    settings = LoopSettings(steps=2, precision="float32")
    train(OneWeight(), Constant(), settings, out=tmp_path, description=description)
    with pytest.raises(SettingsError, match=next(iter(other)).split("_")[0]):
        train(OneWeight(), Constant(), settings, out=tmp_path, description={**description, **other}, resume=True)


def test_a_loss_that_is_no_number_is_never_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, math.nan, 2.0, 3.0])  # the first before any step: those weights are nobody's best
    monkeypatch.setattr(
        "Training.loop.measure", lambda *_a, **_k: {"measured_train": 1.0, "measured_held_out": next(losses)}
    )
    settings = LoopSettings(steps=12, report_every=4, precision="float32")
    train(OneWeight(), Constant(), settings, out=tmp_path, description={})
    with safe_open(best_weights(tmp_path), framework="pt") as file:
        assert json.loads(file.metadata()["state"])["step"] == 8


@pytest.mark.parametrize("metadata", [None, {"state": json.dumps({"progress": {"of a later version": 1}})}])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    network = OneWeight()
    state = {f"{part}.{name}": value for name, value in network.state_dict().items() for part in ("weights", "average")}
    save_file({name: value.clone() for name, value in state.items()}, tmp_path / CHECKPOINT, metadata=metadata)
    with pytest.raises(SettingsError, match="The checkpoint doesn't fit"):
        train(network, Constant(), LoopSettings(steps=1), out=tmp_path, description={}, resume=True)


def test_time_limit_ends_a_run(tmp_path: Path) -> None:
    stage = Constant()
    train(
        OneWeight(),
        stage,
        LoopSettings(steps=10**9, precision="float32"),
        out=tmp_path,
        description={},
        time_limit_s=0.3,
    )
    assert 0 < stage.drawn < 10_000


@pytest.mark.parametrize(
    ("step", "used", "share"), [(0, 0.0, 0.02), (100, 0.0, 1.0), (500, 0.0, 1.0), (850, 0.0, 0.5), (500, 0.94, 0.2)]
)
def test_rate_warms_up_and_falls_at_the_end_of_steps_or_of_time(step: int, used: float, share: float) -> None:
    assert rate_share(step, LoopSettings(steps=1000), used=used) == pytest.approx(share)
    assert rate_share(step, LoopSettings(steps=1000, warm_up=0), used=used) == pytest.approx(
        max(share, float(step == 0))
    )


def test_the_weights_with_the_lowest_held_out_loss_are_kept(tmp_path: Path) -> None:
    settings = LoopSettings(steps=12, report_every=4, precision="float32")
    train(OneWeight(), Constant(), settings, out=tmp_path, description={"told": 1})
    assert best_weights(tmp_path) == tmp_path / "best.safetensors"
    with safe_open(best_weights(tmp_path), framework="pt") as file:
        state = json.loads(file.metadata()["state"])
        assert list(file.keys()) == ["average.weight"]
    before, *logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert (before["step"], before["loss"]) == (0, None)
    assert state["step"] == min(logged, key=lambda entry: entry["measured_held_out"])["step"]
    assert state["description"] == {"told": 1, "unit": 1.0}


@pytest.mark.parametrize("change", ["batch=3", "steps", "clip=much"])
def test_changes_that_mean_nothing_are_refused(change: str) -> None:
    with pytest.raises(SettingsError, match="can't be understood"):
        LoopSettings.changed({}, changes=[change])


@pytest.mark.parametrize(("batch", "world", "parts", "each"), [(8, 1, 1, 8), (8, 2, 2, 2), (6, 1, 3, 2)])
def test_a_batch_is_shared_by_processes_and_parts(batch: int, world: int, parts: int, each: int) -> None:
    assert LoopSettings(accumulate=parts).part_of(batch, world=world) == each


@pytest.mark.parametrize(("batch", "world", "parts"), [(8, 3, 1), (4, 2, 4), (0, 1, 1), (4, 1, 0)])
def test_a_batch_that_cannot_be_shared_evenly_is_refused(batch: int, world: int, parts: int) -> None:
    with pytest.raises(SettingsError, match="can't be split"):
        LoopSettings(accumulate=parts).part_of(batch, world=world)


def test_the_log_of_a_new_run_holds_nothing_of_a_run_that_kept_nothing(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 50}\n')
    train(OneWeight(), Constant(), LoopSettings(steps=4, report_every=4, precision="float32"), out=tmp_path,
          description={})  # fmt: skip
    train(OneWeight(), Constant(), LoopSettings(steps=8, report_every=4, precision="float32"), out=tmp_path,
          description={}, resume=True)  # fmt: skip
    lines = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [0, 4, 8]  # measured once before any step, not again where it goes on


def test_changes_win_over_presets() -> None:
    settings = LoopSettings.changed({"clip": 2.0, "steps": 5}, {"steps": 6}, changes=["clip=0.5"], steps=7)
    assert (settings.clip, settings.steps) == (0.5, 7)


def test_the_faster_precision_is_taken() -> None:
    slow = {"float32": 0.002, "bfloat16": 0.01}
    chosen, seconds = faster_precision(lambda name: sleep(slow[name]), "cpu")
    assert chosen == "float32"
    assert seconds["bfloat16"] > seconds["float32"] > 0


def test_a_shortcut_asks_for_the_teachers_mean_velocity() -> None:
    class Accelerating(nn.Module):
        """Velocity 6 t at every pixel: from 0 to 1 the image moves by 3, from .5 on by 2.25."""

        def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
            return 6 * time[:, None, None, None] + 0 * noisy

    shortcut = Shortcut(Accelerating(), [0.0, 0.5, 1.0], substeps=8)
    data = torch.zeros(2, 1, 4, 4)
    batch = FlowBatch(data=data, mask=torch.ones_like(data))
    starts = shortcut.measured_times(2)
    assert starts.tolist() == [0.0, 0.5]
    target = shortcut.target(batch, torch.zeros_like(data), starts, torch.zeros_like(data))
    assert target[0].mean() == pytest.approx(0.75 / 0.5, abs=0.1)
    assert target[1].mean() == pytest.approx(2.25 / 0.5, abs=0.1)


@pytest.mark.parametrize("change", [{"fold": 1}, {"held_out": ["A"]}, {"arm": "real + synthetic"}, {"shortcut": [0.5]}])
def test_a_run_that_left_out_others_is_not_resumed(tmp_path: Path, change: dict[str, object]) -> None:
    told = {"stage": "x", "seed": 1, "fold": 0, "held_out": ["by the hash"], "arm": "real"}
    save_state(tmp_path / CHECKPOINT, {"a": torch.zeros(1)}, {"description": told})
    check_same_run(tmp_path / CHECKPOINT, dict(told))
    with pytest.raises(SettingsError, match=f"another {next(iter(change)).replace('_', ' ')}"):
        check_same_run(tmp_path / CHECKPOINT, {**told, **change})


def test_a_full_disk_at_a_checkpoint_is_told_and_the_last_one_stays(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    save_state(path, {"a": torch.zeros(9)}, {})
    before, mode = path.read_bytes(), path.stat().st_mode & 0o777
    code = (
        "import resource, torch\nfrom pathlib import Path\nfrom HiResMedSynthLib.whole_tensors import save_state\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"save_state(Path({str(path)!r}), {{'a': torch.zeros(9999)}}, {{}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ExportError: the weights can't be written" in done.stderr, done.stderr
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [CHECKPOINT]
    (tmp_path / "plain").touch()
    assert mode == (tmp_path / "plain").stat().st_mode & 0o777
