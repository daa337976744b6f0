"""`hiresmedsynth compose`: background and wishes in, synthetic case out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from HiResMedSynthLib.choices import FUSIONS, GENERATORS, REQUEST_TYPES, SIZES
from HiResMedSynthLib.cli.options import (
    NumberRange,
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
from HiResMedSynthLib.cli.outputs import OutputFolder
from HiResMedSynthLib.cli.wishes import requests_of
from HiResMedSynthLib.errors import CaseError, SettingsError

if TYPE_CHECKING:
    from HiResMedSynthLib.case import Case, CaseSettings
    from HiResMedSynthLib.compose import Composition
    from HiResMedSynthLib.image import MedicalImage, PixelBox
    from HiResMedSynthLib.lesion.bank import Bank

OPTION_NAMES = {
    "places": "at",
    "mask_boxes": "mask-box",
    "zones": "zone",
    "lesion_type": "type",
    "request_file": "request",
}
EXAMPLES = """\b
Examples:
  hiresmedsynth compose CT_FOLDER --lesions 3 --seed 7 --out case7
  hiresmedsynth compose CT_FOLDER --slice 6 --at 250,150 --size-mm 8:10 --out one
  hiresmedsynth compose CT_FOLDER --generator singan --model my-lesion --contrast-hu 600:800 --out own
  hiresmedsynth compose FILM.png --domain cxr --spacing-mm 0.143 --out film
  hiresmedsynth compose MR_FOLDER --contrast -90:-60 --size-mm 10:15 --out mr
  hiresmedsynth compose CT_FOLDER --case case7/case.json --out again
