"""`hiresmedsynth reconstruct`: an image encoded by a background model and drawn again from its codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from HiResMedSynthLib.cli.options import check_device, device_option, image_options, progress_line
from HiResMedSynthLib.errors import ExportError

EXAMPLES = """\b
Examples:
  hiresmedsynth reconstruct FILM.dcm --out rebuilt.dcm
  hiresmedsynth reconstruct FILM.png --spacing-mm 0.143 --seed 3 --out rebuilt.png
  hiresmedsynth reconstruct CT_FOLDER --slice 40 --domain lung-ct --out rebuilt.nrrd
"""


@click.command("reconstruct", epilog=EXAMPLES)
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to write: .dcm, .nrrd or .png.")
@click.option(
    "--domain", help="What the image shows: cxr, or what a model of yours makes [default: cxr; lung-ct for a CT]."
)
@click.option("--model", "model_name", help="Model (hiresmedsynth models list) [default: that of the domain].")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**53),
    default=0,
    show_default=True,
    help="Of the detail, which the codes leave open.",
)
@click.option("--sex", type=click.Choice(("F", "M")), help="Of the patient, where it is known.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@device_option
@image_options
def reconstruct_command(image: Path, out: Path, overwrite: bool, **options: Any) -> None:
    """Draws IMAGE again from its codes, on its own grid and grey range.

    It shows what the model keeps of an image; the result is synthetic and is marked so.
    """
    from HiResMedSynthLib.background.find_model import find_background, load_background
    from HiResMedSynthLib.background.make import reconstruct
    from HiResMedSynthLib.export.image_file import check_format, format_of, write_image_file
    from HiResMedSynthLib.read import read_image

    check_device(options["device"])
    form = format_of(out)
    if not out.absolute().parent.is_dir():
        raise ExportError("the folder of the output doesn't exist", where=out.parent, remedy="Make it first.")
    if out.is_dir() or (out.exists() and not overwrite):
        raise ExportError("the output already exists", where=out, remedy="Choose another --out, or add --overwrite.")
    given = read_image(
        image, spacing_mm=options["spacing_mm"], series=options["series"], slice_index=options["slice_index"]
    )
    check_format(given.units == "HU", form)
    domain = options["domain"]
    if domain is None and options["model_name"] is None:
        domain = "lung-ct" if given.units == "HU" else "cxr"
    found = find_background(options["model_name"], domain, on_note=lambda text: click.echo(f"Note: {text}", err=True))
    model = load_background(found, options["device"])
    steps = list(model.cascade.stages)
    made = reconstruct(
        model,
        given,
        seed=options["seed"],
        sex=options["sex"],
        on_step=lambda name: progress_line(steps.index(name), len(steps), name),
    )
    write_image_file(made.image, out, how=made.how, sex=made.sex)
    progress_line(len(steps), len(steps), "written")
    for note in made.notes:
        click.echo(f"Note: {note}", err=True)
    click.echo(f"{out}: {made.how}")
