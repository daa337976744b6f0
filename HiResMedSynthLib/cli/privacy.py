"""`hiresmedsynth privacy`: looks for near copies of a model's training films among any films."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from HiResMedSynthLib.cli.options import progress_line, warn
from HiResMedSynthLib.cli.outputs import OutputFile
from HiResMedSynthLib.errors import ExportError, HiResMedSynthError, ReadError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from HiResMedSynthLib.background.cascade import FilmCascade
    from HiResMedSynthLib.background.domain_values import DomainValues
    from HiResMedSynthLib.image import MedicalImage
    from HiResMedSynthLib.privacy import Pixels, TrainingDescriptors

NO_FILMS = (".json", ".csv", ".txt", ".md", ".html", ".safetensors", ".toml")
SHARES = (1.0, 0.935, 0.874, 0.817)  # of the model's canvas that a film of unknown size may cover, each way
SHEET = "sheet.png"  # the overview that generate writes beside its films
CASE, SET = ("case.json", "dicom"), ("manifest.csv", "card.json")  # what an exported case, a data set can be told by,
PICTURES = ("dicom", "dicom_background", "images", "imagesTr", "imagesTs", "monai")  # and where its images lie
LABEL = "_label.nii.gz"  # beside an image for MONAI
EXAMPLES = """\b
Examples:
  hiresmedsynth privacy check films
  hiresmedsynth privacy check OUR_FILMS --model our-model --json verdicts.json
"""


@click.group("privacy", epilog=EXAMPLES)
def privacy_group() -> None:
    """Finds near copies of the films that a model learned from; no proof of privacy (docs/privacy.md)."""


@privacy_group.command("check", epilog=EXAMPLES)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--model", "model_name", help="Whose training films (hiresmedsynth models list) [default: cxr].")
@click.option("--json", "json_file", type=OutputFile(".json"), help="Write the verdicts to this file too.")
@click.pass_context
def check_command(context: click.Context, folder: Path, model_name: str | None, json_file: Path | None) -> None:
    """Tells which films in FOLDER (or a single file) are near copies of films that the model learned from.

    Exit code 0: none is; 1: one is, or a file couldn't be judged.
    """
    from HiResMedSynthLib.background.find_model import find_background, load_background
    from HiResMedSynthLib.privacy import descriptors_of

    if json_file is not None:
        _refuse_unwritable(json_file)
    files, passed = _films(folder)
    found = find_background(model_name, on_note=warn)
    descriptors = descriptors_of(found.card.name)
    if descriptors is None:
        raise SettingsError(
            f"the model '{found.card.name}' has no descriptors of its training films beside it",
            remedy="Make them with Training.pack_descriptors, and add them to the store by: models add FILE.",
        )
    cascade = load_background(found).cascade
    verdicts = []
    for done, path in enumerate(files):
        progress_line(done, len(files), path.name)
        verdicts.append({"file": str(path.relative_to(folder)) if path != folder else path.name}
                        | _verdict(path, cascade, descriptors))  # fmt: skip
    progress_line(len(files), len(files), "all films were looked at")
    near = sum(verdict["near_copy"] is True for verdict in verdicts)
    unjudged = sum(verdict["near_copy"] is None for verdict in verdicts)
    click.echo("\n".join(_table(verdicts)))
    if passed:
        click.echo(f"{passed} file(s) that are no image of a patient were passed over (previews, masks, SEG, SR ...)")
    click.echo(
        f"{len(verdicts)} file(s), model {found.card.name}, {len(descriptors.signs)} training films: "
        f"{near} near cop{'y' if near == 1 else 'ies'}, {unjudged} not judged"
    )
    if json_file is not None:
        _write(json_file, {"model": found.card.name, "sha256": found.card.sha256, "films": verdicts})
    context.exit(1 if near or unjudged else 0)


def _films(folder: Path) -> tuple[list[Path], int]:
    """The files that may be films, sorted, and how many show no patient; hidden ones, tables and texts don't count.

    Of an exported case or data set only its images are films: not its previews, masks and charts.

    Raises:
        ReadError: there is none.
    """
    if folder.is_file():
        return [folder], 0
    if not folder.is_dir():
        raise ReadError("there is no such file or folder", where=folder, remedy="Check the path.")
    ours: dict[Path, bool] = {}
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.suffix.lower() not in NO_FILMS
        and path.name not in (SHEET, "DICOMDIR")
    ]
    films = [path for path in files if not _beside_images(path, folder, ours) and not _is_no_picture(path)]
    if not films:
        raise ReadError("the folder holds no film", where=folder, remedy="Name a folder of DICOM, NRRD or PNG films.")
    return films, len(files) - len(films)


def _beside_images(path: Path, folder: Path, ours: dict[Path, bool]) -> bool:
    """Whether a file lies in an exported case or data set, but not where its images lie; `ours` is filled."""
    for parent in path.parents:
        if parent not in ours:
            ours[parent] = any(all((parent / name).exists() for name in names) for names in (CASE, SET))
        if ours[parent]:
            inside = path.relative_to(parent).parts[:-1]
            return path.name.endswith(LABEL) or not any(part in PICTURES for part in inside)
        if parent == folder:
            break
    return False


def _is_no_picture(path: Path) -> bool:
    """Whether a DICOM file's SOP class is none of images (SEG, SR, presentation states ...); unknown ones may be."""
    import pydicom

    from HiResMedSynthLib.read_bounds import refuse_deflated_bomb
    from HiResMedSynthLib.read_dicom import looks_like_dicom

    try:
        with path.open("rb") as stream:
            if not looks_like_dicom(stream.read(132)):
                return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refuse_deflated_bomb(path)
            data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"], force=True)
            name = str(data.SOPClassUID.name)
    except Exception:  # pydicom raises whatever it meets in a damaged file: its reader will say so by name
        return False
    return name.endswith("Storage") and "Image" not in name


