"""The files of a labelled folder, opened safely: none outside of it, whatever a name, link or header says."""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import HiResMedSynthError, ReadError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import PICTURE_MAGIC, read_image
from HiResMedSynthLib.read_bounds import nrrd_line_too_long
from HiResMedSynthLib.read_dicom import looks_like_dicom
from HiResMedSynthLib.read_volume import header_text
from HiResMedSynthLib.synthetic_words import told_by_text

MOST_VOXELS = 2**30
NO_VOLUME = "it can't be read: it is damaged or cut off, in colour, or too large"
MOST_FILES = 500_000
LARGEST_TEXT = 16 * 2**20  # bytes of a list of classes, patients or boxes
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".jp2", ".j2k", ".dcm", ".dicom")
VOLUME_SUFFIXES = (".nrrd", ".nii", ".nii.gz")
MEND = "Mend the file, or save the annotations again where they were made."


def bad(what: str, where: str, remedy: str = MEND) -> ReadError:
    """An error about a file of the folder, named as it lies in it."""
    return ReadError(what, where=where, remedy=remedy)


def sound(condition: bool, what: str, where: str, remedy: str = MEND) -> None:
    """Raises ReadError about a file of the folder where a condition doesn't hold."""
    if not condition:
        raise bad(what, where, remedy)


def file_names(folder: Path) -> list[str]:
    """Names of all files of a folder of any depth, relative, with /, sorted; hidden ones are left out.

    Raises:
        ReadError: there is no such folder, it holds too many files, or a sub-folder is a link.
    """
    sound(folder.is_dir(), "there is no such folder", folder.name, "Check the path.")
    found: list[str] = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            link = (here / name).relative_to(folder).as_posix()
            sound(not (here / name).is_symlink(), "this folder is a link: links to folders are not followed", link,
                  "Copy the files themselves into the folder.")  # fmt: skip
        found += [(here / name).relative_to(folder).as_posix() for name in files if not name.startswith(".")]
        sound(len(found) <= MOST_FILES, f"it holds more than {MOST_FILES} files", folder.name, "Split the folder.")
    return sorted(found)


def stem_of(name: str) -> str:
    """The name without the suffix of its kind: .nii.gz counts as one."""
    path = PurePosixPath(name)
    longer = path.name.lower().endswith(".nii.gz")
    return (path.with_name(path.name[: -len(".nii.gz")]) if longer else path.with_suffix("")).as_posix()


def is_image_name(name: str) -> bool:
    """Whether a file's suffix is that of a picture or volume."""
    return name.lower().endswith((*PICTURE_SUFFIXES, *VOLUME_SUFFIXES))


def inside(folder: Path, name: str, below: Sequence[str] = ("",)) -> Path:
    """The file of that name in the folder; refuses names and links that lead out of it."""
    parts = PurePosixPath(name).parts
    plain = bool(parts) and not any(part in ("..", "/", "//") or set(part) & set("\\:\0") for part in parts)
    sound(plain, "a file's name leads out of the folder", name[:80])
    try:
        root = folder.resolve()
        for found in (folder / first / name for first in below):
            if found.is_file() and found.resolve().is_relative_to(root):
                return found
    except (OSError, ValueError):
        pass
    raise bad("this file is missing, or is a link that leads out of the folder", name[:80])


