"""The modules of an image object that its SOP class demands beyond the common ones: CT, MR, CR, DX, Secondary Capture.

A file that holds more than its class demands is a standard extended one (PS3.2 3.11).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from HiResMedSynthLib.export.burned_in import burned_in
from HiResMedSynthLib.export.decimal_string import decimal, factor
from HiResMedSynthLib.export.defined_terms import (
    MR_ACQUISITION_TYPES,
    MR_SCANNING_SEQUENCES,
    MR_SEQUENCE_VARIANTS,
    PATIENT_POSITIONS,
    VIEW_POSITIONS,
    finite,
    hanging,
    term,
    terms,
)
from HiResMedSynthLib.export.identity import OutputIdentity
from HiResMedSynthLib.export.sop_class import CR, CT, DX_PRESENTATION, MR, SECONDARY_CAPTURE, detector_spacing
from HiResMedSynthLib.export.stored import StoredForm
from HiResMedSynthLib.image import MedicalImage

if TYPE_CHECKING:
    from pydicom import Dataset

SECTIONAL = ("CT", "MR", "PT", "NM")  # modalities whose single pictures have a plane in the patient
ANATOMIC_REGIONS = {"CHEST": ("51185008", "Chest"), "ABDOMEN": ("818981001", "Abdomen")}  # SNOMED CT


def add_image_modules(
    data: Dataset, sop_class_uid: str, image: MedicalImage, form: StoredForm, identity: OutputIdentity
) -> None:
    """Adds what its SOP class demands to the data set that all slices share."""
    if burned := burned_in(image):
        data.BurnedInAnnotation = burned
    CLASSES[sop_class_uid](data, image, form)
    if _has_plane(sop_class_uid, image):
        _plane(data, image, identity)


def add_position(data: Dataset, sop_class_uid: str, image: MedicalImage, index: int) -> None:
    """Adds where one slice lies in the patient, if its class tells that."""
    if not _has_plane(sop_class_uid, image):
        return
    assert image.positions_lps_mm is not None
    position = image.positions_lps_mm[index]
    data.ImagePositionPatient = [decimal(value) for value in position]
    data.SliceLocation = decimal(float(position @ image.normal_lps))


def _has_plane(sop_class_uid: str, image: MedicalImage) -> bool:
    sectional = image.slices > 1 or image.modality in SECTIONAL
    return sop_class_uid in (CT, MR) or (sop_class_uid == SECONDARY_CAPTURE and sectional)


def _plane(data: Dataset, image: MedicalImage, identity: OutputIdentity) -> None:
    """Image Plane but for each slice's place, and Frame of Reference (PS3.3 C.7.6.2, C.7.4.1)."""
    if image.pixel_spacing_mm is not None:
        data.PixelSpacing = [decimal(value) for value in image.pixel_spacing_mm]
    data.ImageOrientationPatient = [decimal(value) for value in image.orthonormal_directions_lps.ravel()]
    data.SliceThickness = None if image.slice_thickness_mm is None else decimal(image.slice_thickness_mm)
    data.FrameOfReferenceUID = identity.uid("frame of reference")
    data.PositionReferenceIndicator = ""


def _ct(data: Dataset, image: MedicalImage, form: StoredForm) -> None:
    """CT Image (PS3.3 C.8.2.1)."""
    facts = image.facts
    data.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    data.RescaleSlope, data.RescaleIntercept = factor(form.slope), factor(form.intercept)
    data.RescaleType = "HU"
    kvp, tilt = finite(facts.kvp), finite(facts.gantry_detector_tilt)
    data.KVP = None if kvp is None else decimal(kvp)
    data.AcquisitionNumber = None
    data.PatientPosition = term(facts.patient_position, PATIENT_POSITIONS)  # type 2C: empty where unknown
    if tilt is not None:
        data.GantryDetectorTilt = decimal(tilt)


def _mr(data: Dataset, image: MedicalImage, _form: StoredForm) -> None:
    """MR Image (PS3.3 C.8.3.1): stored values, without a rescale."""
    facts = image.facts
    data.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    data.ScanningSequence = list(terms(facts.scanning_sequence, MR_SCANNING_SEQUENCES))
    data.SequenceVariant = list(terms(facts.sequence_variant, MR_SEQUENCE_VARIANTS))
    data.ScanOptions = ""
    data.MRAcquisitionType = term(facts.mr_acquisition_type, MR_ACQUISITION_TYPES)
    times = {"RepetitionTime": facts.repetition_time_ms, "EchoTime": facts.echo_time_ms}
    if "IR" in data.ScanningSequence:  # type 2C, only of inversion recovery
        times["InversionTime"] = facts.inversion_time_ms
    for keyword, given in times.items():
        value = finite(given)
        setattr(data, keyword, None if value is None else factor(value))
    length = finite(facts.echo_train_length)
    data.EchoTrainLength = None if length is None else round(length)
    data.AcquisitionNumber = None
    data.PatientPosition = term(facts.patient_position, PATIENT_POSITIONS)


