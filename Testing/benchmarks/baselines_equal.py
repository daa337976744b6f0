"""Every baseline and the cascade from nothing, each for the same minutes of CPU time on one core, on the same films.

python -m Testing.benchmarks.baselines_equal train --data FILMS --cache CACHE --out OUT [--seed 1 --seed 2 --seed 3]
python -m Testing.benchmarks.baselines_equal table FILMS --runs OUT --cache CACHE --out OUT/table
python -m Testing.benchmarks.baselines_equal sheet FILMS --runs OUT --unequal RUNS --better MADE --cache CACHE --out JPG

RUNS and MADE are those of `baselines`; of several budgets give --runs several times.

Leaves OUT/NAME-SEED/samples.npz (seeds 1 to 64 of the drawing, none left out). What is finished is skipped, what was
cut off begins anew, and two calls at once share the work. Drawing, reading and packing don't count.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.background.cascade import load_cascade
from Testing.benchmarks.baselines import baseline_films, made_films, markdown, sheet
from Testing.benchmarks.baselines_equal_table import all_budgets, finished, measured_runs, over_seeds
from Training.baselines.samples import Samples, sheet_of
from Training.checkpoint import CHECKPOINT
from Training.film_data import load_films
from Training.pack_cascade import pack
from Training.pictures import grey8
from Training.preset_files import read_preset

CASCADE = "cascade"
STAGES = {"film": 2 / 3, "detail-256": 1 / 3}  # shares of the budget, said before the first run
SINGAN = "singan_film"
NAMES = ("ddm", CASCADE, "fastgan", "vqgan", "styleswin", SINGAN)
PRESET, CASCADE_PRESET = "baselines_cpu", "cascade_cpu"
SINGAN_A_MINUTE = 100 / 3  # iterations at each scale: the one schedule here that isn't told when its time ends
DRAWN = 64
ACROSS, TILE = 15, 80  # films of a method on the sheet, and their side


@click.group(help=__doc__)
def main() -> None:
    """Commands."""


@main.command("train")
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--cache", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--seed", "seeds", type=int, multiple=True, default=(1,), show_default=True)
@click.option("--only", "names", type=click.Choice(NAMES), multiple=True, default=NAMES)
@click.option("--minutes", type=float, default=15.0, show_default=True, help="Of CPU time each.")
def train_command(
    data: Path, cache: Path, out: Path, seeds: tuple[int, ...], names: tuple[str, ...], minutes: float
) -> None:
    """Trains what isn't there yet, one after another."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    check_budget(out / "minutes.json", minutes)
    failed = []
    for seed in seeds:
        for name in names:
            whole = out / f"{name}-{seed}"
            with claimed(out / f"{name}-{seed}.lock") as mine:
                if whole.exists() or not mine:
                    click.echo(f"{whole.name}: {'finished' if whole.exists() else 'in work elsewhere'}")
                    continue
                part = out / f"{name}-{seed}.part"
                shutil.rmtree(part, ignore_errors=True)  # how much of its budget is gone can't be told
                part.mkdir()
                try:
                    (made_cascade if name == CASCADE else made_baseline)(name, seed, data, cache, part, minutes)
                except subprocess.CalledProcessError:
                    failed.append(name)
                    click.echo(f"{whole.name}: failed, see {part / 'run.log'}", err=True)
                    continue
                part.rename(whole)
                click.echo(f"{whole.name}: made")
    if failed:
        raise click.ClickException(f"Not made: {', '.join(failed)}.")


def check_budget(kept: Path, minutes: float) -> None:
    """Keeps the minutes of the first call; raises ClickException where another call has others."""
    if not kept.is_file():
        with written_aside(kept) as aside:
            aside.write_text(json.dumps(minutes), encoding="utf-8")
    before = json.loads(kept.read_text(encoding="utf-8"))
    if before != minutes:
        raise click.ClickException(f"{kept.parent} holds runs of {before:g} minutes: give those, or another --out.")


