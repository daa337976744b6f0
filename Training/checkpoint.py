"""What a run keeps on disk: its checkpoint, its best weights, and how they are read again. Nothing is ever pickled."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.whole_tensors import save_tensors

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"  # averaged weights where the held-out loss was lowest
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
    for name, parameter in network.named_parameters():
        for moment, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = value
    write_tensors(path, tensors, {"progress": asdict(progress), "description": description})


def write_tensors(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Writes tensors, and the state as JSON in the header, as one file that is either the old or the new one."""
    contiguous = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_tensors(path, contiguous, {"state": json.dumps(state)})


def load_checkpoint(
    path: Path, network: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> Progress:
    """Where the run stood; fills network, average and optimiser in place.

    Raises:
        SettingsError: the file is damaged, or was written for other layers.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        network.load_state_dict({name: stored[f"weights.{name}"] for name in network.state_dict()})
        for name, value in average.items():
            value.copy_(stored[f"average.{name}"])
        for name, parameter in network.named_parameters():
            moments = {m: stored[f"{m}.{name}"] for m in ("step", "exp_avg", "exp_avg_sq") if f"{m}.{name}" in stored}
            if moments:
                optimiser.state[parameter] = {
                    m: value.to(parameter.device) if m == "step" else torch.empty_like(parameter).copy_(value)
                    for m, value in moments.items()
                }
        return Progress(**state["progress"])
    except (KeyError, TypeError, RuntimeError, ValueError, OSError, SafetensorError) as problem:
        raise SettingsError(
            f"The checkpoint doesn't fit this preset: {str(problem)[:200]}", where=path, remedy="Use the run's preset."
        ) from None


def check_same_run(checkpoint: Path, description: dict[str, Any]) -> None:
    """Raises SettingsError where the run is another: of other data, patients left out, seed, batch, loss or stage."""
    try:
        with safe_open(checkpoint, framework="pt") as file:
            told = json.loads(file.metadata()["state"])["description"]
    except (KeyError, TypeError, ValueError, OSError, SafetensorError):
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
        with safe_open(path, framework="pt") as file:
            described = json.loads(file.metadata()["state"])["description"]
            names = [name for name in file.keys() if name.startswith("average.")]  # noqa: SIM118 (it is no dict)
            return {name.removeprefix("average."): file.get_tensor(name) for name in names}, described
    except (KeyError, TypeError, ValueError, OSError, SafetensorError) as problem:
        raise SettingsError(
            f"No trained weights ({str(problem)[:80]})", where=path, remedy="Train first, or give the run's folder."
        ) from None


def stored_unit(out: Path) -> float | None:
    """The unit that the run in `out` scales its data by; None where there is no run."""
    path = out / CHECKPOINT
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return float(json.loads(file.metadata()["state"])["description"]["unit"])
    except (KeyError, TypeError, ValueError, OSError, SafetensorError):
        return None  # load_checkpoint says what is wrong
