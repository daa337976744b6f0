"""MedicalImage: pixels in modality units with their geometry, spacing, window and modality; frozen.

One class for a radiograph, a CT slice and a CT volume: pixels are always `[slice, row, column]`, a single image has
one slice. Every slice keeps its own position, so tilted, unevenly spaced and left-handed stacks are told as they are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import GeometryError

PIXEL_TYPES = ("uint8", "uint16", "int16", "int32", "float32")
TILT_TOLERANCE_DEGREES = 0.5
NOT_PERPENDICULAR = 5e-5  # what six digits of ImageOrientationPatient explain; validators refuse more
GAP_TOLERANCE = 0.02  # relative to the median gap; DICOM writes positions rounded to 1e-2..1e-3 mm

ORIENTATION_UNKNOWN = "how the volume lies in the patient is unknown"  # among `MedicalImage.oddities`

SpacingSource = Literal["header", "assumed", "unknown"]
PixelBox = tuple[int, int, int, int]  # first row, first column, end row, end column; the ends exclusive
Photometric = Literal["MONOCHROME1", "MONOCHROME2"]


@dataclass(frozen=True, kw_only=True)
class Window:
    """Display window in modality units (DICOM PS3.3 C.11.2.1.2)."""

    center: float
    width: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.center) and math.isfinite(self.width) and self.width > 0):
            raise GeometryError(
                f"a window of centre {self.center} and width {self.width} can't be displayed",
                remedy="Give a finite centre and a width above zero.",
            )

    @classmethod
    def spanning(cls, pixels: NDArray[Any]) -> Window:
        """The window from the 1st to the 99th percentile of some pixels."""
        low, high = np.percentile(pixels, [1, 99])
        return cls(center=float(low + high) / 2, width=float(high - low) or 1.0)

    def to_unit(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Pixels mapped linearly so that the window spans 0..1, clipped; float32, same shape."""
        low = self.center - self.width / 2
        scaled = (pixels.astype(np.float32) - np.float32(low)) / np.float32(self.width)
        return np.asarray(np.clip(scaled, 0.0, 1.0))


LUNG_WINDOW = Window(center=-600.0, width=1500.0)  # as CTs are read
SOFT_TISSUE_WINDOW = Window(center=40.0, width=400.0)
LUNG_HU, LUNG_SHARE = (-950.0, -600.0), 0.1  # of the voxels: then a CT without a window is shown in that of lung


