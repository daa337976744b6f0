"""A CT seen as a radiograph: ray sums of attenuation, and the same geometry for label maps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import GeometryError, SettingsError
from HiResMedSynthLib.image import HeaderFacts, MedicalImage, Window

Axis = Literal["anteroposterior", "lateral"]
MU_WATER_PER_MM = 0.0206  # linear attenuation of water at 60 keV (NIST XCOM, 0.206 per cm)
STORED_PER_LINE_INTEGRAL = 5000.0  # 13 line integrals (63 cm of water) fill 16 bits
ODDITY = "projected from CT: a stand-in, not a radiograph"
AXIS_TOLERANCE = 0.02  # largest sine between a picture axis and a patient axis


def project(
    image: MedicalImage,
    *,
    axis: Axis = "anteroposterior",
    pixel_spacing_mm: tuple[float, float] | None = None,
) -> MedicalImage:
    """A film-like image of a CT volume: uint16, MONOCHROME2, proportional to the line integral of attenuation.

    Parallel rays along the patient's y axis (anteroposterior) or x axis (lateral), I = sum of mu * step with
    mu = mu_water * (1 + HU / 1000), never below 0. Values are log-domain, so contrasts of lesions add. Rows run from
    head to feet; the patient's right stands at the left (lateral: the front at the left). A table in the volume is
    projected with the patient.

    Args:
        image: axial CT volume in HU.
        axis: direction of the rays.
        pixel_spacing_mm: (row, column) of the film, reached by cubic interpolation and met as nearly as whole pixels
            allow; None: the CT's own (slice, column) spacing.

    Raises:
        GeometryError: no regular axial volume, or unknown spacing.
        SettingsError: not in HU, or an impossible spacing.
    """
    if image.units != "HU":
        raise SettingsError(
            f"an image of modality {image.modality} can't be projected: it is not in Hounsfield units",
            remedy="Give a CT volume.",
        )
    spacing = _volume_spacing(image)
    flips = _axial_flips(image)
    ray_mm = spacing[1] if axis == "anteroposterior" else spacing[2]
    sums = np.empty((image.slices, image.columns if axis == "anteroposterior" else image.rows), dtype=np.float32)
    for index, picture in enumerate(image.pixels):  # slice by slice: no float copy of the volume
        density = np.maximum(picture.astype(np.float32) / 1000.0 + 1.0, 0.0)
        sums[index] = density.sum(axis=0 if axis == "anteroposterior" else 1)
    film = _stand_up(sums * np.float32(MU_WATER_PER_MM * ray_mm), flips, axis)
    native_mm = (spacing[0], spacing[2] if axis == "anteroposterior" else spacing[1])
    film, film_mm = _resampled(film, native_mm, pixel_spacing_mm or native_mm, cubic=True)
    stored = np.clip(np.rint(film * STORED_PER_LINE_INTEGRAL), 0, 65535).astype(np.uint16)
    directions, position = _film_geometry(image, axis, film_mm, native_mm)
    low, high = (float(value) for value in np.percentile(stored, [2, 99.5]))
    return MedicalImage(
        pixels=stored,
        modality="OT",
        pixel_spacing_mm=film_mm,
        spacing_source="assumed" if image.spacing_source == "assumed" else "header",
        positions_lps_mm=position,
        directions_lps=directions,
        bits_stored=16,
        window=Window(center=(low + high) / 2, width=max(high - low, 1.0)),
        facts=replace(HeaderFacts(), body_part_examined=image.facts.body_part_examined),
        oddities=(ODDITY,),
    )


def project_labels(
    labels: NDArray[Any],
    image: MedicalImage,
    *,
    axis: Axis = "anteroposterior",
    pixel_spacing_mm: tuple[float, float] | None = None,
) -> dict[int, NDArray[np.float32]]:
    """Thickness in millimetres along the rays, float32 `[row, column]`, of every label above 0; `project`'s geometry.

    A label is seen where its thickness is above 0; the deepest label of a pixel is the one of largest thickness.

    Args:
        labels: whole numbers `[slice, row, column]`, the shape of `image`.
        image: the CT volume that the labels belong to.
        axis: direction of the rays.
        pixel_spacing_mm: as in `project`.

    Raises:
        GeometryError: another shape than the image, no regular axial volume, or unknown spacing.
    """
    if labels.shape != image.shape:
        raise GeometryError(
            f"labels of shape {labels.shape} don't fit an image of shape {image.shape}",
            remedy="Resample the labels onto the image first.",
        )
    spacing = _volume_spacing(image)
    flips = _axial_flips(image)
    ray_axis = 1 if axis == "anteroposterior" else 2
    native_mm = (spacing[0], spacing[2] if axis == "anteroposterior" else spacing[1])
    thickness = {}
    for label in (int(value) for value in np.unique(labels) if value > 0):
        counts = np.count_nonzero(labels == label, axis=ray_axis).astype(np.float32)
        film = _stand_up(counts * np.float32(spacing[ray_axis]), flips, axis)
        thickness[label], _ = _resampled(film, native_mm, pixel_spacing_mm or native_mm, cubic=False)
    return thickness


def _volume_spacing(image: MedicalImage) -> tuple[float, float, float]:
    if image.slices < 2 or image.volume_problem is not None:
        raise GeometryError(
            f"this image can't be projected: {image.volume_problem or 'it has one slice'}",
            remedy="Give a CT volume of evenly spaced axial slices.",
        )
    return image.spacing_mm


def _axial_flips(image: MedicalImage) -> tuple[bool, bool, bool]:
    """Whether (slices, rows, columns) run against LPS +z, +y, +x."""
    assert image.positions_lps_mm is not None
    travel = image.positions_lps_mm[-1] - image.positions_lps_mm[0]
    travel = travel / np.linalg.norm(travel)
    axes = np.stack([travel, image.directions_lps[1], image.directions_lps[0]])
    along = np.array([axes[0, 2], axes[1, 1], axes[2, 0]])
    if (np.abs(along) < np.sqrt(1 - AXIS_TOLERANCE**2)).any():
        raise GeometryError(
            "this image can't be projected: its slices are not axial (rows along the patient's left, columns along "
            "the back)",
            remedy="Give an axial CT volume.",
        )
    return bool(along[0] < 0), bool(along[1] < 0), bool(along[2] < 0)


def _stand_up(film: NDArray[np.float32], flips: tuple[bool, bool, bool], axis: Axis) -> NDArray[np.float32]:
    """Rows from head to feet (z falling), columns along rising x (or y)."""
    across = flips[2] if axis == "anteroposterior" else flips[1]
    return np.ascontiguousarray(film[:: 1 if flips[0] else -1, :: -1 if across else 1])


def _resampled(
    film: NDArray[np.float32], native_mm: tuple[float, float], wanted_mm: tuple[float, float], *, cubic: bool
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """(film, its spacing): edge to edge, so the outline of the picture stays where it was."""
    import cv2

    if not all(0 < step < 1000 for step in wanted_mm):
        raise SettingsError(f"a pixel spacing of {wanted_mm} mm can't be", remedy="Give two distances in mm above 0.")
    extent = [n * step for n, step in zip(film.shape, native_mm, strict=True)]
    rows, columns = (max(1, round(length / step)) for length, step in zip(extent, wanted_mm, strict=True))
    if rows * columns > 100_000_000:
        raise SettingsError(f"a film of {rows}x{columns} pixels is too large", remedy="Take a larger pixel spacing.")
    spacing = (extent[0] / rows, extent[1] / columns)
    if (rows, columns) == film.shape:
        return film, spacing
    shrinks = rows < film.shape[0] and columns < film.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(film, (columns, rows), interpolation=how)), spacing


def _film_geometry(
    image: MedicalImage, axis: Axis, film_mm: tuple[float, float], native_mm: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(directions `[2, 3]`, position `[1, 3]`) of the film: it stands in the middle of the volume."""
    corners = image.index_to_lps(
        [[s, r, c] for s in (0, image.slices - 1) for r in (0, image.rows - 1) for c in (0, image.columns - 1)]
    )
    low, high = corners.min(axis=0), corners.max(axis=0)
    across = np.array([1.0, 0, 0]) if axis == "anteroposterior" else np.array([0, 1.0, 0])
    first = np.where(across > 0, low, (low + high) / 2)
    first[2] = high[2]
    shift = [(film - native) / 2 for film, native in zip(film_mm, native_mm, strict=True)]
    first = first + across * shift[1] - np.array([0, 0, 1.0]) * shift[0]
    return np.stack([across, np.array([0, 0, -1.0])]), first[np.newaxis]
