"""HiResMedSynth: synthetic radiological cases, composed from real or generated backgrounds and lesions.

The public names below are resolved on first use, so that `import HiResMedSynthLib` loads neither torch nor SimpleITK.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "MedicalImage": "image",
    "Window": "image",
    "read_image": "read",
    "CaseSettings": "case",
    "LesionRequest": "case",
    "Case": "case",
    "draw_case": "draw_case",
    "compose": "compose",
    "Composition": "compose",
    "read_case": "case_file",
    "write_case": "case_file",
    "export": "export.folder",
    "HiResMedSynthError": "errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
