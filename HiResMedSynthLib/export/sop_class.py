"""Which DICOM object an image becomes, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from HiResMedSynthLib.image import MedicalImage

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
DX_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DX_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class ObjectKind:
    """The SOP class of an export and the reason for it, one clause."""

    sop_class_uid: str
    reason: str


def object_kind(image: MedicalImage) -> ObjectKind:
    """CT for a CT series, DX for a DX with known detector spacing, Secondary Capture for everything else."""
    source = image.facts.sop_class_uid
    if source in (CT, ENHANCED_CT) and image.units == "HU" and image.pixels.dtype.name in ("int16", "int32", "float32"):
        if image.bits_stored is not None and 12 <= image.bits_stored <= 16:
            return ObjectKind(CT, "the source is a CT series")
        return ObjectKind(SECONDARY_CAPTURE, "the source's CT values have no single rescale of 12 to 16 bits")
    if source == DX_PROCESSING:
        return ObjectKind(SECONDARY_CAPTURE, "the source is a radiograph for processing, not for presentation")
    if source == DX_PRESENTATION:
        if image.stored_signed or image.pixels.dtype.kind != "u":
            return ObjectKind(SECONDARY_CAPTURE, "the source radiograph has signed or rescaled values, a DX has none")
        detector = image.facts.imager_pixel_spacing_mm or (0.0, 0.0)
        if min(detector) > 0 and math.isfinite(sum(detector)) and image.slices == 1:
            return ObjectKind(DX_PRESENTATION, "the source is a digital radiograph")
        return ObjectKind(SECONDARY_CAPTURE, "the source radiograph has no Imager Pixel Spacing, which DX demands")
    if source == SECONDARY_CAPTURE:
        return ObjectKind(SECONDARY_CAPTURE, "the source is a Secondary Capture itself")
    if source is None:
        return ObjectKind(SECONDARY_CAPTURE, "the source is no DICOM object")
    return ObjectKind(SECONDARY_CAPTURE, f"this class of {image.modality} object is not rebuilt")
