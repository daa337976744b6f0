"""NIfTI, NRRD and MHA -> MedicalImage, by SimpleITK."""

from __future__ import annotations

import contextlib
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.image import ORIENTATION_UNKNOWN, PIXEL_TYPES, MedicalImage
from HiResMedSynthLib.read_bounds import breaks_itk
from HiResMedSynthLib.synthetic_words import told_by_text

LARGEST_VOXELS = 2**31
AIR_HU = -500  # a signed volume that reaches below this is taken for CT


def read_volume(path: Path, *, slice_index: int | None = None) -> MedicalImage:
    """The volume or slice; spacing and orientation from the header, values as stored.

    Raises:
        ReadError: damaged, in colour, of more than three dimensions, NaN, or no such slice.
    """
    import SimpleITK as sitk

    if breaks_itk(path):
        raise ReadError("its header is damaged", where=path, remedy="Save the volume anew where it was made.")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        if (kind := _kind_of(path)) is not None:
            reader.SetImageIO(kind)
        reader.ReadImageInformation()
        size = list(reader.GetSize())
        _refuse_unusual(path, size, reader.GetNumberOfComponents())
        start = [0] * len(size)
        backwards = _runs_backwards(reader)
        if slice_index is not None:
            slices = size[2] if len(size) > 2 else 1
            if not 0 <= slice_index < slices:
                raise ReadError(
                    f"slice {slice_index} is not in 0..{slices - 1}", where=path, remedy="Name one of these."
                )
            if len(size) > 2:
                start[2] = size[2] - 1 - slice_index if backwards else slice_index
                size[2] = 1
        reader.SetExtractIndex(start)
        reader.SetExtractSize([s if k < 3 else 1 for k, s in enumerate(size)])
        volume = reader.Execute()
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    oddities = told_by_text(header_text(reader))
    pixels = sitk.GetArrayFromImage(volume)
    pixels = _supported(pixels.reshape(pixels.shape[-3:]) if pixels.ndim > 3 else pixels, path, oddities)
    spacing = [abs(s) for s in volume.GetSpacing()] + [1.0]
    if not all(np.isfinite(spacing)) or min(spacing) <= 0:
        raise ReadError(f"its spacing is {spacing[:3]} mm", where=path, remedy="Mend its header, or convert it anew.")
    positions, directions = _geometry(volume, pixels.reshape((-1, *pixels.shape[-2:])).shape[0])
    if backwards:  # slices ascend along their normal, as those of a DICOM series do
        pixels, positions = pixels[::-1], positions[::-1]
    told = _tells_spacing(path)
    if not told:
        oddities.append("the pixel spacing is unknown")
    lowest = float(pixels.min())
    if slice_index is not None and pixels.dtype.kind in "if" and lowest >= AIR_HU:
        extremes = sitk.MinimumMaximumImageFilter()  # judged as the whole volume is
        reader.SetExtractIndex([0] * reader.GetDimension())
        reader.SetExtractSize(reader.GetSize())
        try:
            extremes.Execute(reader.Execute())
        except RuntimeError as error:
            raise _unreadable(path, error) from error
        lowest = float(extremes.GetMinimum())
    is_ct = pixels.dtype.kind in "if" and lowest < AIR_HU
    if is_ct:
        oddities.append("taken for CT in Hounsfield units, since values reach below -500; the file doesn't say")
    if is_ct and not _tells_orientation(path, reader):
        oddities.append(ORIENTATION_UNKNOWN)
    return MedicalImage(
        pixels=pixels,
        modality="CT" if is_ct else "OT",
        units="HU" if is_ct else "stored",
        pixel_spacing_mm=(spacing[1], spacing[0]) if told else None,
        spacing_source="header" if told else "unknown",
        positions_lps_mm=positions,
        directions_lps=directions,
        slice_thickness_mm=spacing[2] if told and len(volume.GetSpacing()) > 2 else None,
        oddities=tuple(oddities),
    )


def _unreadable(path: Path, error: RuntimeError) -> ReadError:
    text = "its header tells of more than the memory holds" if "bad_alloc" in str(error) else str(error)
    reason = re.split("!|sitk::ERROR:", text)[-1].strip().splitlines()
    return ReadError(
        f"the volume can't be read ({reason[0] if reason else 'damaged header'})",
        where=path,
        remedy="Check that the file is whole, with its data file beside it where it has one.",
    )


