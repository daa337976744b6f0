"""Tensors as one safetensors file, written so that it is the old or the new one, and the user's like any other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.errors import ExportError

Framework = Literal["np", "pt"]


def save_tensors(path: Path, tensors: Mapping[str, Any], metadata: dict[str, str]) -> None:
    """Writes contiguous arrays of torch (on the CPU) or of numpy.

    Raises:
        ExportError: the disk is full, or the folder can't be written; what stood there before still does.
    """
    from safetensors import SafetensorError

    if any(hasattr(value, "numpy") for value in tensors.values()):  # an array has none, a tensor does
        from safetensors.torch import save_file
    else:
        from safetensors.numpy import save_file
    try:
        with written_aside(path) as aside:
            mode = aside.stat().st_mode
            save_file(dict(tensors), aside, metadata=metadata)
            aside.chmod(mode)  # the package makes files that nobody else can read
    except (OSError, SafetensorError) as error:
        raise ExportError(
            f"the weights can't be written ({str(error).splitlines()[0][:160]})",
            where=path,
            remedy="Make room on the disk, or choose another one; what was stored before is still there to resume.",
        ) from error


def save_state(path: Path, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Writes torch's tensors as they are now, and a run's state as JSON (`state` in the header), for `read_tensors`.

    Raises:
        ExportError: as `save_tensors`.
    """
    apart = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_tensors(path, apart, {"state": json.dumps(state)})


def header_entry(path: Path, entry: str) -> dict[str, Any] | None:
    """That JSON entry of a file's header; None where it can't be read or is no object. Loads no torch."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            found = json.loads((file.metadata() or {})[entry])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_whole(path: Path, framework: Framework, under: str = "") -> tuple[dict[str, Any], dict[str, str]]:
    """(tensors by name, the header's entries) of a file.

    Args:
        path: the file.
        framework: the tensors are torch's, on the CPU ("pt"), or numpy's ("np").
        under: only those whose names begin so are read; it is taken off.

    Raises:
        OSError: there is no such file, or it can't be read.
        ValueError: it is no safetensors file, or is cut off.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            names = [name for name in file.keys() if name.startswith(under)]  # noqa: SIM118 (it is no dict)
            return {name.removeprefix(under): file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError("it is no safetensors file, or it is cut off") from error


def reason(problem: Exception) -> str:
    """In words, why `read_tensors`, or building what its tensors are for, failed."""
    return f"it lacks {str(problem)[:120]}" if isinstance(problem, KeyError) else str(problem)[:120]


def read_tensors(
    path: Path, entry: str, framework: Framework, under: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(tensors by name, that JSON entry of the header); arguments as for `read_whole`.

    Raises:
        OSError, KeyError, TypeError, ValueError: what the file lacks; the caller knows what to do about it.
    """
    tensors, metadata = read_whole(path, framework, under)
    try:
        header = json.loads(metadata[entry])
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    if not isinstance(header, dict):
        raise TypeError(f"its entry {entry} is no object")
    return tensors, header
