"""The LIDC-IDRI nodule volumes (`lidc_nodule_voi_hu`: voi.npz + voi.csv) as objects."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LICENCE = "CC BY 3.0"
ATTRIBUTION = (
    "Armato SG III et al. Data From LIDC-IDRI. The Cancer Imaging Archive, 2015, doi 10.7937/K9/TCIA.2015.LO9QL9SX; "
    "Armato SG III et al. Med Phys 2011;38:915-931; crops: Computer Vision Center, Universitat Autonoma de Barcelona"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceNodule:
    """One nodule with its surroundings: HU, readers' agreement, spacing and the readers' mean ratings."""

    row: dict[str, str]
    hu: NDArray[np.int16]
    readers: NDArray[np.uint8]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(slice, row, column) spacing."""
        return float(self.row["dz_mm"]), float(self.row["dy_mm"]), float(self.row["dx_mm"])

    @property
    def patient_id(self) -> str:
        """Public id of the collection."""
        return self.row["patient_id"]

    def rating(self, name: str) -> float:
        """A mean rating, 1..5 (calcification: median code, 6 = absent)."""
        return float(self.row[name])

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


def nodules(folder: Path) -> Iterator[SourceNodule]:
    """All nodules of the folder, in the order of its table."""
    with np.load(folder / "voi.npz", allow_pickle=False) as packed:
        arrays = {name: packed[name] for name in ("lo", "hi", "readers", "offset", "shape")}
    zigzag = arrays["lo"].astype(np.int32) | (arrays["hi"].astype(np.int32) << 8)
    differences = (zigzag >> 1) ^ -(zigzag & 1)
    with (folder / "voi.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        index = int(row["index"])
        start, stop = arrays["offset"][index], arrays["offset"][index + 1]
        shape = tuple(int(n) for n in arrays["shape"][index])
        hu = np.cumsum(differences[start:stop].reshape(shape), axis=2).astype(np.int16)
        yield SourceNodule(row=row, hu=hu, readers=np.minimum(arrays["readers"][start:stop].reshape(shape), 4))
