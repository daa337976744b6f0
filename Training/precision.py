"""Which arithmetic a training step uses: float32 or bfloat16, whichever this device does faster.

bfloat16 is several times slower than float32 on some processors and several times faster on others, so it is timed.
Losses, averages and the optimiser stay in float32; only the network's own layers run under autocast.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch

from HiResMedSynthLib.errors import SettingsError

PRECISIONS = ("auto", "float32", "bfloat16")
TIMED_STEPS = 3


def autocast(precision: str, device: str) -> contextlib.AbstractContextManager[Any]:
    """The context in which the network runs."""
    if precision == "float32":
        return contextlib.nullcontext()
    # without the cache, weights cast once would outlive a captured graph
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, cache_enabled=False)


def faster_precision(step: Callable[[str], Any], device: str) -> tuple[str, dict[str, float]]:
    """The faster of float32 and bfloat16 for `step(precision)` on this device, and the seconds a step of each took.

    The step must not change what it is timed on (no optimiser step).
    """
    seconds = {}
    for precision in PRECISIONS[1:]:
        step(precision)  # the first one sets up kernels
        _wait(device)
        began = time.perf_counter()
        for _ in range(TIMED_STEPS):
            step(precision)
        _wait(device)
        seconds[precision] = (time.perf_counter() - began) / TIMED_STEPS
    return min(seconds, key=lambda name: seconds[name]), seconds


def check_precision(precision: str) -> None:
    """Raises SettingsError for a precision that there is none of."""
    if precision not in PRECISIONS:
        raise SettingsError(f"There is no precision {precision}", remedy=f"Use {', '.join(PRECISIONS)}.")


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
