"""The LIDC-IDRI nodule volumes (`lidc_nodule_voi_hu`: voi.npz + voi.csv) as objects."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import ReadError
from Training.folder_of_images import UNREADABLE

LICENCE = "CC BY 3.0"
ATTRIBUTION = (
    "Armato SG III et al. Data From LIDC-IDRI. The Cancer Imaging Archive, 2015, doi 10.7937/K9/TCIA.2015.LO9QL9SX; "
    "Armato SG III et al. Med Phys 2011;38:915-931; crops: Computer Vision Center, Universitat Autonoma de Barcelona"
)
NAMES = ("index", "key", "patient_id")  # columns that every nodule needs
REMEDY = "Give a folder such as lidc_nodule_voi_hu: voi.npz and voi.csv as they were made together."


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceNodule:
    """One nodule with its surroundings: HU, readers' agreement, spacing and the readers' mean ratings.

    What a table lacks is told, as `ReadError`, when it is asked for: not all that use nodules need all of it.
    """

    row: dict[str, str]
    hu: NDArray[np.int16]
    readers: NDArray[np.uint8]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(slice, row, column) spacing."""
        return self._number("dz_mm"), self._number("dy_mm"), self._number("dx_mm")

    @property
    def patient_id(self) -> str:
        """Public id of the collection."""
        return self.row["patient_id"]

    def rating(self, name: str) -> float:
        """A mean rating, 1..5 (calcification: median code, 6 = absent)."""
        return self._number(name)

    @property
    def majority(self) -> NDArray[np.bool_]:
        """Voxels held by at least half of the readers."""
        return self.readers >= max(1.0, float(self.readers.max()) / 2)

    @property
    def type(self) -> str:
        """Lesion type by the readers' ratings: calcification < 6, else texture < 2.5, < 4."""
        if self.rating("calcification") < 6:
            return "calcified"
        texture = self.rating("texture")
        return "ground-glass" if texture < 2.5 else "part-solid" if texture < 4 else "solid"

    def _number(self, name: str) -> float:
        try:
            return float(self.row[name])
        except (KeyError, TypeError, ValueError):
            what = f"voi.csv has no number {name} for the nodule {self.row.get('key', '')}"
            raise ReadError(what, remedy=REMEDY) from None


def nodules(folder: Path) -> Iterator[SourceNodule]:
    """All nodules of the folder, in the order of its table.

    Raises:
        ReadError: voi.npz or voi.csv is missing, damaged, or of something else.
    """
    try:
        with np.load(folder / "voi.npz", allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in ("lo", "hi", "readers", "offset", "shape")}
        zigzag = arrays["lo"].astype(np.int32) | (arrays["hi"].astype(np.int32) << 8)
        differences = (zigzag >> 1) ^ -(zigzag & 1)
        with (folder / "voi.csv").open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError as problem:
        what = f"there is no {Path(problem.filename).name} in this folder"
        raise ReadError(what, where=folder, remedy=REMEDY) from None
    except UNREADABLE as problem:
        raise ReadError(f"its voi.npz or voi.csv can't be read ({problem})", where=folder, remedy=REMEDY) from None
    missing = [name for name in NAMES if rows and rows[0].get(name) is None]
    if missing:
        raise ReadError(f"its voi.csv lacks {', '.join(missing)}", where=folder, remedy=REMEDY)
    for row in rows:
        try:
            index = int(row["index"])
            start, stop = arrays["offset"][index], arrays["offset"][index + 1]
            shape = tuple(int(n) for n in arrays["shape"][index])
            hu = np.cumsum(differences[start:stop].reshape(shape), axis=2).astype(np.int16)
            readers = np.minimum(arrays["readers"][start:stop].reshape(shape), 4)
        except UNREADABLE as problem:
            what = f"its voi.npz has no nodule {row['index']} as its voi.csv says ({problem})"
            raise ReadError(what, where=folder, remedy=REMEDY) from None
        yield SourceNodule(row=row, hu=hu, readers=readers)
