"""Runs a command and measures the whole process: wall time, processor time and peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """Figures of one finished process."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def run(*command: str, repeats: int = 1) -> Measured:
    """The fastest of `repeats` runs; a command that fails ends the benchmark with its output."""
    best: Measured | None = None
    for _ in range(repeats):
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{output}")
        measured = Measured(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
        best = measured if best is None or measured.wall_s < best.wall_s else best
    assert best is not None
    return best


def run_python(code: str, *arguments: str, repeats: int = 1) -> Measured:
    """`run` for a piece of Python in a fresh interpreter."""
    return run(sys.executable, "-c", code, *arguments, repeats=repeats)