@contextmanager
def claimed(lock: Path) -> Iterator[bool]:
    """Whether this process alone has the lock; a killed one loses it, once the trainer that it began has ended too."""
    import fcntl  # not on Windows

    with lock.open("w") as stream:
        os.set_inheritable(stream.fileno(), True)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def made_baseline(name: str, seed: int, data: Path, cache: Path, out: Path, minutes: float) -> None:
    """Trains and draws by `Training.baselines`."""
    steps = ("--steps", max(1, round(SINGAN_A_MINUTE * minutes))) if name == SINGAN else ()
    call(
        out, "Training.baselines", name, "--data", data, "--cache", cache, "--out", out, "--preset", PRESET,
        "--seed", seed, "--time-limit", minutes, "--samples", DRAWN, *steps,
    )  # fmt: skip


def made_cascade(name: str, seed: int, data: Path, cache: Path, out: Path, minutes: float) -> None:
    """Trains both stages from nothing, packs them, draws without a gate against near copies, as the others do."""
    facts: dict[str, Any] = {"name": name, "seed": seed, "device": "cpu", "weights": {}, "steps": {}, "training_s": {}}
    for stage, share in STAGES.items():
        call(
            out, "Training.train_background", "--stage", stage, "--data", data, "--cache", cache,
            "--out", out / stage, "--preset", CASCADE_PRESET, "--loop", f"seed={seed}", "--time-limit", share * minutes,
        )  # fmt: skip
        with safe_open(out / stage / CHECKPOINT, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
        facts["steps"][stage] = state["progress"]["step"]
        facts["training_s"][stage] = round(state["progress"]["seconds"], 1)
    facts["weights"] = pack(out, out / "release.safetensors", preset=CASCADE_PRESET)
    cascade, seeds = load_cascade(out / "release.safetensors"), range(1, DRAWN + 1)
    films = torch.from_numpy(np.stack([cascade.generate(seed=one) for one in seeds]))[:, None]
    facts |= {"size": cascade.side, "films": state["description"]["films"]}
    Samples(films=grey8(films[:, 0]), seeds=np.array(seeds), facts=facts).save(out / "samples.npz")
    Image.fromarray(sheet_of(films[:16])).save(out / "samples.png")


def call(out: Path, module: str, *arguments: object) -> None:
    """Runs a module on one thread in a process of its own; what it says is added to `run.log`.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    with (out / "run.log").open("a", encoding="utf-8") as log:
        subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdout=log, stderr=subprocess.STDOUT, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            close_fds=False,
        )  # fmt: skip


@main.command("table")
@click.argument("films", type=click.Path(exists=True, path_type=Path))
@click.option("--runs", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--cache", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def table_command(films: Path, runs: Path, cache: Path, out: Path) -> None:
    """Measures every finished run: table.json, tables.md."""
    out.mkdir(parents=True, exist_ok=True)
    found = measured_runs(load_films(films, cache, **read_preset(PRESET)["data"]), runs, NAMES, out)
    text = f"{over_seeds(found)}\n\n{markdown(found)}"
    for name, content in (("table.json", json.dumps(found, indent=1)), ("tables.md", text)):
        with written_aside(out / name) as aside:
            aside.write_text(content, encoding="utf-8")
    click.echo(text)


@main.command("sheet")
@click.argument("films", type=click.Path(exists=True, path_type=Path))
@click.option("--runs", "all_runs", type=click.Path(exists=True, path_type=Path), required=True, multiple=True)
@click.option("--unequal", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--better", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--cache", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def sheet_command(films: Path, all_runs: tuple[Path, ...], unequal: Path, better: Path, cache: Path, out: Path) -> None:
    """Real films above; then each method: its unequal budget, then the equal one of each RUNS (seed 1 of training)."""
    equal = [{name: samples for name, seed, samples in finished(runs, NAMES) if seed == 1} for runs in all_runs]
    methods = [
        [
            made_films(better) if name == CASCADE else baseline_films(Samples.load(unequal / name / "samples.npz")),
            *(baseline_films(one[name]) for one in equal),
        ]
        for name in NAMES
        if all(name in one for one in equal)
    ]
    real = load_films(films, cache, **read_preset(PRESET)["data"])
    each = ACROSS // (1 + len(all_runs))
    sheet(all_budgets(real, methods, each=each), out, across=each * (1 + len(all_runs)), tile=TILE)


if __name__ == "__main__":
    main()
