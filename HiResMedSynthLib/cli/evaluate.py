"""`hiresmedsynth evaluate`: a folder of synthetic images against one of real ones, as a report with figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from HiResMedSynthLib.cli.clock import Clock
from HiResMedSynthLib.cli.options import Numbers, window_of
from HiResMedSynthLib.cli.outputs import OutputFolder

EXAMPLES = """\b
Examples:
  hiresmedsynth evaluate real_films films --report report
  hiresmedsynth evaluate real_ct cases --report report --window -600,1500
  hiresmedsynth evaluate real rebuilt --paired --report report
  hiresmedsynth evaluate real ours --paired --against theirs --report report
"""
SPACES = {
    "texture": ("texture",),
    "vgg": ("st-lpips-vgg",),
    "both": ("texture", "st-lpips-vgg"),
    "inception": ("inception-v3",),
}


@click.command("evaluate", epilog=EXAMPLES)
@click.argument("real", type=click.Path(path_type=Path))
@click.argument("synthetic", type=click.Path(path_type=Path))
@click.option(
    "--report",
    type=OutputFolder(),
    required=True,
    help="New folder for report.html and report.json; it holds patients' pixels.",
)
@click.option("--paired", is_flag=True, help="Images of the same name are pairs; the same patients are then expected.")
@click.option(
    "--against", type=click.Path(path_type=Path), help="Another synthetic folder: paired tests tell which is nearer."
)
@click.option(
    "--window", type=Numbers("CENTER,WIDTH", 2, 2), help="One display window for all [default: each its own]."
)
@click.option("--resample", is_flag=True, help="Bring all images to the smallest size, by the mean of areas.")
@click.option(
    "--slices", type=click.IntRange(1, 1000), default=4, show_default=True, help="Of a volume, evenly spread."
)
@click.option(
    "--features",
    type=click.Choice(tuple(SPACES)),
    default="texture",
    show_default=True,
    help="Of the distances: texture needs no weights; vgg is ST-LPIPS', half a second an image; inception only where "
    "torchvision's weights are on this machine.",
)
@click.option(
    "--perceptual-pairs",
    type=click.IntRange(0, 100_000),
    default=16,
    show_default=True,
    help="Pairs of pictures or slices that ST-LPIPS reads, evenly spaced, about a second each.",
)
@click.option("--allow-shared", is_flag=True, help="Measure distances though a patient is on both sides.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all draws.")
@click.option("--no-cache", is_flag=True, help="Measure everything anew, keep nothing.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier report.")
def evaluate_command(real: Path, synthetic: Path, report: Path, **options: Any) -> None:
    """Compares the images in SYNTHETIC with those in REAL and writes a report.

    \b
    Either is a folder of DICOM, NIfTI, NRRD or pictures, of exported cases, or a
    labelled folder. Each figure comes with its number of patients, a 95 %
    interval, and the floor: what real images are from other real images.
    Cases with their background beside them (compose --pair) are pairs: PSNR,
    SSIM and more, inside and outside the lesions.

    Refused: different modality, size, window or scale; one patient only; the
    same patient on both sides, also as a near copy.

    Exit code 0: the report is written, whatever it says; 1: refused.
    """
    from HiResMedSynthLib.annotation_report import WARNING
    from HiResMedSynthLib.evaluation.evaluate_sets import EvaluationSettings, evaluate
    from HiResMedSynthLib.evaluation.report import HTML_FILE, as_text, check_report_folder, write_report

    check_report_folder(report, overwrite=options["overwrite"])
    settings = EvaluationSettings(
        paired=options["paired"],
        allow_shared=options["allow_shared"],
        resample=options["resample"],
        window=window_of(options["window"]),
        slices=options["slices"],
        spaces=SPACES[options["features"]],
        learned_pairs=options["perceptual_pairs"],
        seed=options["seed"],
        cache=not options["no_cache"],
    )
    found = evaluate(real, synthetic, settings, against=options["against"], progress=Clock().show)
    write_report(found, report, overwrite=options["overwrite"])
    click.echo(as_text(found))
    for one in found.shared[:20]:
        click.echo(f"{'shared':<11} {one.synthetic} and {one.real}: {one.why}")
    click.echo(f"{'report':<11} {report / HTML_FILE}. {WARNING}")
