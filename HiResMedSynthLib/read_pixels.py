"""Stored pixels of DICOM slices, decoded, and in modality units (HU for CT)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.read_codec import decoded_pixels
from HiResMedSynthLib.read_header import SliceHeader
from HiResMedSynthLib.read_quietly import quietly

PIXEL_DATA = 0x7FE00010


def stored_values(headers: Sequence[SliceHeader]) -> NDArray[Any]:
    """Stored values `[slice, row, column]` of these slices, one file decoded after the other.

    Raises:
        ReadError: cut off, damaged, or in a compression that isn't supported.
    """
    stack: NDArray[Any] | None = None
    opened: tuple[Path, NDArray[Any]] | None = None
    only_frame = headers[0].frame if len(headers) == 1 else None
    for place, header in enumerate(headers):
        native = _native_pixels(header)
        if native is not None and stack is None:
            stack = np.empty((len(headers), *header.shape), dtype=native[1])
        if native is not None and _read_native(header, native, into=stack, place=place):
            continue
        if opened is None or opened[0] != header.path:
            opened = (header.path, _decoded(header, only_frame))
        pixels = opened[1]
        plane = pixels[header.frame] if header.frame is not None and pixels.ndim == 3 else pixels
        if plane.shape != header.shape:
            raise ReadError(
                f"it holds pixels of shape {plane.shape}, its header says {header.shape}",
                where=header.path,
                remedy="Copy the file anew from its source.",
            )
        if stack is None:
            stack = np.empty((len(headers), *plane.shape), dtype=plane.dtype)
        elif plane.dtype != stack.dtype:
            stack = stack.astype(np.promote_types(stack.dtype, plane.dtype))
        stack[place] = plane
    assert stack is not None
    return stack


def _native_pixels(header: SliceHeader) -> tuple[int, np.dtype[Any]] | None:
    """(byte, type) of the pixels of an uncompressed picture that are as its header says; None: pydicom must look.

    Read straight into the stack they take a third of the time.
    """
    from pydicom.filereader import data_element_generator
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    data, plain = header.data, (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
    if header.frame is not None or header.pixels_at is None or data.file_meta.get("TransferSyntaxUID") not in plain:
        return None
    bits, samples, signed = (data.get(name) for name in ("BitsAllocated", "SamplesPerPixel", "PixelRepresentation"))
    if bits not in (8, 16) or samples != 1 or signed not in (0, 1):
        return None
    kind = np.dtype(f"<{'i' if signed else 'u'}{bits // 8}")
    size = kind.itemsize * header.shape[0] * header.shape[1]
    with header.path.open("rb") as stream:
        stream.seek(header.pixels_at)
        try:
            element = next(data_element_generator(stream, *data.original_encoding, defer_size=0), None)
        except Exception:  # whatever its parsing meets in a damaged file; pydicom's own way tells what
            return None
    if element is None or element.tag != PIXEL_DATA or element.length != size + size % 2:
        return None
    return element.value_tell, kind


def _read_native(
    header: SliceHeader, native: tuple[int, np.dtype[Any]], *, into: NDArray[Any] | None, place: int
) -> bool:
    """Reads a picture into its place of the stack; False where it doesn't fit, or the file is cut off or damaged."""
    at, kind = native
    if into is None or into.dtype != kind or into.shape[1:] != header.shape:
        return False
    with header.path.open("rb") as stream:
        stream.seek(at)
        whole = stream.readinto(into[place].data.cast("B")) == into[place].nbytes
    stored = header.data.get("BitsStored")
    if not whole or not isinstance(stored, int) or not 0 < stored <= 8 * kind.itemsize:
        return False
    limits = (-(1 << stored - 1), (1 << stored - 1) - 1) if kind.kind == "i" else (0, (1 << stored) - 1)
    return bool(into[place].min() >= limits[0] and into[place].max() <= limits[1])  # overlays may use the bits above


def _decoded(header: SliceHeader, frame: int | None) -> NDArray[Any]:
    """Pixels of a file: `[row, column]`, or `[frame, row, column]` where it has several and none is named."""

    try:
        with quietly():
            data = _with_pixels(header)
            _name_the_syntax(data)
            return decoded_pixels(data, index=frame, view_only=True)  # copied into the stack anyway
    except OSError:
        raise
    except Exception as error:  # each decoder has its own kinds of failure
        raise _undecodable(header.path, error) from error


def _with_pixels(header: SliceHeader) -> Any:
    """The file's data set; its header, which has been read, isn't parsed again where the pixels' place is known."""
    import pydicom
    from pydicom.filereader import read_dataset

    if header.pixels_at is None:
        return pydicom.dcmread(header.path, force=True)
    implicit, little = header.data.original_encoding
    with header.path.open("rb") as stream:
        stream.seek(header.pixels_at)
        pixels = read_dataset(stream, implicit, little)
    data = pydicom.Dataset({**dict(header.data.items()), **dict(pixels.items())})
    data.set_original_encoding(implicit, little)
    data.file_meta = header.data.file_meta
    return data


