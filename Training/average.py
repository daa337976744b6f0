"""The moving average of a network's weights: how it follows them, and the network that has it for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def follow(average: Mapping[str, Tensor], now: Mapping[str, Tensor], share: float) -> None:
    """Moves each average towards the weights of that name by `share`, in place."""
    moved = [name for name, value in average.items() if value.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in moved], [now[name].detach() for name in moved], share)  # one launch
    for name in average.keys() - set(moved):  # counters of batch normalisation
        average[name].copy_(now[name])


@contextmanager
def averaged(network: nn.Module, average: Mapping[str, Tensor]) -> Iterator[None]:
    """Within it the network has its averaged weights and doesn't train; after it, it is as before, and trains."""
    own = {name: value.detach().clone() for name, value in network.state_dict().items()}
    network.load_state_dict(average)
    network.eval()
    try:
        yield
    finally:
        network.load_state_dict(own)
        network.train()
