"""Reading and writing a DICOM series of 300 x 512 x 512, beside pydicom alone, in one run.

`python -m Testing.benchmarks.dicom_speed` prints a table. The runs are interleaved, so that what else the machine does
meets both alike; the ratio is the median over five pairs, of processor seconds, which a busy machine changes least.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pydicom

from HiResMedSynthLib.export.dicom_series import series_datasets, write_series
from HiResMedSynthLib.export.patient import SyntheticStudy
from HiResMedSynthLib.export.sop_class import object_kind
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import read_image
from Testing.benchmarks.series import thin_series

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = ROOT / "runs" / "bench"
BOUND = 1.3


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(processor, clock) seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    taken = time.process_time() - cpu, time.perf_counter() - wall
    del result  # giving its memory back is nobody's work
    return taken


def decoded(files: list[Path]) -> list[object]:
    """pydicom alone: every file parsed, its pixels decoded."""
    return [pydicom.dcmread(file).pixel_array for file in files]


def saved(datasets: list[pydicom.Dataset], folder: Path) -> None:
    """pydicom alone: data sets that it has read, written."""
    for number, data in enumerate(datasets):
        data.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)


def written(image: MedicalImage, folder: Path) -> None:
    """Ours: headers built anew, pixels stored, files written."""
    study = SyntheticStudy.of_case("0" * 64)
    datasets = series_datasets(
        image, object_kind(image), study, description="SYNTHETIC bench", derivation="bench", series_number=1,
        slices=range(image.slices),
    )  # fmt: skip
    write_series(datasets, folder / "dicom", total=image.slices, progress=lambda _done, _total, _what: None)


def emptied(folder: Path) -> Path:
    """The folder, new."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def row(what: str, pairs: list[tuple[tuple[float, float], tuple[float, float]]]) -> str:
    """A line of the table; the ratio is the median over the pairs."""
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    middle = [statistics.median(side[k] for side in of) for of in (ours, theirs) for k in (0, 1)]
    ratios = [statistics.median(a[k] / b[k] for a, b in pairs) for k in (0, 1)]
    return (
        f"| {what} | {middle[0]:.2f} s ({middle[1]:.2f}) | {middle[2]:.2f} s ({middle[3]:.2f}) | "
        f"**{ratios[0]:.2f}** ({ratios[1]:.2f}) | {BOUND} |"
    )


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--scratch", type=Path, default=SCRATCH)
    asked = parser.parse_args()
    series, out = thin_series(ROOT / "Testing" / "data" / "ct_series", asked.scratch / "ct300"), asked.scratch / "out"
    files = sorted(series.glob("*.dcm"))
    image = read_image(series)
    decoded(files)  # both once before: imports, and the files in the system's cache
    reading = [(timed(partial(read_image, series)), timed(partial(decoded, files))) for _ in range(asked.pairs)]
    writing = []
    for _ in range(asked.pairs):
        held = [pydicom.dcmread(file) for file in files]  # anew: what was written once is quicker to write again
        ours = timed(partial(written, image, emptied(out)))
        writing.append((ours, timed(partial(saved, held, emptied(out)))))
    shutil.rmtree(out)
    lines = [
        "| 300 x 512 x 512 | ours: CPU (clock) | pydicom alone | ratio | asked |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [row("reading: sorted, in HU, with geometry", reading), row("writing: headers built anew", writing)]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
