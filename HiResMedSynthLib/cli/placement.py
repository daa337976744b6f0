"""`hiresmedsynth danger` and `hiresmedsynth prior`: where lesions must not go, and where they are likely."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from HiResMedSynthLib.cli.options import image_options, where_options
from HiResMedSynthLib.errors import ExportError, SettingsError

if TYPE_CHECKING:
    from HiResMedSynthLib.ground import Ground

MAP_SUFFIXES = (".nrrd", ".nii", ".nii.gz", ".mha")
DANGER_EXAMPLES = """\b
Examples:
  hiresmedsynth danger CT_FOLDER --out danger.nrrd --preview danger.png
  hiresmedsynth danger film.dcm --domain cxr --spacing-mm 0.143 --out danger.nrrd
"""
PRIOR_EXAMPLES = """\b
Example:
  hiresmedsynth prior CT_FOLDER --out prior.nrrd --preview prior.png
"""


def map_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the argument and options that both commands share."""
    for option in (
        where_options,
        image_options,
        click.option("--overwrite", is_flag=True, help="Replace existing files."),
        click.option("--preview", type=click.Path(path_type=Path), help="Also draw it over the image, as PNG."),
        click.option("--out", type=click.Path(path_type=Path), required=True, help="Map to write (.nrrd, .nii.gz)."),
        click.argument("path", type=click.Path(path_type=Path)),
    ):
        command = option(command)
    return command


@click.command("danger", epilog=DANGER_EXAMPLES)
@map_options
def danger_command(path: Path, out: Path, preview: Path | None, overwrite: bool, **options: Any) -> None:
    """Writes where lesions must not go in the image in PATH: a map of named classes, 0 = permitted."""
    _check_targets(out, preview, overwrite)
    ground = _ground(path, options)
    found = ground.danger_map
    _write_map(found.labels, ground, out)
    if preview is not None:
        from HiResMedSynthLib.placement.picture import danger_picture

        _write_picture(danger_picture(ground.image, found), preview)
    click.echo(found.method)
    for label, name in ((0, "permitted"), *found.names.items()):
        click.echo(f"{label}  {name}: {100 * int((found.labels == label).sum()) / found.labels.size:.1f} %")
    click.echo(f"Written: {out}" + ("" if preview is None else f" and {preview}"))


@click.command("prior", epilog=PRIOR_EXAMPLES)
@map_options
def prior_command(path: Path, out: Path, preview: Path | None, overwrite: bool, **options: Any) -> None:
    """Writes where lesions are likely in the image in PATH: probabilities that sum to 1, 0 where forbidden."""
    from HiResMedSynthLib.placement.location import heatmap

    _check_targets(out, preview, overwrite)
    ground = _ground(path, options)
    heat = heatmap(ground.image, ground.danger_map, domain=ground.domain)
    _write_map(heat, ground, out)
    if preview is not None:
        from HiResMedSynthLib.placement.picture import prior_picture

        _write_picture(prior_picture(ground.image, heat), preview)
    click.echo(f"Written: {out}" + ("" if preview is None else f" and {preview}"))


def _ground(path: Path, options: dict[str, Any]) -> Ground:
    from HiResMedSynthLib.ground import prepare_ground
    from HiResMedSynthLib.placement.margins import Margins
    from HiResMedSynthLib.read import read_image

    image = read_image(
        path, spacing_mm=options["spacing_mm"], series=options["series"], slice_index=options["slice_index"]
    )
    margins = Margins(pleura_mm=options["pleura_margin_mm"], vessel_mm=options["vessel_margin_mm"])
    return prepare_ground(image, domain=options["domain"], margins=margins)


def _check_targets(out: Path, preview: Path | None, overwrite: bool) -> None:
    if not out.name.lower().endswith(MAP_SUFFIXES):
        raise SettingsError(
            f"'{out.name}' names no format for maps", remedy=f"End it in one of {', '.join(MAP_SUFFIXES)}."
        )
    for file in (out, *([] if preview is None else [preview])):
        if not file.absolute().parent.is_dir():
            raise SettingsError("the folder of the output doesn't exist", where=file.parent, remedy="Make it first.")
        if file.exists() and not overwrite:
            raise ExportError(
                "the output already exists", where=file, remedy="Choose another name, or add --overwrite."
            )


def _write_map(array: Any, ground: Ground, out: Path) -> None:
    import SimpleITK as sitk

    from HiResMedSynthLib.write_volume import to_simpleitk

    volume, note = to_simpleitk(array, ground.image)
    suffix = next(suffix for suffix in (".nii.gz", *MAP_SUFFIXES) if out.name.lower().endswith(suffix))
    aside = out.with_name(f".{out.name}.part{suffix}")
    try:
        sitk.WriteImage(volume, str(aside), useCompression=True)
        aside.replace(out)
    except (RuntimeError, OSError) as error:
        aside.unlink(missing_ok=True)
        raise ExportError(
            "the map can't be written", where=out, remedy="Is the folder writable, the disk full?"
        ) from error
    if note is not None:
        click.echo(f"note: {note}", err=True)


def _write_picture(picture: Any, file: Path) -> None:
    try:
        picture.save(file, format="PNG")
    except OSError as error:
        file.unlink(missing_ok=True)
        raise ExportError(
            "the preview can't be written", where=file, remedy="Is the folder writable, the disk full?"
        ) from error
