"""A SinGAN training that was cut goes on to the weights of an uncut one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.lesion.singan import SinGan
from HiResMedSynthLib.lesion.singan_settings import SinGanSettings
from HiResMedSynthLib.lesion.singan_train import CHECKPOINT, train_singan
from Testing.lesion.singan_runs import SMALL_PAPER, TINY, assert_same, read_log


@pytest.fixture(scope="module")
def uncut_runs(
    solids: list[np.ndarray], flats: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[SinGanSettings], tuple[SinGan, Path]]:
    """The model of an uncut run with these settings and its folder; each is trained once."""
    folder = tmp_path_factory.mktemp("uncut")

    @cache
    def run_of(name: str) -> tuple[SinGan, Path]:
        grids, settings = (flats, SMALL_PAPER) if name == SMALL_PAPER.name else (solids, TINY)
        return train_singan(grids[:1], settings, out=folder / name)[0], folder / name

    return lambda settings: run_of(settings.name)


@pytest.mark.parametrize(
    ("settings", "stop_at"),
    [(TINY, 4), (TINY, 25), (SMALL_PAPER, 4), (SMALL_PAPER, 18)],
    ids=["tiny-first", "tiny-second", "paper-first", "paper-third"],
)
def test_a_cancelled_run_goes_on_as_an_uncut_one(
    settings: SinGanSettings, stop_at: int, solids: list[np.ndarray], flats: list[np.ndarray], tmp_path: Path,
    uncut_runs: Callable[[SinGanSettings], tuple[SinGan, Path]],
) -> None:  # fmt: skip
    grids = flats[:1] if settings.name == "paper" else solids[:1]
    uncut, folder = uncut_runs(settings)
    asked = iter(range(1000))
    cut = train_singan(grids, settings, out=tmp_path / "cut", cancelled=lambda: next(asked) >= stop_at)[0]
    assert not cut.finished
    assert cut.sample(np.random.default_rng(1)).shape == grids[0].shape
    with pytest.raises(SettingsError, match="holds a run"):
        train_singan(grids, settings, out=tmp_path / "cut")
    resumed = train_singan(grids, settings, out=tmp_path / "cut", resume=True)[0]
    assert resumed.finished
    assert_same(resumed, uncut)
    assert read_log(tmp_path / "cut") == read_log(folder)
    assert_same(train_singan(grids, settings, out=tmp_path / "cut", resume=True)[0], uncut)  # nothing left to do


def test_ctrl_c_and_a_kill_leave_a_checkpoint_that_resumes(
    solids: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    uncut_runs: Callable[[SinGanSettings], tuple[SinGan, Path]],
) -> None:  # fmt: skip
    from HiResMedSynthLib.lesion import singan_step, singan_train

    uncut, folder = uncut_runs(TINY)

    def interrupt(entry: dict[str, Any]) -> None:
        if (entry["scale"], entry["iteration"]) == (1, 10):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_singan(solids[:1], TINY, out=tmp_path / "cut", report=interrupt)
    assert_same(train_singan(solids[:1], TINY, out=tmp_path / "cut", resume=True)[0], uncut)

    def interrupt_last(entry: dict[str, Any]) -> None:  # the scale's end is still to come
        if (entry["scale"], entry["iteration"]) == (1, 20):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_singan(solids[:1], TINY, out=tmp_path / "last", report=interrupt_last)
    assert_same(train_singan(solids[:1], TINY, out=tmp_path / "last", resume=True)[0], uncut)
    assert read_log(tmp_path / "last") == read_log(folder)

    # in the middle of an iteration: the critic is updated, the generator isn't
    monkeypatch.setattr(singan_train, "CHECKPOINT_S", 0.0)
    update, calls = singan_step.Scale._update_generator, iter(range(1000))

    def killed(self: Any, *arguments: Any) -> Any:
        if next(calls) == 13:
            raise KeyboardInterrupt
        return update(self, *arguments)

    monkeypatch.setattr(singan_step.Scale, "_update_generator", killed)
    with pytest.raises(KeyboardInterrupt):
        train_singan(solids[:1], TINY, out=tmp_path / "killed")
    monkeypatch.undo()
    assert_same(train_singan(solids[:1], TINY, out=tmp_path / "killed", resume=True)[0], uncut)
    assert read_log(tmp_path / "killed") == read_log(folder)


def test_a_run_of_another_lesion_preset_or_seed_is_not_resumed(solids: list[np.ndarray], tmp_path: Path) -> None:
    train_singan(solids[:1], TINY, out=tmp_path, time_limit_s=0.0)
    other = dataclasses.replace(TINY, noise=0.2)
    for grids, settings, seed in ((solids[1:], TINY, 1), (solids[:1], other, 1), (solids[:1], TINY, 2)):
        with pytest.raises(SettingsError, match="another lesion, preset or seed"):
            train_singan(grids, settings, seed=seed, out=tmp_path, resume=True)
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:-50])
    with pytest.raises(SettingsError, match="can't be read") as refused:
        train_singan(solids[:1], TINY, out=tmp_path, resume=True)
    assert "train anew" in refused.value.remedy
