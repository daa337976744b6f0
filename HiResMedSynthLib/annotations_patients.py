"""Whose an image is: DICOM's PatientID, else a line of patients.csv. Nobody else is asked, and nothing is guessed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from HiResMedSynthLib.annotated_image import AnnotatedImage
from HiResMedSynthLib.annotations_files import inside, sound, text_of
from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import with_assumed_spacing
from HiResMedSynthLib.read_bounds import refuse_deflated_bomb
from HiResMedSynthLib.read_dicom import looks_like_dicom
from HiResMedSynthLib.read_quietly import quietly

PATIENTS_FILE = "patients.csv"
COLUMNS = ("file", "patient", "spacing_mm", "modality")
MODALITIES = ("CR", "CT", "DX", "MR", "OT", "RF", "RG", "XA")
REMEDY = "Write the columns file,patient and, where files don't tell, spacing_mm and modality."


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a line of patients.csv says of an image; empty where it says nothing."""

    patient: str = ""
    spacing_mm: tuple[float, float] | None = None  # between rows, between columns
    modality: str = ""


def read_patients(folder: Path, names: Sequence[str]) -> dict[str, Told] | None:
    """What patients.csv says, by the name of the image; None where there is no such file.

    Args:
        folder: the labelled folder.
        names: names of its images, relative to it.

    Raises:
        ReadError: it isn't a table of these columns, or contradicts itself. Lines of files that are not images of this
            folder are passed over.
    """
    if not (folder / PATIENTS_FILE).exists():
        return None
    rows = csv.DictReader(io.StringIO(text_of(folder, PATIENTS_FILE)))
    columns = [str(name).strip().lower() for name in rows.fieldnames or ()]
    sound("file" in columns and set(columns) <= set(COLUMNS), f"its columns are {', '.join(columns)[:80] or 'missing'}",
          PATIENTS_FILE, REMEDY)  # fmt: skip
    rows.fieldnames = columns
    by_name = _short_names(names)
    told: dict[str, Told] = {}
    for number, row in enumerate(rows, start=2):
        file = (row.get("file") or "").strip().replace("\\", "/").removeprefix("./")
        name = by_name.get(file) or by_name.get(file.removeprefix("images/"))  # which COCO often leaves out
        if name is None:
            continue
        line = _line(row, f"{PATIENTS_FILE}, line {number}")
        same = told.setdefault(name, line)
        sound(same == line, f"it tells {name} twice, and differently", f"{PATIENTS_FILE}, line {number}", REMEDY)
    return told


def _short_names(names: Sequence[str]) -> Mapping[str, str]:
    """Name in the folder, by itself and, where that is unique, by the file's name alone."""
    result: dict[str, str] = {}
    for name in names:
        short = PurePosixPath(name).name
        result[short] = "" if short in result else name
    return {short: name for short, name in result.items() if name} | {name: name for name in names}


def _line(row: Mapping[str, str | None], place: str) -> Told:
    spacing = (row.get("spacing_mm") or "").strip()
    modality = (row.get("modality") or "").strip().upper()
    sound(modality in ("", *MODALITIES), f"'{modality[:16]}' is no modality", place, f"Use {', '.join(MODALITIES)}.")
    patient = (row.get("patient") or "").strip()
    sound("patient" not in row or bool(patient), "it names no patient", place, "Complete the line.")
    try:
        values = tuple(float(value) for value in spacing.split(",")) if spacing else ()
    except ValueError:
        values = (math.nan,)
    sound(len(values) <= 2 and all(0 < value < 100 for value in values), f"a spacing of '{spacing[:16]}' mm can't be",
          place, "Give it in mm: 0.143, or with quotes \"ROW,COLUMN\" where they differ.")  # fmt: skip
    return Told(patient=patient, spacing_mm=(values[0], values[-1]) if values else None, modality=modality)


def patient_of(folder: Path, name: str, below: Sequence[str] = ("",)) -> str:
    """PatientID of a DICOM file of the folder, or of one `below` it; "" where it is none, or doesn't say."""
    import pydicom

    path = inside(folder, name, below)
    try:
        with path.open("rb") as stream:
            if not looks_like_dicom(stream.read(132)):
                return ""
        with quietly():
            refuse_deflated_bomb(path)
            data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"], force=True)
            return str(data.get("PatientID") or "").strip()
    except Exception as error:  # pydicom raises whatever its parsing meets in a damaged file
        raise ReadError("its header is damaged", where=name, remedy="Copy the file anew from its source.") from error


def with_told(one: AnnotatedImage, table: Mapping[str, Told] | None) -> AnnotatedImage:
    """The image with what patients.csv adds; the file's own header comes first.

    Raises:
        ReadError: header and table name different patients, or the table leaves the image out.
    """
    if table is None:
        return one
    image, told = one.image, table.get(one.name, Told())
    sound(one.name in table or bool(one.patient), f"{PATIENTS_FILE} leaves this image out", one.name,
          "Add a line for each image, or remove the file.")  # fmt: skip
    sound(not (one.patient and told.patient) or one.patient == told.patient,
          f"{PATIENTS_FILE} and the DICOM header name different patients", one.name,
          "Correct the table; where the header is wrong, mend PatientID.")  # fmt: skip
    if told.spacing_mm is not None and image.pixel_spacing_mm is None:
        image = with_assumed_spacing(image, told.spacing_mm)
    if told.modality and image.modality == "OT":
        image = _of_modality(image, told.modality)
    return replace(one, image=image, patient=one.patient or told.patient)


def _of_modality(image: MedicalImage, modality: str) -> MedicalImage:
    """Pictures of a CT slice stay stored values: their grey is no Hounsfield unit unless it is signed."""
    signed = image.pixels.dtype.kind in "if" and modality == "CT"
    return replace(image, modality=modality, units="HU" if signed else image.units)
