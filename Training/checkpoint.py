"""What a run keeps on disk: its checkpoint, its best weights, and how they are read again. Nothing is ever pickled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.whole_tensors import header_entry, read_tensors, save_state

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"  # averaged weights where the held-out loss was lowest
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of Adam and AdamW
MUST_STAY = (  # of a description: a resumed run is the same run, and leaves the same patients out
    "stage", "data_sha256", "seed", "batch", "perceptual", "held_out", "fold", "visible", "synthetic_sha256", "arm",
    "share", "shortcut", "copies",
)  # fmt: skip


@dataclass(kw_only=True)
class Progress:
    """Where a run stands; stored in its checkpoint."""

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    lowest_held_out: float | None = None
    precision: str = "auto"
    losses: list[float] = field(default_factory=list)


def save_checkpoint(
    path: Path,
    network: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    *,
    progress: Progress,
    description: dict[str, Any],
) -> None:
    """Writes everything a run needs to go on, as one file that is either the old or the new one."""
    tensors = {f"weights.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    tensors |= moments_of(optimiser, network)
    save_state(path, tensors, {"progress": asdict(progress), "description": description})


def moments_of(optimiser: torch.optim.Optimizer, network: nn.Module, *, prefix: str = "") -> dict[str, Tensor]:
    """What Adam remembers of each of the network's parameters, as `prefix` + moment + "." + parameter."""
    return {
        f"{prefix}{moment}.{name}": value
        for name, parameter in network.named_parameters()
        for moment, value in optimiser.state.get(parameter, {}).items()
    }


def put_back_moments(
    optimiser: torch.optim.Optimizer, network: nn.Module, stored: Mapping[str, Tensor], *, prefix: str = ""
) -> None:
    """Gives Adam what `moments_of` told, where each parameter lies and as it is laid out; its counter stays on the CPU
    unless the optimiser wants it on the device. A parameter that had none yet keeps none.

    Raises:
        KeyError: a part of a parameter's is missing.
    """
    on_device = optimiser.defaults.get("capturable") or optimiser.defaults.get("fused")
    for name, parameter in network.named_parameters():
        if f"{prefix}{MOMENTS[0]}.{name}" in stored:
            step, *others = (stored[f"{prefix}{moment}.{name}"] for moment in MOMENTS)
            placed = [step.to(parameter.device if on_device else "cpu", copy=True)]
            placed += [torch.empty_like(parameter).copy_(value) for value in others]
            optimiser.state[parameter] = dict(zip(MOMENTS, placed, strict=True))


def load_checkpoint(
    path: Path, network: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> Progress:
    """Where the run stood; fills network, average and optimiser in place.

    Raises:
        SettingsError: the file is damaged, or was written for other layers.
    """
    try:
        stored, state = read_tensors(path, "state", "pt")
        network.load_state_dict({name: stored[f"weights.{name}"] for name in network.state_dict()})
        for name, value in average.items():
            value.copy_(stored[f"average.{name}"])
        put_back_moments(optimiser, network, stored)
        return Progress(**state["progress"])
    except (KeyError, TypeError, RuntimeError, ValueError, OSError) as problem:
        raise SettingsError(
            f"The checkpoint doesn't fit this preset: {str(problem)[:200]}", where=path, remedy="Use the run's preset."
        ) from None


def check_same_run(checkpoint: Path, description: dict[str, Any]) -> None:
    """Raises SettingsError where the run is another: of other data, patients left out, seed, batch, loss or stage."""
    told = (header_entry(checkpoint, "state") or {}).get("description")
    if told is None:
        return  # load_checkpoint says what is wrong
    listed = [name for name in MUST_STAY if name in told or name == "shortcut"]  # only few-step runs tell the last
    other = [name for name in listed if told.get(name) != _plain(description.get(name))]
    if other:
        raise SettingsError(
            f"The run in this folder has another {' and '.join(name.replace('_', ' ') for name in other)}",
            where=checkpoint.parent,
            remedy="Resume with what it began with; for other data give --start-from and a new folder.",
        )


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def best_weights(run: Path) -> Path:
    """The file of a run that holds its best averaged weights (its checkpoint where nothing was measured yet)."""
    return run / BEST if (run / BEST).is_file() else run / CHECKPOINT


def load_average(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(averaged weights, description) of a checkpoint or of best weights.

    Raises:
        SettingsError: the file is missing, damaged, or no checkpoint.
    """
    try:
        average, state = read_tensors(path, "state", "pt", under="average.")
        return average, state["description"]
    except (KeyError, TypeError, ValueError, OSError) as problem:
        raise SettingsError(
            f"No trained weights ({str(problem)[:80]})", where=path, remedy="Train first, or give the run's folder."
        ) from None


def load_teacher(run: Path, build: Callable[[dict[str, Any]], nn.Module]) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a finished run with its best averaged weights, and the run's description, which `build` takes.

    Raises:
        SettingsError: there is no such run.
    """
    average, described = load_average(best_weights(run))
    try:
        network = build(described)
        network.load_state_dict({name: average[name] for name in network.state_dict()})
    except (KeyError, RuntimeError, ValueError) as problem:
        raise SettingsError(f"No finished run ({str(problem)[:120]})", where=run, remedy="Train it first.") from None
    return network, described


def stored_step(path: Path) -> int | None:
    """The step after which a checkpoint or best weights were written; None where it isn't told."""
    state = header_entry(path, "state") or {}
    step: int | None = state.get("step", state.get("progress", {}).get("step"))
    return step


def stored_unit(out: Path) -> float | None:
    """The unit that the run in `out` scales its data by; None where there is no run, or it tells none."""
    try:
        return float((header_entry(out / CHECKPOINT, "state") or {})["description"]["unit"])
    except (KeyError, TypeError, ValueError):
        return None  # load_checkpoint says what is wrong
