"""A run's clock: what is told of a call that goes on with an earlier one."""

from __future__ import annotations

import math

import pytest

from HiResMedSynthLib.errors import SettingsError
from Training.clock import Clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    time = [1000.0]
    monkeypatch.setattr("Training.clock.time.monotonic", lambda: time[0])
    return time


def test_what_is_left_is_of_the_steps_or_of_the_limit(now: list[float]) -> None:
    clock = Clock(limit_s=60, before_s=500, first_step=10)
    now[0] += 20
    assert clock.used == pytest.approx(1 / 3)
    assert clock.told(14, steps=20) == {"seconds_per_step": 5, "seconds": 520, "left_s": 30}
    assert clock.told(14, steps=2000)["left_s"] == 40


def test_no_limit_is_never_used_up_and_one_of_nothing_is_at_once(now: list[float]) -> None:
    endless, none = (Clock(limit_s=limit, before_s=0, first_step=0) for limit in (math.inf, 0))
    now[0] += 1e6
    assert endless.used == 0
    assert endless.told(1, steps=2)["left_s"] == 1e6
    assert none.used >= 1


def test_seconds_of_the_process_pass_without_those_of_the_clock(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    worked = [7.0]
    monkeypatch.setattr("Training.clock.time.process_time", lambda: worked[0])
    clock = Clock(limit_s=60, before_s=0, first_step=0, counted="cpu")
    now[0] += 1000
    assert clock.used == 0
    worked[0] += 30
    assert clock.told(3, steps=10)["left_s"] == 30
    with pytest.raises(SettingsError, match="no CPU seconds"):
        Clock(limit_s=60, before_s=0, first_step=0, counted="CPU")