def _cr(data: Dataset, image: MedicalImage, _form: StoredForm) -> None:
    """CR Series and Image (PS3.3 C.8.1): body part and view may be unknown, a spacing too."""
    data.ImageType = ["DERIVED", "SECONDARY"]
    if "BodyPartExamined" not in data:
        data.BodyPartExamined = ""
    _film(data, image)
    detector = detector_spacing(image)
    if detector is not None:
        data.ImagerPixelSpacing = [decimal(value) for value in detector]
    _calibrated(data, image)


def _dx(data: Dataset, image: MedicalImage, _form: StoredForm) -> None:
    """DX Series, Anatomy, Image and Detector (PS3.3 C.8.11)."""
    from pydicom import Sequence

    facts = image.facts
    data.ImageType = ["DERIVED", "SECONDARY", ""]
    data.PresentationIntentType = "FOR PRESENTATION"
    data.ImageLaterality = term(facts.image_laterality, frozenset(("R", "L", "U", "B")), "U")
    data.PixelIntensityRelationship = "LOG"
    # -1: higher values mean less X-ray intensity, as where bone is bright (C.8.11.3.1.2)
    data.PixelIntensityRelationshipSign = 1 if image.photometric == "MONOCHROME1" else -1
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = "1", "0", "US"
    data.PresentationLUTShape = "INVERSE" if image.photometric == "MONOCHROME1" else "IDENTITY"
    data.LossyImageCompression = "01" if facts.lossy_image_compression == "01" else "00"
    data.BurnedInAnnotation = burned_in(image) or "YES"  # type 1: where nobody knows, the careful one
    _film(data, image)
    data.DetectorType = data.PositionerType = ""
    detector = detector_spacing(image)
    assert detector is not None
    data.ImagerPixelSpacing = [decimal(value) for value in detector]
    _calibrated(data, image)
    data.AcquisitionContextSequence = Sequence()
    _anatomic_region(data)


def _secondary_capture(data: Dataset, image: MedicalImage, form: StoredForm) -> None:
    """SC Equipment and Image (PS3.3 C.8.6); it also carries its plane, or spacing and view of a film."""
    data.ImageType = ["DERIVED", "SECONDARY"]
    data.ConversionType = "SYN"
    if (form.slope, form.intercept) != (1.0, 0.0) or image.units == "HU":
        data.RescaleSlope, data.RescaleIntercept = factor(form.slope), factor(form.intercept)
        data.RescaleType = "HU" if image.units == "HU" else "US"
    if image.photometric == "MONOCHROME1":
        data.PresentationLUTShape = "INVERSE"
    if image.pixel_spacing_mm is not None:
        data.PixelSpacing = [decimal(value) for value in image.pixel_spacing_mm]
    _film(data, image)
    if not data.ViewPosition:
        del data.ViewPosition


def _film(data: Dataset, image: MedicalImage) -> None:
    """View, and how the picture hangs: as its source says; else of PA and AP, patient facing the reader, head up."""
    view = term(image.facts.view_position, VIEW_POSITIONS)
    data.ViewPosition = view
    usual = ("L", "F") if view in ("PA", "AP") else ()
    data.PatientOrientation = list(hanging(image.facts.patient_orientation) or usual)


def _calibrated(data: Dataset, image: MedicalImage) -> None:
    """Pixel Spacing beside that of the detector (PS3.3 10.7)."""
    if image.pixel_spacing_mm is None:
        return
    data.PixelSpacing = [decimal(value) for value in image.pixel_spacing_mm]
    if image.pixel_spacing_mm != image.facts.imager_pixel_spacing_mm:
        data.PixelSpacingCalibrationType = "GEOMETRY"
        data.PixelSpacingCalibrationDescription = "as the source's header or its user says"


def _anatomic_region(data: Dataset) -> None:
    """Anatomic Region Sequence (PS3.16 CID 4031): coded where the body part is one we know, else empty."""
    from pydicom import Dataset, Sequence

    known = ANATOMIC_REGIONS.get(str(data.get("BodyPartExamined") or ""))
    data.AnatomicRegionSequence = Sequence()
    if known is None:
        if "BodyPartExamined" in data:
            del data.BodyPartExamined  # a named part without its code is no valid DX object
        return
    region = Dataset()
    region.CodeValue, region.CodeMeaning = known
    region.CodingSchemeDesignator = "SCT"
    data.AnatomicRegionSequence.append(region)


CLASSES: dict[str, Callable[[Dataset, MedicalImage, StoredForm], None]] = {
    CT: _ct,
    MR: _mr,
    CR: _cr,
    DX_PRESENTATION: _dx,
    SECONDARY_CAPTURE: _secondary_capture,
}