def text_of(folder: Path, name: str) -> str:
    """The text of a file, UTF-8.

    Raises:
        ReadError: it leads out of the folder, is too large, or is no text.
    """
    path = inside(folder, name)
    try:
        sound(path.stat().st_size <= LARGEST_TEXT, "it is too large for a list", name, "Give one file an image.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise bad("it can't be read as text (UTF-8)", name, "Save it anew as plain text, UTF-8.") from error


def picture_of(folder: Path, name: str, below: Sequence[str] = ("",)) -> MedicalImage:
    """One picture: by its content a PNG, JPEG, TIFF or DICOM file, which name no further file."""
    path = inside(folder, name, below)
    try:
        head = _head(path)
        kind = head.startswith(PICTURE_MAGIC) or looks_like_dicom(head)
        sound(kind, "it is no PNG, JPEG, TIFF or DICOM file", name)
        image = read_image(path)
    except (HiResMedSynthError, OSError) as error:
        raise _as_ours(error, name) from error
    return image


def image_of(folder: Path, name: str) -> MedicalImage:
    """A picture, or a volume whose voxels lie in the file itself: NRRD, NIfTI.

    Raises:
        ReadError: it leads out of the folder, is damaged, too large, or of another kind.
    """
    if not name.lower().endswith(VOLUME_SUFFIXES):
        return picture_of(folder, name)
    path = inside(folder, name)
    try:
        _refuse_foreign_volume(path, name)
        return read_image(path)
    except (HiResMedSynthError, OSError, EOFError) as error:
        raise _as_ours(error, name) from error


def nrrd_of(folder: Path, name: str) -> tuple[NDArray[Any], list[str]]:
    """(array, oddities by its text) of an NRRD file; one whose header names another file is refused."""
    import SimpleITK as sitk

    path = inside(folder, name)
    _refuse_detached(path, name)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        usual = reader.GetDimension() == 3 and reader.GetNumberOfComponents() == 1
        sound(usual and math.prod(reader.GetSize()) <= MOST_VOXELS, NO_VOLUME, name)
        return np.asarray(sitk.GetArrayFromImage(reader.Execute())), told_by_text(header_text(reader))
    except RuntimeError as error:  # its text names paths
        raise bad(NO_VOLUME, name) from error


def labels_of(folder: Path, name: str) -> tuple[NDArray[np.uint8], MedicalImage | None]:
    """(uint8 `[slice, row, column]` class numbers, the mask with its geometry or None for a picture).

    Raises:
        ReadError: in colour, numbers that are not whole or above 255, damaged, or out of the folder.
    """
    volume = image_of(folder, name) if name.lower().endswith(VOLUME_SUFFIXES) else None
    stored = _label_picture(folder, name)[np.newaxis] if volume is None else volume.pixels
    if stored.dtype.kind == "f" and not bool((stored == np.round(stored)).all()):
        raise bad("its values are not whole numbers: it was interpolated", name, "Resample masks by nearest neighbour.")
    low, high = float(stored.min()), float(stored.max())
    sound(low >= 0 and high <= 255, f"its class numbers go from {low:g} to {high:g}", name, "Use 0 to 255.")
    return stored.astype(np.uint8), volume


def _label_picture(folder: Path, name: str) -> NDArray[Any]:
    """`[row, column]` class numbers of a picture: grey values, or the indices of a palette."""
    from PIL import Image

    path = inside(folder, name)
    try:
        head = _head(path)
        known = head.startswith(PICTURE_MAGIC) and not looks_like_dicom(head)
        sound(known, "a mask is a PNG, TIFF, NRRD or NIfTI file", name, "Save it as one of these.")
        lossy = head.startswith((b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  "))
        sound(not lossy, "a JPEG changes class numbers", name, "Save the mask as PNG.")
        with Image.open(path) as picture:
            if picture.mode == "P":
                sound(picture.width * picture.height <= MOST_VOXELS // 8, "the picture is too large", name)
                return np.asarray(picture)
            one_bit = picture.mode == "1"
        pixels: NDArray[Any] = read_image(path).pixels[0]
    except HiResMedSynthError as error:
        colour = "colour" in error.what
        remedy = "Save class numbers (0, 1, 2 ...) as 8-bit grey." if colour else error.remedy
        raise bad(error.what, name, remedy) from error
    except Exception as error:  # Pillow's decoders raise whatever they meet in a damaged file
        raise bad("the picture is damaged or cut off", name, "Copy it anew from its source.") from error
    return np.asarray(pixels > 0) if one_bit else pixels


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(4096)


def _as_ours(error: Exception, name: str) -> ReadError:
    """The same told of the file as it lies in the folder: no path of the machine gets into a message."""
    if isinstance(error, HiResMedSynthError):
        return bad(error.what, name, error.remedy)
    return bad("it can't be read", name)


def _refuse_detached(path: Path, name: str) -> None:
    with path.open("rb") as stream:
        header = b""
        while (line := stream.readline(4096)).rstrip(b"\r\n") and len(header) < 65536:
            header += line
    attached = header.startswith(b"NRRD") and len(header) < 65536 and not re.search(rb"data\s*file", header, re.I)
    sound(attached, "it is no NRRD file with its voxels inside", name)
    sound(not nrrd_line_too_long(path), "its header is damaged: a line is too long", name)


def _refuse_foreign_volume(path: Path, name: str) -> None:
    """Refuses a volume whose content is not what its suffix says, whose voxels lie elsewhere, or are too many."""
    import SimpleITK as sitk

    nrrd = name.lower().endswith(".nrrd")
    if nrrd:
        _refuse_detached(path, name)
    else:
        try:
            with gzip.open(path) if name.lower().endswith(".gz") else path.open("rb") as stream:
                magic = stream.read(352)
        except (OSError, EOFError, zlib.error) as error:
            raise bad("it is no NIfTI file, or is cut off", name, "Copy it anew from its source.") from error
        told = magic[344:347] == b"n+1" or magic[4:7] == b"n+2"  # "ni1" would take its voxels from a second file
        sound(told, "it is no NIfTI file with its voxels inside", name, "Save it as .nii.gz.")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if nrrd else "NiftiImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise bad("its header is damaged", name, "Copy it anew from its source.") from error
    sound(math.prod(reader.GetSize()) <= MOST_VOXELS, "it has too many voxels", name, "Give a smaller volume.")
