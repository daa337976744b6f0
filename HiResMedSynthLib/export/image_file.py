"""One synthetic image as one file: DICOM as a case's series is written, NRRD or 16-bit PNG; whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.errors import ExportError
from HiResMedSynthLib.export.dicom_series import series_datasets
from HiResMedSynthLib.export.patient import SyntheticStudy
from HiResMedSynthLib.export.sop_class import object_kind
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.synthetic_words import SYNTHETIC_TEXT
from HiResMedSynthLib.write_volume import to_simpleitk, write_whole

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydicom import Dataset

FileFormat = Literal["dicom", "nrrd", "png"]
SUFFIXES: dict[str, FileFormat] = {".dcm": "dicom", ".nrrd": "nrrd", ".png": "png"}
MARK = f"{SYNTHETIC_TEXT}, not for diagnosis"


def suffix_of(form: str) -> str:
    """The suffix of files of that format."""
    return next(suffix for suffix, name in SUFFIXES.items() if name == form)


def format_of(path: Path) -> FileFormat:
    """The format that a file name asks for.

    Raises:
        ExportError: another suffix.
    """
    form = SUFFIXES.get(path.suffix.lower())
    if form is None:
        raise ExportError(
            f"'{path.suffix}' is no kind of file that is written", where=path, remedy=f"Use {', '.join(SUFFIXES)}."
        )
    return form


def check_format(image_is_hounsfield: bool, form: str) -> None:
    """Refuses, before any work is done, a format that can't hold the image.

    Raises:
        ExportError: HU in a PNG.
    """
    if image_is_hounsfield and form == "png":
        raise ExportError("a PNG can't hold Hounsfield units", remedy="Choose DICOM or NRRD.")


def write_image_file(
    image: MedicalImage,
    path: Path,
    *,
    how: str,
    sex: str | None = None,
    just_before: Callable[[], None] = lambda: None,
) -> None:
    """Writes an image of one slice, marked as synthetic; an existing file is replaced.

    Args:
        image: what to write.
        path: `.dcm`, `.nrrd` or `.png`.
        how: what it is and by what it was made, one clause, for the header.
        sex: "F" or "M" for a DICOM header, None: empty.
        just_before: called when the file is whole, before it takes its name; where it fails nothing does.

    Raises:
        ExportError: the format can't hold it, or it can't be written; nothing is left behind then.
    """
    form = format_of(path)
    check_format(image.units == "HU", form)
    try:
        with written_aside(path) as aside:
            if form == "dicom":
                dicom_dataset(image, how=how, sex=sex).save_as(aside, enforce_file_format=True)
            elif form == "nrrd":
                _write_nrrd(image, aside, how)
            else:
                _write_png(image, aside, how)
            just_before()
    except OSError as error:
        raise _unwritable(path, error) from error


def dicom_dataset(image: MedicalImage, *, how: str, sex: str | None = None) -> Dataset:
    """The DICOM object: of the class that a case with this background would have, of a new synthetic patient."""
    kind = object_kind(image)
    identity = hashlib.sha256(f"{how} {image.pixel_sha256}".encode()).hexdigest()
    data = next(
        iter(
            series_datasets(
                image,
                kind,
                SyntheticStudy.of_case(identity),
                description="SYNTHETIC background",
                derivation=f"SYNTHETIC: {how}. Research only, not for diagnosis"[:1024],
                series_number=1,
                slices=[0],
            )
        )
    )
    data.PatientSex = sex or ""
    data.ContributingEquipmentSequence[0].ContributionDescription = f"Made by a trained model. {MARK}"
    return data


def _write_nrrd(image: MedicalImage, path: Path, how: str) -> None:
    volume, _ = to_simpleitk(np.asarray(image.pixels), image)
    volume.SetMetaData("SYNTHETIC", f"{how}. {MARK}")
    write_whole(volume, path, useCompression=True)


def _write_png(image: MedicalImage, path: Path, how: str) -> None:
    """Bright is dense in a PNG, which can't say otherwise."""
    from PIL import Image

    pixels: Any = image.pixels[0]
    if pixels.dtype.name not in ("uint8", "uint16"):
        raise ExportError(
            f"a PNG can't hold values of type {pixels.dtype.name}", where=path, remedy="Choose DICOM or NRRD."
        )
    if not image.bright_is_dense:
        low, high = image.value_limits
        pixels = (low + high - pixels).astype(pixels.dtype)
    save_png(Image.fromarray(pixels), path, f"{how}. {MARK}")


def save_png(picture: Image, path: Path, told: str = MARK, *, compress_level: int = 6) -> None:
    """Saves a picture as PNG with a text chunk that says it is synthetic."""
    from PIL.PngImagePlugin import PngInfo

    description = PngInfo()
    description.add_text("Description", told)
    picture.save(path, format="PNG", pnginfo=description, compress_level=compress_level)


def _unwritable(path: Path, error: Exception) -> ExportError:
    reason = getattr(error, "strerror", None) or "the writer failed"
    return ExportError(
        f"the image can't be written ({reason})", where=path, remedy="Choose a disk with space, that you may write."
    )
