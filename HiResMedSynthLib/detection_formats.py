"""What our COCO and YOLO files share. Boxes are (x, y, width, height) in pixels; x counts columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def coco_categories(names: Sequence[str]) -> list[dict[str, Any]]:
    """COCO's list of classes, counted from 1."""
    return [{"id": number, "name": name} for number, name in enumerate(names, start=1)]


def run_lengths(plane: NDArray[np.bool_]) -> dict[str, list[int]]:
    """COCO's uncompressed run lengths of a picture's mask `[row, column]`: column after column, zeros first."""
    flat = plane.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return {"size": list(plane.shape), "counts": [0, *counts] if flat[0] else counts}


def yolo_line(number: int, box: Sequence[int], *, columns: int, rows: int) -> str:
    """YOLO's line of a box in a picture: class (from 0), centre x and y, width, height as parts of the picture."""
    x, y, width, height = box
    parts = (x + width / 2) / columns, (y + height / 2) / rows, width / columns, height / rows
    return f"{number} {' '.join(f'{part:.6f}' for part in parts)}\n"
