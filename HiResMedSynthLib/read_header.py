"""DICOM headers -> the few facts that reading needs, one `SliceHeader` a picture; nothing of the person."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from HiResMedSynthLib.image import HeaderFacts, Window

RADIOGRAPHS = ("CR", "DX", "RG", "MG", "XA", "RF")
RECONSTRUCTED = frozenset(  # classes of slices, whatever modality they claim (PS3.6 A)
    f"1.2.840.10008.5.1.4.1.1.{rest}"
    for rest in ("2", "2.1", "2.2", "4", "4.1", "4.3", "4.4", "13.1.1", "13.1.2", "13.1.3")  # CT, MR, X-Ray 3D
)
# Only these are read from a file: what isn't here can't get any further.
KEYWORDS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "ImageType", "InstanceNumber", "Rows", "Columns",
    "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "BitsAllocated",
    "PixelRepresentation", "PixelPaddingValue", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth",
    "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "SliceThickness", "ImagePositionPatient",
    "ImageOrientationPatient", "GantryDetectorTilt", "KVP", "BodyPartExamined", "PatientPosition", "ViewPosition",
    "ImageLaterality", "Laterality", "PatientOrientation", "PresentationIntentType", "BurnedInAnnotation",
    "LossyImageCompression", "ScanningSequence", "SequenceVariant", "MRAcquisitionType", "RepetitionTime", "EchoTime",
    "InversionTime", "EchoTrainLength", "SyntheticData", "ModalityLUTSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "DerivationDescription", "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign",
)  # fmt: skip
OF_EACH_SLICE = (  # the others are asked of the first slice of a stack alone
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "InstanceNumber", "Rows", "Columns",
    "NumberOfFrames", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "ImagePositionPatient",
    "ImageOrientationPatient", "SliceThickness", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "BitsAllocated", "SamplesPerPixel",
    "PixelRepresentation", "BitsStored", "PhotometricInterpretation",
)  # fmt: skip
DECODING = ("PlanarConfiguration", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")  # what decoders need besides
# PS3.3 C.7.3.1.1.1
MODALITIES = frozenset((
    "CT", "MR", "CR", "DX", "MG", "XA", "RF", "RG", "US", "NM", "PT", "PX", "IO", "OP", "ES", "XC", "OT",
))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SliceHeader:
    """One picture of a series: a classic file, or one frame of an enhanced one.

    `patient` counts the Patient IDs of the files read together, 0 for none: whose it is nobody learns here.
    `pixels_at` is the byte at which the element with the pixels begins; None where it isn't known.
    """

    path: Path
    pixels_at: int | None
    frame: int | None
    data: Any  # pydicom Dataset of the file, without pixels
    shape: tuple[int, int]
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    spacing_is: str
    thickness: float | None
    slope: float
    intercept: float
    rescale_given: bool
    window: Window | None
    patient: int = 0

    @property
    def instance_number(self) -> int:
        """InstanceNumber, or the frame's place; 0 where neither is given."""
        return self.frame if self.frame is not None else whole_number(self.data.get("InstanceNumber"), 0)


def numbers(value: Any) -> tuple[float, ...]:
    """The numbers in a DICOM value of any multiplicity; empty where there are none or they can't be read."""
    if value is None or value == "":
        return ()
    parts: Iterable[Any] = value if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else [value]
    try:
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        return ()


def whole_number(value: Any, default: int) -> int:
    """The first number in a DICOM value, cut to a whole one; the default where there is none that is finite."""
    found = numbers(value)
    return int(found[0]) if found and math.isfinite(found[0]) else default


def code(value: Any, longest: int = 16) -> str | None:
    """A DICOM code string, or None where it is absent or no code string (PS3.5 6.2, VR CS)."""
    text = str(value or "").strip().upper()
    allowed = text and len(text) <= longest and all(c.isascii() and (c.isalnum() or c in " _") for c in text)
    return text if allowed else None


def codes(value: Any) -> tuple[str, ...]:
    """The code strings in a DICOM value of any multiplicity; those that are none are left out."""
    several = value if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else [value]
    return tuple(found for part in several if (found := code(part)))


def modality_of(data: Any) -> str:
    """The modality if it is a defined term, else OT: a code string that is none may hold anything, even a name."""
    given = code(data.get("Modality"))
    return given if given in MODALITIES else "OT"


def is_radiograph(data: Any) -> bool:
    """Whether a picture is a projection, by its modality; its class may say that it is none."""
    return modality_of(data) in RADIOGRAPHS and str(data.get("SOPClassUID") or "") not in RECONSTRUCTED


