"""A captured step does what the loop's own step does; a bad one moves nothing (the graph itself needs a GPU)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from Training.captured_step import CapturedStep, adamw


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def averages(of: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in of.state_dict().items()}


@pytest.mark.parametrize("parts", [1, 2])
def test_steps_equal_those_launched_one_by_one(parts: int) -> None:
    captured, plain = network(), network()
    kept, plain_kept = averages(captured), averages(plain)
    optimiser = adamw(captured, learning_rate=1.0, weight_decay=0.01, device="cpu", captured=True)
    step = CapturedStep(
        captured, kept, optimiser, lambda: captured(torch.randn(4, 3)).square().mean(), clip=0.1, parts=parts
    )
    other = adamw(plain, learning_rate=1.0, weight_decay=0.01, device="cpu")
    losses = []
    for seed in range(6):
        rate = 0.01 * (seed + 1)
        step.take(seed=seed, rate=rate, share=0.25)
        torch.manual_seed(seed)
        other.param_groups[0]["lr"] = rate
        other.zero_grad()
        loss = plain(torch.cat([torch.randn(4, 3) for _ in range(parts)])).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        other.step()
        losses.append(float(loss.detach()))
        for name, value in plain_kept.items():
            value.lerp_(plain.state_dict()[name], 0.25)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(captured.state_dict()[name], value)
        torch.testing.assert_close(kept[name], plain_kept[name])
    mean, bad, count = step.read()
    assert (bad, count) == (0, 6)
    assert mean == pytest.approx(sum(losses) / 6, rel=1e-5)


def test_a_step_that_is_no_number_moves_nothing_and_is_counted() -> None:
    trained = network()
    kept, before = averages(trained), averages(trained)
    optimiser = adamw(trained, learning_rate=0.1, weight_decay=0.0, device="cpu", captured=True)
    step = CapturedStep(trained, kept, optimiser, lambda: trained(torch.full((2, 3), math.nan)).mean(), clip=1.0)
    for value in kept.values():
        value.add_(1)
    step.take(seed=1, rate=0.1, share=0.5)
    for name, value in trained.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(kept[name], before[name] + 1)
    mean, bad, count = step.read()
    assert math.isnan(mean)
    assert (bad, count) == (1, 1)
    assert step.read()[1:] == (0, 0)
