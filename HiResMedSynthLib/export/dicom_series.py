"""A composed image -> DICOM data sets, one a slice, built from an allow-list: no source data set is seen here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from HiResMedSynthLib.export.defined_terms import (
    BODY_PARTS,
    MODALITIES,
    PAIRED_BODY_PARTS,
    PATIENT_POSITIONS,
    VIEW_POSITIONS,
    finite,
    term,
)
from HiResMedSynthLib.export.patient import MANUFACTURER, MODEL, SyntheticStudy, add_marks
from HiResMedSynthLib.export.sop_class import CT, DX_PRESENTATION, ObjectKind
from HiResMedSynthLib.export.stored import StoredForm, stored_form
from HiResMedSynthLib.image import MedicalImage, Window

if TYPE_CHECKING:
    from pydicom import Dataset

SECTIONAL = ("CT", "MR", "PT", "NM")  # modalities whose single pictures have a plane in the patient
ANATOMIC_REGIONS = {"CHEST": ("51185008", "Chest"), "ABDOMEN": ("818981001", "Abdomen")}  # SNOMED CT
Progress = Callable[[int, int, str], None]


def series_datasets(
    image: MedicalImage,
    kind: ObjectKind,
    study: SyntheticStudy,
    *,
    description: str,
    derivation: str,
    series_number: int,
    slices: Sequence[int],
    body_part: str | None = None,
    window: Window | None = None,
) -> Iterator[Dataset]:
    """One data set for each of `slices`, pixels included, ready to be written as Explicit VR Little Endian.

    Args:
        image: what to write.
        kind: its SOP class.
        study: shared by all objects of the export.
        description, derivation: series and derivation description.
        series_number: 1, 2 ...
        slices: indices of the slices to write; instance numbers are these plus one.
        body_part: for sources that don't name theirs.
        window: how to show it; None: the image's own.
    """
    from pydicom.uid import generate_uid

    from HiResMedSynthLib import __version__

    series_uid = str(generate_uid())
    form = stored_form(image)
    shown = window or image.display_window()
    for index in slices:
        data = _new_dataset(kind.sop_class_uid)
        _patient_and_study(data, study)
        data.Modality = {CT: "CT", DX_PRESENTATION: "DX"}.get(
            kind.sop_class_uid, term(image.modality, MODALITIES, "OT")
        )
        data.SeriesInstanceUID = series_uid
        data.SeriesNumber = series_number
        data.SeriesDescription = description
        data.SeriesDate = data.ContentDate = data.InstanceCreationDate = data.AcquisitionDate = study.date
        data.SeriesTime = data.ContentTime = data.InstanceCreationTime = data.AcquisitionTime = study.time
        data.InstanceNumber = index + 1
        data.Manufacturer, data.ManufacturerModelName, data.SoftwareVersions = MANUFACTURER, MODEL, __version__
        data.DerivationDescription = derivation
        part = term(image.facts.body_part_examined, BODY_PARTS, body_part or "")
        if part:
            data.BodyPartExamined = part
        if part in PAIRED_BODY_PARTS and kind.sop_class_uid != DX_PRESENTATION:
            data.Laterality = ""  # type 2C, not known here; a DX has its ImageLaterality
        if image.facts.lossy_image_compression == "01":
            data.LossyImageCompression = "01"
        _pixels(data, image, form, index)
        data.WindowCenter, data.WindowWidth = _factor(shown.center), _factor(shown.width)
        if shown.width < 1:
            data.VOILUTFunction = "LINEAR_EXACT"  # the usual LINEAR starts at a width of 1 (PS3.3 C.11.2.1.2)
        if kind.sop_class_uid == CT:
            _plane(data, image, study, index)
            _ct(data, image, form)
        elif kind.sop_class_uid == DX_PRESENTATION:
            _dx(data, image)
            _anatomic_region(data)
        else:
            if image.slices > 1 or image.modality in SECTIONAL:
                _plane(data, image, study, index)
            elif image.pixel_spacing_mm is not None:
                data.PixelSpacing = [_decimal(value) for value in image.pixel_spacing_mm]
            _secondary_capture(data, image, form)
        add_marks(data, study)
        yield data


def write_series(datasets: Iterator[Dataset], folder: Path, *, total: int, progress: Progress) -> list[Dataset]:
    """Writes IM0001.dcm ... (by instance number) into a new folder; returns the headers, without pixels."""
    folder.mkdir()
    headers = []
    for number, data in enumerate(datasets, start=1):
        data.save_as(folder / f"IM{data.InstanceNumber:04d}.dcm", enforce_file_format=True)
        del data.PixelData
        headers.append(data)
        progress(number, total, f"writing {folder.name}")
    return headers


def _new_dataset(sop_class_uid: str) -> Dataset:
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class_uid
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SpecificCharacterSet = "ISO_IR 192"
    return data


def _patient_and_study(data: Dataset, study: SyntheticStudy) -> None:
    data.PatientName, data.PatientID = study.patient_name, study.patient_id
    data.PatientBirthDate = data.PatientSex = ""
    data.StudyInstanceUID = study.study_instance_uid
    data.StudyDate, data.StudyTime = study.date, study.time
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "SYNTHETIC", "", ""
    data.StudyDescription = study.study_description


def _pixels(data: Dataset, image: MedicalImage, form: StoredForm, index: int) -> None:
    stored = form.store(image.pixels[index])
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = image.photometric
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated = 8 * stored.dtype.itemsize
    data.BitsStored, data.HighBit = form.bits_stored, form.bits_stored - 1
    data.PixelRepresentation = int(form.signed)
    padding = form.padding(image.padding_value)
    if padding is not None:
        data.add_new("PixelPaddingValue", "SS" if form.signed else "US", padding)
    content = stored.tobytes()
    data["PixelData"] = _pixel_element(content if len(content) % 2 == 0 else content + b"\0", data.BitsAllocated)


def _pixel_element(content: bytes, bits_allocated: int) -> Any:
    from pydicom.dataelem import DataElement

    return DataElement(0x7FE00010, "OB" if bits_allocated == 8 else "OW", content)


def _plane(data: Dataset, image: MedicalImage, study: SyntheticStudy, index: int) -> None:
    """Image Plane and Frame of Reference (PS3.3 C.7.6.2, C.7.4.1)."""
    assert image.positions_lps_mm is not None
    spacing = image.pixel_spacing_mm
    if spacing is not None:
        data.PixelSpacing = [_decimal(value) for value in spacing]
    data.ImageOrientationPatient = [_decimal(value) for value in image.orthonormal_directions_lps.ravel()]
    data.ImagePositionPatient = [_decimal(value) for value in image.positions_lps_mm[index]]
    data.SliceThickness = None if image.slice_thickness_mm is None else _decimal(image.slice_thickness_mm)
    data.FrameOfReferenceUID = study.frame_of_reference_uid
    data.PositionReferenceIndicator = ""


def _ct(data: Dataset, image: MedicalImage, form: StoredForm) -> None:
    """CT Image (PS3.3 C.8.2.1)."""
    data.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    data.RescaleSlope, data.RescaleIntercept = _factor(form.slope), _factor(form.intercept)
    data.RescaleType = "HU"
    kvp, tilt = finite(image.facts.kvp), finite(image.facts.gantry_detector_tilt)
    data.KVP = None if kvp is None else _decimal(kvp)
    data.AcquisitionNumber = None
    data.PatientPosition = term(image.facts.patient_position, PATIENT_POSITIONS)  # type 2C: empty where unknown
    if image.facts.burned_in_annotation in ("YES", "NO"):
        data.BurnedInAnnotation = image.facts.burned_in_annotation
    if tilt is not None:
        data.GantryDetectorTilt = _decimal(tilt)


def _secondary_capture(data: Dataset, image: MedicalImage, form: StoredForm) -> None:
    """SC Equipment and Image (PS3.3 C.8.6), as a standard extended class: it also carries its plane."""
    data.ImageType = ["DERIVED", "SECONDARY"]
    data.ConversionType = "SYN"
    data.PatientOrientation = []
    if (form.slope, form.intercept) != (1.0, 0.0) or image.units == "HU":
        data.RescaleSlope, data.RescaleIntercept = _factor(form.slope), _factor(form.intercept)
        data.RescaleType = "HU" if image.units == "HU" else "US"
    if image.photometric == "MONOCHROME1":
        data.PresentationLUTShape = "INVERSE"
    if image.facts.burned_in_annotation in ("YES", "NO"):
        data.BurnedInAnnotation = image.facts.burned_in_annotation
    if term(image.facts.view_position, VIEW_POSITIONS):
        data.ViewPosition = image.facts.view_position


def _dx(data: Dataset, image: MedicalImage) -> None:
    """DX Series, Anatomy, Image and Detector (PS3.3 C.8.11)."""
    from pydicom import Sequence

    facts = image.facts
    data.ImageType = ["DERIVED", "SECONDARY", ""]
    data.PresentationIntentType = "FOR PRESENTATION"
    data.ImageLaterality = facts.image_laterality if facts.image_laterality in ("R", "L", "U", "B") else "U"
    data.PixelIntensityRelationship = "LOG"
    # -1: higher values mean less X-ray intensity, as where bone is bright (C.8.11.3.1.2)
    data.PixelIntensityRelationshipSign = 1 if image.photometric == "MONOCHROME1" else -1
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = "1", "0", "US"
    data.PresentationLUTShape = "INVERSE" if image.photometric == "MONOCHROME1" else "IDENTITY"
    data.LossyImageCompression = "01" if facts.lossy_image_compression == "01" else "00"
    data.PatientOrientation = ["L", "F"] if facts.view_position in ("PA", "AP") else []  # as they are hung
    data.BurnedInAnnotation = facts.burned_in_annotation if facts.burned_in_annotation in ("YES", "NO") else "YES"
    data.ViewPosition = term(facts.view_position, VIEW_POSITIONS)
    data.DetectorType = data.PositionerType = ""
    assert facts.imager_pixel_spacing_mm is not None
    data.ImagerPixelSpacing = [_decimal(value) for value in facts.imager_pixel_spacing_mm]
    if image.pixel_spacing_mm is not None:
        data.PixelSpacing = [_decimal(value) for value in image.pixel_spacing_mm]
        if image.pixel_spacing_mm != facts.imager_pixel_spacing_mm:
            data.PixelSpacingCalibrationType = "GEOMETRY"
            data.PixelSpacingCalibrationDescription = "as the source's header or its user says"
    data.AcquisitionContextSequence = Sequence()


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


def _factor(value: float) -> str:
    """A DICOM DS of a rescale, in significant digits: slopes can be far below 1e-10."""
    from pydicom.valuerep import format_number_as_ds

    return str(format_number_as_ds(float(value)))


def _decimal(value: float) -> str:
    """A DICOM DS of a length, position or direction, rounded to 1e-10: at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    text: str = format_number_as_ds(float(np.round(value, 10)) + 0.0)
    return text