def slice_headers(path: Path, data: Any, pixels_at: int | None = None) -> list[SliceHeader]:
    """One header for a classic picture, one for each frame of an enhanced one (PS3.3 C.7.6.16)."""
    frames = whole_number(data.get("NumberOfFrames"), 1)
    per_frame = data.get("PerFrameFunctionalGroupsSequence")
    if frames <= 1 and not per_frame:
        return [_slice_header(path, data, pixels_at, None, [data])]
    shared = list(data.get("SharedFunctionalGroupsSequence") or [])
    groups = list(per_frame or [])
    if len(groups) != frames:
        return []
    common = [*map(_flat, shared), data]
    return [_slice_header(path, data, pixels_at, k, [_flat(group), *common]) for k, group in enumerate(groups)]


def _flat(group: Any) -> dict[str, Any]:
    """The attributes of a functional group, its one-item macros merged."""
    merged: dict[str, Any] = {}
    for element in group:
        if element.VR == "SQ" and element.value:
            merged.update({inner.keyword: inner.value for inner in element.value[0] if inner.VR != "SQ"})
    return merged


def _slice_header(path: Path, data: Any, pixels_at: int | None, frame: int | None, sources: list[Any]) -> SliceHeader:
    def first(keyword: str) -> tuple[float, ...]:
        return next((found for source in sources if (found := numbers(source.get(keyword)))), ())

    spacing, spacing_is = None, ""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        values = first(keyword)
        if values:
            spacing, spacing_is = (values[0], values[-1]), keyword
            break
    position, orientation = first("ImagePositionPatient"), first("ImageOrientationPatient")
    thickness = first("SliceThickness")
    slope, intercept = (first("RescaleSlope") or (1.0,))[0], (first("RescaleIntercept") or (0.0,))[0]
    center, width = first("WindowCenter"), first("WindowWidth")
    shows = bool(center and width and math.isfinite(center[0]) and math.isfinite(width[0]) and width[0] > 0)
    return SliceHeader(
        path=path,
        pixels_at=pixels_at,
        frame=frame,
        data=data,
        shape=(int(data.Rows), int(data.Columns)),
        position=position if len(position) == 3 else None,
        orientation=orientation if _perpendicular(orientation) else None,
        spacing=spacing,
        spacing_is=spacing_is,
        thickness=thickness[0] if thickness and thickness[0] > 0 else None,
        slope=slope,
        intercept=intercept,
        rescale_given=bool(first("RescaleSlope") or first("RescaleIntercept")),
        window=Window(center=center[0], width=width[0]) if shows else None,
    )


def _perpendicular(orientation: tuple[float, ...]) -> bool:
    """Whether these are two perpendicular unit vectors (PS3.3 C.7.6.2.1.1)."""
    if len(orientation) != 6 or not all(map(math.isfinite, orientation)):
        return False
    row, column = orientation[:3], orientation[3:]
    products = (math.hypot(*row) - 1, math.hypot(*column) - 1, sum(a * b for a, b in zip(row, column, strict=True)))
    return max(map(abs, products)) < 5e-4


def header_facts(data: Any) -> HeaderFacts:
    """The identity-free facts of a header that an export may repeat."""
    imager = numbers(data.get("ImagerPixelSpacing"))

    def first(keyword: str) -> float | None:
        found = numbers(data.get(keyword))
        return found[0] if found else None

    return HeaderFacts(
        sop_class_uid=str(data.get("SOPClassUID") or "") or None,
        body_part_examined=code(data.get("BodyPartExamined")),
        patient_position=code(data.get("PatientPosition")),
        view_position=code(data.get("ViewPosition")),
        patient_orientation=codes(data.get("PatientOrientation")) or None,
        image_laterality=code(data.get("ImageLaterality")) or code(data.get("Laterality")),
        presentation_intent_type=code(data.get("PresentationIntentType")),
        burned_in_annotation=code(data.get("BurnedInAnnotation")),
        kvp=first("KVP"),
        gantry_detector_tilt=first("GantryDetectorTilt"),
        imager_pixel_spacing_mm=(imager[0], imager[-1]) if imager else None,
        scanning_sequence=codes(data.get("ScanningSequence")) or None,
        sequence_variant=codes(data.get("SequenceVariant")) or None,
        mr_acquisition_type=code(data.get("MRAcquisitionType")),
        repetition_time_ms=first("RepetitionTime"),
        echo_time_ms=first("EchoTime"),
        inversion_time_ms=first("InversionTime"),
        echo_train_length=first("EchoTrainLength"),
    )
