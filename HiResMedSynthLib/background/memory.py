"""Memory that a cascade needs to make an image, and what this machine has left."""

from __future__ import annotations

import sys
from pathlib import Path

from HiResMedSynthLib.background.cascade import REDUCTION, FilmCascade
from HiResMedSynthLib.background.film_network import FilmNetwork
from HiResMedSynthLib.background.flow_unet import FlowUNet
from HiResMedSynthLib.errors import SettingsError

MAPS = 16  # of the widest level that stand in memory at once, measured at 1024 px
IMAGES = 8  # of the finished size: noise, condition, slopes, film
KEPT_FREE = 200 * 2**20  # for the rest of the machine
CGROUP = Path("/sys/fs/cgroup")
MEMORY_INFO = Path("/proc/meminfo")


def stage_sides(cascade: FilmCascade) -> dict[str, int]:
    """Side of the film that each stage makes, first to last."""
    return {name: cascade.film_side * REDUCTION**number for number, name in enumerate(cascade.stages)}


def needed_bytes(cascade: FilmCascade, last: str) -> int:
    """Bytes that sampling up to the stage `last` needs beside the loaded weights."""
    most = 0
    for name, side in stage_sides(cascade).items():
        network = cascade.stages[name].network
        flow = network.flow if isinstance(network, FilmNetwork) else network
        assert isinstance(flow, FlowUNet)
        widest = flow.shape.widths[0] * (side // flow.shape.patch) ** 2
        most = max(most, 4 * (MAPS * widest + IMAGES * side * side))
        if name == last:
            break
    return most


def require_memory(cascade: FilmCascade, last: str) -> None:
    """Refuses before any work is done, where sampling up to the stage `last` would need more than is left.

    Raises:
        SettingsError: too little is left; says what size would fit.
    """
    free = available_bytes()
    needed = needed_bytes(cascade, last)
    if free is None or needed + KEPT_FREE <= free:
        return
    sides = stage_sides(cascade)
    fitting = [side for name, side in sides.items() if needed_bytes(cascade, name) + KEPT_FREE <= free]
    smaller = f"Make {fitting[-1]} x {fitting[-1]} pixels (--size {fitting[-1]}), which would fit. " if fitting else ""
    raise SettingsError(
        f"an image of {sides[last]} x {sides[last]} pixels needs about {needed / 2**20:.0f} MiB, with "
        f"{KEPT_FREE / 2**20:.0f} MiB kept for the system, but {free / 2**20:.0f} MiB are free",
        remedy=f"{smaller}Close other programs.",
    )


def available_bytes() -> int | None:
    """Free memory of this machine or container; None where it doesn't tell."""
    if sys.platform == "win32":
        return _windows_bytes()
    told = []
    try:
        lines = MEMORY_INFO.read_text(encoding="ascii").splitlines()
        told += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    except (OSError, ValueError):
        return None
    try:  # a container may have less than its machine
        limit, used = ((CGROUP / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current"))
        told.append(int(limit) - int(used) + _page_cache())
    except (OSError, ValueError):
        pass
    return max(min(told), 0) if told else None


def _page_cache() -> int:
    """Bytes of files that the container counts as used, but gives up as soon as a program wants them."""
    try:
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, ValueError, IndexError):
        return 0


def _windows_bytes() -> int | None:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ulong), ("load", ctypes.c_ulong), ("sizes", ctypes.c_ulonglong * 7))

    status = Status()
    status.length = ctypes.sizeof(Status)
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 (it exists on Windows only)
    return int(status.sizes[1]) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None
