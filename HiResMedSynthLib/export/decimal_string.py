"""Numbers as DICOM decimal strings (VR DS, at most 16 characters)."""

from __future__ import annotations

import numpy as np


def factor(value: float) -> str:
    """A rescale or time, in significant digits: slopes can be far below 1e-10."""
    from pydicom.valuerep import format_number_as_ds

    return str(format_number_as_ds(float(value)))


def decimal(value: float) -> str:
    """A length, position or direction, rounded to 1e-10: at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    text: str = format_number_as_ds(float(np.round(value, 10)) + 0.0)
    return text
