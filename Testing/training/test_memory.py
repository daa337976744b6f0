"""Trainers and memory: what can't fit is refused before it starts; memory that runs out is told with what to give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from HiResMedSynthLib.errors import SettingsError
from Training import vqgan_memory
from Training.options import loop_option, run_options, told_plainly
from Training.ranks import Ranks
from Training.train_vqgan import main, make_shape, read_vqgan_preset
from Training.vqgan_memory import check_memory, held_bytes
from Training.vqgan_step import make_settings

SHAPE = make_shape(read_vqgan_preset("tiny")["network"], size=64)


def starved(**_: object) -> None:
    """What torch's allocator really says."""
    torch.empty(2**50, dtype=torch.uint8)


def told_by(command: Callable[..., None], *arguments: str) -> str:
    """What a trainer with that body says; it ends as refused, not with a traceback."""
    result = CliRunner().invoke(click.command()(command), arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    return result.output


def test_memory_that_runs_out_is_told_with_the_options_that_need_less() -> None:
    trainer = told_by(loop_option(run_options(told_plainly("better.toml")(starved))), "--out", "run")
    assert trainer.startswith("Error: The memory ran out. Give --loop accumulate=2")
    assert "--batch" in trainer
    assert "--size" not in trainer
    assert told_by(told_plainly()(starved)) == "Error: The memory ran out. Close other programs.\n"


def test_another_error_stays_a_bug() -> None:
    def wrong() -> None:
        raise RuntimeError("shapes differ")

    assert isinstance(CliRunner().invoke(click.command()(told_plainly()(wrong))).exception, RuntimeError)


def test_a_vqgan_that_cannot_fit_is_refused_before_its_films_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vqgan_memory, "free_bytes", lambda _: 5_000_000)
    result = CliRunner().invoke(main, ["--preset", "tiny", "--films", "none.npz", "--out", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert "4 film(s) of 64 px at a time need 0.0 GB or more" in result.output
    assert "--loop accumulate=2" in result.output
    assert not (tmp_path / "run").exists()


def test_the_need_of_a_vqgan_follows_pixels_and_the_parts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, film = held_bytes(SHAPE)
    larger_weights, larger = held_bytes(replace(SHAPE, size=128))
    assert larger_weights == weights
    assert 3.9 < larger / film < 4.1
    monkeypatch.setattr(vqgan_memory, "free_bytes", lambda _: 4 * weights + 2 * film)
    for table, changes, fits in (
        ({"batch": 2}, (), True),
        ({"batch": 4}, (), False),
        ({"batch": 4}, ("accumulate=2",), True),
        ({"batch": 4, "precision": "bfloat16"}, (), True),
    ):
        settings = make_settings(table, changes=changes)
        if fits:
            check_memory(SHAPE, settings, Ranks())
        else:
            with pytest.raises(SettingsError, match="4 film"):
                check_memory(SHAPE, settings, Ranks())
    check_memory(SHAPE, make_settings({"batch": 4}), Ranks(world=2))
    monkeypatch.setattr(vqgan_memory, "free_bytes", lambda _: None)
    check_memory(SHAPE, make_settings({"batch": 10**6}), Ranks())


@pytest.mark.parametrize("change", ["accumulate=two", "betas=0.5", "change=0", "depth=3", "accumulate"])
def test_a_change_of_the_loop_that_is_none_is_refused(change: str) -> None:
    with pytest.raises(SettingsError, match="can't be understood"):
        make_settings({}, changes=(change,))
