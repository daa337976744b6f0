"""What the runs of one budget are against real films, as `baselines` measures them; and pictures of both budgets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click

from HiResMedSynthLib.evaluation.feature_cache import FeatureCache
from HiResMedSynthLib.privacy import descriptors_of
from Testing.benchmarks.baselines import HELD_OUT, SHARES, baseline_films, compared, joined, real_films
from Testing.benchmarks.baselines_measures import AT_48, AT_96, Film, measured
from Training.baselines.samples import Samples
from Training.film_data import FilmSet as TrainingFilms

EQUAL_SPACES = (AT_96, AT_48)
Measure = Callable[[dict[str, Any]], float]


def finished(runs: Path, names: Sequence[str]) -> Iterator[tuple[str, int, Samples]]:
    """(method, seed, its films) of each finished run, in the order of the names, then of the seeds."""
    for name in names:
        for folder in sorted(runs.glob(f"{name}-[0-9]*"), key=lambda one: one.name):
            seed = folder.name.removeprefix(f"{name}-")
            if seed.isdigit() and (folder / "samples.npz").is_file():
                yield name, int(seed), Samples.load(folder / "samples.npz")


def measured_runs(films: TrainingFilms, runs: Path, names: Sequence[str], out: Path) -> dict[str, Any]:
    """What `baselines.markdown` shows, a set a run ("ddm, seed 1"), its facts, and `methods`: each one's sets."""
    kept, descriptors = FeatureCache(out), descriptors_of("cxr")
    training = measured("training", real_films(films, held_out=False), kept, spaces=EQUAL_SPACES)
    sides = {"spaces": EQUAL_SPACES, "descriptors": descriptors}
    held_out = measured(HELD_OUT, real_films(films, held_out=True), kept, **sides)
    everyone = joined(training, held_out)
    found: dict[str, Any] = {"training_films": len(training.groups), "facts": {}, "methods": {}}
    found["sets"] = {HELD_OUT: compared(held_out, training, training, held_out, out / "real.json")}
    for name, seed, samples in finished(runs, names):
        label = f"{name}, seed {seed}"
        made = measured(label, baseline_films(samples), kept, **sides)
        found["sets"][label] = compared(made, everyone, training, held_out, out / f"{name}-{seed}.json")
        found["facts"][label] = samples.facts
        found["methods"].setdefault(name, []).append(label)
        click.echo(f"{label} compared", err=True)
    return found


def over_seeds(found: dict[str, Any]) -> str:
    """A table of the mean over seeds, and the range where there are several."""
    columns = {f"{name}, {space}": _distance(space, name) for space in EQUAL_SPACES for name in ("frechet", "kid")}
    columns |= {f"{name}, {AT_48}": _distance(AT_48, name) for name in SHARES if name != "density"}
    columns["ST-LPIPS to the nearest training film"] = lambda one: one["nearest training film"]["st_lpips"]["value"]
    lines = [["method", "seeds", *columns], ["---"] * (len(columns) + 2)]
    for name, labels in found["methods"].items():
        sets = [found["sets"][label] for label in labels]
        lines.append([name, str(len(sets)), *(_spread([value(one) for one in sets]) for value in columns.values())])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _distance(space: str, name: str) -> Measure:
    return lambda one: float(one["distances"][space][name]["value"])


def _spread(values: Sequence[float]) -> str:
    mean = f"{sum(values) / len(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3g} to {max(values):.3g})"


def all_budgets(
    films: TrainingFilms, methods: Sequence[Sequence[Iterator[tuple[str, Film]]]], *, each: int
) -> list[list[Film]]:
    """Rows of a sheet: real films held out; a row a method, `each` films of its every budget in turn."""
    rows = [[film for _, film in islice(real_films(films, held_out=True), each * len(methods[0]))]]
    rows += [[film for budget in budgets for _, film in islice(budget, each)] for budgets in methods]
    return rows
