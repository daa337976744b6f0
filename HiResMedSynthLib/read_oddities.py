"""What a DICOM header says about its image that a reader should know: how dense tissue is stored, and what is odd."""

from __future__ import annotations

from typing import Any

from HiResMedSynthLib.image import Photometric
from HiResMedSynthLib.read_header import RADIOGRAPHS, SliceHeader, code, codes, numbers, whole_number
from HiResMedSynthLib.synthetic_words import COMPOSED, HOLDS_COMPOSED

BURNED_IN_CLASSES = (*RADIOGRAPHS, "OT", "SC")
LOSSY_SYNTAXES = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81")


def photometric_of(data: Any, oddities: list[str]) -> Photometric:
    """How dense tissue is stored; an image FOR PROCESSING tells it by its sign (PS3.3 C.8.11.3.1.2)."""
    given: Photometric = "MONOCHROME1" if data.PhotometricInterpretation == "MONOCHROME1" else "MONOCHROME2"
    sign = whole_number(data.get("PixelIntensityRelationshipSign"), 0)
    if code(data.get("PresentationIntentType")) != "FOR PROCESSING" or sign not in (-1, 1):
        return given
    told: Photometric = "MONOCHROME1" if sign == 1 else "MONOCHROME2"
    if told != given:
        oddities.append(
            f"{'low' if sign == 1 else 'high'} values are dense by the Pixel Intensity Relationship Sign, against the "
            f"Photometric Interpretation: of this image FOR PROCESSING the sign was believed, it is taken as {told}"
        )
    return told


def is_lossy(data: Any) -> bool:
    """Whether the pixels were ever compressed with loss, by the header or by how they are stored."""
    syntax = str(data.file_meta.get("TransferSyntaxUID") or "") if hasattr(data, "file_meta") else ""
    return str(data.get("LossyImageCompression") or "") == "01" or syntax in LOSSY_SYNTAXES


def note_header(header: SliceHeader, modality: str, oddities: list[str]) -> None:
    """Adds to `oddities` what the header of a series' first file says that is odd, a sentence each."""
    data, orientation = header.data, header.orientation
    burned = str(data.get("BurnedInAnnotation") or "")
    if burned == "YES":
        oddities.append("text is burned into the pixels (BurnedInAnnotation YES): look before you share it")
    elif not burned and modality in BURNED_IN_CLASSES:
        oddities.append("the header doesn't say whether text is burned into the pixels: look before you share it")
    if orientation is None and codes(data.get("PatientOrientation"))[:1] == ("R",):
        oddities.append("the picture is mirrored (Patient Orientation), so zones of a side lie on the other one")
    if is_lossy(data):
        oddities.append("the source was lossily compressed")
    if code(data.get("PixelIntensityRelationship")) == "LIN":
        oddities.append(
            "its values are linear in the X-ray intensity (Pixel Intensity Relationship LIN), where shadows don't add: "
            "take the image FOR PRESENTATION if there is one"
        )
    if data.get("ModalityLUTSequence"):
        oddities.append("the modality LUT was not applied: values are as stored")
    if numbers(data.get("ImageOrientationPatient")) and orientation is None:
        oddities.append("the orientation in the header can't be: it was ignored")
    if str(data.get("SyntheticData") or "") == "YES":
        oddities.append("the source is itself synthetic (0008,001C)")
    if COMPOSED in str(data.get("DerivationDescription") or ""):
        oddities.append(HOLDS_COMPOSED)  # of it only this sentence is told
