"""The repository's own CT series resampled to 300 x 512 x 512, written as DICOM for the benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SLICES = 300


def thin_series(source: Path, folder: Path) -> Path:
    """A folder with 300 slices interpolated linearly between the 12 of `source`; made once, then reused."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    if len(list(folder.glob("*.dcm"))) == SLICES:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    datasets = sorted(
        (pydicom.dcmread(p) for p in source.glob("*.dcm")), key=lambda d: float(d.ImagePositionPatient[2])
    )
    stored = np.stack([d.pixel_array for d in datasets]).astype(np.float32)
    z = np.array([float(d.ImagePositionPatient[2]) for d in datasets])
    series_uid = generate_uid()
    for index, height in enumerate(np.linspace(z[0], z[-1], SLICES)):
        upper = min(int(np.searchsorted(z, height, side="right")), len(z) - 1)
        share = (height - z[upper - 1]) / (z[upper] - z[upper - 1])
        plane = stored[upper - 1] * (1 - share) + stored[upper] * share
        data = pydicom.dcmread(next(iter(source.glob("*.dcm"))))
        data.decompress() if data.file_meta.TransferSyntaxUID.is_compressed else None
        data.PixelData = np.round(plane).astype(np.uint16).tobytes()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.SeriesInstanceUID = series_uid
        data.ImagePositionPatient = [*data.ImagePositionPatient[:2], round(float(height), 4)]
        data.SliceThickness = round(float(z[-1] - z[0]) / (SLICES - 1), 4)
        data.InstanceNumber = index + 1
        data.save_as(folder / f"IM{index + 1:04d}.dcm", enforce_file_format=True)
    return folder
