"""Where a lesion must not go in an MR: the air around the body. Of its anatomy nothing more is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger_map import OUTSIDE_BODY, DangerMap, named_labels

METHOD = "rule: the air around the body; of an MR's anatomy nothing is known"
SMOOTH_MM = 2.0  # sigma: noise of the air must not count as tissue
AIR_SHARE = 0.3  # of the tissue's mean signal: what is brighter is no air, so there is none in view
BINS = 256


def danger_mr(image: MedicalImage) -> DangerMap:
    """The danger map of an MR slice or volume: what is not body; cavities count as body.

    Raises:
        GeometryError: the spacing is unknown.
        PlacementError: all values are the same.
    """
    outside = ~_body(image)
    labels, names = named_labels(image.shape, [(OUTSIDE_BODY, outside)])
    return DangerMap(labels=labels, names=names, method=METHOD)


def _body(image: MedicalImage) -> NDArray[np.bool_]:
    """The largest piece of what is brighter than air, its holes filled in each slice, less what the blur added."""
    import cv2
    from scipy.ndimage import binary_fill_holes, label

    _, row_mm, column_mm = image.spacing_mm
    lowest = float(image.pixels.min())
    sigma_x, sigma_y = SMOOTH_MM / column_mm, SMOOTH_MM / row_mm
    planes = (plane.astype(np.float32) - lowest for plane in image.pixels)
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), sigma_x, sigmaY=sigma_y) for plane in planes])
    if float(smooth.max()) <= 0:
        raise PlacementError("all values of this MR are the same", remedy="Take another slice or image.")
    threshold = _threshold(smooth)
    air = smooth < threshold
    if not air.any() or float(smooth[air].mean()) > AIR_SHARE * float(smooth[~air].mean()):
        return np.ones(image.shape, dtype=bool)
    pieces, _ = label(~air)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    body = pieces == int(sizes.argmax())
    reach = tuple(2 * max(1, round(sigma)) + 1 for sigma in (sigma_x, sigma_y))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, reach)
    filled = (binary_fill_holes(plane).astype(np.uint8) for plane in body)
    return np.stack([cv2.erode(plane, disc, borderValue=1) > 0 for plane in filled])


def _threshold(values: NDArray[np.float32]) -> float:
    """Otsu's threshold (IEEE Trans SMC 9:62, 1979) of the logarithm, which tells air from the darkest tissue."""
    told = np.log1p(values * (1000.0 / float(values.max())))  # the same in whatever units the scanner stores
    counts, ends = np.histogram(told, BINS)
    middles = (ends[:-1] + ends[1:]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * middles)
    above = below[-1] - below
    usable = (below > 0) & (above > 0)
    gap = sums[usable] / below[usable] - (sums[-1] - sums[usable]) / above[usable]
    best = int(np.argmax(below[usable] * above[usable] * gap**2))
    return float(np.expm1(ends[1:][usable][best]) * float(values.max()) / 1000.0)
