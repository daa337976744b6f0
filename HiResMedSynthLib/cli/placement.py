"""`hiresmedsynth danger`, `prior` and `candidates`: where lesions must not go, where they are likely, and places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from HiResMedSynthLib.choices import REQUEST_TYPES
from HiResMedSynthLib.cli.options import (
    Numbers,
    Quota,
    image_options,
    in_chosen_slice,
    margins_of,
    networks_device,
    placement_of,
    prior_options,
    progress_line,
    warn,
    where_options,
)
from HiResMedSynthLib.cli.outputs import MAP_ENDINGS, OutputFile, check_free
from HiResMedSynthLib.errors import ExportError, SettingsError

if TYPE_CHECKING:
    from HiResMedSynthLib.ground import Ground
    from HiResMedSynthLib.image import MedicalImage

DANGER_EXAMPLES = """\b
Examples:
  hiresmedsynth danger CT_FOLDER --out danger.nrrd --preview danger.png
  hiresmedsynth danger film.dcm --domain cxr --spacing-mm 0.143 --out danger.nrrd
"""
CANDIDATES_EXAMPLES = """\b
Examples:
  hiresmedsynth candidates CT_FOLDER -k 20 --zone left=3 --out places.mrk.json
  hiresmedsynth candidates film.dcm --check 400,300 --diameter-mm 12 --type juxtapleural
"""
PRIOR_EXAMPLES = """\b
Example:
  hiresmedsynth prior CT_FOLDER --out prior.nrrd --preview prior.png
"""


preview_slice_option = click.option(
    "--preview-slice", type=click.IntRange(min=0), help="Slice of the picture [default: most permitted tissue]."
)


def map_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the argument and options that both commands share."""
    for option in (
        where_options,
        image_options,
        click.option("--overwrite", is_flag=True, help="Replace existing files."),
        preview_slice_option,
        click.option("--preview", type=OutputFile(".png"), help="Also draw it over the image, as PNG."),
        click.option("--out", type=OutputFile(*MAP_ENDINGS), required=True, help="Map to write (.nrrd, .nii.gz)."),
        click.argument("path", type=click.Path(path_type=Path)),
    ):
        command = option(command)
    return command


@click.command("danger", epilog=DANGER_EXAMPLES)
@map_options
def danger_command(path: Path, out: Path, preview: Path | None, overwrite: bool, **options: Any) -> None:
    """Writes where lesions must not go in the image in PATH: a map of named classes, 0 = permitted."""
    _check_targets(out, preview, overwrite)
    ground = _ground(_image(path, options), options)
    found = ground.danger_map
    _write_map(found.labels, ground, out)
    if preview is not None:
        from HiResMedSynthLib.placement.picture import danger_picture

        _write_picture(danger_picture(ground.image, found, index=options["preview_slice"]), preview, ground)
    click.echo(found.method)
    for label, name in ((0, "permitted"), *found.names.items()):
        click.echo(f"{label}  {name}: {100 * int((found.labels == label).sum()) / found.labels.size:.1f} %")
    click.echo(f"Written: {out}" + ("" if preview is None else f" and {preview}"))


@click.command("prior", epilog=PRIOR_EXAMPLES)
@map_options
@prior_options
def prior_command(path: Path, out: Path, preview: Path | None, overwrite: bool, **options: Any) -> None:
    """Writes where lesions are likely in the image in PATH: probabilities that sum to 1, 0 where forbidden."""
    _check_targets(out, preview, overwrite)
    ground = _ground(_image(path, options), options)
    heat = ground.heat()
    _write_map(heat, ground, out)
    if preview is not None:
        from HiResMedSynthLib.placement.picture import prior_picture

        picture = prior_picture(
            ground.image, heat, ground.danger_map, index=options["preview_slice"], method=ground.prior_method
        )
        _write_picture(picture, preview, ground)
    click.echo(ground.method)
    click.echo(f"Written: {out}" + ("" if preview is None else f" and {preview}"))


