"""An image of any size laid on a model's canvas, as its training films were, and what was made of it laid back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.background.domain_values import DomainValues
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.image import MedicalImage

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)
PERCENTILES = (0.5, 99.5)  # of a film: its -1 and 1, as in training
SMALLEST_PX = 32
NO_TISSUE_HU = -1500.0  # nothing in a scan is less dense; what the scanner didn't see may hold -2048 or -3024
CHEST_MM = (150.0, 600.0)  # longer sides of what can be a chest


@dataclass(frozen=True, kw_only=True)
class Placed:
    """An image on a canvas.

    Attributes:
        film: [side, side] in -1..1, what isn't image filled from the nearest pixel.
        inside: [side, side], True where the image is.
        box: (top, left, rows, columns) of the image's rectangle on the canvas.
        spacing_mm: of the canvas' pixels, by the image's own spacing; None where that is unknown.
        low, high: grey values (bright = dense) of -1 and 1.
        notes: what a reader should know, one sentence each.
    """

    film: Pixels
    inside: Mask
    box: tuple[int, int, int, int]
    spacing_mm: float | None
    low: float
    high: float
    notes: tuple[str, ...]


def place(image: MedicalImage, *, values: DomainValues, side: int, spacing_mm: float) -> Placed:
    """The image on a canvas of `side` pixels of `spacing_mm`, in the middle.

    Raises:
        SettingsError: several slices, too small, blank.
    """
    if image.slices > 1:
        raise SettingsError(
            f"the image has {image.slices} slices, the model takes one", remedy="Choose one with --slice NUMBER."
        )
    if min(image.rows, image.columns) < SMALLEST_PX:
        raise SettingsError(
            f"an image of {image.rows} x {image.columns} pixels is too small",
            remedy=f"Give one of {SMALLEST_PX} x {SMALLEST_PX} pixels or more.",
        )
    notes: list[str] = []
    hounsfield = image.units == "HU"
    if hounsfield != values.hounsfield:
        notes.append(f"this is {_kind(image)}, but the model knows {values.shows} only: expect no likeness")
    seen = _turned(seen_pixels(image), image)
    if not seen.any():
        raise SettingsError("the image holds nothing but padding", remedy="Give another image.")
    grey = filled(_turned(_bright_is_dense(image), image), seen)
    rows, columns, scale = _size_on_canvas(image, values, side, spacing_mm, notes)
    laid = resized(grey, rows, columns)
    inside_box = resized(seen.astype(np.float32), rows, columns) > 0.5
    if values.hounsfield and hounsfield:
        low, high = values.low, values.high
        notes.append(f"HU beyond {low:g} to {high:g} are cut off")
    else:
        low, high = (float(value) for value in np.percentile(laid[inside_box], PERCENTILES))
    if not high > low:
        raise SettingsError("the image is blank: all its pixels are alike", remedy="Give another image.")
    unit = np.clip(2 * (laid - low) / (high - low) - 1, -1, 1)
    top, left = (side - rows) // 2, (side - columns) // 2
    border = ((top, side - rows - top), (left, side - columns - left))
    return Placed(
        film=np.pad(unit, border, mode="edge").astype(np.float32),
        inside=np.pad(inside_box, border),
        box=(top, left, rows, columns),
        spacing_mm=None if image.pixel_spacing_mm is None else 1 / scale,
        low=low,
        high=high,
        notes=tuple(notes),
    )


def laid_back(film: Pixels, placed: Placed, image: MedicalImage) -> MedicalImage:
    """What was made on the canvas [side, side] on the image's own grid and grey range; its padding stays."""
    top, left, rows, columns = placed.box
    unit = resized(film[top : top + rows, left : left + columns], image.rows, image.columns).clip(-1, 1)
    grey = _turned((unit + 1) / 2 * (placed.high - placed.low) + placed.low, image)
    stored = image.storable(grey if image.bright_is_dense else -grey)
    return image.with_pixels(np.where(seen_pixels(image), stored, image.pixels[0])[np.newaxis])


def seen_pixels(image: MedicalImage) -> Mask:
    """[row, column], False where the single slice holds padding."""
    plane = image.pixels[0]
    seen: Mask = np.ones(plane.shape, dtype=bool) if image.padding_value is None else plane != image.padding_value
    return seen & (plane > NO_TISSUE_HU) if image.units == "HU" else seen


def filled(film: Pixels, inside: Mask) -> Pixels:
    """The film with each pixel outside replaced by the nearest one inside, so that nothing rings at the border."""
    if inside.all() or not inside.any():
        return film
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return np.asarray(film[tuple(nearest)])


def resized(film: Pixels, rows: int, columns: int) -> Pixels:
    """[rows, columns]: by Lanczos' kernel, which averages where it makes smaller."""
    from PIL import Image

    if film.shape == (rows, columns):
        return film
    picture = Image.fromarray(np.ascontiguousarray(film, dtype=np.float32))
    return np.asarray(picture.resize((columns, rows), Image.Resampling.LANCZOS), dtype=np.float32)


def _size_on_canvas(
    image: MedicalImage, values: DomainValues, side: int, spacing_mm: float, notes: list[str]
) -> tuple[int, int, float]:
    """(rows, columns) on the canvas, at most its side; and canvas pixels per mm, or per pixel of unknown spacing."""
    row_mm, column_mm = image.pixel_spacing_mm or (1.0, 1.0)
    height, width = image.rows * row_mm, image.columns * column_mm
    if values.by_size and image.pixel_spacing_mm is not None:
        scale = 1 / spacing_mm
        if not CHEST_MM[0] <= max(height, width) <= CHEST_MM[1]:
            notes.append(f"the image is {height:.0f} x {width:.0f} mm, which is no whole chest: is its spacing right?")
        if max(height, width) * scale > side + 0.5:
            notes.append(f"the image is larger than the model's {side * spacing_mm:.0f} mm: it was shrunk")
    else:
        scale = side / max(height, width)
        if values.by_size:
            notes.append(f"its pixel spacing is unknown: its longer side was taken for {side * spacing_mm:.0f} mm")
    scale = min(scale, side / max(height, width))
    rows, columns = max(round(height * scale), 1), max(round(width * scale), 1)
    if min(rows, columns) < SMALLEST_PX * side / 1024:
        raise SettingsError(
            f"the image covers {rows} x {columns} of the model's {side} x {side} pixels only",
            remedy="Check its pixel spacing (--spacing-mm), or give a less narrow image.",
        )
    return rows, columns, scale


def _bright_is_dense(image: MedicalImage) -> Pixels:
    plane: Pixels = image.pixels[0].astype(np.float32)
    return plane if image.bright_is_dense else -plane


def _turned(plane: NDArray[T], image: MedicalImage) -> NDArray[T]:
    """A CT slice with its front up and the patient's left on the right; done twice it is as before."""
    if image.units != "HU":
        return plane
    if image.directions_lps[1, 1] < 0:
        plane = plane[::-1]
    return plane[:, ::-1] if image.directions_lps[0, 0] < 0 else plane


def _kind(image: MedicalImage) -> str:
    return "a CT slice" if image.units == "HU" else f"a picture of modality {image.modality}"
