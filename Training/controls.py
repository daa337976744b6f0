"""What synthetic lesions have to beat: a real lesion of another picture pasted, plainly or as CarveMix does.

Both take a labelled picture's own pixels, turned by one of the square's eight symmetries, resampled to the other
picture's pixels, and put them where a healthy place is. CarveMix (Zhang et al. 2021) carves along a level of the
lesion's signed distance that is drawn anew each time: some carry a rim of their own surroundings, some lose their edge.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from Training.location_data import LungPatch

INSIDE_LUNG = 0.9  # of what is pasted


def copy_pasted(
    host: LungPatch, donor: LungPatch, place: tuple[float, float], rng: np.random.Generator
) -> LungPatch | None:
    """The host with the donor's lesion at (row, column), its outline cut hard; None where it doesn't fit the lung.

    The host's own lesion must have been erased; it is no lesion of the result.
    """
    return _pasted(host, donor, place, rng, level_px=0.0)


def carve_mixed(
    host: LungPatch, donor: LungPatch, place: tuple[float, float], rng: np.random.Generator
) -> LungPatch | None:
    """The host with the donor's lesion carved at a level of its signed distance; None where it doesn't fit the lung.

    The level (pixels, outside positive) is uniform in -d/2..0 or, as often, in 0..d; d is the lesion's greatest depth.
    """
    depth = float(distance_transform_edt(donor.lesion).max())
    level = rng.uniform(-depth / 2, 0) if rng.random() < 0.5 else rng.uniform(0, depth)
    return _pasted(host, donor, place, rng, level_px=float(level))


def _pasted(
    host: LungPatch, donor: LungPatch, place: tuple[float, float], rng: np.random.Generator, *, level_px: float
) -> LungPatch | None:
    turn = int(rng.integers(8))
    hu = np.rot90(donor.hu.T if turn & 4 else donor.hu, turn & 3)
    lesion = np.rot90(donor.lesion.T if turn & 4 else donor.lesion, turn & 3)
    centre = np.argwhere(lesion).mean(axis=0)
    scale = host.spacing_mm / donor.spacing_mm
    row, column = centre - scale * np.array(place)
    matrix = np.array([[scale, 0, column], [0, scale, row]], dtype=np.float32)
    size = (host.hu.shape[1], host.hu.shape[0])

    def moved(layer: NDArray[np.float32], outside: float) -> NDArray[np.float32]:
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(layer, matrix, size, flags=flags, borderValue=(outside,)))

    distance = (distance_transform_edt(~lesion) - distance_transform_edt(lesion)).astype(np.float32)
    far = float(max(distance.shape))
    signed = moved(np.ascontiguousarray(distance), far)
    carved, shown = signed <= level_px, signed <= min(level_px, 0.0)
    if not shown.any() or (carved & host.lung).sum() < INSIDE_LUNG * carved.sum():
        return None
    pixels = np.where(carved, moved(np.ascontiguousarray(hu), 0.0), host.hu)
    return LungPatch(
        patient_id=host.patient_id, hu=pixels.astype(np.float32), lung=host.lung, lesion=shown,
        spacing_mm=host.spacing_mm,
    )  # fmt: skip