def _kind_of(path: Path) -> str | None:
    """ITK's reader of a file by its first bytes; None: ITK finds it by the name, which has to be in lower case."""
    with path.open("rb") as stream:
        head = stream.read(10)
    if head.startswith(b"NRRD"):
        return "NrrdImageIO"
    return "MetaImageIO" if head == b"ObjectType" or path.suffix in (".MHA", ".MHD") else None


def header_text(reader: Any) -> str:
    """What the header says besides geometry, joined; what ITK can't give as text is left out."""
    found = []
    for key in reader.GetMetaDataKeys():
        with contextlib.suppress(TypeError):
            found.append(str(reader.GetMetaData(key)))
    return " ".join(found)


def _runs_backwards(reader: Any) -> bool:
    """Whether the slices run against the normal (column direction x row direction) of a left-handed volume."""
    if reader.GetDimension() < 3:
        return False
    matrix = np.array(reader.GetDirection()).reshape(reader.GetDimension(), -1)[:3, :3]
    return bool(np.cross(matrix[:, 0], matrix[:, 1]) @ matrix[:, 2] < 0)


def _refuse_unusual(path: Path, size: list[int], components: int) -> None:
    if components > 1:
        raise ReadError("its voxels are vectors or colours", where=path, remedy="Give one grey channel.")
    if math.prod(size) > LARGEST_VOXELS:
        raise ReadError("its header tells of too many voxels", where=path, remedy="Give a smaller part of the volume.")
    if len(size) > 3 and any(s > 1 for s in size[3:]):
        raise ReadError(f"it has {len(size)} dimensions", where=path, remedy="Give one three-dimensional volume of it.")


def _tells_spacing(path: Path) -> bool:
    """Whether an NRRD or MetaImage header gives a spacing: ITK fills in 1 mm without a word."""
    with path.open("rb") as stream:
        head = stream.read(4096)
    if head.startswith(b"NRRD"):
        return b"space directions:" in head or b"spacings:" in head
    if head.startswith(b"ObjectType"):
        return b"ElementSpacing" in head or b"ElementSize" in head
    return True


def _tells_orientation(path: Path, reader: Any) -> bool:
    """Whether a header says how its axes lie in the patient: ITK fills in a usual way without a word."""
    with path.open("rb") as stream:
        head = stream.read(4096)
    if head.startswith(b"NRRD"):
        return b"\nspace:" in head and b"\nspace directions:" in head
    if b"ElementType" in head:
        return any(word in head for word in (b"TransformMatrix", b"\nRotation", b"\nOrientation"))
    codes = {reader.GetMetaData(key).strip() for key in ("qform_code", "sform_code") if reader.HasMetaDataKey(key)}
    return bool(codes - {"", "0"})


def _geometry(volume: Any, slices: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Position of each slice's first voxel `[slice, 3]` and (row, column) directions `[2, 3]`, LPS."""
    dimension = volume.GetDimension()
    matrix = np.eye(max(dimension, 3))
    matrix[:dimension, :dimension] = np.array(volume.GetDirection()).reshape(dimension, dimension)
    origin = np.zeros(3)
    origin[: min(dimension, 3)] = volume.GetOrigin()[:3]
    step = volume.GetSpacing()[2] if dimension > 2 else 1.0
    positions = origin + np.arange(slices)[:, np.newaxis] * step * matrix[:3, 2]
    return positions, matrix[:3, :2].T.copy()


def _supported(pixels: NDArray[Any], path: Path, oddities: list[str]) -> NDArray[Any]:
    """The pixels in a supported type, losslessly, or refused."""
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            raise ReadError(
                "its pixels contain NaN or infinite values", where=path, remedy="Replace them, for example by -1024."
            )
        if pixels.dtype != np.float32:
            oddities.append(f"values were stored as {pixels.dtype.name} and are held as float32")
        whole = pixels.astype(np.float32)
        if np.abs(whole).max(initial=0) < 32000 and bool((whole == np.round(whole)).all()):
            oddities.append("whole numbers stored as floating point: held as int16")
            return whole.astype(np.int16)
        return whole
    if pixels.dtype.name in PIXEL_TYPES:
        return pixels
    if pixels.dtype == np.int8:
        return pixels.astype(np.int16)
    low, high = int(pixels.min()), int(pixels.max())
    if low >= -(2**31) and high < 2**31:
        oddities.append(f"values were stored as {pixels.dtype.name} and are held as int32")
        return pixels.astype(np.int32)
    raise ReadError(
        f"values of type {pixels.dtype.name} up to {high} are not read", where=path, remedy="Store it as int16."
    )
