"""Tensors as one safetensors file that is either the old or the new one, and is the user's as any other file is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.errors import ExportError


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
