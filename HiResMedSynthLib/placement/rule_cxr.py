"""Where a nodule must not go on a frontal chest film: outside the lungs, by a lung-shape rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger_map import MEDIASTINUM, OUTSIDE_LUNGS, PLEURA_MARGIN, DangerMap
from HiResMedSynthLib.placement.lungs_cxr import fit_chest
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.near import within_mm

METHOD = "rule: mean lung shape fitted to the film"
LUNG_CLASSES = (PLEURA_MARGIN,)  # lie inside the lung
HEART_SHARE = 0.65  # of the way from the lung's grey to the mediastinum's: what is brighter is heart, knob, diaphragm
SMOOTHING_MM = 4.0  # ribs and vessels disappear, the heart stays
MEDIASTINUM_SHARE = 0.2  # of the lungs' width, on each side of the middle; beyond it lies abdomen
LABELS = {1: OUTSIDE_LUNGS, 2: MEDIASTINUM, 3: PLEURA_MARGIN}


def danger_cxr(image: MedicalImage, *, margins: Margins) -> DangerMap:
    """The danger map of a frontal chest film.

    What is as bright as the mediastinum inside the lung shape (heart, aortic knob, dome of the diaphragm) is forbidden
    too, though nodules do lie behind them: a rule can't see those. The vessel margin has no meaning here: on a film
    vessels cross every lung field.

    Raises:
        GeometryError: the spacing is unknown.
        PlacementError: the film is not like a frontal chest film.
    """
    _, row_mm, column_mm = image.spacing_mm
    film = image.pixels[0].astype(np.float32)
    if not image.bright_is_dense:
        film = -film
    fit = fit_chest(film, pixel_spacing_mm=(row_mm, column_mm))
    lungs = fit.lungs > 0.5
    labels = np.full(image.shape, 1, dtype=np.uint8)
    left = np.logical_or.accumulate(lungs, axis=1)
    right = np.logical_or.accumulate(lungs[:, ::-1], axis=1)[:, ::-1]
    _, _, box_left, box_right = fit.box_px
    aside = np.abs(np.arange(image.columns) - (box_left + box_right) / 2) < MEDIASTINUM_SHARE * (box_right - box_left)
    labels[:, left & right & ~lungs & aside] = 2
    labels[:, lungs] = 0
    labels[0][lungs & _as_bright_as(film, labels[0] == 2, lungs, (row_mm, column_mm))] = 2
    margin = within_mm(~lungs[np.newaxis], margins.pleura_mm, spacing_mm=image.spacing_mm)[0]
    labels[:, margin & lungs] = 3
    return DangerMap(labels=labels, names=LABELS, method=METHOD)


def _as_bright_as(
    film: NDArray[np.float32], mediastinum: NDArray[np.bool_], lungs: NDArray[np.bool_], spacing_mm: tuple[float, float]
) -> NDArray[np.bool_]:
    """`[row, column]` True where the smoothed film is nearer to the mediastinum's grey than to the lungs'."""
    import cv2

    smooth = cv2.GaussianBlur(film, (0, 0), SMOOTHING_MM / spacing_mm[1], sigmaY=SMOOTHING_MM / spacing_mm[0])
    if not mediastinum.any():
        return np.zeros(film.shape, dtype=bool)
    lung_grey, dense_grey = float(np.median(smooth[lungs])), float(np.median(smooth[mediastinum]))
    return np.asarray((dense_grey > lung_grey) & (smooth > lung_grey + HEART_SHARE * (dense_grey - lung_grey)))
