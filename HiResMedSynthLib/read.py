"""read_image(path) -> MedicalImage: one call for DICOM, NIfTI, NRRD, MHA, PNG, TIFF, JPEG and JPEG 2000.

Files are recognised by their content. What was odd is reported in `MedicalImage.oddities`, never silently repaired.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.image import MedicalImage, PixelBox
from HiResMedSynthLib.read_blanked import with_blanked_boxes
from HiResMedSynthLib.read_quietly import without_warnings

PICTURE_MAGIC = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"II*\x00",
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
    b"\x00\x00\x00\x0cjP  ",
    b"\xff\x4f\xff\x51",
)
ARCHIVE_MAGIC = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!")
MOST_FOLDERS = 1000  # that are looked into, to name the one that was meant
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr")


def read_image(
    path: str | Path,
    *,
    spacing_mm: tuple[float, float] | None = None,
    series: str | None = None,
    slice_index: int | None = None,
    blank: Sequence[PixelBox] = (),
) -> MedicalImage:
    """The image in a file or in a folder that holds one DICOM series.

    Args:
        path: file, or folder of DICOM files.
        spacing_mm: (between rows, between columns); replaces what the file says, and is then called "assumed".
        series: which series of a folder with several: its number in the listing, or its UID.
        slice_index: read only this slice, counted along the slice normal as in the whole image, from 0.
        blank: boxes to blank, since text is burned in there (`read_blanked`).

    Raises:
        ReadError: it can't be read; the message names the file, the reason and the way out.
        GeometryError: what it says of itself can't be (a spacing of zero, NaN pixels).
        SettingsError: a box that doesn't lie in the image.
    """
    path = Path(path)
    if spacing_mm is not None and not all(0 < s < 1000 for s in spacing_mm):
        raise ReadError(
            f"a spacing of {spacing_mm[0]:g} x {spacing_mm[1]:g} mm can't be",
            remedy="Give --spacing-mm ROW[,COLUMN], both above zero.",
        )
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not exists:
        raise ReadError("there is no such file or folder", where=path, remedy="Check the path.")
    try:
        with without_warnings():  # what matters of them is told as an oddity
            if is_folder:
                image = _read_folder(path, spacing_mm, series, slice_index)
            else:
                image = _read_file(path, spacing_mm, slice_index)
    except OSError as error:
        raise _unreadable(path, error) from error
    if spacing_mm is not None:
        image = with_assumed_spacing(image, spacing_mm)
    return with_blanked_boxes(image, blank)


def _read_folder(
    path: Path, spacing_mm: tuple[float, float] | None, series: str | None, slice_index: int | None
) -> MedicalImage:
    from HiResMedSynthLib.read_dicom import read_dicom_files

    files = [p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".") and p.name != "DICOMDIR"]
    if not any(_is_dicom(p) for p in files):  # an export that keeps one series a sub-folder
        folders = [p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")]
        files += [
            p for folder in folders for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")
        ]
        if not any(_is_dicom(p) for p in files) and (deeper := _deeper(path)):
            raise ReadError(
                "its images lie deeper than one folder below, as on a patient's CD",
                where=path,
                remedy=f"Name the folder of one series, such as {deeper}.",
            )
    if not files:
        raise ReadError("the folder is empty", where=path, remedy="Name a folder that holds one DICOM series.")
    return read_dicom_files(files, where=path, spacing_mm=spacing_mm, series=series, slice_index=slice_index)


def _deeper(path: Path) -> Path | None:
    """The first folder below that begins with a DICOM file; None if none of those looked into does."""
    for at, folders, names in itertools.islice(os.walk(path), MOST_FOLDERS):
        folders.sort()
        first = next((Path(at, name) for name in sorted(names) if name != "DICOMDIR" and name[0] != "."), None)
        with suppress(OSError):  # another folder may be readable
            if first is not None and first.is_file() and _is_dicom(first):
                return Path(at)
    return None


def _is_dicom(path: Path) -> bool:
    from HiResMedSynthLib.read_dicom import looks_like_dicom

    with path.open("rb") as stream:
        return looks_like_dicom(stream.read(132))


def _read_file(path: Path, spacing_mm: tuple[float, float] | None, slice_index: int | None) -> MedicalImage:
    from HiResMedSynthLib.read_dicom import looks_like_dicom, read_dicom_files
    from HiResMedSynthLib.read_picture import read_picture
    from HiResMedSynthLib.read_volume import read_volume

    with path.open("rb") as stream:
        head = stream.read(4096)
    if not head:
        raise ReadError("the file is empty", where=path, remedy="Copy it anew from its source.")
    dicom = looks_like_dicom(head)
    if head.startswith(PICTURE_MAGIC) and not dicom:  # DICOM may carry a TIFF header in its preamble
        return _whole(read_picture(path), slice_index)
    if not dicom and (head.startswith((b"NRRD", b"ObjectType")) or path.name.lower().endswith(VOLUME_SUFFIXES)):
        return read_volume(path, slice_index=slice_index)
    if dicom:
        return read_dicom_files([path], where=path, spacing_mm=spacing_mm, series=None, slice_index=slice_index)
    if head.startswith(ARCHIVE_MAGIC):
        raise ReadError(
            "this is a packed archive", where=path, remedy="Name the folder of one series, once it is unpacked."
        )
    raise ReadError(
        "this is not a medical image",
        where=path,
        remedy="Give DICOM, NIfTI, NRRD, MHA, PNG, TIFF, JPEG or JPEG 2000.",
    )


def _whole(image: MedicalImage, slice_index: int | None) -> MedicalImage:
    return image if slice_index is None else image.single_slice(slice_index)


OTHER_SPACING = "the pixel spacing given is taken in place of the file's own"


def with_assumed_spacing(image: MedicalImage, spacing_mm: tuple[float, float]) -> MedicalImage:
    """The image with the pixel spacing that a user gave; a note where the file says otherwise."""
    oddities = image.oddities
    if image.pixel_spacing_mm is not None and image.pixel_spacing_mm != spacing_mm:
        old = image.pixel_spacing_mm
        oddities = (*oddities, f"{OTHER_SPACING}: the file says {old[0]:g} x {old[1]:g} mm")
    return replace(image, pixel_spacing_mm=spacing_mm, spacing_source="assumed", oddities=oddities)


def _unreadable(path: Path, error: OSError) -> ReadError:
    return ReadError(
        f"it can't be read ({error.strerror or os.strerror(error.errno or 5)})",
        where=path,
        remedy="Check that the file is whole and that you may read it.",
    )
