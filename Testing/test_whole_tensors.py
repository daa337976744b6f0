"""Tensors read back from a safetensors file, and what is said of one that can't be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from HiResMedSynthLib.whole_tensors import header_entry, read_tensors, read_whole, save_state, save_tensors

DEEP = "[" * 100_000


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_state(tmp_path / "run", {"average.w": torch.ones(2, 3).T, "weights.w": torch.zeros(2)}, {"step": 7})
    return tmp_path / "run"


def test_a_state_comes_back_whole_or_under_a_prefix(run: Path) -> None:
    tensors, state = read_tensors(run, "state", "pt")
    assert (set(tensors), state) == ({"average.w", "weights.w"}, {"step": 7})
    average, _ = read_tensors(run, "state", "np", under="average.")
    assert set(average) == {"w"}
    np.testing.assert_array_equal(average["w"], np.ones((3, 2), np.float32))
    assert read_whole(run, "np")[1] == {"state": '{"step": 7}'}
    assert header_entry(run, "state") == {"step": 7}


@pytest.mark.parametrize("stored", [{}, {"state": "{"}, {"state": "[1]"}, {"state": DEEP}])
def test_a_header_that_tells_nothing(stored: dict[str, str], tmp_path: Path) -> None:
    save_tensors(tmp_path / "one", {"w": np.zeros(1)}, stored)
    assert header_entry(tmp_path / "one", "state") is None
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_tensors(tmp_path / "one", "state", "np")


def test_what_is_no_such_file(run: Path, tmp_path: Path) -> None:
    for name, content in (("cut", run.read_bytes()[:-4]), ("text", b"{}"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        assert header_entry(tmp_path / name, "state") is None
        with pytest.raises(ValueError, match="no safetensors file, or it is cut off"):
            read_tensors(tmp_path / name, "state", "pt")
    with pytest.raises(OSError, match="No such file"):
        read_tensors(tmp_path / "none", "state", "pt")
    assert header_entry(tmp_path / "none", "state") is None
