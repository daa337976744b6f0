"""Films that a baseline drew, as one compressed file: grey of 8 bits at the size at which they were made."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from HiResMedSynthLib.errors import ReadError
from Training.pictures import grey8, tiled

ACROSS = 8


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Films uint8 [n, S, S] of seeds [n], and what is known of the run that made them."""

    films: NDArray[np.uint8]
    seeds: NDArray[np.int64]
    facts: dict[str, Any]

    def enlarged(self, side: int) -> NDArray[np.float32]:
        """[n, side, side] in 0..1, bicubic, as the paper enlarges its DDM's."""
        films = torch.from_numpy(self.films)[:, None].float() / 255
        large = torch.nn.functional.interpolate(films, size=(side, side), mode="bicubic", align_corners=False)
        return np.asarray(large[:, 0].clamp(0, 1).numpy())

    def save(self, path: Path) -> None:
        """Writes one file that is either the old or the new one."""
        fresh = path.with_suffix(".new.npz")
        np.savez_compressed(fresh, films=self.films, seeds=self.seeds, facts=np.array(json.dumps(self.facts)))
        fresh.replace(path)

    @classmethod
    def load(cls, path: Path) -> Samples:
        """What `save` wrote.

        Raises:
            ReadError: it is no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                facts = json.loads(str(stored["facts"]))
                return cls(films=stored["films"], seeds=stored["seeds"], facts=facts)
        except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as problem:
            raise ReadError(
                f"These are no baseline's films: {str(problem)[:120]}",
                where=path,
                remedy="Make them with python -m Training.baselines.",
            ) from None


def sheet_of(films: Tensor) -> NDArray[np.uint8]:
    """Films [n, 1, S, S] side by side, eight in a row."""
    return tiled(grey8(films[:, 0]), across=ACROSS)
