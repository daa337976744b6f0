"""The command-line options that every trainer has, in one wording."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from HiResMedSynthLib.errors import HiResMedSynthError

Command = Callable[..., Any]

RUN = (
    click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run."),
    click.option("--resume", is_flag=True, help="Go on from the checkpoint in OUT."),
    click.option(
        "--time-limit", type=float, default=math.inf, help="Minutes; the learning rate falls towards the end."
    ),
    click.option("--steps", type=int, help="Steps in all, in place of the preset's."),
    click.option("--batch", type=int, help="Examples a step (over all processes), in place of the preset's."),
    click.option("--device", default="cpu", show_default=True),
    click.option("--threads", type=int, default=1, show_default=True),
)

loop_option = click.option(
    "--loop", "loop_changes", multiple=True, help="KEY=NUMBER of the loop's settings, repeatable."
)
cache_option = click.option(
    "--cache", type=click.Path(path_type=Path), help="Folder of prepared films; default: OUT/../cache."
)


def run_options(command: Command) -> Command:
    """Adds --out, --resume, --time-limit, --steps, --batch, --device and --threads."""
    for option in reversed(RUN):
        command = option(command)
    return command


@contextlib.contextmanager
def told_plainly(example: str) -> Iterator[None]:
    """Within it an error of ours ends the command with its words; a missing entry of a preset names an example."""
    try:
        yield
    except KeyError as problem:
        raise click.ClickException(f"The preset lacks {problem}. See Training/presets/{example}.") from None
    except HiResMedSynthError as problem:
        raise click.ClickException(str(problem)) from None
