"""`hiresmedsynth privacy`: looks for near copies of a model's training films among any films."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.cli.clock import Clock
from HiResMedSynthLib.cli.options import warn
from HiResMedSynthLib.cli.outputs import OutputFile
from HiResMedSynthLib.cli.privacy_judges import DOMAINS, judges, verdict
from HiResMedSynthLib.errors import ExportError, ReadError

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_FILMS = (".json", ".csv", ".txt", ".md", ".html", ".safetensors", ".toml")
SHEET = "sheet.png"  # the overview that generate writes beside its films
CASE, SET = ("case.json", "dicom"), ("manifest.csv", "card.json")  # what an exported case, a data set can be told by,
PICTURES = ("dicom", "dicom_background", "images", "imagesTr", "imagesTs", "monai")  # and where its images lie
LABEL = "_label.nii.gz"  # beside an image for MONAI
EXAMPLES = """\b
Examples:
  hiresmedsynth privacy check films
  hiresmedsynth privacy check SLICES_AS_PNG --domain lung-ct
  hiresmedsynth privacy check OUR_FILMS --model our-model --json verdicts.json
"""


@click.group("privacy", epilog=EXAMPLES)
def privacy_group() -> None:
    """Finds near copies of the films that a model learned from; no proof of privacy (docs/privacy.md)."""


@privacy_group.command("check", epilog=EXAMPLES)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--model", "model_name", help="Whose training images (hiresmedsynth models list) [default: by domain].")
@click.option(
    "--domain",
    type=click.Choice(DOMAINS),
    help="What the images show [default: by their headers; a picture without one is compared with both].",
)
@click.option("--json", "json_file", type=OutputFile(".json"), help="Write the verdicts to this file too.")
@click.pass_context
def check_command(
    context: click.Context, folder: Path, model_name: str | None, domain: str | None, json_file: Path | None
) -> None:
    """Tells which films and CT slices in FOLDER (or a single file) are near copies of what the model learned from.

    A film is compared in up to 16 proportions, which takes seconds; a CT slice in
    one: of slices saved as pictures --domain lung-ct saves the time. A CT volume
    (NIfTI, NRRD, MHA) is compared slice by slice.

    Exit code 0: none is; 1: one is, or a file couldn't be judged.
    """
    if json_file is not None:
        _refuse_unwritable(json_file)
    files, passed = _films(folder)
    asked = judges(model_name, domain, on_note=warn)
    verdicts, clock = [], Clock()
    for done, path in enumerate(files):
        name = str(path.relative_to(folder)) if path != folder else path.name
        clock.show(done, len(files), f"images compared: {name}")

        def on_slice(at: int, slices: int, text: str = f"images compared: {name}", done: int = done) -> None:
            if slices > 1:
                clock.show(done, len(files), f"{text}, slice {at + 1} of {slices}")

        verdicts.append({"file": name, **verdict(path, asked, on_slice=on_slice)})
    clock.show(len(files), len(files), "images compared")
    near = sum(one["near_copy"] is True for one in verdicts)
    unjudged = sum(one["near_copy"] is None for one in verdicts)
    click.echo("\n".join(_table(verdicts)))
    if passed:
        click.echo(f"{passed} file(s) that are no image of a patient were passed over (previews, masks, SEG, SR ...)")
    learned = {judge.name: len(judge.descriptors.signs) for judge in asked}
    click.echo(
        f"{len(verdicts)} file(s), compared with what {' and '.join(learned)} learned from "
        f"({' and '.join(map(str, learned.values()))} training images): "
        f"{near} near cop{'y' if near == 1 else 'ies'}, {unjudged} not judged"
    )
    if json_file is not None:
        models = [{"name": judge.name, "sha256": judge.sha256} for judge in asked]
        _write(json_file, {"models": models, "films": verdicts})
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


def _table(verdicts: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each film: verdict, likeness as a whole, by which model, name, why."""
    words = {True: "NEAR COPY", False: "no copy", None: "not judged"}
    width = max(len(one["model"] or "") for one in verdicts)
    for one in verdicts:
        likeness = "" if one["likeness"] is None else f"{one['likeness'][-1]:.2f}"
        why = f"  ({one['why']})" if one["why"] else ""
        yield f"{words[one['near_copy']]:<10}  {likeness:>4}  {one['model'] or '':<{width}}  {one['file']}{why}"


def _refuse_unwritable(path: Path) -> None:
    """Notices before the work what would fail after it."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ExportError("the verdicts can't be written there", where=path, remedy="Choose another place.")


def _write(path: Path, document: dict[str, Any]) -> None:
    try:
        with written_aside(path) as aside:
            aside.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ExportError(
            f"the verdicts can't be written ({error.strerror})", where=path, remedy="Choose another place."
        ) from error