@dataclass(frozen=True, kw_only=True)
class HeaderFacts:
    """What an export may repeat of the source's header: facts of the acquisition, never of the person.

    Fields are DICOM attributes by keyword; None where the source doesn't say. Code strings only, no free text.
    """

    sop_class_uid: str | None = None
    body_part_examined: str | None = None
    patient_position: str | None = None
    view_position: str | None = None
    patient_orientation: tuple[str, ...] | None = None
    image_laterality: str | None = None
    presentation_intent_type: str | None = None
    burned_in_annotation: str | None = None
    kvp: float | None = None
    gantry_detector_tilt: float | None = None
    imager_pixel_spacing_mm: tuple[float, float] | None = None
    lossy_image_compression: str | None = None
    scanning_sequence: tuple[str, ...] | None = None
    sequence_variant: tuple[str, ...] | None = None
    mr_acquisition_type: str | None = None
    repetition_time_ms: float | None = None
    echo_time_ms: float | None = None
    inversion_time_ms: float | None = None
    echo_train_length: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class MedicalImage:
    """An image in modality units, valid once constructed.

    Args:
        pixels: `[slice, row, column]`, one of `PIXEL_TYPES`; HU for CT, stored values else. Made read-only.
        modality: DICOM modality (CT, MR, DX, CR, OT ...).
        units: "HU" or "stored".
        pixel_spacing_mm: (between rows, between columns), or None when nobody knows.
        spacing_source: "header", "assumed" (given by the user) or "unknown".
        positions_lps_mm: `[slice, 3]`, centre of each slice's first pixel, LPS millimetres. None where spacing is
            unknown or the file has no geometry: slices are then stacked along z by `slice_thickness_mm` (1 if None).
        directions_lps: `[2, 3]`, unit vectors of growing column index and growing row index (DICOM ImageOrientation).
        slice_thickness_mm: as the header tells; None if it doesn't.
        photometric: MONOCHROME1 shows low values bright.
        rescale: (slope, intercept) that turned stored values into modality units.
        bits_stored: depth of the stored values; None where it is the depth of the pixel type.
        stored_signed: whether stored values are two's complement (DICOM PixelRepresentation 1).
        padding_value: value outside the field of view, in modality units; None if there is none.
        window: how to show it; None if the source doesn't say.
        facts: identity-free header facts.
        blanked: boxes that were blanked in every slice, as text was burned in there.
        oddities: what was unusual in the input, one sentence each, for `inspect`, the panel and case.json.

    Raises:
        GeometryError: a shape, type, spacing or geometry that can't be.
    """

    pixels: NDArray[Any]
    modality: str
    units: Literal["HU", "stored"] = "stored"
    pixel_spacing_mm: tuple[float, float] | None = None
    spacing_source: SpacingSource = "unknown"
    positions_lps_mm: NDArray[np.float64] | None = None
    directions_lps: NDArray[np.float64] = field(default_factory=lambda: np.eye(3)[:2])
    slice_thickness_mm: float | None = None
    photometric: Photometric = "MONOCHROME2"
    rescale: tuple[float, float] = (1.0, 0.0)
    bits_stored: int | None = None
    stored_signed: bool = False
    padding_value: float | None = None
    window: Window | None = None
    facts: HeaderFacts = field(default_factory=HeaderFacts)
    blanked: tuple[PixelBox, ...] = ()
    oddities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pixels = np.asarray(self.pixels)
        if pixels.ndim == 2:
            pixels = pixels[np.newaxis]
        self._refuse_unless(pixels.ndim == 3 and pixels.size > 0, f"pixels of shape {pixels.shape} are no image")
        self._refuse_unless(pixels.dtype.name in PIXEL_TYPES, f"pixels of type {pixels.dtype} are not supported")
        if pixels.dtype.kind == "f":
            self._refuse_unless(bool(np.isfinite(pixels).all()), "the pixels contain NaN or infinite values")
        directions = np.array(self.directions_lps, dtype=np.float64)
        self._refuse_unless(directions.shape == (2, 3), "directions_lps must be two vectors of three")
        gram = directions @ directions.T
        self._refuse_unless(
            bool(np.allclose(gram, np.eye(2), atol=1e-3)),
            "the row and column directions are not perpendicular unit vectors",
        )
        if self.pixel_spacing_mm is None:
            self._refuse_unless(self.spacing_source == "unknown", "spacing_source must be 'unknown' without a spacing")
        else:
            self._refuse_unless(self.spacing_source != "unknown", "spacing_source must say where the spacing is from")
            ok = len(self.pixel_spacing_mm) == 2 and all(math.isfinite(s) and s > 0 for s in self.pixel_spacing_mm)
            self._refuse_unless(ok, f"a pixel spacing of {self.pixel_spacing_mm} mm can't be")
        thickness = self.slice_thickness_mm
        self._refuse_unless(
            thickness is None or (math.isfinite(thickness) and thickness > 0),
            f"a slice thickness of {thickness} mm can't be",
        )
        if self.positions_lps_mm is None:
            step = np.cross(directions[0], directions[1]) * (thickness or 1.0)
            positions = np.arange(len(pixels), dtype=np.float64)[:, np.newaxis] * step
        else:
            positions = np.array(self.positions_lps_mm, dtype=np.float64)
            self._refuse_unless(positions.shape == (len(pixels), 3), "positions_lps_mm must hold one point a slice")
            self._refuse_unless(bool(np.isfinite(positions).all()), "a slice position is not finite")
        pixels = pixels.view()
        for array in (pixels, directions, positions):
            array.flags.writeable = False
        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "directions_lps", directions)
        object.__setattr__(self, "positions_lps_mm", positions)
        object.__setattr__(self, "oddities", tuple(self.oddities))

    @staticmethod
    def _refuse_unless(condition: bool, what: str) -> None:
        if not condition:
            raise GeometryError(what, remedy="Check the file with 'hiresmedsynth inspect', or convert it anew.")

    # -- size ------------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        slices, rows, columns = self.pixels.shape
        return slices, rows, columns

    @property
    def slices(self) -> int:
        """Number of slices."""
        return self.shape[0]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.shape[1]

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.shape[2]

    # -- geometry --------------------------------------------------------------------------------------------------
    @property
    def normal_lps(self) -> NDArray[np.float64]:
        """Unit vector perpendicular to the slices: row direction x column direction."""
        return np.cross(self.directions_lps[0], self.directions_lps[1])

    @cached_property
    def orthonormal_directions_lps(self) -> NDArray[np.float64]:
        """`directions_lps`; where a coarsely rounded header made them oblique, the nearest orthonormal pair."""
        given = self.directions_lps
        if np.abs(given @ given.T - np.eye(2)).max() <= NOT_PERPENDICULAR:
            return given
        left, _, right = np.linalg.svd(given, full_matrices=False)
        return np.asarray(left @ right)

    @cached_property
    def slice_steps_mm(self) -> NDArray[np.float64]:
        """`[slice - 1]` signed distances between neighbouring slices along the normal, millimetres."""
        assert self.positions_lps_mm is not None
        return np.diff(self.positions_lps_mm @ self.normal_lps)

    @property
    def slice_spacing_mm(self) -> float:
        """Median distance between slices; for one slice its thickness (1.0 where unknown)."""
        if self.slices == 1:
            return self.slice_thickness_mm or 1.0
        return float(np.median(np.abs(self.slice_steps_mm)))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(slice, row, column) spacing in millimetres.

        Raises:
            GeometryError: the pixel spacing is unknown.
        """
        if self.pixel_spacing_mm is None:
            raise GeometryError(
                "the pixel spacing of this image is unknown, so no size in mm can be drawn into it",
                remedy="Give it in mm: --spacing-mm ROW[,COLUMN], or the field Pixel spacing in Slicer.",
            )
        return (self.slice_spacing_mm, *self.pixel_spacing_mm)

    @cached_property
    def volume_problem(self) -> str | None:
        """Why the stack is no regular volume (tilt, uneven or repeated slices), or None where it is one."""
        if self.slices == 1:
            return None
        assert self.positions_lps_mm is not None
        steps = np.abs(self.slice_steps_mm)
        median = float(np.median(steps))
        if median <= 0 or bool((steps <= 1e-4).any()):
            return "two slices stand at the same position"
        if np.ptp(np.sign(self.slice_steps_mm)) != 0:
            return "the slices are not in order"
        largest = float(steps.max())
        if largest > median * (1 + GAP_TOLERANCE) + 0.01 or float(steps.min()) < median * (1 - GAP_TOLERANCE) - 0.01:
            return f"the slices are unevenly spaced ({steps.min():.2f} to {largest:.2f} mm)"
        travel = self.positions_lps_mm[-1] - self.positions_lps_mm[0]
        cosine = min(1.0, abs(float(travel @ self.normal_lps)) / float(np.linalg.norm(travel)))
        tilt = math.degrees(math.acos(cosine))
        if tilt > TILT_TOLERANCE_DEGREES:
            return f"the stack is sheared by {tilt:.1f} degrees (gantry tilt)"
        return None

    def index_to_lps(self, points: Sequence[Sequence[float]] | NDArray[Any]) -> NDArray[np.float64]:
        """LPS millimetres `[n, 3]` of (slice, row, column) indices `[n, 3]`; slices are interpolated linearly."""
        index = np.atleast_2d(np.asarray(points, dtype=np.float64))
        spacing = self.pixel_spacing_mm or (1.0, 1.0)
        assert self.positions_lps_mm is not None
        knots = np.arange(self.slices, dtype=np.float64)
        base = np.stack([np.interp(index[:, 0], knots, self.positions_lps_mm[:, axis]) for axis in range(3)], axis=1)
        if self.slices == 1:
            base = base + (index[:, :1] * self.slice_spacing_mm) * self.normal_lps
        in_plane = (
            index[:, 2:3] * spacing[1] * self.directions_lps[0] + index[:, 1:2] * spacing[0] * self.directions_lps[1]
        )
        return np.asarray(base + in_plane)

    def lps_to_index(self, points_lps_mm: Sequence[Sequence[float]] | NDArray[Any]) -> NDArray[np.float64]:
        """(slice, row, column) indices `[n, 3]`, fractional, of LPS points `[n, 3]` in millimetres."""
        points = np.atleast_2d(np.asarray(points_lps_mm, dtype=np.float64))
        spacing = self.pixel_spacing_mm or (1.0, 1.0)
        assert self.positions_lps_mm is not None
        heights = self.positions_lps_mm @ self.normal_lps
        height = points @ self.normal_lps
        if self.slices == 1:
            slice_index = (height - heights[0]) / self.slice_spacing_mm
        else:
            order = np.argsort(heights)
            slice_index = np.interp(height, heights[order], order.astype(np.float64))
        knots = np.arange(self.slices, dtype=np.float64)
        base = np.stack([np.interp(slice_index, knots, self.positions_lps_mm[:, axis]) for axis in range(3)], axis=1)
        column = (points - base) @ self.directions_lps[0] / spacing[1]
        row = (points - base) @ self.directions_lps[1] / spacing[0]
        return np.stack([slice_index, row, column], axis=1)

    # -- content ---------------------------------------------------------------------------------------------------
    @property
    def bright_is_dense(self) -> bool:
        """True where larger values are drawn brighter (MONOCHROME2)."""
        return self.photometric == "MONOCHROME2"

    @property
    def value_limits(self) -> tuple[float, float]:
        """Smallest and largest value, in modality units, that can be stored again at the source's depth."""
        if self.bits_stored is None:
            info = np.finfo(np.float32) if self.pixels.dtype.kind == "f" else np.iinfo(self.pixels.dtype)
            return float(info.min), float(info.max)
        slope, intercept = self.rescale
        bits = self.bits_stored
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if self.stored_signed else (0, 2**bits - 1)
        ends = sorted((low * slope + intercept, high * slope + intercept))
        if self.pixels.dtype.kind != "f":
            ends = [max(ends[0], np.iinfo(self.pixels.dtype).min), min(ends[1], np.iinfo(self.pixels.dtype).max)]
        return float(ends[0]), float(ends[1])

    def storable(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values (modality units) as this image can store them: in range, on its steps (half up), in its pixel type."""
        low, high = self.value_limits
        values = np.clip(values, low, high)
        if self.pixels.dtype.kind != "f":
            whole = values if values.dtype.kind == "i" else np.floor(values + 0.5)
            return whole.astype(self.pixels.dtype)
        if self.bits_stored is not None:
            slope, intercept = self.rescale
            values = np.floor((values - intercept) / slope + 0.5) * np.float64(slope) + intercept
        return values.astype(self.pixels.dtype)

    @cached_property
    def pixel_sha256(self) -> str:
        """Hash of type, shape and pixel bytes (little endian): names this picture, whatever file it came from."""
        digest = hashlib.sha256(f"{self.pixels.dtype.name} {self.shape}".encode())
        digest.update(np.ascontiguousarray(self.pixels, dtype=self.pixels.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    def display_window(self) -> Window:
        """The stored window; else that of lung or soft tissue for a CT, and of others the 1st to 99th percentile."""
        if self.window is not None:
            return self.window
        step = max(1, self.pixels.size // 2_000_000)
        some = self.pixels.reshape(-1)[::step]
        if self.units != "HU":
            return Window.spanning(some)
        low, high = LUNG_HU
        return LUNG_WINDOW if np.mean((some > low) & (some < high)) > LUNG_SHARE else SOFT_TISSUE_WINDOW

    def shown(self, values: NDArray[Any], window: Window | None = None) -> NDArray[np.float32]:
        """`pixels` or a part in a window (None: `display_window()`), 0..1, bright = dense; float32, same shape."""
        unit = (window or self.display_window()).to_unit(values)
        return unit if self.bright_is_dense else 1 - unit

    def with_pixels(self, pixels: NDArray[Any]) -> MedicalImage:
        """The same image with other pixels of the same shape and type.

        Raises:
            GeometryError: shape or type differ.
        """
        self._refuse_unless(
            pixels.shape == self.pixels.shape and pixels.dtype == self.pixels.dtype,
            f"pixels {pixels.shape} {pixels.dtype} don't fit an image {self.pixels.shape} {self.pixels.dtype}",
        )
        return replace(self, pixels=pixels)

    def single_slice(self, index: int) -> MedicalImage:
        """Slice `index` as an image of its own, geometry kept.

        Raises:
            GeometryError: there is no such slice.
        """
        self._refuse_unless(0 <= index < self.slices, f"slice {index} is not in 0..{self.slices - 1}")
        assert self.positions_lps_mm is not None
        return replace(
            self,
            pixels=self.pixels[index : index + 1],
            positions_lps_mm=self.positions_lps_mm[index : index + 1],
            slice_thickness_mm=self.slice_thickness_mm or self.slice_spacing_mm,
        )
