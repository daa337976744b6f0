"""`hiresmedsynth privacy`: looks for near copies of a model's training films among any films."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from HiResMedSynthLib.cli.options import progress_line
from HiResMedSynthLib.errors import ExportError, HiResMedSynthError, ReadError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from HiResMedSynthLib.background.cascade import FilmCascade
    from HiResMedSynthLib.image import MedicalImage
    from HiResMedSynthLib.privacy import Pixels, TrainingDescriptors

NO_FILMS = (".json", ".csv", ".txt", ".md", ".html", ".safetensors", ".toml")
SHARES = (1.0, 0.935, 0.874, 0.817)  # of the model's canvas that a film of unknown size may cover, each way
SHEET = "sheet.png"  # the overview that generate writes beside its films
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
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the verdicts to this file too.")
@click.pass_context
def check_command(context: click.Context, folder: Path, model_name: str | None, json_file: Path | None) -> None:
    """Tells which films in FOLDER (or a single file) are near copies of films that the model learned from.

    Exit code 0: none is; 1: one is, or a file couldn't be judged.
    """
    from HiResMedSynthLib.background.find_model import find_background, load_background
    from HiResMedSynthLib.privacy import descriptors_of

    files = _files(folder)
    found = find_background(model_name, on_note=lambda note: click.echo(f"Note: {note}", err=True))
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
    click.echo(
        f"{len(verdicts)} file(s), model {found.card.name}, {len(descriptors.signs)} training films: "
        f"{near} near cop{'y' if near == 1 else 'ies'}, {unjudged} not judged"
    )
    if json_file is not None:
        _write(json_file, {"model": found.card.name, "sha256": found.card.sha256, "films": verdicts})
    context.exit(1 if near or unjudged else 0)


def _files(folder: Path) -> list[Path]:
    """The files that may be films, sorted; hidden ones, tables and texts are passed over.

    Raises:
        ReadError: there is none.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise ReadError("there is no such file or folder", where=folder, remedy="Check the path.")
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.suffix.lower() not in NO_FILMS
        and path.name not in (SHEET, "DICOMDIR")
    ]
    if not files:
        raise ReadError("the folder holds no film", where=folder, remedy="Name a folder of DICOM, NRRD or PNG films.")
    return files


def _verdict(path: Path, cascade: FilmCascade, descriptors: TrainingDescriptors) -> dict[str, Any]:
    """near_copy True, False or None (not judged), and why."""
    from HiResMedSynthLib.read import read_image

    try:
        near = descriptors.nearness(*_versions(read_image(path), cascade))
    except HiResMedSynthError as problem:
        return {"near_copy": None, "likeness": None, "why": problem.what}
    return {"near_copy": bool(near.why), "likeness": [round(value, 3) for value in near.likeness], "why": near.why}


def _versions(image: MedicalImage, cascade: FilmCascade) -> Iterator[Pixels]:
    """The film as it lies on the model's canvas; where its size in mm is unknown, in several heights and widths.

    Collections squeeze films to squares (ChestX-ray14), so that a training film's own file looks like none of them.
    """
    from HiResMedSynthLib.background.canvas import place
    from HiResMedSynthLib.background.domain_values import values_of
    from HiResMedSynthLib.read import with_assumed_spacing

    values, whole_mm = values_of(cascade.domain), cascade.side * cascade.spacing_mm
    images = [image]
    if image.pixel_spacing_mm is None and values.by_size:
        images = [
            with_assumed_spacing(image, (height * whole_mm / image.rows, width * whole_mm / image.columns))
            for height in SHARES
            for width in SHARES
        ]
    for one in images:
        yield place(one, values=values, side=cascade.side, spacing_mm=cascade.spacing_mm).film


def _table(verdicts: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each film: verdict, likeness as a whole, name, why."""
    words = {True: "NEAR COPY", False: "no copy", None: "not judged"}
    for verdict in verdicts:
        likeness = "" if verdict["likeness"] is None else f"{verdict['likeness'][-1]:.2f}"
        why = f"  ({verdict['why']})" if verdict["why"] else ""
        yield f"{words[verdict['near_copy']]:<10}  {likeness:>4}  {verdict['file']}{why}"


def _write(path: Path, document: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ExportError(
            f"the verdicts can't be written ({error.strerror})", where=path, remedy="Choose another place."
        ) from error