"""


@click.command("compose", epilog=EXAMPLES)
@click.argument("background", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=OutputFolder(), required=True, help="Folder to make for the case.")
@click.option("--lesions", type=click.IntRange(1, 10_000), help="How many lesions [default: 1, or one for each --at].")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed gives the same case."
)
@click.option(
    "--at", "places", type=Numbers("ROW,COL[,SLICE]", 2, 3), multiple=True, help="Place of a lesion; repeatable."
)
@click.option(
    "--zone",
    "zones",
    type=Quota(),
    multiple=True,
    help="So many of them in that part: left-upper=2; repeatable.",
)
@click.option("--size-mm", type=NumberRange(), default="4:12", show_default=True, help="Diameter, smallest:largest.")
@click.option(
    "--sizes",
    type=click.Choice(SIZES),
    default="even",
    show_default=True,
    help="Within them each size as likely, or as often as in real patients.",
)
@click.option(
    "--type", "lesion_type", type=click.Choice(REQUEST_TYPES), default="any", show_default=True, help="Kind of lesion."
)
@click.option("--bank-entry", help="Use this lesion of the bank (hiresmedsynth lesion list).")
@click.option(
    "--contrast", type=NumberRange(), help="Mean difference to the surroundings, HU or stored values; MR needs it."
)
@click.option("--contrast-hu", type=NumberRange(), help="The same in HU where alpha is >= .5; CT only.")
@click.option("--cnr", type=NumberRange(), help="The same over the noise at the place; not for films.")
@click.option("--rotation", type=float, help="In-plane rotation in degrees [default: drawn].")
@click.option(
    "--generator",
    type=click.Choice(GENERATORS),
    default="deform",
    show_default=True,
    help="Where a lesion's form comes from: a bank entry deformed, the network of one lesion, or of many.",
)
@click.option("--model", help="Model of that generator (hiresmedsynth models list) [default: one that fits].")
@click.option(
    "--request",
    "request_file",
    type=click.Path(path_type=Path),
    help="JSON list of requests, or a case.json.",
)
@click.option("--case", "case_file", type=click.Path(path_type=Path), help="Replay this case.json bit for bit.")
@click.option(
    "--fusion",
    type=click.Choice(FUSIONS),
    default="better",
    show_default=True,
    help="How it is joined: with the scan's sharpness and noise, by its matte alone, or as in the paper (Eq. 17).",
)
@click.option("--min-distance-mm", type=float, default=5.0, show_default=True, help="Distance between lesions.")
@click.option(
    "--mask-box",
    "mask_boxes",
    type=Numbers("ROW0,COL0,ROW1,COL1", 4, 4),
    multiple=True,
    help="Blank this area of the background first (burned-in text; ends exclusive); repeatable.",
)
@click.option("--watermark", is_flag=True, help="Mark the lesions' pixels invisibly (hiresmedsynth verify finds it).")
@click.option(
    "--accept-near-copy",
    is_flag=True,
    help="Take a made background though it is a near copy of a training film; case.json records it.",
)
@click.option(
    "--accept-composed",
    is_flag=True,
    help="Take a background that holds lesions of an earlier case, unlabelled here; case.json records it.",
)
@click.option("--pair", is_flag=True, help="Also write the same series without lesions.")
@click.option(
    "--seg",
    type=click.Choice(("binary", "labelmap")),
    default="binary",
    show_default=True,
    help="DICOM SEG as programs know it, or as a label map (2024), which few read yet.",
)
@click.option(
    "--compress", type=click.Choice(("jpeg-ls", "rle")), help="Compress series and segmentation, without loss."
)
@click.option(
    "--modality",
    type=click.Choice(("CT",)),
    help="Say that a NIfTI, NRRD or MHA file is a CT scan: it is then written as CT objects, else as captures.",
)
@click.option("--changed-only", is_flag=True, help="Write only the slices that hold a lesion.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output folder.")
@where_options
@prior_options
@image_options
def compose_command(
    background: Path | None, out: Path, case_file: Path | None, overwrite: bool, **options: Any
) -> None:
    """Places lesions in BACKGROUND and exports DICOM, SEG, boxes and a preview.

    BACKGROUND is a DICOM file or folder, NIfTI, NRRD, MHA, PNG, TIFF, JPEG or JPEG 2000.
    """
    from HiResMedSynthLib.compose import compose
    from HiResMedSynthLib.export.folder import check_target, export
    from HiResMedSynthLib.read import OTHER_SPACING
    from HiResMedSynthLib.synthetic_words import HOLDS_COMPOSED

    _refuse_ignored(case_file is not None, options["request_file"] is not None)
    check_target(out, overwrite=overwrite)
    image, case = _draw(background, options) if case_file is None else _replay(background, case_file, options)
    for text in case.background.oddities:
        if text not in image.oddities or text == HOLDS_COMPOSED or text.startswith(OTHER_SPACING):
            warn(text)
    composition = compose(image, case)
    exported = export(
        composition,
        out,
        overwrite=overwrite,
        changed_only=options["changed_only"],
        pair=options["pair"],
        seg=options["seg"],
        compress=options["compress"],
        progress=progress_line,
    )
    for text in exported.warnings:
        warn(text)
    click.echo(exported.summary())
    click.echo(_summary(composition))


def _refuse_ignored(replays: bool, has_requests: bool) -> None:
    """Refuses options that a case or a request file would leave without effect."""
    source = click.get_current_context().get_parameter_source
    per_lesion = (
        *("lesions", "places", "size_mm", "lesion_type", "bank_entry", "contrast", "contrast_hu", "cnr"),
        *("rotation", "generator", "model", "zones", "sizes"),
    )
    drawing = (
        *("seed", "fusion", "domain", "pleura_margin_mm", "vessel_margin_mm", "min_distance_mm", "request_file"),
        *("danger", "prior", "temperature", "mask_boxes", "watermark", "modality", "device"),
    )
    ignored = (*per_lesion, *drawing) if replays else per_lesion if has_requests else ()
    given = [name for name in ignored if source(name) == ParameterSource.COMMANDLINE]
    if given:
        names = ", ".join("--" + OPTION_NAMES.get(name, name).replace("_", "-") for name in given)
        raise SettingsError(
            f"{names} would have no effect beside --{'case' if replays else 'request'}",
            remedy="Leave it out, or draw a new case.",
        )


def _draw(background: Path | None, options: dict[str, Any]) -> tuple[MedicalImage, Case]:
    from HiResMedSynthLib.case import CaseSettings
    from HiResMedSynthLib.draw_case import draw_case
    from HiResMedSynthLib.mark import amplitude_for
    from HiResMedSynthLib.privacy_record import check_background
    from HiResMedSynthLib.read import read_image

    if background is None:
        raise click.UsageError("BACKGROUND is missing: the image that the lesions go into.")
    device = networks_device(options)
    accepted = check_background(background, accepted=options["accept_near_copy"])
    options = {**options, "places": in_chosen_slice(options["places"], options["slice_index"])}
    settings = CaseSettings(
        requests=requests_of(options),
        domain=options["domain"],
        fusion=options["fusion"],
        margins=margins_of(options),
        min_distance_mm=options["min_distance_mm"],
        placement=placement_of(options),
        modality=options["modality"],
    )
    image = read_image(
        background,
        spacing_mm=options["spacing_mm"],
        series=options["series"],
        slice_index=options["slice_index"],
        blank=_boxes(options["mask_boxes"]),
    )
    _refuse_composed(image, background, accepted=options["accept_composed"])
    _refuse_said(image, options["modality"])
    if options["watermark"]:
        settings = replace(settings, watermark=amplitude_for(image))
    if image.slices > 1 and any(len(place) == 2 for place in options["places"]):
        raise SettingsError(
            f"--at needs the slice too: this image has {image.slices}",
            remedy="Give --at ROW,COL,SLICE, or choose one --slice.",
        )
    if image.slices == 1 and any(len(place) == 3 and place[2] != 0 for place in options["places"]):
        raise SettingsError("this image has one slice", remedy="Leave the SLICE out: --at ROW,COL.")
    if options["contrast_hu"] is not None and image.units != "HU":
        raise SettingsError(
            f"this image ({image.modality}) has stored values, no HU",
            remedy="Give --contrast in stored values.",
        )
    case = draw_case(
        image,
        settings,
        options["seed"],
        bank=_bank(settings),
        source_slice=options["slice_index"],
        progress=progress_line,
        device=device,
    )
    return image, replace(case, log=(*accepted, *case.log))


def _refuse_said(image: MedicalImage, modality: str | None) -> None:
    """Refuses a modality that the header tells, or the values contradict."""
    if modality is None:
        return
    if image.facts.sop_class_uid is not None:
        raise SettingsError(
            "--modality would have no effect: a DICOM header says what the image is", remedy="Leave --modality out."
        )
    if image.units != "HU":
        raise SettingsError(
            "--modality CT: the values are no Hounsfield units, since none is below -500",
            remedy="Leave --modality out, or convert the volume anew, in HU and with the air around.",
        )


def _bank(settings: CaseSettings) -> Bank:
    """The shipped bank, and those of the user's own lesions that are asked for by name."""
    from HiResMedSynthLib import weights
    from HiResMedSynthLib.lesion.bank import load_bank
    from HiResMedSynthLib.lesion.trained import KIND, own_bank, refuse_unfinished

    bank = load_bank()
    asked = sorted({request.bank_entry for request in settings.requests if request.bank_entry is not None})
    named_models = {request.model for request in settings.requests if request.model is not None}
    there = {model.card.name for model in weights.models()} if asked or named_models else set()
    for name in (named_models | set(asked)) - there - set(bank.cards):
        refuse_unfinished(name)
    own = {model.card.name for model in weights.models(KIND)} if asked else set()
    named = tuple(name for name in asked if name not in bank.cards and name in own)
    return bank.with_own(own_bank(named)) if named else bank


