"""Memory that this process can still take, and whether an exception says that there was none."""

from __future__ import annotations

import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMORY_INFO = Path("/proc/meminfo")
OWN_SIZE = Path("/proc/self/statm")


def is_short_of_memory(problem: Exception) -> bool:
    """Whether an exception tells of an allocation that failed, in the words of whichever library."""
    words = str(problem).lower()
    if isinstance(problem, MemoryError) or "status_alloc_failed" in words:  # the latter of cuBLAS and cuDNN
        return True
    return "memory" in words and ("alloc" in words or "out of" in words)


def free_bytes(device: str) -> int | None:
    """Memory that a program can still take on "cpu" or a GPU; None where it isn't told."""
    if not device.startswith("cuda"):
        return available_bytes()
    import torch

    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for what comes next
    return torch.cuda.mem_get_info(device)[0] + kept


def give_back_cached() -> None:
    """Returns what torch keeps of a GPU's memory for later, so that other programs (Slicer draws there) can have it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def available_bytes() -> int | None:
    """Free memory of this machine or container, or what the process's own limit leaves; None where it isn't told."""
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
    return max(min([*told, *_left_by_limit()]), 0) if told else None


def _page_cache() -> int:
    """Bytes of files that the container counts as used, but gives up as soon as a program wants them."""
    try:
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, ValueError, IndexError):
        return 0


def _left_by_limit() -> list[int]:
    """What `ulimit -v`, which clusters set, leaves of the address space; empty where there is no limit."""
    import resource  # not on Windows

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return []
    try:
        return [limit - int(OWN_SIZE.read_text(encoding="ascii").split()[0]) * resource.getpagesize()]
    except (OSError, ValueError, IndexError):
        return []


def _windows_bytes() -> int | None:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ulong), ("load", ctypes.c_ulong), ("sizes", ctypes.c_ulonglong * 7))

    status = Status()
    status.length = ctypes.sizeof(Status)
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 (it exists on Windows only)
    return int(status.sizes[1]) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None
