"""`hiresmedsynth dataset`: a spec in, a data set of synthetic cases out."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from HiResMedSynthLib.cli.exit_codes import EXIT_CANCELLED, EXIT_SOME_FAILED
from HiResMedSynthLib.cli.options import progress_line, warn
from HiResMedSynthLib.cli.outputs import OutputFolder
from HiResMedSynthLib.errors import SettingsError

if TYPE_CHECKING:
    from HiResMedSynthLib.batch.making import Outcome
    from HiResMedSynthLib.batch.plan import Plan

EVERY_S = 30  # a line of progress where there is no terminal
EXAMPLES = """\b
Examples:
  hiresmedsynth dataset --example > spec.toml
  hiresmedsynth dataset spec.toml --dry-run
  hiresmedsynth dataset spec.toml --dry-run --measure
  hiresmedsynth dataset spec.toml --out DIR --workers 2
"""


@click.command("dataset", epilog=EXAMPLES)
@click.argument("spec", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=OutputFolder(), help="Folder for the data set; an interrupted one goes on.")
@click.option("--count", type=click.IntRange(min=1), help="How many cases [default: the spec's].")
@click.option("--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Processes.")
@click.option("--dask", "scheduler", help="Address of a dask scheduler (tcp://HOST:8786): make the cases there.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say how many cases, about how many bytes and seconds, and whether OUT can take them; write nothing.",
)
@click.option(
    "--measure", is_flag=True, help="With --dry-run: make a few cases, throw them away, scale what they took."
)
@click.option("--example", is_flag=True, help="Print a spec with every key, commented.")
def dataset_command(
    spec: Path | None, out: Path | None, count: int | None, workers: int, scheduler: str | None, dry_run: bool,
    measure: bool, example: bool,
) -> None:  # fmt: skip
    """Makes many synthetic cases from SPEC, a TOML file: split by patient and lesion donor, with manifest and card.

    \b
    Run the same command again after a break: it goes on, and gives the same bytes
    as a run without one. Exit code 3: done, but some cases could not be made
    (failures.csv says why); with --measure: some of the few cases tried.
    """
    if example:
        from HiResMedSynthLib.batch.spec_example import EXAMPLE

        click.echo(EXAMPLE, nl=False)
        return
    if spec is None:
        raise click.UsageError("SPEC is missing: a TOML file (hiresmedsynth dataset --example prints one).")
    if measure and not dry_run:
        raise click.UsageError("--measure would have no effect without --dry-run.")
    plan = _plan(spec, count)
    if plan.split.note and (dry_run or out is not None):
        warn(f"{plan.split.note}.")
    if dry_run:
        from HiResMedSynthLib.batch.estimate import summary
        from HiResMedSynthLib.batch.run import check_target

        click.echo(summary(plan))
        if out is not None:
            check_target(plan, out.absolute())
        (_estimate if measure else _reckon)(plan, workers)
        return
    if out is None:
        raise click.UsageError("--out is missing: the folder for the data set.")
    _run(plan, out, workers, scheduler)


def _plan(path: Path, count: int | None) -> Plan:
    from HiResMedSynthLib.batch.backgrounds import find_backgrounds
    from HiResMedSynthLib.batch.plan import Plan
    from HiResMedSynthLib.batch.spec import read_spec
    from HiResMedSynthLib.lesion.bank import load_bank

    spec = read_spec(path)
    if count is not None:
        spec = spec.with_count(count)
    line = _Line()
    try:
        found = find_backgrounds(
            spec.backgrounds,
            path.absolute().parent,
            progress=lambda done, total: line.show(done, total, "files of backgrounds looked at"),
        )
    finally:
        line.end()
    return Plan(spec, found, load_bank())


def _reckon(plan: Plan, workers: int) -> None:
    from HiResMedSynthLib.batch.reckoning import reckoned

    found = reckoned(plan, workers=workers)
    if found is None:
        click.echo("bytes and time can't be reckoned: no header tells an image's size; --measure makes a few cases")
        return
    size = f"{_bytes(found.bytes)} of pixels and " if found.bytes is not None else ""
    click.echo(
        f"about {size}{_duration(found.seconds)} with {workers} worker(s): reckoned from {found.looked_at} header(s), "
        f"{found.pixels / 1e6:.3g} million pixels a background, at the speed of the machine that the project measured "
        "on; --measure makes a few cases here instead"
    )


def _estimate(plan: Plan, workers: int) -> None:
    from HiResMedSynthLib.batch.estimate import estimated
    from HiResMedSynthLib.batch.run import reasons
    from HiResMedSynthLib.batch.workers import one_thread_from_now

    one_thread_from_now()
    found = estimated(plan, workers=workers)
    failures = {outcome.number: outcome.failure for outcome in found.tried if outcome.failure}
    if failures:
        click.echo(f"{len(failures)} of {len(found.tried)} cases tried could not be made:", err=True)
        for line in reasons(plan, [outcome.number for outcome in found.tried], failures):
            click.echo(f"  {line}", err=True)
    if found.seconds is None or found.bytes is None:
        raise SettingsError("none of the cases tried could be made", remedy="Mend what is said above.")
    whole = ", if all cases could be made" if failures else ""
    click.echo(
        f"about {_bytes(found.bytes)} and {_duration(found.seconds)} with {workers} worker(s){whole}: "
        f"measured now on {len(found.tried) - len(failures)} case(s), scaled"
    )
    if failures:
        click.get_current_context().exit(EXIT_SOME_FAILED)


def _run(plan: Plan, out: Path, workers: int, scheduler: str | None) -> None:
    from HiResMedSynthLib.batch.run import reasons, run

    engine = None
    if scheduler is not None:
        from HiResMedSynthLib.batch.cluster import cluster_engine

        engine = cluster_engine(plan, out, scheduler)
    progress = _Progress()
    try:
        done = run(plan, out, workers=workers, on_case=progress.tell, engine=engine)
    except KeyboardInterrupt:
        progress.end()
        whole = f"{progress.done} of {plan.count} cases are whole" if progress.here else "What is whole stays"
        click.echo(f"Stopped. {whole}: the same command goes on.", err=True)
        click.get_current_context().exit(EXIT_CANCELLED)
    except BaseException:
        progress.end()
        raise
    before = f" ({done.before} of them by an earlier run)" if done.before else ""
    click.echo(f"{out}: {done.made + done.before} cases{before}; see README.md, manifest.csv and sheet.png there")
    if done.failures:
        click.echo(f"{len(done.failures)} case(s) could not be made: see failures.csv", err=True)
        for line in reasons(plan, range(1, plan.count + 1), done.failures):
            click.echo(f"  {line}", err=True)
        click.get_current_context().exit(EXIT_SOME_FAILED)


class _Line:
    """One line on a terminal, rewritten; elsewhere a line now and then."""

    def __init__(self) -> None:
        self.said = time.monotonic()
        self.open = False

    def show(self, done: int, total: int, text: str, *, say: bool = False) -> None:
        """Tells how many are done; `say`: also where there is no terminal and the last line was just now."""
        progress_line(done, total, text)
        self.open = done < total
        now = time.monotonic()
        if not sys.stderr.isatty() and (say or now - self.said > EVERY_S):
            self.said = now
            click.echo(f"[{done}/{total}] {text}", err=True)

    def end(self) -> None:
        """Leaves the line where the work was cut off."""
        if self.open and sys.stderr.isatty():
            click.echo(err=True)


class _Progress(_Line):
    """Cases done, and the time left."""

    def __init__(self) -> None:
        super().__init__()
        self.start = self.said
        self.done = self.here = self.failed = 0

    def tell(self, done: int, total: int, outcome: Outcome) -> None:
        """Notes a case."""
        self.here += 1
        self.failed += bool(outcome.failure)
        self.done = done - self.failed
        left = (time.monotonic() - self.start) / self.here * (total - done)
        failed = f", {self.failed} failed" if self.failed else ""
        self.show(done, total, f"{_duration(left)} left{failed}", say=done == total)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
