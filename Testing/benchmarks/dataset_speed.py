"""Data sets: processor seconds a case and a volume, memory of case 100 against case 10, one worker against two.

`python -m Testing.benchmarks.dataset_speed [--cases 40] [--volumes 3]` prints a table.
On a machine that others use too the clock says little: cases an hour are also told from processor seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from Testing.benchmarks.process import Measured, run_python
from Testing.benchmarks.series import SLICES, thin_series

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = ROOT / "runs" / "dataset_speed"
COMMAND = str(Path(sys.executable).parent / "hiresmedsynth")
MEMORY_CASES = 100
SPEC = '[backgrounds]\nfiles = ["{files}"]\nslices = "{slices}"\n[cases]\nlesions = 3\nsize_mm = [6, 14]\n'
READ_AND_WRITE = """
import sys, pathlib, pydicom
for _ in range(10):
    for p in sorted(pathlib.Path(sys.argv[1]).glob('*.dcm')):
        d = pydicom.dcmread(p); d.pixel_array; d.decompress(); d.save_as(sys.argv[2])
"""
MEMORY = """
import resource, sys
from pathlib import Path
from HiResMedSynthLib.batch.backgrounds import find_backgrounds
from HiResMedSynthLib.batch.making import Maker
from HiResMedSynthLib.batch.plan import Plan
from HiResMedSynthLib.batch.run import grouped
from HiResMedSynthLib.batch.spec import read_spec
from HiResMedSynthLib.lesion.bank import load_bank
spec = read_spec(sys.argv[1]).with_count(int(sys.argv[3]))
plan = Plan(spec, find_backgrounds(spec.backgrounds, Path(sys.argv[1]).parent), load_bank())
maker = Maker(plan, Path(sys.argv[2]))
for done, number in enumerate((n for group in grouped(plan, range(1, plan.count + 1)) for n in group), start=1):
    outcome = maker.make(number)
    assert not outcome.failure, outcome
    if done in (10, plan.count):
        print(done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def spec_of(files: Path, slices: str) -> Path:
    path = SCRATCH / f"{slices}.toml"
    path.write_text(SPEC.format(files=files, slices=slices), encoding="utf-8")
    return path


def made(spec: Path, count: int, workers: int) -> Measured:
    """A whole run; processor time of all its processes."""
    out = SCRATCH / "out"
    shutil.rmtree(out, ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(
        [COMMAND, "dataset", str(spec), "--out", str(out), "--count", str(count), "--workers", str(workers)],
        check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(wall, used, after.ru_maxrss / 1024)


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=40, help="for the speed; for the memory it is 100")
    parser.add_argument("--volumes", type=int, default=3, help="two or more: start-up is told by the difference")
    asked = parser.parse_args()
    if asked.volumes < 2:
        parser.error("--volumes: give two or more")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    slices = spec_of(ROOT / "Testing" / "data" / "ct_series", "each")
    rows = []
    for workers in (1, 2):
        few, many = (made(slices, count, workers) for count in (4, asked.cases))
        each = (many.cpu_s - few.cpu_s) / (asked.cases - 4)
        wall = (many.wall_s - few.wall_s) / (asked.cases - 4)
        rows.append(
            f"| slice cases, {workers} worker(s) | {each:.2f} CPU s a case, {wall:.2f} s by the clock | "
            f"{3600 * 2 / each:.0f} an hour on two free cores, {3600 / wall:.0f} by the clock |"
        )
    memory = run_memory(slices, MEMORY_CASES)
    rows.append(f"| peak memory after case 10, case {MEMORY_CASES} | {memory[0]}, {memory[1]} MiB | "
                f"ratio {memory[1] / memory[0]:.3f} |")  # fmt: skip
    volume = spec_of(thin_series(ROOT / "Testing" / "data" / "ct_series", SCRATCH / "ct300"), "whole")
    one, more = (made(volume, count, 1) for count in (1, asked.volumes))
    each = (more.cpu_s - one.cpu_s) / (asked.volumes - 1)
    rows.append(
        f"| volumes of {SLICES} x 512 x 512, one background | {each:.1f} CPU s each, the first "
        f"{one.cpu_s:.1f}; peak {more.peak_mib:.0f} MiB | {3600 * 2 / each:.0f} an hour on two free cores, "
        f"{3600 * 2 / one.cpu_s:.0f} if each had its own background |"
    )
    reference = run_python(READ_AND_WRITE, str(ROOT / "Testing" / "data" / "ct_series"), str(SCRATCH / "copy.dcm"))
    rows.append(
        f"| reference: pydicom reads, decodes and writes 120 slices | {reference.cpu_s / 120:.3f} CPU s each | |"
    )
    shutil.rmtree(SCRATCH / "out", ignore_errors=True)
    sys.stdout.write("\n".join(["| what | measured | that is |", "| --- | --- | --- |", *rows]) + "\n")


def run_memory(spec: Path, cases: int) -> tuple[int, int]:
    """Peak memory in MiB of one process after 10 cases, and after all."""
    out = SCRATCH / "memory"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(spec), str(out), str(cases)],
        check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=ROOT,
    )  # fmt: skip
    shutil.rmtree(out)
    first, last = (int(line.split()[1]) for line in done.stdout.splitlines())
    return first, last


if __name__ == "__main__":
    main()
