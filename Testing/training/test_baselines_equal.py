"""Baselines at one budget: who trains what is not there yet, and what is told over several seeds."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from Testing.benchmarks import baselines_equal
from Testing.benchmarks.baselines_equal import claimed, main
from Testing.benchmarks.baselines_equal_table import EQUAL_SPACES, finished, over_seeds
from Testing.training.film_folder import size, write_films
from Training.baselines.samples import Samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight films of eight patients, two of them held out."""
    rng = np.random.default_rng(0)
    return write_films(
        tmp_path_factory.mktemp("films"),
        learned=6,
        picture=lambda _: rng.uniform(0, 256, (96, 96)),
        row=lambda _: size(2048, 2048, 0.2),
    )


def train(folder: Path, out: Path, *more: str) -> Result:
    line = ["train", "--data", str(folder), "--cache", str(folder / "cache"), "--out", str(out), *more]
    return CliRunner().invoke(main, line)


def test_runs_are_trained_and_drawn_in_processes_of_their_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines_equal, "PRESET", "baselines_tiny")
    monkeypatch.setattr(baselines_equal, "CASCADE_PRESET", "tiny")
    monkeypatch.setattr(baselines_equal, "STAGES", {"film": 0.5, "detail-256": 0.25, "detail-1024": 0.25})
    monkeypatch.setattr(baselines_equal, "DRAWN", 2)
    told = train(folder, tmp_path, "--only", "ddm", "--only", "cascade", "--minutes", "1", "--seed", "4")
    assert told.exit_code == 0, told.output
    made = {name: (seed, samples) for name, seed, samples in finished(tmp_path, ("ddm", "cascade"))}
    assert list(made) == ["ddm", "cascade"]
    for seed, samples in made.values():
        assert (seed, samples.facts["seed"], samples.facts["films"]) == (4, 4, 6)
        assert samples.seeds.tolist() == [1, 2]
        assert not np.array_equal(*samples.films)
    assert made["cascade"][1].films.shape == (2, 256, 256)
    assert made["cascade"][1].facts["steps"] == {"film": 6, "detail-256": 6, "detail-1024": 6}


def test_finished_runs_stay_cut_off_ones_begin_anew_and_others_are_left_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def made(name: str, seed: int, data: Path, cache: Path, out: Path, minutes: float) -> None:
        assert not any(out.iterdir())
        asked.append((name, seed))
        if name == "vqgan":
            raise subprocess.CalledProcessError(1, name)
        (out / "samples.npz").touch()

    monkeypatch.setattr(baselines_equal, "made_baseline", made)
    monkeypatch.setattr(baselines_equal, "made_cascade", made)
    (tmp_path / "ddm-1").mkdir()
    (tmp_path / "fastgan-1.part").mkdir()
    (tmp_path / "fastgan-1.part" / "checkpoint.safetensors").touch()
    with claimed(tmp_path / "styleswin-1.lock") as mine:
        assert mine
        told = train(folder, tmp_path)
    assert told.exit_code == 1
    assert "Not made: vqgan" in told.output
    assert "ddm-1: finished" in told.output
    assert "styleswin-1: in work elsewhere" in told.output
    assert asked == [("cascade", 1), ("fastgan", 1), ("vqgan", 1), ("singan_film", 1)]
    assert (tmp_path / "fastgan-1" / "samples.npz").exists()
    assert not (tmp_path / "vqgan-1").exists()
    asked.clear()
    train(folder, tmp_path, "--only", "styleswin", "--only", "ddm", "--seed", "1", "--seed", "2")
    assert asked == [("styleswin", 1), ("styleswin", 2), ("ddm", 2)]
    told = train(folder, tmp_path, "--minutes", "6")
    assert told.exit_code == 1
    assert "holds runs of 15 minutes" in told.output


def test_a_failing_trainer_is_told_with_its_log(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines_equal, "PRESET", "no such preset")
    told = train(folder, tmp_path, "--only", "ddm")
    assert told.exit_code == 1
    assert f"see {tmp_path / 'ddm-1.part' / 'run.log'}" in told.output
    assert "There is no preset" in (tmp_path / "ddm-1.part" / "run.log").read_text()


def test_a_trainer_that_outlives_its_driver_keeps_the_claim(tmp_path: Path) -> None:
    lock, end = tmp_path / "lock", tmp_path / "end"
    waits = f"while not os.path.exists({str(end)!r}): time.sleep(0.05)"
    driver = f"""
from pathlib import Path
from Testing.benchmarks.baselines_equal import call, claimed
with claimed(Path({str(lock)!r})):
    begins = "import os, time; print('begun', flush=True)"
    call(Path({str(tmp_path)!r}), "timeit", "-n", 1, "-r", 1, "-s", begins, {waits!r})
"""
    with subprocess.Popen([sys.executable, "-c", driver]) as process:
        wait_until(lambda: (tmp_path / "run.log").is_file() and "begun" in (tmp_path / "run.log").read_text())
        process.kill()
    with claimed(lock) as mine:
        assert not mine
    end.touch()
    wait_until(lambda: free(lock))


def wait_until(so: Callable[[], bool]) -> None:
    for _ in range(1200):
        if so():
            return
        time.sleep(0.1)
    raise AssertionError("it didn't come to pass in two minutes")


def free(lock: Path) -> bool:
    with claimed(lock) as mine:
        return mine


@pytest.mark.parametrize("name", ["ddm", "singan_film", "vqgan"])
def test_a_limit_of_cpu_time_holds_where_the_clock_stands_still(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from Training.baselines.__main__ import main as baseline
    from Training.preset_files import PRESETS

    preset = (PRESETS / "baselines_tiny.toml").read_text(encoding="utf-8")
    for table in ("ddm.loop", "singan_film.network", "vqgan.loop", "vqgan.prior_loop"):
        preset = preset.replace(f"[{table}]\n", f'[{table}]\ncounted = "cpu"\n')
    preset = (
        preset.replace("steps = 6\n", "").replace("steps = 4\n", "").replace("iterations = 2\n", "iterations = 99999\n")
    )
    (tmp_path / "cpu.toml").write_text(preset.replace("report_every = 2\n", "report_every = 1\n"), encoding="utf-8")
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    line = [name, "--preset", str(tmp_path / "cpu.toml"), "--data", str(folder), "--cache", str(folder / "cache")]
    began = time.process_time()
    told = CliRunner().invoke(
        baseline, [*line, "--out", str(tmp_path / "run"), "--samples", "1", "--time-limit", "0.02"]
    )
    assert told.exit_code == 0, told.output
    assert time.process_time() - began < 20
    facts: dict[str, Any] = Samples.load(tmp_path / "run" / "samples.npz").facts
    assert 1 < facts["training_s"] < 20


def test_over_seeds_a_mean_and_a_range_are_told() -> None:
    def one(value: float) -> dict[str, Any]:
        measure = {"value": value}
        names = ("frechet", "kid", "precision", "recall", "coverage")
        return {
            "distances": {space: dict.fromkeys(names, measure) for space in EQUAL_SPACES},
            "nearest training film": {"st_lpips": measure},
        }

    found = {"sets": {"a": one(1), "b": one(3), "c": one(5)}, "methods": {"ddm": ["a", "b"], "vqgan": ["c"]}}
    head, _, several, single = over_seeds(found).splitlines()
    assert head.count("|") == several.count("|") == single.count("|")
    assert several.startswith("| ddm | 2 | 2 (1 to 3) | ")
    assert single.startswith("| vqgan | 1 | 5 | ")
