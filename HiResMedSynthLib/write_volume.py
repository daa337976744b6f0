"""An array on an image's voxels -> SimpleITK image with the same geometry, for NIfTI and NRRD files."""

from __future__ import annotations

import errno
import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.synthetic_words import COMPOSED, SYNTHETIC_TEXT

NIFTI_MARK = f"{SYNTHETIC_TEXT}, HiResMedSynth"  # of the 79 characters that `descrip` has


def to_simpleitk(
    array: NDArray[Any], image: MedicalImage, slices: Sequence[int] | None = None
) -> tuple[Any, str | None]:
    """(SimpleITK image, what such a file can't tell of this stack or None).

    Args:
        array: `[slice, row, column]`, the given slices of the image.
        image: whose geometry it has.
        slices: indices of the array's slices in the image; None: all.
    """
    import SimpleITK as sitk

    assert image.positions_lps_mm is not None
    positions = image.positions_lps_mm if slices is None else image.positions_lps_mm[list(slices)]
    row_mm, column_mm = image.pixel_spacing_mm or (1.0, 1.0)
    in_plane = image.orthonormal_directions_lps
    step, slice_mm = np.cross(in_plane[0], in_plane[1]), image.slice_spacing_mm
    note = None
    if len(positions) > 1:
        travel = positions[-1] - positions[0]
        height = float(travel @ step)
        steps = np.diff(positions @ step)
        mean = height / (len(positions) - 1)
        step, slice_mm = (step if height >= 0 else -step), abs(mean) or slice_mm
        if np.abs(steps - mean).max() > 0.02 * slice_mm + 1e-3:
            note = "the slices are not evenly spaced, which NIfTI can't tell: use the DICOM SEG for positions"
        elif float(np.linalg.norm(travel - abs(height) * step)) > 0.5 * min(row_mm, column_mm):
            note = "the stack is sheared, which NIfTI can't tell: use the DICOM SEG for positions"
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing((column_mm, row_mm, slice_mm))
    volume.SetOrigin([float(value) for value in positions[0]])
    volume.SetDirection([float(value) for value in np.column_stack([*in_plane, step]).ravel()])
    return volume, note


def write_nifti(
    array: NDArray[Any],
    image: MedicalImage,
    path: Path,
    slices: Sequence[int] | None = None,
    *,
    composed: bool = False,
) -> str | None:
    """Writes a compressed NIfTI file, marked as synthetic in its `descrip`; returns what it can't tell of this stack.

    Args:
        array: `[slice, row, column]`, the given slices of the image.
        image: whose geometry it has.
        path: ends in .nii.gz.
        slices: indices of the array's slices in the image; None: all.
        composed: whether lesions were composed into it, which `descrip` says too.

    Raises:
        OSError: it can't be written, or the disk is full.
    """
    import SimpleITK as sitk

    volume, note = to_simpleitk(array, image, slices)
    volume.SetMetaData("ITK_FileNotes", f"{COMPOSED}; {NIFTI_MARK}" if composed else NIFTI_MARK)
    try:
        sitk.WriteImage(volume, str(path), useCompression=True, compressionLevel=1)
    except RuntimeError as error:
        raise _reason(path) from error
    if _unpacked_bytes(path) < array.nbytes:  # SimpleITK tells nobody that a disk is full
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return note


def write_whole(volume: Any, path: Path, **options: Any) -> None:
    """Writes a SimpleITK image, and reads it again to see that it is whole.

    Args:
        volume: the image.
        path: its suffix tells the format.
        options: of `SimpleITK.WriteImage`.

    Raises:
        OSError: it can't be written, or the disk is full.
    """
    import SimpleITK as sitk

    try:
        sitk.WriteImage(volume, str(path), **options)
        again = sitk.ReadImage(str(path))  # held while its view is looked at
        views = sitk.GetArrayViewFromImage(again), sitk.GetArrayViewFromImage(volume)
        whole = np.array_equal(*views, equal_nan=True)
    except RuntimeError as error:
        raise _reason(path) from error
    if not whole:  # SimpleITK tells nobody that a disk is full
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reason(path: Path) -> OSError:
    """Why nothing can be written there, which SimpleITK doesn't say."""
    try:
        with path.open("ab") as stream:
            stream.write(bytes(2**16))
    except OSError as error:
        return error
    return OSError(errno.EIO, "the file can't be written")


def _unpacked_bytes(file: Path) -> int:
    """What a compressed file holds; 0 where it is cut off."""
    held = 0
    try:
        with gzip.open(file) as stream:
            while block := stream.read(2**24):
                held += len(block)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return 0
    return held