def _verdict(path: Path, cascade: FilmCascade, descriptors: TrainingDescriptors) -> dict[str, Any]:
    """near_copy True, False or None (not judged), and why."""
    from HiResMedSynthLib.read import read_image

    try:
        near = descriptors.nearness(*versions(read_image(path), cascade))
    except HiResMedSynthError as problem:
        return {"near_copy": None, "likeness": None, "why": problem.what}
    return {"near_copy": bool(near.why), "likeness": [round(value, 3) for value in near.likeness], "why": near.why}


def versions(image: MedicalImage, cascade: FilmCascade) -> Iterator[Pixels]:
    """The film as it lies on the model's canvas, and in other heights and widths; none twice.

    Collections squeeze films to squares (ChestX-ray14) and some then say a size in mm that is none, so that a training
    film's own file looks like none of them. Where the size is unknown, heights and widths are tried in all pairs;
    where it is told, each proportion once.

    Raises:
        SettingsError: the image is nothing that the model knows, or doesn't fit its canvas.
    """
    from HiResMedSynthLib.background.canvas import place
    from HiResMedSynthLib.background.domain_values import values_of
    from HiResMedSynthLib.read import with_assumed_spacing

    values, whole_mm = values_of(cascade.domain), cascade.side * cascade.spacing_mm
    _refuse_stranger(image, values)
    known = image.pixel_spacing_mm is not None
    images = [image] if known or not values.by_size else []
    if values.by_size:
        images += [
            with_assumed_spacing(image, (height * whole_mm / image.rows, width * whole_mm / image.columns))
            for height in SHARES
            for width in SHARES
            if not known or max(height, width) == 1
        ]
    seen = set()
    for one in images:
        placed = place(one, values=values, side=cascade.side, spacing_mm=cascade.spacing_mm)
        if placed.box not in seen:
            seen.add(placed.box)
            yield placed.film


def _refuse_stranger(image: MedicalImage, values: DomainValues) -> None:
    """Refuses what the model has never seen: its verdict would say nothing."""
    from HiResMedSynthLib.read_header import RADIOGRAPHS

    film = image.units != "HU" and image.modality in (*RADIOGRAPHS, "OT")
    if film == values.hounsfield:
        raise SettingsError(
            f"it is of modality {image.modality}, and the model knows {values.shows} only",
            remedy="Name the model that knows such images: --model.",
        )


def _table(verdicts: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each film: verdict, likeness as a whole, name, why."""
    words = {True: "NEAR COPY", False: "no copy", None: "not judged"}
    for verdict in verdicts:
        likeness = "" if verdict["likeness"] is None else f"{verdict['likeness'][-1]:.2f}"
        why = f"  ({verdict['why']})" if verdict["why"] else ""
        yield f"{words[verdict['near_copy']]:<10}  {likeness:>4}  {verdict['file']}{why}"


def _refuse_unwritable(path: Path) -> None:
    """Notices before the work what would fail after it."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ExportError("the verdicts can't be written there", where=path, remedy="Choose another place.")


def _write(path: Path, document: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ExportError(
            f"the verdicts can't be written ({error.strerror})", where=path, remedy="Choose another place."
        ) from error
