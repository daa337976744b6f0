"""`make bench`: the table of speed and memory, each figure beside a reference taken in the same run."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import numpy as np

from HiResMedSynthLib.case import BackgroundReference, Case, CaseSettings, LesionRequest, PlacedLesion
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.image import MedicalImage
from Testing.benchmarks import film_speed, fusion_speed, lesion_speed, placement_speed
from Testing.benchmarks.process import run, run_python
from Testing.benchmarks.series import SLICES, thin_series

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = ROOT / "runs" / "bench"
COMMAND = str(Path(sys.executable).parent / "hiresmedsynth")
READ_ALL = """
import sys, pathlib, pydicom
for p in sorted(pathlib.Path(sys.argv[1]).glob('*.dcm')):
    d = pydicom.dcmread(p); d.pixel_array
    if len(sys.argv) > 2: d.save_as(pathlib.Path(sys.argv[2]) / p.name)
"""
READ_HEADERS = """
import sys, pathlib, pydicom
files = sorted(pathlib.Path(sys.argv[1]).glob('*.dcm'))
for p in files: pydicom.dcmread(p, stop_before_pixels=True)
pydicom.dcmread(files[150]).pixel_array
"""


def fuse_ten_lesions() -> tuple[float, float]:
    """Seconds to compose 10 lesions of 40 px into a loaded 1024 x 1024 16-bit image, and to copy it 10 times."""
    rng = np.random.default_rng(0)
    image = MedicalImage(
        pixels=rng.integers(0, 4000, (1, 1024, 1024)).astype(np.uint16),
        modality="DX",
        pixel_spacing_mm=(0.2, 0.2),
        spacing_source="header",
    )
    alpha = np.zeros((1, 40, 40), np.uint16)
    alpha[0, 1:-1, 1:-1] = rng.integers(1, 65536, (38, 38))
    lesions = tuple(
        PlacedLesion(
            number=k + 1, request=LesionRequest(seed=k), bank_entry="bench", origin="procedural", type="solid",
            center=(0.0, 60.0 + 90 * k, 500.0), center_lps_mm=(0.0, 0.0, 0.0), diameter_mm=8.0, contrast=100.0, cnr=5.0,
            mode="add", corner=(0, 40 + 90 * k, 480), intensity=np.full((1, 40, 40), 100, np.int16), alpha=alpha,
        )
        for k in range(10)
    )  # fmt: skip
    settings = CaseSettings(requests=tuple(lesion.request for lesion in lesions), domain="cxr")
    case = Case(background=BackgroundReference.of(image, domain="cxr"), settings=settings, seed=0, lesions=lesions)
    fused, copied = [], []
    for _ in range(7):
        start = time.perf_counter()
        composition = compose(image, case)
        fused.append(time.perf_counter() - start)
        assert (composition.image.pixels != image.pixels).any()
        start = time.perf_counter()
        for _ in range(10):
            image.pixels.copy()
        copied.append(time.perf_counter() - start)
    return float(np.median(fused)), float(np.median(copied))


def main() -> None:
    """Prints the table as Markdown."""
    series = thin_series(ROOT / "Testing" / "data" / "ct_series", SCRATCH / "ct300")
    out, copy = SCRATCH / "out", SCRATCH / "copy"
    rows = []

    empty = run_python("pass", repeats=5)
    help_ = run(COMMAND, "--help", repeats=5)
    rows.append(("`--help`", f"{help_.wall_s:.2f} s", "0.5 s", f"python alone: {empty.wall_s:.2f} s"))

    fused, copied = fuse_ten_lesions()
    rows.append(
        ("10 lesions into 1024x1024, 16 bit", f"{fused * 1000:.0f} ms", "100 ms", f"10 copies: {copied * 1000:.0f} ms")
    )

    reference = run_python(READ_HEADERS, str(series))
    one = run(
        COMMAND,
        "compose",
        str(series),
        "--slice",
        str(SLICES // 2),
        "--size-mm",
        "8:12",
        "--out",
        str(out),
        "--overwrite",
    )
    rows.append(
        (
            f"compose one slice out of {SLICES}, cold",
            f"{one.wall_s:.1f} s, {one.peak_mib:.0f} MiB",
            "12 s, 1.2 GB",
            f"pydicom, {SLICES} headers and one slice: {reference.wall_s:.1f} s, {reference.peak_mib:.0f} MiB",
        )
    )

    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    reference = run_python(READ_ALL, str(series), str(copy))
    whole = run(
        COMMAND, "compose", str(series), "--lesions", "5", "--size-mm", "6:12", "--out", str(out), "--overwrite"
    )
    rows.append(
        (
            f"volume of {SLICES} slices, 5 lesions, exported with SEG",
            f"{whole.wall_s:.1f} s, {whole.peak_mib:.0f} MiB",
            "60 s",
            f"pydicom, read and write: {reference.wall_s:.1f} s",
        )
    )
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(copy, ignore_errors=True)
    rows += [*film_speed.rows(), *placement_speed.rows(series), *fusion_speed.rows(series), *lesion_speed.rows()]
    lines = ["| what | measured | bound | reference, same run |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