@click.command("candidates", epilog=CANDIDATES_EXAMPLES)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-k", "--count", type=click.IntRange(1, 1000), default=20, show_default=True, help="Places to propose.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides the places.")
@click.option("--zone", "zones", type=Quota(), multiple=True, help="At least so many in that part: left=3.")
@click.option("--diameter-mm", type=click.FloatRange(0, 200), default=8.0, show_default=True, help="Of a lesion.")
@click.option(
    "--type",
    "lesion_type",
    type=click.Choice(REQUEST_TYPES),
    default="any",
    show_default=True,
    help="Kind of lesion: decides what it may touch, and must.",
)
@click.option("--min-distance-mm", type=float, default=10.0, show_default=True, help="Between two places.")
@click.option(
    "--check",
    "checked",
    type=Numbers("ROW,COL[,SLICE]", 2, 3),
    multiple=True,
    help="Judge this place; repeatable.",
)
@click.option("--out", type=OutputFile(".csv", ".json"), help="Write them too: .csv, .json, or .mrk.json for Slicer.")
@click.option("--preview", type=OutputFile(".png"), help="Also draw them over the image, as PNG.")
@preview_slice_option
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@image_options
@where_options
@prior_options
def candidates_command(
    path: Path, out: Path | None, preview: Path | None, overwrite: bool, checked: tuple[Any, ...], **options: Any
) -> None:
    """Proposes places for lesions in the image in PATH, or judges places of your own (--check)."""
    from HiResMedSynthLib.cli.candidates_file import check_slices, judged, write_places
    from HiResMedSynthLib.propose import check_wish, propose

    if checked and not (out is None and preview is None):
        raise SettingsError("--check writes nothing", remedy="Leave --out and --preview out.")
    for file in (out, preview):
        if file is not None:
            check_free(file, overwrite)
    quotas: dict[Any, int] = {}
    for zone, number in options["zones"]:
        quotas[zone] = quotas.get(zone, 0) + number
    wish = {name: options[name] for name in ("count", "diameter_mm", "min_distance_mm")} | {"quotas": quotas}
    check_wish(**wish)
    image = _image(path, options)
    checked = in_chosen_slice(checked, options["slice_index"])
    check_slices(image, checked)
    ground = _ground(image, options)
    if checked:
        click.echo(judged(ground, checked, options["diameter_mm"], options["lesion_type"]))
        return
    found = propose(ground, seed=options["seed"], lesion_type=options["lesion_type"], **wish)
    click.echo(ground.method)
    for number, one in enumerate(found, start=1):
        slice_index, row, column = one.place
        where = f"row {row}, column {column}" + (f", slice {slice_index}" if ground.image.slices > 1 else "")
        zone = f", {one.zone}" if one.zone else ""
        click.echo(f"{number:3}  {where}{zone}: {one.times_even:.1f} times as likely as an even draw")
    unfit = sum(not one.fits for one in found)
    if unfit:
        warn(
            f"no room for a lesion of {options['diameter_mm']:g} mm was found: it won't fit at {unfit} of these places"
        )
    if len(found) < options["count"]:
        click.echo(f"Only {len(found)} of {options['count']} places were found at this distance.", err=True)
    if out is not None:
        write_places(found, out)
    if preview is not None:
        from HiResMedSynthLib.placement.picture import prior_picture

        picture = prior_picture(
            ground.image, ground.heat(), ground.danger_map, places=[one.place for one in found],
            method=ground.prior_method,
            index=options["preview_slice"],
        )  # fmt: skip
        _write_picture(picture, preview, ground)
    written = [str(file) for file in (out, preview) if file is not None]
    if written:
        click.echo(f"Written: {' and '.join(written)}")


def _image(path: Path, options: dict[str, Any]) -> MedicalImage:
    from HiResMedSynthLib.read import read_image

    image = read_image(
        path, spacing_mm=options["spacing_mm"], series=options["series"], slice_index=options["slice_index"]
    )
    wanted = options["preview_slice"]
    if wanted is not None and wanted >= image.slices:
        raise SettingsError(
            f"slice {wanted} is not in 0..{image.slices - 1}", remedy="Choose one of them with --preview-slice."
        )
    return image


def _ground(image: MedicalImage, options: dict[str, Any]) -> Ground:
    from HiResMedSynthLib.ground import prepare_ground

    ground = prepare_ground(
        image, domain=options["domain"], margins=margins_of(options), placement=placement_of(options),
        progress=progress_line, device=networks_device(options),
    )  # fmt: skip
    for text in ground.view_warnings:  # the others are about drawing lesions
        warn(text)
    return ground


def _check_targets(out: Path, preview: Path | None, overwrite: bool) -> None:
    for file in (out, *([] if preview is None else [preview])):
        check_free(file, overwrite)


def _write_map(array: Any, ground: Ground, out: Path) -> None:
    from HiResMedSynthLib.aside import written_aside
    from HiResMedSynthLib.write_volume import to_simpleitk, write_whole

    volume, note = to_simpleitk(array, ground.image)
    try:
        with written_aside(out) as aside:
            write_whole(volume, aside, useCompression=True)
    except OSError as error:
        raise _unwritable("map", out, error) from error
    if note is not None:
        warn(note)


def _write_picture(picture: Any, file: Path, ground: Ground) -> None:
    from HiResMedSynthLib.aside import written_aside
    from HiResMedSynthLib.export.image_file import MARK, save_png
    from HiResMedSynthLib.synthetic_words import text_by_oddities

    synthetic = text_by_oddities(ground.image.oddities) != ""
    try:
        with written_aside(file) as aside:
            save_png(picture, aside, MARK if synthetic else "Research only, not for diagnosis")
    except OSError as error:
        raise _unwritable("preview", file, error) from error


def _unwritable(what: str, file: Path, error: OSError) -> ExportError:
    return ExportError(
        f"the {what} can't be written ({error.strerror})",
        where=file,
        remedy="Choose a disk with space, that you may write.",
    )
