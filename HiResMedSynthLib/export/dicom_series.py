"""A composed image -> DICOM data sets, one a slice, built from an allow-list: no source data set is seen here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from HiResMedSynthLib.export import sop_class
from HiResMedSynthLib.export.decimal_string import factor
from HiResMedSynthLib.export.defined_terms import BODY_PARTS, PAIRED_BODY_PARTS, VIEW_POSITIONS, term
from HiResMedSynthLib.export.image_modules import add_image_modules, add_position
from HiResMedSynthLib.export.patient import MANUFACTURER, MODEL, SyntheticStudy, add_marks
from HiResMedSynthLib.export.stored import StoredForm, stored_form
from HiResMedSynthLib.image import MedicalImage, Window
from HiResMedSynthLib.read_header import MODALITIES

if TYPE_CHECKING:
    from pydicom import Dataset

Compression = Literal["jpeg-ls", "rle"]  # lossless, both
# transfer syntax, and which of pydicom's encoders: gdcm's RLE ends the process where a row has an odd length
ENCODERS: dict[Compression, tuple[str, str]] = {
    "jpeg-ls": ("1.2.840.10008.1.2.4.80", "pyjpegls"),
    "rle": ("1.2.840.10008.1.2.5", "pydicom"),
}
CHARACTER_SET = "ISO_IR 192"  # UTF-8
Progress = Callable[[int, int, str], None]


def series_datasets(
    image: MedicalImage,
    kind: sop_class.ObjectKind,
    study: SyntheticStudy,
    *,
    description: str,
    derivation: str,
    series_number: int,
    slices: Sequence[int],
    body_part: str | None = None,
    window: Window | None = None,
    form: StoredForm | None = None,
) -> Iterator[Dataset]:
    """One data set for each of `slices`, pixels included, ready to be written as Explicit VR Little Endian.

    Args:
        image: what to write.
        kind: its SOP class.
        study: shared by all objects of the export.
        description, derivation: series and derivation description; a film's view is added to the former.
        series_number: 1, 2 ...
        slices: indices of the slices to write; instance numbers are these plus one.
        body_part: for sources that don't name theirs.
        window: how to show it; None: the image's own.
        form: how its pixels are stored; None: by themselves.
    """
    from pydicom import Dataset
    from pydicom.charset import convert_encodings
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    form = form or stored_form(image)
    shared = _shared(image, kind, study, form, series_number, body_part=body_part, window=window)
    view = term(image.facts.view_position, VIEW_POSITIONS)
    shared.SeriesDescription = f"{description}, {view}" if description and view else description
    shared.DerivationDescription = derivation
    encoded = _encoded(shared)
    for index in slices:
        data = Dataset(dict(encoded.items()))
        data.SpecificCharacterSet = CHARACTER_SET
        data.set_original_encoding(False, True, convert_encodings(CHARACTER_SET))
        data.file_meta = FileMetaDataset()
        data.file_meta.MediaStorageSOPClassUID = kind.sop_class_uid
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        uid = study.identity.uid("series", series_number, "slice", index)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid
        data.InstanceNumber = index + 1
        add_position(data, kind.sop_class_uid, image, index)
        content = form.store(image.pixels[index]).tobytes()
        data["PixelData"] = _pixel_element(content if len(content) % 2 == 0 else content + b"\0", shared.BitsAllocated)
        yield data


def write_series(
    datasets: Iterator[Dataset],
    folder: Path,
    *,
    total: int,
    compress: Compression | None = None,
    progress: Progress,
) -> list[Dataset]:
    """Writes IM0001.dcm ... (by instance number) into a new folder; returns the headers, without pixels."""
    folder.mkdir()
    headers = []
    for number, data in enumerate(datasets, start=1):
        if compress is not None:
            syntax, encoder = ENCODERS[compress]
            data.compress(syntax, encoding_plugin=encoder, generate_instance_uid=False)
        data.save_as(folder / f"IM{data.InstanceNumber:04d}.dcm", enforce_file_format=True)
        del data.PixelData
        headers.append(data)
        progress(number, total, f"writing {folder.name}")
    return headers


def _shared(
    image: MedicalImage,
    kind: sop_class.ObjectKind,
    study: SyntheticStudy,
    form: StoredForm,
    series_number: int,
    *,
    body_part: str | None,
    window: Window | None,
) -> Dataset:
    """What all slices of a series have in common."""
    from pydicom import Dataset

    from HiResMedSynthLib import __version__

    identity, shown = study.identity, window or image.display_window()
    data = Dataset()
    data.SpecificCharacterSet = CHARACTER_SET
    data.SOPClassUID = kind.sop_class_uid
    _patient_and_study(data, study)
    data.Modality = sop_class.MODALITIES.get(kind.sop_class_uid, term(image.modality, MODALITIES, "OT"))
    data.SeriesInstanceUID = identity.uid("series", series_number)
    data.SeriesNumber = series_number
    data.SeriesDate = data.ContentDate = data.InstanceCreationDate = data.AcquisitionDate = identity.date
    data.SeriesTime = data.ContentTime = data.InstanceCreationTime = data.AcquisitionTime = identity.time
    data.Manufacturer, data.ManufacturerModelName, data.SoftwareVersions = MANUFACTURER, MODEL, __version__
    part = term(image.facts.body_part_examined, BODY_PARTS, body_part or "")
    if part:
        data.BodyPartExamined = part
    if part in PAIRED_BODY_PARTS and kind.sop_class_uid != sop_class.DX_PRESENTATION:
        # type 2C, empty where unknown; a DX has its ImageLaterality
        data.Laterality = term(image.facts.image_laterality, frozenset(("R", "L")))
    if image.facts.lossy_image_compression == "01":
        data.LossyImageCompression = "01"
    _pixel_form(data, image, form)
    data.WindowCenter, data.WindowWidth = factor(shown.center), factor(shown.width)
    if shown.width < 1:
        data.VOILUTFunction = "LINEAR_EXACT"  # the usual LINEAR starts at a width of 1 (PS3.3 C.11.2.1.2)
    add_image_modules(data, kind.sop_class_uid, image, form, identity)
    add_marks(data, study)
    return data


def _encoded(data: Dataset) -> Dataset:
    """The same, its elements as bytes of Explicit VR Little Endian, which pydicom then writes as they are."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filereader import read_dataset
    from pydicom.filewriter import write_dataset

    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_dataset(stream, data)
    stream.seek(0)
    return read_dataset(stream, is_implicit_VR=False, is_little_endian=True)


def _patient_and_study(data: Dataset, study: SyntheticStudy) -> None:
    data.PatientName, data.PatientID = study.patient_name, study.patient_id
    data.PatientBirthDate = data.PatientSex = ""
    data.StudyInstanceUID = study.identity.uid("study")
    data.StudyDate, data.StudyTime = study.identity.date, study.identity.time
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "SYNTHETIC", "", ""
    data.StudyDescription = study.study_description


def _pixel_form(data: Dataset, image: MedicalImage, form: StoredForm) -> None:
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = image.photometric
    data.Rows, data.Columns = image.rows, image.columns
    data.BitsAllocated = 8 * form.dtype.itemsize
    data.BitsStored, data.HighBit = form.bits_stored, form.bits_stored - 1
    data.PixelRepresentation = int(form.signed)
    padding = form.padding(image.padding_value)
    if padding is not None:
        data.add_new("PixelPaddingValue", "SS" if form.signed else "US", padding)


def _pixel_element(content: bytes, bits_allocated: int) -> Any:
    from pydicom.dataelem import DataElement

    return DataElement(0x7FE00010, "OB" if bits_allocated == 8 else "OW", content)
