"""The trainers' presets: TOML files of Training/presets, or the user's own."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from HiResMedSynthLib.errors import SettingsError

PRESETS = Path(__file__).resolve().parent / "presets"


def read_preset(name: str) -> dict[str, Any]:
    """The tables of a preset by name, or of a TOML file by path.

    Raises:
        SettingsError: there is none.
    """
    path = Path(name) if name.endswith(".toml") else PRESETS / f"{name}.toml"
    if not path.is_file():
        there = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.toml")))
        raise SettingsError(f"There is no preset {name}", where=path, remedy=f"Use a TOML file, or one of: {there}.")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def stages_of(preset: dict[str, Any]) -> list[str]:
    """Names of the stages that a preset has tables for, first to last."""
    return [name for name, table in preset.items() if "network" in table]


def domain_of(preset: dict[str, Any]) -> str:
    """What a preset is for: one that states a spacing lays films on a canvas, one that states none takes CT slices."""
    return "cxr" if "spacing_mm" in preset["data"] else "lung-ct"
