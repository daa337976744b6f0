"""Small labelled folders of each format, made from nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image

SIZE = (40, 60)


# -- folders as other tools write them ---------------------------------------------------------------------------------
def film(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)


def put(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def put_volume(path: Path, array: np.ndarray, spacing: tuple[float, float, float] = (0.7, 0.7, 2.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing(spacing)
    sitk.WriteImage(volume, str(path), useCompression=True)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def yolo(folder: Path, count: int = 4) -> Path:
    """Films with boxes, every second one without; patients told."""
    for number in range(count):
        put(folder / "images" / f"f{number}.png", film(number))
        if number % 2 == 0:
            write(folder / "labels" / f"f{number}.txt", f"{number % 4 // 2} 0.5 0.5 0.2 0.25\n")
    write(folder / "classes.txt", "nodule\nmass\n")
    lines = "".join(f"f{number}.png,p{number},0.5,DX\n" for number in range(count))
    write(folder / "patients.csv", f"file,patient,spacing_mm,modality\n{lines}")
    return folder


def masks(folder: Path, count: int = 4) -> Path:
    """Films with masks of lungs and heart; patients told."""
    for number in range(count):
        mask = np.zeros(SIZE, np.uint8)
        mask[10:30, 5:20], mask[12:30, 25:35] = 1, 2
        put(folder / "images" / f"f{number}.png", film(number))
        put(folder / "masks" / f"f{number}.png", mask)
    write(folder / "classes.json", '{"1": "lungs", "2": "heart"}')
    lines = "".join(f"images/f{number}.png,p{number},DX\n" for number in range(count))
    write(folder / "patients.csv", f"file,patient,modality\n{lines}")
    return folder


def ct_volume(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 200, (6, *SIZE)).astype(np.int16)


def nnunet(folder: Path, count: int = 3) -> Path:
    """CT volumes with bone in two slices."""
    for number in range(count):
        mask = np.zeros((6, *SIZE), np.uint8)
        mask[2:4, 10:20, 10:20] = 1
        put_volume(folder / "imagesTr" / f"case_{number:03d}_0000.nii.gz", ct_volume(number))
        put_volume(folder / "labelsTr" / f"case_{number:03d}.nii.gz", mask)
    document = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "bone": 1}, "file_ending": ".nii.gz"}
    write(folder / "dataset.json", json.dumps(document))
    return folder


def dicom_series(folder: Path, number: int, slices: int = 4) -> list[pydicom.Dataset]:
    """A CT series of a patient, written to the folder; its headers."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    found = []
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(slices):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = f"ID-{number}", "DOE^JANE", "", "F"
        data.StudyDate = data.StudyTime = data.StudyID = data.AccessionNumber = data.ReferringPhysicianName = ""
        data.PositionReferenceIndicator = ""
        data.Modality, data.InstanceNumber, data.SeriesNumber = "CT", index + 1, 1
        data.ImagePositionPatient, data.ImageOrientationPatient = [-10.0, -20.0, 2.5 * index], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [0.7, 0.7], 2.5
        data.Rows, data.Columns = SIZE
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelData = np.random.default_rng([number, index]).integers(-1000, 200, SIZE).astype("<i2").tobytes()
        data.save_as(folder / f"{number}-{slices - index}.dcm", enforce_file_format=True)
        found.append(data)
    return found


def dicom_seg(headers: list[pydicom.Dataset], path: Path, mask: np.ndarray, *, kind: str = "BINARY") -> Any:
    """A SEG of lung (segment 1) and nodule (segment 2), as highdicom writes it."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code
    from pydicom.uid import generate_uid

    algorithm = AlgorithmIdentificationSequence(name="t", version="1", family=codes.cid7162.ArtificialIntelligence)
    kinds = [
        ("lung", Code("123037004", "SCT", "Anatomical Structure"), Code("39607008", "SCT", "Lung")),
        ("finding 1", Code("49755003", "SCT", "Morphologically Abnormal Structure"), Code("27925004", "SCT", "Nodule")),
    ]
    described = [
        SegmentDescription(segment_number=number, segment_label=label, segmented_property_category=category,
                           segmented_property_type=kind, algorithm_type="AUTOMATIC", algorithm_identification=algorithm)
        for number, (label, category, kind) in enumerate(kinds, start=1)
    ]  # fmt: skip
    planes: np.ndarray = np.stack([mask == 1, mask == 2], axis=-1)
    planes = (
        mask if kind == "LABELMAP" else planes * np.float32(0.9) if kind == "FRACTIONAL" else planes.astype(np.uint8)
    )
    result = Segmentation(
        source_images=headers, pixel_array=planes, segmentation_type=kind, segment_descriptions=described,
        series_instance_uid=generate_uid(), series_number=9, sop_instance_uid=generate_uid(), instance_number=1,
        manufacturer="t", manufacturer_model_name="t", software_versions="1", device_serial_number="1",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    result.save_as(path)
    return result


def seg_mask(slices: int = 4) -> np.ndarray:
    mask = np.zeros((slices, *SIZE), np.uint8)
    mask[0:3, 5:20, 5:20] = 1
    mask[2, 22:27, 30:36] = 2
    return mask


def dicom(folder: Path, count: int = 2) -> Path:
    """Series of patients, each with a SEG."""
    for number in range(count):
        dicom_seg(dicom_series(folder / f"s{number}", number), folder / "segs" / f"{number}.dcm", seg_mask())
    return folder


# -- what is read ------------------------------------------------------------------------------------------------------
def put_text(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: write(folder / name, text)