def _replay(background: Path | None, case_file: Path, options: dict[str, Any]) -> tuple[MedicalImage, Case]:
    from HiResMedSynthLib.case_file import read_case
    from HiResMedSynthLib.privacy_record import ACCEPTED, check_background
    from HiResMedSynthLib.read import read_image
    from HiResMedSynthLib.synthetic_words import HOLDS_COMPOSED

    case = read_case(case_file)
    paired = background is None
    if background is None:
        folder = case_file if case_file.is_dir() else case_file.parent
        background = folder / "dicom_background"  # written by --pair
        if not background.is_dir():
            raise CaseError(
                "a case holds no background, only its hash",
                where=case_file,
                remedy="Name the background too: hiresmedsynth compose BACKGROUND --case CASE.JSON --out FOLDER.",
            )
        slice_index = None  # a pair holds what was worked on
    elif options["slice_index"] is not None:
        slice_index = options["slice_index"]
    else:
        slice_index = case.background.source_slice
    if ACCEPTED not in case.log:
        accepted = check_background(background, accepted=options["accept_near_copy"])
        case = replace(case, log=(*accepted, *case.log))
    reference = case.background
    spacing = options["spacing_mm"] or (reference.pixel_spacing_mm if reference.spacing_source == "assumed" else None)
    image = read_image(
        background, spacing_mm=spacing, series=options["series"], slice_index=slice_index, blank=reference.blanked
    )
    if paired and image.slices < reference.shape[0]:
        raise CaseError(
            f"this pair, written with --changed-only, has {image.slices} of the case's {reference.shape[0]} slices",
            where=background,
            remedy="Name the whole background: hiresmedsynth compose BACKGROUND --case CASE.JSON --out FOLDER.",
        )
    known = HOLDS_COMPOSED in reference.oddities
    _refuse_composed(image, background, accepted=known or options["accept_composed"])
    return image, case