def _name_the_syntax(data: Any) -> None:
    """A bare data set names no transfer syntax: it is the uncompressed one in which it was just parsed."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if getattr(data, "file_meta", None) is None:
        data.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in data.file_meta:
        implicit, little = data.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _undecodable(path: Path, error: Exception) -> ReadError:
    import pydicom
    from pydicom.pixels import get_decoder

    again = "Copy the file anew from its source."
    try:
        with quietly():
            data = pydicom.dcmread(path, force=True)
        _name_the_syntax(data)
        syntax = data.file_meta.TransferSyntaxUID
    except Exception:  # whatever its parsing meets in a damaged file
        return ReadError("it is cut off or damaged", where=path, remedy=again)
    if not any(name in data for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        return ReadError("it holds no pixels, it may be cut off", where=path, remedy=again)
    try:
        available = not syntax.is_compressed or get_decoder(syntax).is_available
    except (NotImplementedError, ValueError, AttributeError):  # a private or unknown syntax, or none at all
        available = False
    if not available:
        return ReadError(
            f"its compression is not supported ({getattr(syntax, 'name', 'unknown')})",
            where=path,
            remedy="Convert it to uncompressed DICOM first, for example with gdcmconv --raw.",
        )
    return ReadError(f"its pixels are cut off or damaged ({type(error).__name__})", where=path, remedy=again)


def to_modality_units(
    stored: NDArray[Any], headers: Sequence[SliceHeader], modality: str, oddities: list[str]
) -> tuple[NDArray[Any], tuple[float, float] | None, str]:
    """Pixels in HU (CT) or as stored, the (slope, intercept) between the two (None: no single one), and the unit.

    Rescale type and slope: PS3.3 C.11.1. `oddities` grows by what was unusual. `stored` may be changed in place.

    Raises:
        ReadError: a rescale or values that can't be.
    """
    bad = [h for h in headers if h.slope == 0 or not (math.isfinite(h.slope) and math.isfinite(h.intercept))]
    if bad and modality == "CT":
        raise ReadError(
            f"its rescale (slope {bad[0].slope:g}, intercept {bad[0].intercept:g}) can't be",
            where=bad[0].path,
            remedy="Mend RescaleSlope and RescaleIntercept, or export the series anew.",
        )
    pixels = _in_a_known_type(stored, headers[0].path, oddities)
    rescales = {(header.slope, header.intercept) for header in headers}
    if modality != "CT":
        if rescales != {(1.0, 0.0)}:
            oddities.append("the rescale of this modality was not applied: values are as stored")
        return pixels, (1.0, 0.0), "stored"
    if not all(header.rescale_given for header in headers):
        oddities.append("the header gives no rescale: stored values were taken for Hounsfield units")
    if len(rescales) > 1:
        oddities.append("the rescale differs from slice to slice: held as floating point")
        factors = np.array([(header.slope, header.intercept) for header in headers], dtype=np.float32)
        return pixels * factors[:, :1, np.newaxis] + factors[:, 1:, np.newaxis], None, "HU"
    slope, intercept = headers[0].slope, headers[0].intercept
    low, high = float(pixels.min()) + intercept, float(pixels.max()) + intercept
    whole = pixels.dtype.kind in "iu" and slope == 1.0 and intercept.is_integer()
    if whole and low >= -(2**15) and high < 2**15 and abs(intercept) < 2**15:
        # wraps where a sum would, so that the sum is right again; a view, since a volume's copy takes its time
        hounsfield = pixels.view(np.int16) if pixels.dtype.itemsize == 2 else pixels.astype(np.int16)
        hounsfield += np.int16(intercept)
        return hounsfield, (slope, intercept), "HU"
    if whole and low >= -(2**31) and high < 2**31:
        return pixels.astype(np.int32) + np.int32(intercept), (slope, intercept), "HU"
    return (pixels * np.float64(slope) + intercept).astype(np.float32), (slope, intercept), "HU"


def _in_a_known_type(pixels: NDArray[Any], path: Path, oddities: list[str]) -> NDArray[Any]:
    """The same values in a type that a MedicalImage holds."""
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            raise ReadError("its pixels contain NaN or infinite values", where=path, remedy="Export it anew.")
        if pixels.dtype != np.float32:
            oddities.append(f"values were stored as {pixels.dtype.name} and are held as float32")
        return pixels.astype(np.float32, copy=False)
    if pixels.dtype == np.int8:
        return pixels.astype(np.int16)
    if pixels.dtype == np.uint32:
        if int(pixels.max()) >= 2**31:
            raise ReadError("its values exceed 2,147,483,647", where=path, remedy="Store it with 16 bits a pixel.")
        return pixels.astype(np.int32)
    return pixels
