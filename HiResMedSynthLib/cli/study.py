"""`hiresmedsynth study`: a reader study: can readers tell synthetic images from real ones?"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import click

from HiResMedSynthLib.cli.options import Numbers, progress_line, warn, window_of
from HiResMedSynthLib.cli.outputs import OutputFolder

SCORES = ("scores.json", "scores.html")
GROUP_EXAMPLES = """\b
Examples:
  hiresmedsynth study new REAL SYNTHETIC --out STUDY --count 100 --readers "Dr A,Dr B"
  hiresmedsynth study serve STUDY
  hiresmedsynth study score STUDY
"""


@click.group("study", epilog=GROUP_EXAMPLES)
def study_group() -> None:
    """Makes, runs and scores a blinded reader study of real and synthetic images."""


@study_group.command(
    "new", epilog='Example: hiresmedsynth study new REAL SYNTHETIC --out STUDY --design 2afc --count 50 --readers "A,B"'
)
@click.argument("real", type=click.Path(path_type=Path))
@click.argument("synthetic", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=OutputFolder(), help="Folder of the study; must not exist.")
@click.option(
    "--design",
    type=click.Choice(["yes-no", "2afc", "4afc"]),
    default="yes-no",
    show_default=True,
    help="Real or synthetic? Or: which of 2 or 4 is synthetic?",
)
@click.option("--count", type=int, default=100, show_default=True, help="Trials that each reader sees.")
@click.option("--readers", required=True, help="Their names, separated by commas.")
@click.option("--seed", type=int, help="Of choice and order, for the same study again [default: by chance].")
@click.option("--window", type=Numbers("CENTER,WIDTH", 2, 2), help="In HU, the same for all; for CT.")
@click.option("--crop", type=Numbers("ROWS[,COLUMNS]", 1, 2), help="Cut out this many pixels, around marked lesions.")
@click.option("--slices", type=click.IntRange(1, 100), default=1, show_default=True, help="At most, of one series.")
@click.option("--ring/--no-ring", default=None, help="Show where to look [default: where lesions are marked].")
@click.option("--key", type=click.Path(path_type=Path), help="Keep the key here, apart from the study.")
def new_command(real: Path, synthetic: Path, out: Path, key: Path | None, **options: Any) -> None:
    """Makes a study from the folders REAL and SYNTHETIC.

    They hold images, DICOM series, labelled folders or exported cases. Nothing but the images tells them apart: one
    window, one size, one encoder, names by chance; and the same patient on both sides is refused. Every reader has an
    own order. What is what stands in key.json, with the seed; it is never served.
    """
    from HiResMedSynthLib.evaluation.study_make import StudyPlan, new_study

    crop = options["crop"]
    plan = StudyPlan(
        task=options["design"],
        count=options["count"],
        readers=tuple(options["readers"].split(",")),
        seed=secrets.randbelow(2**63) if options["seed"] is None else options["seed"],
        window=window_of(options["window"]),
        crop=None if crop is None else (int(crop[0]), int(crop[-1])),
        slices=options["slices"],
        ring=options["ring"],
    )
    study, held = new_study(real, synthetic, out, plan, key=key, progress=progress_line)
    for note in held.notes:
        warn(note)
    design = study.design
    click.echo(f"study       {out}: {len(design.images)} images of {design.rows} x {design.columns}")
    click.echo(f"readers     {', '.join(design.readers)}, {plan.count} trials each")
    click.echo(f"key         {key or out / 'key.json'}: don't show it to a reader")
    click.echo(f"next        hiresmedsynth study serve {out}")


@study_group.command("serve", epilog="Example: hiresmedsynth study serve STUDY")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0 takes a free one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, for programs.")
@click.option("--end-with-stdin", is_flag=True, help="End when standard input closes (a parent process started it).")
def serve_command(folder: Path, port: int, as_json: bool, end_with_stdin: bool) -> None:
    """Shows the study in FOLDER in a browser.

    It is served on this machine only, until Ctrl-C; every answer is kept at once. Prints an address for each reader,
    whose code works once; when it was used, a new one is printed.
    """
    from HiResMedSynthLib.service.study_server import serve_study

    serve_study(folder, port=port, as_json=as_json, end_with_stdin=end_with_stdin)


@study_group.command("score", epilog="Example: hiresmedsynth study score STUDY --report scores")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), help="Where the key is kept, if not in the study.")
@click.option(
    "--interval", type=click.Choice(["exact", "wilson"]), default="exact", show_default=True, help="Of shares."
)
@click.option("--margin", type=float, default=0.1, show_default=True, help="Of accuracy, that counts as guessing.")
@click.option("--report", type=OutputFolder(), help="Folder for scores.html and scores.json.")
@click.option("--overwrite", is_flag=True, help="Replace earlier scores.")
def score_command(folder: Path, report: Path | None, **options: Any) -> None:
    """Scores the answers to the study in FOLDER.

    Accuracy, sensitivity, specificity, kappa, d', area under the ROC curve, equivalence to guessing, each with its n
    and 95 % interval. How to read them: docs/reader_study.md.
    """
    from HiResMedSynthLib.errors import ExportError
    from HiResMedSynthLib.evaluation.reader_study import open_study
    from HiResMedSynthLib.evaluation.study_report import as_html, as_json, as_text
    from HiResMedSynthLib.evaluation.study_scores import score_study

    if report is not None and not options["overwrite"] and any((report / name).exists() for name in SCORES):
        raise ExportError("scores are there already", where=report, remedy="Choose another folder, or --overwrite.")
    scores = score_study(open_study(folder), key=options["key"], margin=options["margin"], interval=options["interval"])
    click.echo(as_text(scores))
    if report is None:
        return
    try:
        report.mkdir(parents=True, exist_ok=True)
        for name, text in zip(SCORES, (as_json(scores), as_html(scores)), strict=True):
            part = report / f".{name}.part"
            part.write_text(text, encoding="utf-8")
            part.replace(report / name)
    except OSError as error:
        raise ExportError(
            f"the report can't be written ({error.strerror})", where=report, remedy="Choose another place."
        ) from error
    click.echo(f"report      {report / 'scores.html'}")
