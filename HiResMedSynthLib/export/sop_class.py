"""Which DICOM object an image becomes, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from HiResMedSynthLib.export.defined_terms import MR_SCANNING_SEQUENCES, MR_SEQUENCE_VARIANTS, terms
from HiResMedSynthLib.image import ORIENTATION_UNKNOWN, MedicalImage

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
MR = "1.2.840.10008.5.1.4.1.1.4"
CR = "1.2.840.10008.5.1.4.1.1.1"
DX_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DX_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MODALITIES = {CT: "CT", MR: "MR", CR: "CR", DX_PRESENTATION: "DX"}  # that a class prescribes


@dataclass(frozen=True)
class ObjectKind:
    """The SOP class of an export and the reason for it, one clause."""

    sop_class_uid: str
    reason: str


def object_kind(image: MedicalImage, said: Literal["CT"] | None = None) -> ObjectKind:
    """The source's own class where all that the class demands is known; else Computed Radiography for a radiograph.

    What neither fits becomes a Secondary Capture, which demands nothing of how a picture was taken.

    Args:
        image: what is written.
        said: what the user says of a source that can't tell.
    """
    source = image.facts.sop_class_uid
    if source is None and image.units == "HU":
        return _undescribed_ct_kind(image, said)
    if source in (CT, ENHANCED_CT) and image.units == "HU" and image.pixels.dtype.name in ("int16", "int32", "float32"):
        if image.bits_stored is not None and 12 <= image.bits_stored <= 16:
            return ObjectKind(CT, "the source is a CT series")
        return ObjectKind(SECONDARY_CAPTURE, "the source's CT values have no single rescale of 12 to 16 bits")
    if source == MR:
        return _mr_kind(image)
    if source in (CR, DX_PRESENTATION):
        return _radiograph_kind(image)
    reasons = {
        DX_PROCESSING: "the source is a radiograph for processing, not for presentation",
        SECONDARY_CAPTURE: "the source is a Secondary Capture itself",
        None: "the source is no DICOM object, so how it was taken is unknown",
    }
    return ObjectKind(SECONDARY_CAPTURE, reasons.get(source, f"this class of {image.modality} object is not rebuilt"))


def _undescribed_ct_kind(image: MedicalImage, said: str | None) -> ObjectKind:
    """Of values in HU from a file that isn't DICOM: all type 1 attributes of a CT Image may be known (PS3.3 A.3)."""
    if said != "CT":
        unsaid = "the source is no DICOM object, and nobody said that it is a CT scan (--modality CT)"
        return ObjectKind(SECONDARY_CAPTURE, unsaid)
    if image.pixel_spacing_mm is None or ORIENTATION_UNKNOWN in image.oddities:
        lacking = "the source doesn't tell how its voxels lie in the patient, which a CT object must"
        return ObjectKind(SECONDARY_CAPTURE, lacking)
    return ObjectKind(CT, "its user says that the source is a CT scan, and its file tells HU and geometry")


def _mr_kind(image: MedicalImage) -> ObjectKind:
    if image.pixels.dtype.name not in ("uint16", "int16") or image.bits_stored is None:
        return ObjectKind(SECONDARY_CAPTURE, "the source's MR values are not stored with 16 bits")
    facts = image.facts
    told = terms(facts.scanning_sequence, MR_SCANNING_SEQUENCES), terms(facts.sequence_variant, MR_SEQUENCE_VARIANTS)
    if not all(told):
        return ObjectKind(SECONDARY_CAPTURE, "the source doesn't tell its MR sequence, which an MR object must")
    return ObjectKind(MR, "the source is an MR series")


def _radiograph_kind(image: MedicalImage) -> ObjectKind:
    is_dx = image.facts.sop_class_uid == DX_PRESENTATION
    if image.stored_signed or image.pixels.dtype.kind != "u":
        return ObjectKind(SECONDARY_CAPTURE, "the source radiograph has signed or rescaled values, a DX or CR has none")
    if image.slices > 1:
        return ObjectKind(SECONDARY_CAPTURE, "the source holds several radiographs, a DX or CR is one")
    if not is_dx:
        return ObjectKind(CR, "the source is a computed radiograph")
    if detector_spacing(image) is not None:
        return ObjectKind(DX_PRESENTATION, "the source is a digital radiograph")
    return ObjectKind(CR, "the source radiograph has no Imager Pixel Spacing, which DX demands and CR does not")


def detector_spacing(image: MedicalImage) -> tuple[float, float] | None:
    """Imager Pixel Spacing in mm, or None where there is none that can be: not from a nanometre to a metre."""
    told = image.facts.imager_pixel_spacing_mm
    return told if told is not None and all(1e-6 < value < 1e3 for value in told) else None
