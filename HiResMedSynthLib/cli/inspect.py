"""`hiresmedsynth inspect`: what is understood of an image, and what is odd about it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from HiResMedSynthLib.cli.options import image_options

EXAMPLES = """\b
Examples:
  hiresmedsynth inspect CT_FOLDER
  hiresmedsynth inspect film.png --spacing-mm 0.143 --json
"""


@click.command("inspect", epilog=EXAMPLES)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@image_options
def inspect_command(
    path: Path, as_json: bool, spacing_mm: tuple[float, float] | None, series: str | None, slice_index: int | None
) -> None:
    """Shows what is understood of the image in PATH, and what is odd about it."""
    from dataclasses import replace

    from HiResMedSynthLib.inspect import describe, facts_of
    from HiResMedSynthLib.placement.film_view import doubts_about
    from HiResMedSynthLib.read import read_image

    image = read_image(path, spacing_mm=spacing_mm, series=series, slice_index=slice_index)
    image = replace(image, oddities=(*image.oddities, *doubts_about(image)))
    click.echo(json.dumps(facts_of(image), indent=2) if as_json else describe(image))
