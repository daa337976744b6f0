"""Ctrl-C at the worst place: in the middle of a training step."""

from __future__ import annotations

import signal

import torch


def interrupted_after(steps: int, optimiser: torch.optim.Optimizer) -> None:
    """Has Ctrl-C come once, right after the optimiser's step of that number, before the rest of the training step."""
    taken = 0

    def count(*_: object) -> None:
        nonlocal taken
        taken += 1
        if taken == steps:
            signal.raise_signal(signal.SIGINT)

    optimiser.register_step_post_hook(count)
