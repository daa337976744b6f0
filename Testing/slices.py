"""Small DICOM slices written from scratch, for tests of the reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CT, MR, DX, SECONDARY = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.7",
)
SERIES = generate_uid(entropy_srcs=["series"])


def write_slice(
    path: Path, stored: NDArray[Any], *, modality: str = "CT", sop_class: str = CT,
    syntax: UID = ExplicitVRLittleEndian, **attributes: Any,
) -> Path:  # fmt: skip
    """A file of one slice; attributes by keyword override the defaults, None leaves one out."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    signed = stored.dtype.kind == "i"
    values: dict[str, Any] = {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": generate_uid(entropy_srcs=[str(path)]),
        "SeriesInstanceUID": SERIES,
        "PatientName": "Secret^Person",
        "SeriesDescription": "Secret words",
        "Modality": modality,
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8 * stored.dtype.itemsize,
        "BitsStored": 8 * stored.dtype.itemsize,
        "HighBit": 8 * stored.dtype.itemsize - 1,
        "PixelRepresentation": int(signed),
        "PixelSpacing": [0.7, 0.7],
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SliceThickness": 2,
        "PixelData": stored.tobytes(),
    }
    if modality == "CT":
        values |= {"RescaleSlope": 1, "RescaleIntercept": -1024}
    for keyword, value in (values | attributes).items():
        if value is not None:
            setattr(data, keyword, value)
    data["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_stack(folder: Path, stored: NDArray[np.uint16], heights_mm: list[float], **attributes: Any) -> Path:
    """An axial series of these slices at these heights, file names in another order than the slices."""
    for k, height in enumerate(heights_mm):
        name = f"{(k * 7) % 101:03d}.dcm"
        write_slice(folder / name, stored[k], ImagePositionPatient=[-5, 6, height], InstanceNumber=k + 1, **attributes)
    return folder
