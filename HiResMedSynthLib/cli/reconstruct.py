"""`hiresmedsynth reconstruct`: an image encoded by a background model and drawn again from its codes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from HiResMedSynthLib.cli.options import (
    check_device,
    computing_in,
    device_option,
    image_options,
    precision_option,
    progress_line,
    warn,
)
from HiResMedSynthLib.cli.outputs import OutputFile, check_free
from HiResMedSynthLib.errors import SettingsError

if TYPE_CHECKING:
    from HiResMedSynthLib.background.make import MadeImage
    from HiResMedSynthLib.image import MedicalImage
    from HiResMedSynthLib.weights import Model

EXAMPLES = """\b
Examples:
  hiresmedsynth reconstruct FILM.dcm --out rebuilt.dcm
  hiresmedsynth reconstruct FILM.png --spacing-mm 0.143 --seed 3 --out rebuilt.png
  hiresmedsynth reconstruct CT_FOLDER --slice 40 --out rebuilt.nrrd
  hiresmedsynth reconstruct FILM.dcm --model my-vqgan --out rebuilt.dcm
"""


@click.command("reconstruct", epilog=EXAMPLES)
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--out", type=OutputFile(".dcm", ".nrrd", ".png"), required=True, help="File to write: .dcm, .nrrd or .png."
)
@click.option(
    "--domain", help="What the image shows: cxr, lung-ct, or what a model of yours makes [default: as the image is]."
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
@precision_option
@image_options
def reconstruct_command(image: Path, out: Path, overwrite: bool, **options: Any) -> None:
    """Draws IMAGE again from its codes, on its own grid and grey range.

    It shows what the model keeps of an image; the result is synthetic and is marked so.
    """
    from HiResMedSynthLib.background.domain_values import domain_like
    from HiResMedSynthLib.background.find_model import find_background, is_vqgan
    from HiResMedSynthLib.export.image_file import check_format, format_of, write_image_file
    from HiResMedSynthLib.read import read_image

    check_device(options["device"])
    form = format_of(out)
    check_free(out, overwrite)
    given = read_image(
        image, spacing_mm=options["spacing_mm"], series=options["series"], slice_index=options["slice_index"]
    )
    check_format(given.units == "HU", form)
    domain = options["domain"]
    if domain is None and options["model_name"] is None:
        domain = domain_like(given)
    found = find_background(options["model_name"], domain, on_note=warn)
    with computing_in(options):
        made = (_by_vqgan if is_vqgan(found.path) else _by_cascade)(found, given, options)
    write_image_file(made.image, out, how=made.how, sex=made.sex)
    progress_line(1, 1, "written")
    for note in made.notes:
        warn(note)
    click.echo(f"{out}: {made.how}")


def _by_cascade(found: Model, given: MedicalImage, options: dict[str, Any]) -> MadeImage:
    from HiResMedSynthLib.background.find_model import load_background
    from HiResMedSynthLib.background.make import reconstruct

    model = load_background(found, options["device"])
    steps = list(model.cascade.stages)
    return reconstruct(
        model,
        given,
        seed=options["seed"],
        sex=options["sex"],
        on_step=lambda name: progress_line(steps.index(name), len(steps), name),
    )


def _by_vqgan(found: Model, given: MedicalImage, options: dict[str, Any]) -> MadeImage:
    from HiResMedSynthLib.background.rebuild import load_rebuilder, rebuild

    source = click.get_current_context().get_parameter_source
    idle = [f"--{name}" for name in ("seed", "sex") if source(name) == ParameterSource.COMMANDLINE]
    if idle:
        raise SettingsError(
            f"{', '.join(idle)} would have no effect: the model '{found.card.name}' draws nothing at random",
            remedy="Leave it out.",
        )
    return rebuild(load_rebuilder(found, options["device"]), given)
