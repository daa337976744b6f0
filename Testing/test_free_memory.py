"""What is left of memory by machine, container and the process's own limit; and which errors say that it ran out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from HiResMedSynthLib import free_memory
from HiResMedSynthLib.cli import main as command_line

LIMITED = pytest.mark.skipif(sys.platform != "linux", reason="limits of a process as Linux has them")


def test_a_container_limits_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory.sys, "platform", "linux")
    monkeypatch.setattr(free_memory, "MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(free_memory, "CGROUP", tmp_path)
    assert free_memory.available_bytes() is None
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert free_memory.available_bytes() == 5000 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert free_memory.available_bytes() == 2_000_000
    (tmp_path / "memory.stat").write_text("anon 400000\ninactive_file 600000\nactive_file 7\n")
    assert free_memory.available_bytes() == 2_600_000  # cached files are given up when memory is wanted


def limited(code: str, *, mib: int) -> str:
    """What the code prints that may take so much address space more than it has once its first line has run."""
    first, _, rest = code.partition("\n")
    limit = f"""
import resource
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {mib * 2**20},) * 2)
"""
    done = subprocess.run(
        [sys.executable, "-c", first + limit + rest], capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


@LIMITED
def test_the_process_own_limit_counts() -> None:
    left = int(limited("from HiResMedSynthLib import free_memory\nprint(free_memory.available_bytes())", mib=80))
    assert 70 * 2**20 < left <= 80 * 2**20


FAILING = {
    "torch": ("import torch", "torch.empty(2**28)"),
    "numpy": ("import numpy", "numpy.ones(2**28)"),
    "OpenCV": ("import cv2, numpy; a = numpy.ones((6000, 6000), 'f4')", "cv2.GaussianBlur(a, (5, 5), 1)"),
    "SimpleITK": ("import SimpleITK", "SimpleITK.Image(30000, 30000, SimpleITK.sitkFloat32)"),
    "Pillow": ("from PIL import Image; import PIL._imaging", "Image.new('L', (30000, 30000))"),
}


@LIMITED
@pytest.mark.parametrize("library", FAILING)
def test_each_librarys_way_to_say_it_is_understood(library: str) -> None:
    before, work = FAILING[library]
    told = limited(
        f"from HiResMedSynthLib.free_memory import is_short_of_memory; {before}\n"
        f"try: {work}\nexcept Exception as problem: print(is_short_of_memory(problem))",
        mib=50,
    )
    assert told.strip() == "True"


def test_other_errors_are_not_taken_for_it() -> None:
    assert free_memory.is_short_of_memory(RuntimeError("CUDA error: out of memory"))
    assert free_memory.is_short_of_memory(
        Exception("[ONNXRuntimeError] : 1 : FAIL : BFCArena Failed to allocate memory for requested buffer of size 2")
    )
    for other in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("an invalid allocation")):
        assert not free_memory.is_short_of_memory(other)


def starved(*_: object, **__: object) -> None:
    """What torch's allocator really says."""
    import torch

    torch.empty(2**50, dtype=torch.uint8)


def test_the_command_line_tells_it_plainly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command_line.cli, "main", starved)
    monkeypatch.setenv("HIRESMEDSYNTH_DEBUG", "1")
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("Error: there is not enough memory for this.")
