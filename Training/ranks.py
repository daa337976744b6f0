"""One process, or several that train together (torchrun): who they are and how they agree."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from HiResMedSynthLib.errors import HiResMedSynthError

LET_GO_S = 0.5  # a thread of gloo may hold the last sum: were it the group's last holder, it would end the process


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among its like: `rank` of `world`, on `device`."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def spread(self, network: nn.Module) -> nn.Module:
        """The network, wrapped so that gradients are averaged; all begin with the first one's weights."""
        if self.world == 1:
            return network
        devices = [torch.device(self.device)] if self.device.startswith("cuda") else None
        return nn.parallel.DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)

    def average_gradients(self, network: nn.Module) -> None:
        """For a network that isn't wrapped, since it runs several times a step."""
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        if self.world > 1 and gradients:
            flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))  # one message, not hundreds
            for gradient, mean in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        return self.sum(values) / self.world

    def copy_first(self, values: Tensor) -> None:
        """The first process's values, in place."""
        if self.world > 1:
            distributed.broadcast(values, 0)

    def largest(self, *numbers: float) -> tuple[float, ...]:
        """The largest of each in all processes: what clocks and signals say is then the same in all of them."""
        if self.world == 1:
            return numbers
        held = torch.tensor(numbers, device=self.device)
        distributed.all_reduce(held, op=distributed.ReduceOp.MAX)
        return tuple(held.tolist())

    def any(self, condition: bool) -> bool:
        """Whether it holds in any process."""
        return self.largest(float(condition)) != (0.0,)

    def gather_first(self, counts: Tensor) -> None:
        """Gives the first process the sum and all others zeros, in place: the first one's file then tells all."""
        if self.world > 1:
            distributed.all_reduce(counts)
            if not self.first:
                counts.zero_()

    def check_equal(self, network: nn.Module) -> None:
        """Raises HiResMedSynthError where the processes' weights are not the same to the bit."""
        if self.world == 1:
            return
        flat = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
        low, high = flat.clone(), flat.clone()
        distributed.all_reduce(low, op=distributed.ReduceOp.MIN)
        distributed.all_reduce(high, op=distributed.ReduceOp.MAX)
        if not torch.equal(low, high):
            raise HiResMedSynthError(
                "The processes' weights have drifted apart", remedy="Resume from the last checkpoint."
            )


def _join(device: str) -> Ranks:
    """This process's place by torchrun's variables; the only one where there are none."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Ranks(device=device)
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if device.startswith("cuda"):
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Ranks(rank=rank, world=world, device=device)


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """This process's place among those of torchrun within it; whatever ends it, the group is left."""
    try:
        yield _join(device)
    finally:
        if distributed.is_initialized():
            time.sleep(LET_GO_S)
            distributed.destroy_process_group()
