"""An untrained model in a store of its own, and films that it made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from HiResMedSynthLib import weights
from HiResMedSynthLib.background.find_model import BackgroundModel
from HiResMedSynthLib.cli import main as command_line
from Testing.background.tiny_cascade import add_tiny
from Testing.generate.calls import generate


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundModel]:
    """The model `ours`, makes cxr, has no descriptors."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.STORE_VARIABLE, str(folder / "models"))
        patch.setitem(command_line.COMMANDS, "generate", ("generate", "generate_command", "Make backgrounds."))
        patch.setitem(command_line.COMMANDS, "reconstruct", ("reconstruct", "reconstruct_command", "Rebuild one."))
        add_tiny(folder, name="our-ct", domain="lung-ct")
        yield add_tiny(folder, name="ours")


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch, model: BackgroundModel) -> pytest.MonkeyPatch:
    return monkeypatch


@pytest.fixture(scope="module")
def made(model: BackgroundModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three films of the seeds 5 to 7 as DICOM."""
    out = tmp_path_factory.mktemp("made") / "films"
    with pytest.MonkeyPatch.context() as own:
        assert generate(own, out, "--count", 3, "--seed", 5, "--sex", "F") == 0
    return out
