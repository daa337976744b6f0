"""Small SinGAN settings, and how two trained ones are compared."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from HiResMedSynthLib.lesion.singan import SinGan
from HiResMedSynthLib.lesion.singan_settings import PAPER, preset

NAMES = ("solid-10mm-a", "solid-16mm-a")
TINY = preset("tiny", 3)
SMALL_PAPER = dataclasses.replace(
    PAPER, iterations=(7,), report_every=3, channels=8, most_channels=32
)  # 30 pixels: scales 25, 27, 30


def weights(model: SinGan) -> dict[str, torch.Tensor]:
    return {f"{k}.{name}": value for k, net in enumerate(model.nets) for name, value in net.state_dict().items()}


def assert_same(one: SinGan, other: SinGan, *, tolerance: float = 0.0) -> None:
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.allclose(value, theirs[name], rtol=0, atol=tolerance), name
    assert one.amplitudes == pytest.approx(other.amplitudes, abs=tolerance)


def read_log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: v for name, v in line.items() if name not in ("seconds", "left_s")} for line in lines]