def _refuse_composed(image: MedicalImage, background: Path, *, accepted: bool) -> None:
    """Refuses a series of ours with lesions in it, unless the user accepts it; as an oddity it is in case.json."""
    from HiResMedSynthLib.synthetic_words import COMPOSED_REFUSED, HOLDS_COMPOSED

    if HOLDS_COMPOSED in image.oddities and not accepted:
        raise SettingsError(
            COMPOSED_REFUSED,
            where=background,
            remedy="Name the background of that case (--pair wrote dicom_background), or add --accept-composed.",
        )


def _boxes(given: tuple[tuple[float, ...], ...]) -> tuple[PixelBox, ...]:
    for box in given:
        if not all(number.is_integer() for number in box):
            raise SettingsError(
                "--mask-box takes whole numbers", remedy="Give ROW0,COL0,ROW1,COL1, such as 0,0,60,400."
            )
    return tuple((int(a), int(b), int(c), int(d)) for a, b, c, d in given)


def _summary(composition: Composition) -> str:
    """A line for the case, one for each lesion."""
    from HiResMedSynthLib.export.measurements import measured

    case, flat = composition.case, composition.image.slices == 1
    unit = "HU" if composition.image.units == "HU" else "stored values"
    masks = {one.number: one.diameter_mm for one in measured(composition)}
    lines = [
        f"{len(case.lesions)} synthetic lesion(s), seed {case.seed}, domain {case.background.domain}, "
        f"fusion {case.settings.fusion} (in mm: the sphere of equal volume):"
    ]
    for lesion in case.lesions:
        slice_index, row, column = lesion.center
        # on a film anatomy hides a lesion, not the noise that a CNR is measured by
        cnr = f", CNR {lesion.cnr:z.1f}" if lesion.mode == "blend" else ""
        mask = f" (its mask here {masks[lesion.number]:.1f})" if flat and lesion.number in masks else ""
        where = f"row {row:.0f}, column {column:.0f}"
        if not flat:
            where += f", slice {slice_index:.0f}"
        lines.append(
            f"  {lesion.number}: {lesion.type}, {lesion.diameter_mm:.1f} mm{mask} at {where}, "
            f"contrast {lesion.contrast:z.0f} {unit}{cnr}, from {lesion.bank_entry} ({lesion.origin})"
        )
    return "\n".join(lines)
