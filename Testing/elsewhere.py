"""A device that any machine has: its tensors say that they lie elsewhere, compute on the CPU, and refuse to be mixed.

It stands for a GPU: what would fail there for a tensor left behind fails here, too, and numbers come out as on the CPU.
torch knows the device's name ("meta") and lets nothing else of ours use it, so autograd runs as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

ELSEWHERE, AWAY = "meta", 2**63  # the device, and what the seeds of its generators have more
MOVES = {"copy_", "_to_copy", "_foreach_copy_", "index", "index_put", "index_put_", "_index_put_impl_"}
NEVER_WITH_A_NUMBER = {"cat", "stack", "index_select", "gather", "embedding", "convolution"}


class _Away(Tensor):
    """A tensor that says it lies elsewhere; `inner` holds its numbers."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> _Away:
        made: _Away = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=ELSEWHERE,
        )  # fmt: skip
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})

    def __getitem__(self, at: Any) -> Any:
        def placed(one: Any) -> Any:  # torch would make a list a tensor of the real device of that name
            return _Away(torch.tensor(one)) if isinstance(one, list) else one

        return Tensor.__getitem__(self, tuple(map(placed, at)) if isinstance(at, tuple) else placed(at))

    def numpy(self, *_args: Any, **_named: Any) -> Any:
        raise TypeError("a tensor that lies elsewhere is no array: .cpu() first")

    def tolist(self) -> Any:
        return self.inner.tolist()


class _Stream(torch.Generator):
    """A generator whose seed says whether it lies elsewhere: operators are given it without its class."""

    away: bool

    def __new__(cls, device: Any = "cpu") -> _Stream:
        made = super().__new__(cls)
        made.away = torch.device(device).type == ELSEWHERE
        return made

    def manual_seed(self, seed: int) -> torch.Generator:
        return super().manual_seed(seed | AWAY if self.away else seed)


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operator gives, on the device where a GPU would leave it."""
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    away, here = ([one for one in tensors if isinstance(one, _Away) is side] for side in (True, False))
    name, asked = func._schema.name.split("::")[1], kwargs.get("device")
    to_away = bool(away) if asked is None else torch.device(asked).type == ELSEWHERE
    unlike = any(one.dim() for one in here) or name in NEVER_WITH_A_NUMBER
    if away and here and (unlike if name not in MOVES else name == "index" and not isinstance(args[0], _Away)):
        raise RuntimeError(f"{func} mixes devices: {[tuple(one.shape) for one in (*away, *here)]}")
    stream = kwargs.get("generator")
    if stream is not None and to_away != (stream.initial_seed() >= AWAY):
        raise RuntimeError(f"{func} draws by a generator of another device")
    named = tree_map(_inner, kwargs) | ({} if asked is None else {"device": torch.device("cpu")})
    given = tree_map(_inner, args)
    found = func(*given, **named)
    if name == "_to_copy" and bool(away) != to_away:
        return _Away(found.clone()) if to_away else found.clone()
    if name == "copy_":
        return args[0]
    if not to_away:
        return found
    placed = tree_map(lambda one: _Away(one) if isinstance(one, Tensor) and not isinstance(one, _Away) else one, found)
    return return_and_correct_aliasing(func, args, kwargs, placed) if away else placed


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, _Away) else value


class _Mode(TorchDispatchMode):
    """Catches what is made on the device by name."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


def _moved(network: nn.Module, move: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """In place of `nn.Module._apply`, which exchanges a parameter's memory and would keep the parameter's class."""
    for child in network.children():
        _moved(child, move)
    for name, parameter in network._parameters.items():
        if parameter is not None and (found := move(parameter)) is not parameter:
            network._parameters[name] = nn.Parameter(found.detach(), requires_grad=parameter.requires_grad)
    for name, buffer in network._buffers.items():
        network._buffers[name] = None if buffer is None else move(buffer)
    return network


@contextmanager
def elsewhere() -> Iterator[str]:
    """Within it the name it gives is a device; networks moved there stay so afterwards."""
    own, apply = (torch.tensor, torch.as_tensor, torch.Generator, torch.autocast), nn.Module._apply

    def maker(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            if isinstance(data, _Away):
                return data if device is None else data.to(device)
            held = make(data, *args, **kwargs)
            return held if device is None or torch.device(device).type != ELSEWHERE else _Away(held)

        return made

    def cast(device: str, **asked: Any) -> Any:  # torch's knows no types for this device
        return nullcontext() if device == ELSEWHERE else own[3](device, **asked)

    torch.tensor, torch.as_tensor = maker(own[0]), maker(own[1])  # they see no mode
    torch.Generator, torch.autocast = _Stream, cast  # type: ignore[misc, assignment]
    nn.Module._apply = _moved  # type: ignore[assignment]
    try:
        with _Mode():
            yield ELSEWHERE
    finally:
        torch.tensor, torch.as_tensor, torch.Generator, torch.autocast = own  # type: ignore[misc]
        nn.Module._apply = apply  # type: ignore[method-assign]
