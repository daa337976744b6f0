"""What a piece of work costs a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

WARM_UP, TIMES = 3, 8


def seconds_on_gpu(run: Callable[[], None], device: torch.device) -> float:
    """Of the work itself, replayed as a graph; the shortest of several, since another program may use the GPU, too."""
    for _ in range(WARM_UP):
        run()
    torch.cuda.synchronize(device)
    graph, again = torch.cuda.CUDAGraph(), run
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.Stream(device)):
            run()
        again = graph.replay
    except RuntimeError:  # it can't be captured: launches count, too
        pass
    seconds = []
    for _ in range(TIMES):
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        again()
        torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)
