"""Too little memory is told before a training starts, or where the allocation fails; never as a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.lesion import singan_memory
from HiResMedSynthLib.lesion.singan_settings import preset
from HiResMedSynthLib.lesion.singan_step import Scale
from HiResMedSynthLib.lesion.singan_train import train_singan
from Testing.lesion.singan_runs import TINY

CPU = torch.device("cpu")


def test_a_training_that_cannot_fit_is_refused_before_it_writes(
    solids: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(singan_memory, "free_bytes", lambda _: 50_000_000)
    with pytest.raises(HiResMedSynthError, match=r"needs about 0\.\d GB, 0\.1 GB are free") as refused:
        train_singan(solids, TINY, out=tmp_path / "run")
    assert "fewer" in refused.value.remedy
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(singan_memory, "free_bytes", lambda _: None)  # another system: not known, not refused
    singan_memory.check_memory(TINY, (16, 16, 16), 1000, CPU)


def test_the_need_grows_with_lesions_and_size() -> None:
    better, paper = preset("better", 3), preset("paper", 2)
    one, eight = (singan_memory.needed_bytes(better, (32, 32, 32), count) for count in (1, 8))
    assert 0.2e9 < one < 0.5e9
    assert 1e9 < eight < 2.5e9
    assert singan_memory.needed_bytes(better, (64, 64, 64), 1) > 4 * one
    assert singan_memory.needed_bytes(paper, (64, 64), 1) < one


def test_memory_that_runs_out_in_training_is_told_plainly(
    solids: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(_: Scale) -> None:
        torch.empty(2**50, dtype=torch.uint8)  # what the allocator really says

    monkeypatch.setattr(Scale, "iterate", starved)
    with pytest.raises(HiResMedSynthError, match="memory ran out in training"):
        train_singan(solids[:1], TINY, out=tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process as Linux has them")
def test_a_process_with_a_limit_is_refused_by_it(tmp_path: Path) -> None:
    code = f"""
import resource, torch
from pathlib import Path
from HiResMedSynthLib.lesion.bank import load_bank
from HiResMedSynthLib.lesion.lesion_grid import to_grid
from HiResMedSynthLib.lesion.singan_train import train_singan
torch.set_num_threads(1)
grid = to_grid(load_bank().lesion("solid-10mm-a")).values
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000,) * 2)
try:
    train_singan([grid], "better", out=Path({str(tmp_path / "run")!r}))
except Exception as problem:
    print(type(problem).__name__, problem)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout.startswith("HiResMedSynthError too little memory"), ended.stdout + ended.stderr
