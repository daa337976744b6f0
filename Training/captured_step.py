"""A whole training step as one CUDA graph: at our sizes its hundreds of launches cost far more than its arithmetic.

Captured are the draw, the loss, its gradients, their clipping, AdamW and the moving average. Whatever changes from step
to step (rate, decay, seed) is a tensor on the device or the seed of its generator; the host waits only when it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click
import torch
from torch import Tensor, nn

PLAIN_STEPS = 3  # before the capture, so that every kernel is chosen and every moment exists


def adamw(
    network: nn.Module, *, learning_rate: float, weight_decay: float, device: str, captured: bool | None = None
) -> torch.optim.AdamW:
    """The AdamW of Training/loop.py; captured (on a GPU) it is one that a graph can hold: its rate is a tensor."""
    cuda = torch.device(device).type == "cuda"
    captured = cuda if captured is None else captured
    rate: Any = torch.tensor(learning_rate, device=device) if captured else learning_rate
    return torch.optim.AdamW(
        network.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=captured, capturable=cuda
    )


class CapturedStep:
    """Takes steps; the first ones launch by launch, the others as one graph.

    Args:
        network: on the GPU, training.
        average: its moving average, by the names of its state.
        optimiser: from `adamw`.
        loss: draws a batch by the device's own generator and returns a scalar; nothing in it may wait for the host.
        clip: largest length of the gradient.
        parts: draws a step, whose gradients are averaged.
    """

    def __init__(
        self,
        network: nn.Module,
        average: dict[str, Tensor],
        optimiser: torch.optim.Optimizer,
        loss: Callable[[], Tensor],
        *,
        clip: float,
        parts: int = 1,
    ) -> None:
        self.network, self.optimiser, self.loss, self.clip, self.parts = network, optimiser, loss, clip, parts
        state = network.state_dict()
        moved = [name for name, value in average.items() if value.is_floating_point()]
        self.averages, self.weights = [average[name] for name in moved], [state[name] for name in moved]
        self.device = self.weights[0].device
        self.share = torch.zeros((), device=self.device)  # that the average moves by
        self.total, self.count, self.bad = (torch.zeros((), device=self.device) for _ in range(3))
        self.graph: torch.cuda.CUDAGraph | None = None
        self.plain, self.refused = 0, False

    def take(self, *, seed: int, rate: float, share: float) -> None:
        """One step with this seed, learning rate, and share of the new weights in the average; doesn't wait for it."""
        torch.manual_seed(seed)  # of every device
        for group in self.optimiser.param_groups:
            group["lr"].fill_(rate)  # a tensor: the graph reads it
        self.share.fill_(share)
        if self.device.type == "cpu":
            self._step()
        elif self.graph is not None:
            self.graph.replay()
        elif self.plain < PLAIN_STEPS:
            side = torch.cuda.Stream(self.device)  # not the current device's: the graph would hold nothing
            side.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(side):
                self._step()
            torch.cuda.current_stream(self.device).wait_stream(side)
            self.plain += 1
        else:
            self._capture()
            torch.manual_seed(seed)
            if self.graph is None:
                self._step()
            else:
                self.graph.replay()  # a capture runs nothing

    def read(self) -> tuple[float, int, int]:
        """(mean loss, steps skipped, steps) since the last reading; waits for them."""
        total, count, bad = (float(value) for value in (self.total, self.count, self.bad))
        for value in (self.total, self.count, self.bad):
            value.zero_()
        return (total / (count - bad) if count > bad else math.nan), int(bad), int(count)

    def _capture(self) -> None:
        if self.refused:
            return
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.Stream(self.device)):
                self._step()
            self.graph = graph
        except RuntimeError as problem:
            self.refused = True
            click.echo(f"No CUDA graph, steps are launched one by one: {str(problem)[:200]}", err=True)
            torch.cuda.synchronize(self.device)

    def _step(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.device)
        for _ in range(self.parts):
            error = self.loss() / self.parts
            error.backward()  # type: ignore[no-untyped-call]
            loss = loss + error.detach()
        gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        bad = ~(torch.isfinite(loss) & torch.isfinite(length))
        self.optimiser.grad_scale = (length / self.clip).clamp(min=1.0)  # type: ignore[attr-defined] # what the fused
        self.optimiser.found_inf = bad.float()  # type: ignore[attr-defined] # kernel divides by, and skips a step for
        self.optimiser.step()
        change = torch._foreach_sub(self.weights, self.averages)
        torch._foreach_mul_(change, self.share * ~bad)
        torch._foreach_add_(self.averages, change)
        self.total += torch.where(bad, 0.0, loss.float())
        self.count += 1
        self.bad += bad.float()
