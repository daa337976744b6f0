"""`hiresmedsynth data`: looks at labelled folders before anything is trained on them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from HiResMedSynthLib.cli.options import progress_line
from HiResMedSynthLib.cli.outputs import OutputFile, OutputFolder

GROUP_EXAMPLES = """\b
Examples:
  hiresmedsynth data check OUR_FOLDER
  hiresmedsynth data check OUR_FOLDER --report check --json check.json
"""


@click.group("data", epilog=GROUP_EXAMPLES)
def data_group() -> None:
    """Checks labelled folders: annotations of the panel, COCO, YOLO boxes, label masks, nnU-Net, DICOM SEG."""


@data_group.command("check", epilog="Example: hiresmedsynth data check OUR_FOLDER --report check")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--report",
    type=OutputFolder(),
    help="Folder for report.html with pictures of the labels; it holds patients' pixels.",
)
@click.option("--json", "json_file", type=OutputFile(".json"), help="Write the result as JSON to this file.")
@click.pass_context
def check_command(context: click.Context, folder: Path, report: Path | None, json_file: Path | None) -> None:
    """Checks the labelled folder FOLDER before training: labels, spacing, copies, balance of classes, patients.

    Exit code 0: nothing stops training; 1: something does. Formats: docs/annotations.md.
    """
    from HiResMedSynthLib.annotation_check import check_annotations
    from HiResMedSynthLib.annotation_needs import trainers_for
    from HiResMedSynthLib.annotation_report import MOST_PICTURES, WARNING, as_html, as_text
    from HiResMedSynthLib.aside import written_aside
    from HiResMedSynthLib.errors import ExportError

    check = check_annotations(folder, pictures=MOST_PICTURES if report else 0, progress=progress_line)
    click.echo(as_text(check))
    try:
        if json_file is not None:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            facts = check.facts() | {"trainers": [] if check.problems else trainers_for(check)[0]}
            with written_aside(json_file) as aside:
                aside.write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")
        if report is not None:
            report.mkdir(parents=True, exist_ok=True)
            with written_aside(report / "report.html") as aside:
                aside.write_text(as_html(check), encoding="utf-8")
            click.echo(f"report      {report / 'report.html'}. {WARNING}")
    except OSError as error:
        raise ExportError(
            f"the report can't be written ({error.strerror})", where=report or json_file, remedy="Choose another place."
        ) from error
    context.exit(1 if check.problems else 0)
