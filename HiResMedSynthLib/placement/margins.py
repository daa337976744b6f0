"""Distances that a lesion keeps to what it must not touch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from HiResMedSynthLib.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Margins:
    """Distances in millimetres that are added to the forbidden structures.

    Args:
        pleura_mm: rim of the lung along chest wall, mediastinum and diaphragm (class "pleura margin").
        vessel_mm: around vessels and airways.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by pydantic where JSON comes in)

    pleura_mm: float = 2.0
    vessel_mm: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("pleura", self.pleura_mm), ("vessel", self.vessel_mm)):
            if not (math.isfinite(value) and 0 <= value <= 50):
                raise SettingsError(f"a {name} margin of {value} mm can't be", remedy="Give 0 to 50 mm.")
