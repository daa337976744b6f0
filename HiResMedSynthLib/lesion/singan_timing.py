"""What a piece of work costs a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

WARM_UP, TIMES = 3, 8


def seconds_on_gpu(run: Callable[[], None]) -> float:
    """Of the work itself, replayed as a graph; the shortest of several, since another program may use the GPU, too."""
    for _ in range(WARM_UP):
        run()
    torch.cuda.synchronize()
    graph, again = torch.cuda.CUDAGraph(), run
    try:
        with torch.cuda.graph(graph):
            run()
        again = graph.replay
    except RuntimeError:  # it can't be captured: launches count, too
        pass
    seconds = []
    for _ in range(TIMES):
        torch.cuda.synchronize()
        began = time.perf_counter()
        again()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
