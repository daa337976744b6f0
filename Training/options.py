"""The command-line options that every trainer has, in one wording."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.free_memory import is_short_of_memory

Command = Callable[..., Any]


def _checked_device(_context: click.Context, _option: click.Parameter, device: str) -> str:
    """The device, where it is there: to read the data, which may take long, comes after."""
    from HiResMedSynthLib.cli.options import check_device

    try:
        check_device(device)
    except SettingsError as problem:
        raise click.ClickException(str(problem)) from None
    return device


device_option = click.option("--device", default="cpu", show_default=True, callback=_checked_device)
RUN = (
    click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run."),
    click.option("--resume", is_flag=True, help="Go on from the checkpoint in OUT."),
    click.option(
        "--time-limit", type=float, default=math.inf, help="Minutes; the learning rate falls towards the end."
    ),
    click.option("--steps", type=int, help="Steps in all, in place of the preset's."),
    click.option("--batch", type=int, help="Examples a step (over all processes), in place of the preset's."),
    device_option,
    click.option("--threads", type=int, default=1, show_default=True),
)

loop_option = click.option(
    "--loop", "loop_changes", multiple=True, help="KEY=NUMBER of the loop's settings, repeatable."
)
LESS_MEMORY = {  # by the name of an option that a trainer may have
    "loop_changes": "Give --loop accumulate=2 or more, to learn a batch in so many parts.",
    "batch": "Give a smaller --batch.",
    "size": "Give a smaller --size.",
}
cache_option = click.option(
    "--cache", type=click.Path(path_type=Path), help="Folder of prepared films; default: OUT/../cache."
)


def run_options(command: Command) -> Command:
    """Adds --out, --resume, --time-limit, --steps, --batch, --device and --threads."""
    for option in reversed(RUN):
        command = option(command)
    return command


def loop_values(settings: type[Any], changes: Iterable[str]) -> dict[str, Any]:
    """The numbers and words of --loop, as fields of a trainer's settings (a dataclass with defaults).

    Raises:
        SettingsError: a change that can't be read, or of nothing there is.
    """
    kinds = {entry.name: type(entry.default) for entry in dataclasses.fields(settings)}
    values = {}
    for change in changes:
        key, _, text = change.partition("=")
        try:
            values[key] = {int: int, float: float, str: str}[kinds[key]](text)
        except (KeyError, ValueError):
            raise SettingsError(
                f"--loop {change} can't be understood", remedy="Give KEY=NUMBER, such as report_every=500."
            ) from None
    return values


@contextlib.contextmanager
def told_plainly(example: str | None = None) -> Iterator[None]:
    """Within it, or within a command that it decorates, an error of ours ends the command with its words, memory that
    runs out with the options that need less; where an example of a preset is named, a missing entry of the preset does
    too.
    """
    try:
        yield
    except KeyError as problem:
        if example is None:
            raise
        raise click.ClickException(f"The preset lacks {problem}. See Training/presets/{example}.") from None
    except HiResMedSynthError as problem:
        raise click.ClickException(str(problem)) from None
    except Exception as problem:
        if not is_short_of_memory(problem):
            raise
        context = click.get_current_context(silent=True)
        less = [advice for name, advice in LESS_MEMORY.items() if context is not None and name in context.params]
        raise click.ClickException(f"The memory ran out. {' '.join([*less, 'Close other programs.'])}") from None
