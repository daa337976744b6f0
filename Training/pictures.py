"""Films as grey pictures of 8 bits for a person to look at, side by side on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def grey8(values: Tensor | NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Grey levels of values in -1..1, of the same shape; what lies beyond is cut, what is no number is mid-grey."""
    array = values.detach().float().cpu().numpy() if isinstance(values, Tensor) else values
    levels: NDArray[np.uint8] = np.rint((np.nan_to_num(array).clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return levels


def resized(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """[side, side]: a grey picture, larger or smaller."""
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


def tiled(pictures: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], *, across: int) -> NDArray[np.uint8]:
    """Pictures of one size [row, column] as a sheet, at most `across` in a row; the last is filled up with black."""
    across = min(across, len(pictures))
    tiles = [*pictures, *[np.zeros_like(pictures[0])] * (-len(pictures) % across)]
    return np.concatenate([np.concatenate(tiles[at : at + across], axis=1) for at in range(0, len(tiles), across)])
