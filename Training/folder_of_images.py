"""A site's own folder of any depth: which files are DICOM, and what training must know of each beside its pixels.

The library's reader drops the person on purpose. A trainer needs the patient's id, to keep one patient on one side of
the split, and the sex: both are read here, stay beside the prepared images on the site's own disk, and go no further.
"""

from __future__ import annotations

import csv
import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.read_quietly import quietly

TOLD = (
    "PatientID", "PatientSex", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "Modality", "ViewPosition",
    "BodyPartExamined", "PresentationIntentType", "ImageType", "NumberOfFrames", "Rows", "Columns",
)  # fmt: skip
UNREADABLE = (  # what numpy, zipfile and csv raise at a damaged file, or at one of something else
    OSError, LookupError, ValueError, TypeError, EOFError, RuntimeError, csv.Error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
FORMATS = "The formats stand in Training/README.md, section 'Folders to train on'."


@dataclass(frozen=True, kw_only=True)
class DicomFile:
    """One DICOM picture of the folder; code strings in capitals, empty where the header doesn't say.

    `patient` is PatientID; where that is empty the study's UID, `guessed` is then True.
    """

    path: Path
    patient: str
    guessed: bool
    sex: str
    series: str
    modality: str
    view: str
    body_part: str
    intent: str
    image_type: tuple[str, ...]
    frames: int


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and its sub-folders, sorted; hidden ones and DICOMDIR are left out.

    Raises:
        ReadError: there is no such folder.
    """
    if not folder.is_dir():
        raise ReadError("There is no such folder", where=folder, remedy="Check the path.")
    names = (path.relative_to(folder) for path in folder.rglob("*"))
    shown = (name for name in names if not any(part.startswith(".") for part in name.parts))
    return sorted(folder / name for name in shown if name.name != "DICOMDIR" and (folder / name).is_file())


def identity(folder: Path, *, index: str | None = "index.csv") -> str:
    """SHA-256 (hex) of the folder's index and of the names and sizes of the files that it lists.

    Where it has none, of the names, sizes and times of all its files.
    """
    digest = hashlib.sha256()
    if index is not None and (folder / index).is_file():
        listed = (folder / index).read_bytes()
        digest.update(listed)
        words = {word.strip() for word in re.split(rb'[,;"\\/\r\n]+', listed)}
        for path in files_below(folder):  # a picture that was made anew, its burned-in text blanked, is another
            if path.name.encode() in words:
                digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
        return digest.hexdigest()
    for path in files_below(folder):
        facts = path.stat()
        digest.update(f"{path.relative_to(folder)} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def dicom_files(paths: Sequence[Path]) -> Iterator[DicomFile | ReadError]:
    """What the headers of the DICOM pictures among these files say; an error in place of one that is damaged.

    Files that aren't DICOM, and DICOM objects without rows and columns (reports, marks), are passed over.
    """
    import pydicom

    from HiResMedSynthLib.read_dicom import NO_BACKGROUNDS, looks_like_dicom

    for path in paths:
        try:
            with path.open("rb") as stream:
                if not looks_like_dicom(stream.read(132)):
                    continue
            with quietly():
                data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TOLD), force=True)
                if not data:
                    raise ValueError("no attribute can be read")  # noqa: TRY301, the handler below names the file
                if "Rows" in data and "Columns" in data and data.get("SOPClassUID") not in NO_BACKGROUNDS:
                    yield _described(path, data)
        except Exception as problem:  # pydicom raises whatever its parsing meets in a damaged file
            yield ReadError(
                f"{path.name}: its header is damaged ({type(problem).__name__})", where=path, remedy="Replace it."
            )


def _described(path: Path, data: Any) -> DicomFile:
    def text(keyword: str) -> str:
        return str(data.get(keyword) or "").strip()

    image_type = data.get("ImageType") or ()
    patient = text("PatientID")
    return DicomFile(
        path=path,
        patient=patient or text("StudyInstanceUID") or path.parent.name,
        guessed=not patient,
        sex=text("PatientSex").upper(),
        series=text("SeriesInstanceUID"),
        modality=text("Modality").upper(),
        view=text("ViewPosition").upper(),
        body_part=text("BodyPartExamined").upper(),
        intent=text("PresentationIntentType").upper(),
        image_type=(image_type,) if isinstance(image_type, str) else tuple(str(part) for part in image_type),
        frames=int(data.get("NumberOfFrames") or 1),
    )


def tell_damaged(damaged: Sequence[Exception], total: int, folder: Path) -> None:
    """Names the files that were skipped, with their count.

    Raises:
        ReadError: they are more than half of `total`.
    """
    if not damaged:
        return
    for problem in damaged:
        click.echo(f"left out: {problem}", err=True)
    hint = "once they are mended, remove the cache"
    click.echo(f"{len(damaged)} of {total} files can't be used and were left out ({hint})", err=True)
    if 2 * len(damaged) > total:
        raise ReadError(
            f"{len(damaged)} of {total} files can't be used; the first: {damaged[0]}",
            where=folder,
            remedy="Mend or remove them.",
        )
