"""The loop's guards: bad losses, Ctrl-C, the time limit, the learning rate's end."""

# ruff: noqa: ARG002 (stand-ins take what the loop gives)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from HiResMedSynthLib.background.flow import FlowBatch
from HiResMedSynthLib.errors import HiResMedSynthError
from Training.loop import BAD_STEPS_ALLOWED, CHECKPOINT, LoopSettings, _rate_share, train


class OneWeight(nn.Module):
    """The least network: the velocity is w times the noisy image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        *,
        condition: Tensor,
        label: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Tensor:
        return self.weight * noisy


class Constant:
    """Batches of one value; `trouble` is a step that fails: NaN, or Ctrl-C."""

    def __init__(self, *, nan: bool = False, interrupt_at: int = -1) -> None:
        self.nan, self.interrupt_at, self.drawn = nan, interrupt_at, 0

    def constants(self) -> dict[str, float]:
        return {"unit": 1.0}

    def train_batch(self, rng: np.random.Generator) -> FlowBatch:
        if self.drawn == self.interrupt_at:
            raise KeyboardInterrupt
        self.drawn += 1
        data = torch.full((2, 1, 4, 4), float("nan") if self.nan else 1.0)
        return FlowBatch(data=data, mask=torch.ones_like(data), condition=torch.ones_like(data))

    def measured_batches(self, *, held_out: bool) -> list[FlowBatch]:
        data = torch.ones(2, 1, 4, 4)
        return [FlowBatch(data=data, mask=data, condition=data)]

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        return np.zeros((2, 2), dtype=np.uint8)


def test_a_loss_that_stays_nan_stops_the_run_with_the_reason(tmp_path: Path) -> None:
    network = OneWeight()
    with pytest.raises(HiResMedSynthError, match=f"in {BAD_STEPS_ALLOWED} steps running"):
        train(network, Constant(nan=True), LoopSettings(steps=100), out=tmp_path, description={})
    assert float(network.weight.detach()) == 0


def test_ctrl_c_keeps_the_run_and_resume_goes_on(tmp_path: Path) -> None:
    settings = LoopSettings(steps=12, report_every=4)
    with pytest.raises(KeyboardInterrupt):
        train(OneWeight(), Constant(interrupt_at=5), settings, out=tmp_path, description={})
    assert (tmp_path / CHECKPOINT).is_file()
    stage = Constant()
    train(OneWeight(), stage, settings, out=tmp_path, description={}, resume=True)
    assert stage.drawn == 12 - 5


def test_time_limit_ends_a_run(tmp_path: Path) -> None:
    stage = Constant()
    train(OneWeight(), stage, LoopSettings(steps=10**9), out=tmp_path, description={}, time_limit_s=0.3)
    assert 0 < stage.drawn < 10_000


@pytest.mark.parametrize(
    ("step", "used", "share"), [(0, 0.0, 0.02), (100, 0.0, 1.0), (500, 0.0, 1.0), (850, 0.0, 0.5), (500, 0.94, 0.2)]
)
def test_rate_warms_up_and_falls_at_the_end_of_steps_or_of_time(step: int, used: float, share: float) -> None:
    assert _rate_share(step, used, LoopSettings(steps=1000)) == pytest.approx(share)
